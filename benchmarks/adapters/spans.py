"""At which offsets are the payloads of an MDS dataset? Computed with plain numpy, for the lower bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Spans:
    """The shards' paths; for each sample its shard, and for each column the begin and size of its bytes."""

    paths: list[Path]
    shards: Array
    begins: Array
    sizes: Array

    def __len__(self) -> int:
        return len(self.shards)


def find(root: Path) -> Spans:
    """The spans of all columns, sample by column."""
    paths, shards, begins, sizes = [], [], [], []
    for number, entry in enumerate(json.loads((root / "index.json").read_bytes())["shards"]):
        paths.append(root / entry["raw_data"]["basename"])
        at, size = _columns(np.memmap(paths[-1], np.uint8, "r"), entry["samples"], entry["column_sizes"])
        shards.append(np.full(len(at), number))
        begins.append(at)
        sizes.append(size)
    return Spans(paths, np.concatenate(shards), np.concatenate(begins), np.concatenate(sizes))


def _columns(data: Array, samples: int, column_sizes: Sequence[int | None]) -> tuple[Array, Array]:
    """A sample consists of the sizes of its columns of variable size (uint32), then the bytes of every column."""
    starts = data[4 : 4 + 4 * samples].view("<u4").astype(np.int64)
    variable = [column for column, size in enumerate(column_sizes) if size is None]
    sizes = np.empty((samples, len(column_sizes)), np.int64)
    for column, size in enumerate(column_sizes):
        sizes[:, column] = _uint32(data, starts + 4 * variable.index(column)) if size is None else size
    ends = starts[:, None] + 4 * len(variable) + np.cumsum(sizes, axis=1)
    return ends - sizes, sizes


def _uint32(data: Array, at: Array) -> Array:
    found: Array = data[at[:, None] + np.arange(4)].view("<u4")
    return found[:, 0]
