"""How does mosaicml-streaming read pictures? Its StreamingDataset, and Pillow in the DataLoader's workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.adapters import streaming_classes
from benchmarks.adapters.mosaicml import streaming, write
from benchmarks.adapters.pillow_images import cropped

__all__ = ["open_loader", "write"]


class Pictures(streaming.StreamingDataset):  # type: ignore[misc]
    """Samples whose JPEGs are decoded and cropped in the worker."""

    crops = "random"

    def __getitem__(self, at: Any) -> Any:
        return cropped(super().__getitem__(at), self.crops)


def open_loader(root: Path, batch_size: int, crops: str, workers: int) -> Any:
    """All pictures, shuffled."""
    loader = streaming_classes.open_loader(streaming, root, batch_size, workers, kind=Pictures)
    loader.loader.dataset.crops = crops
    return loader
