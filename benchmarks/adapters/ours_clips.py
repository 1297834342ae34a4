"""How does mx8shards read clips of videos?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8

FRAMES, SIZE = 16, 224


def open_loader(
    root: Path, batch_size: int, stride: int, every: int, threads: int, in_order: bool = False, **options: Any
) -> Any:
    """The Loader, in the order of one_of_each unless `in_order`; uint8 [B, T, 3, height, width]."""
    dataset = mx8.Dataset(root)
    view = dataset.clips("video", frames=FRAMES, stride=stride, every=every)
    return mx8.Loader(
        view if in_order else view.select(one_of_each(len(dataset), len(view) // len(dataset))),
        batch_size=batch_size,
        columns=["video", "label"],
        decode={"video": mx8.Clip(SIZE)},
        threads=threads,
        **options,
    )


def one_of_each(videos: int, clips: int) -> list[int]:
    """The numbers of all clips, counted video by video, in an order that takes a random clip of each video in turn.

    So a batch of as many clips as videos has no two clips of one video, which one loader might decode together.
    """
    random = np.random.default_rng(17)
    numbers = [video * clips + random.permutation(clips) for video in range(videos)]
    return list(map(int, np.stack(numbers, axis=1).ravel()))
