"""What does an index say of one shard, and how is that kept for all of them? (spec §4)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mx8shards.format.shard_bytes import ShardKind

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a shard: its name below the dataset's root, its size and its hashes by algorithm."""

    basename: str
    size_bytes: int
    hashes: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """As it stands in raw_data and zip_data."""
        return {"basename": self.basename, "bytes": self.size_bytes, "hashes": dict(self.hashes)}


@dataclass(frozen=True, slots=True)
class MdsEntry:
    """One MDS shard of an index."""

    kind: ShardKind
    samples: int
    raw: FileInfo
    zip: FileInfo | None

    @property
    def stored(self) -> FileInfo:
        """The file that lies on disk: the compressed one where there is one."""
        return self.zip or self.raw

    def to_json(self) -> dict[str, object]:
        """As it stands in the index's list of shards."""
        return self.kind.config() | {
            "raw_data": self.raw.to_json(),
            "samples": self.samples,
            "zip_data": self.zip.to_json() if self.zip else None,
        }


# JSON and CSV shards would join here: entries are a union tagged by `format`.
Entry = MdsEntry


@dataclass(frozen=True, slots=True)
class Files:
    """The raw or the compressed files of all shards: an entry's FileInfo turned sideways. No file: size -1, name ''."""

    basenames: list[str]
    size_bytes: Ints
    hashes: dict[str, npt.NDArray[np.bytes_]]

    def info(self, i: int) -> FileInfo | None:
        """The file of shard `i`, or None where it has none."""
        if self.size_bytes[i] < 0:
            return None
        found = {name: values[i].decode() for name, values in self.hashes.items() if values[i]}
        return FileInfo(self.basenames[i], int(self.size_bytes[i]), found)
