"""How does mx8shards read clips of videos?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mx8shards as mx8

FRAMES, SIZE = 16, 224


def open_loader(root: Path, batch_size: int, stride: int, every: int, threads: int, **options: Any) -> Any:
    """The Loader, fully shuffled; uint8 [B, T, 3, height, width]."""
    view = mx8.Dataset(root).clips("video", frames=FRAMES, stride=stride, every=every)
    return mx8.Loader(
        view,
        batch_size=batch_size,
        columns=["video", "label"],
        decode={"video": mx8.Clip(SIZE)},
        threads=threads,
        **{"shuffle": True, "seed": 17} | options,
    )
