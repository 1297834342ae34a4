"""How does FFCV write and read pictures?

Its writer re-encodes every picture; here it stores the file's own bytes instead, so that all contenders decode equal
files. It needs a pipeline for each crop of a picture, and each decodes the picture again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField, rgb_image
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.pipeline import PipelineSpec
from ffcv.writer import DatasetWriter
from PIL import Image

from benchmarks.crops import CROPS, Centre, Crop

DATA = "data.beton"


class _Files:
    """A dataset for FFCV's writer, and a replacement for its encoder that returns the file's bytes."""

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self._files = files
        self._last = np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        path, label = self._files[index]
        self._last = np.fromfile(path, np.uint8)
        with Image.open(path) as picture:
            return np.empty((picture.height, picture.width, 3), np.uint8), label

    def encoded(self, pixels: object, quality: object) -> np.ndarray[Any, Any]:
        """The file's bytes."""
        return self._last


def write(out: Path, files: Sequence[tuple[Path, int]]) -> None:
    """Write one .beton file with the pictures' own bytes."""
    out.mkdir()
    source = _Files(files)
    rgb_image.encode_jpeg = source.encoded
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(out / DATA), fields, num_workers=1).from_indexed_dataset(source)


class BetonPictures:
    """FFCV's Loader over the mapped file, fully shuffled."""

    def __init__(self, root: Path, batch_size: int, crops: str, threads: int, ahead: int) -> None:
        pipelines: dict[str, Any] = {"label": [IntDecoder()], "image": None}
        pipelines |= {name: PipelineSpec("image", _decoder(crop)) for name, crop in CROPS[crops].items()}
        self._loader = Loader(
            str(root / DATA),
            batch_size,
            num_workers=threads,
            batches_ahead=ahead,
            os_cache=True,
            order=OrderOption.RANDOM,
            seed=17,
            drop_last=False,
            pipelines=pipelines,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def close(self) -> None:
        """Nothing to do: FFCV's threads end with their epoch."""


def _decoder(crop: Crop) -> Any:
    if isinstance(crop, Centre):
        return CenterCropRGBImageDecoder((crop.size, crop.size), ratio=crop.size / crop.resize)
    return RandomResizedCropRGBImageDecoder((crop.size, crop.size), scale=crop.scale)


def open_loader(root: Path, batch_size: int, crops: str, threads: int, ahead: int = 3) -> BetonPictures:
    """All pictures, uint8 [B, height, width, 3]."""
    return BetonPictures(root, batch_size, crops, threads, ahead)
