"""How does FFCV write and read samples?

It pads every row of bytes to the length of the longest row. Building it needs a compiler and the headers of OpenCV and
libturbojpeg, so it is not in any of our extras.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import BytesField, IntField, NDArrayField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.bytes import BytesDecoder
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter

DATA = "data.beton"


def write(out: Path, columns: Mapping[str, str], samples: Iterable[Mapping[str, Any]]) -> None:
    """Write one .beton file."""
    out.mkdir()
    rows = [tuple(_value(sample[name]) for name in columns) for sample in samples]
    fields = {name: _field(value) for name, value in zip(columns, rows[0], strict=True)}
    DatasetWriter(str(out / DATA), fields, num_workers=1).from_indexed_dataset(rows)


def _value(value: Any) -> Any:
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value


def _field(value: Any) -> Any:
    if isinstance(value, int):
        return IntField()
    return BytesField() if value.dtype == np.uint8 else NDArrayField(value.dtype, value.shape)


_DECODERS = {IntField: IntDecoder, BytesField: BytesDecoder, NDArrayField: NDArrayDecoder}


class BetonLoader:
    """FFCV's Loader over the mapped file, fully shuffled."""

    def __init__(self, root: Path, batch_size: int, threads: int, ahead: int) -> None:
        path = str(root / DATA)
        fields = Loader(path, batch_size).reader.handlers
        self._loader = Loader(
            path,
            batch_size,
            num_workers=threads,
            batches_ahead=ahead,
            os_cache=True,
            order=OrderOption.RANDOM,
            seed=17,
            pipelines={name: [_DECODERS[type(field)]()] for name, field in fields.items()},
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def close(self) -> None:
        """Nothing to do: FFCV's threads end with their epoch."""


def open_loader(root: Path, batch_size: int, threads: int, ahead: int = 3) -> BetonLoader:
    """All columns of all samples, stacked."""
    return BetonLoader(root, batch_size, threads, ahead)
