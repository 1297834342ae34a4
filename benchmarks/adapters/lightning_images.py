"""How does litdata read pictures? Its StreamingDataset over its own format, and Pillow in the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litdata

from benchmarks.adapters.lightning import write
from benchmarks.adapters.pillow_images import cropped
from benchmarks.adapters.torch_loader import Epochs, collate

__all__ = ["open_loader", "write"]


class Pictures(litdata.StreamingDataset):  # type: ignore[misc]
    """Samples whose JPEGs are decoded and cropped in the worker."""

    crops = "random"

    def __getitem__(self, index: Any) -> Any:
        return cropped(super().__getitem__(index), self.crops)


def open_loader(root: Path, batch_size: int, crops: str, workers: int) -> Any:
    """All pictures, with litdata's own shuffle."""
    dataset = Pictures(str(root), shuffle=True, seed=17, drop_last=False, max_cache_size="1000GB", batch_decode=0)
    dataset.crops = crops
    return Epochs(litdata.StreamingDataLoader, workers, dataset=dataset, batch_size=batch_size, collate_fn=collate)
