"""What does the index record for a shard (entry), and how are the entries stored as arrays? (spec §4)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mx8shards.format.shard_bytes import ShardKind

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a shard: its name relative to the dataset's root, its size and its hashes by algorithm."""

    basename: str
    size_bytes: int
    hashes: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """The JSON value for raw_data or zip_data."""
        return {"basename": self.basename, "bytes": self.size_bytes, "hashes": dict(self.hashes)}


@dataclass(frozen=True, slots=True)
class MdsEntry:
    """The index entry of one MDS shard."""

    kind: ShardKind
    samples: int
    raw: FileInfo
    zip: FileInfo | None

    @property
    def stored(self) -> FileInfo:
        """The file on disk: the compressed one, if there is one, otherwise the raw one."""
        return self.zip or self.raw

    def to_json(self) -> dict[str, object]:
        """The JSON value in the index's list of shards."""
        return self.kind.config() | {
            "raw_data": self.raw.to_json(),
            "samples": self.samples,
            "zip_data": self.zip.to_json() if self.zip else None,
        }


# JSON and CSV shards would be added here: Entry is meant as a union, tagged by `format`.
Entry = MdsEntry


@dataclass(frozen=True, slots=True)
class Files:
    """The raw or the compressed files of all shards, field by field. A shard without one has size -1 and name ''."""

    basenames: list[str]
    size_bytes: Ints
    hashes: dict[str, npt.NDArray[np.bytes_]]

    def info(self, i: int) -> FileInfo | None:
        """The file of shard `i`, or None if it has none."""
        if self.size_bytes[i] < 0:
            return None
        found = {name: values[i].decode() for name, values in self.hashes.items() if values[i]}
        return FileInfo(self.basenames[i], int(self.size_bytes[i]), found)
