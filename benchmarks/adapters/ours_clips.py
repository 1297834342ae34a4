"""How does mx8shards read clips of videos?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mx8shards as mx8

FRAMES, SIZE = 16, 224


def open_loader(
    root: Path, batch_size: int, stride: int, every: int, threads: int, in_order: bool = False, **options: Any
) -> Any:
    """The Loader, fully shuffled unless `in_order`; uint8 [B, T, 3, height, width]."""
    view = mx8.Dataset(root).clips("video", frames=FRAMES, stride=stride, every=every)
    return mx8.Loader(
        view,
        batch_size=batch_size,
        columns=["video", "label"],
        decode={"video": mx8.Clip(SIZE)},
        threads=threads,
        **{"shuffle": not in_order, "seed": 17} | options,
    )
