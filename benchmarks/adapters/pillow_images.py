"""How does a training loop read a folder of pictures with Pillow and torch's DataLoader?

Equivalent to torchvision's ImageFolder with fused transforms: each picture is decoded, and only the box of each crop is
resized. Batches are uint8 [B, height, width, 3], which avoids a transposition.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import crops as kinds
from benchmarks import pictures
from benchmarks.adapters.torch_loader import Epochs, collate


class PictureFolder(torch.utils.data.Dataset[dict[str, Any]]):
    """Pictures in one folder per class."""

    def __init__(self, root: Path, crops: str) -> None:
        self._files = pictures.files(root)
        self._crops = crops

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self._files[index]
        with Image.open(path) as picture:
            return {**kinds.with_pillow(picture, self._crops), "label": label}


def cropped(sample: Mapping[str, Any], crops: str) -> dict[str, Any]:
    """The crops of a sample with a JPEG's bytes."""
    with Image.open(io.BytesIO(sample["image"])) as picture:
        return {**kinds.with_pillow(picture, crops), "label": sample["label"]}


def open_loader(root: Path, batch_size: int, crops: str, workers: int) -> Any:
    """A DataLoader with worker processes, shuffled."""
    dataset = PictureFolder(root, crops)
    return Epochs(
        torch.utils.data.DataLoader,
        workers,
        dataset=dataset,
        batch_size=batch_size,
        shuffle=True,
        collate_fn=collate,
    )
