"""What does `dataset.shards[i]` tell about a shard, and which samples does it have? The class ShardReader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mx8shards.errors import SettingError
from mx8shards.streaming.mds_rows_of_shard import MdsRows
from mx8shards.streaming.sample_array import Array

Row = Callable[[int], dict[str, Any]]


@dataclass
class FileInfo:
    """One file of a shard.

    Args:
        basename: Its name, relative to the dataset's directory.
        bytes: Its size.
        hashes: Its hashes by algorithm.
    """

    basename: str
    bytes: int
    hashes: dict[str, str]


class ShardReader(Array):
    """One shard: a sequence of its samples, with the fields of its entry in the index as attributes.

    Args:
        dirname: The local directory of the stream.
        split: The split, a sub-directory.
        entry: The shard's entry in the index, as JSON.
        rows: A function that opens the shard, and returns a function from rows to samples.
    """

    def __init__(self, dirname: str, split: str | None, entry: Mapping[str, Any], rows: Callable[[], Row]) -> None:
        self.dirname = dirname
        self.split = split or ""
        self.samples: int = entry["samples"]
        for name, value in entry.items():
            if name in ("raw_data", "zip_data", "raw_meta", "zip_meta"):
                value = None if value is None else FileInfo(**value)
            elif name in ("version", "format", "samples"):
                continue
            setattr(self, name, value)
        self.compression: str | None = entry["compression"]
        self.file_pairs: list[tuple[FileInfo, FileInfo | None]] = [
            (getattr(self, f"raw_{part}"), getattr(self, f"zip_{part}"))
            for part in ("data", "meta")
            if f"raw_{part}" in entry
        ]
        self._rows = rows

    @property
    def size(self) -> int:
        """The number of samples."""
        return self.samples

    def __len__(self) -> int:
        return self.samples

    def get_item(self, idx: int) -> dict[str, Any]:
        """One sample.

        Args:
            idx: Its row in the shard.
        """
        if not 0 <= idx < self.samples:
            raise IndexError(f"sample {idx} of {self.samples} in this shard")
        return self._rows()(idx)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.get_item, range(self.samples))

    def get_raw_size(self) -> int:
        """The bytes of its files without compression."""
        return sum(raw.bytes for raw, _ in self.file_pairs)

    def get_zip_size(self) -> int | None:
        """The bytes of its compressed files; None if it has none."""
        found = [compressed.bytes for _, compressed in self.file_pairs if compressed is not None]
        return sum(found) if found else None

    def get_max_size(self) -> int:
        """The most bytes that it takes in a cache: its compressed and its raw files."""
        return self.get_raw_size() + (self.get_zip_size() or 0)

    def get_persistent_size(self, keep_zip: bool) -> int:
        """The bytes that it takes in a cache for long.

        Args:
            keep_zip: Whether compressed files are kept.
        """
        return self.get_max_size() if keep_zip else self.get_raw_size()

    def get_sample_data(self, idx: int) -> bytes:
        """The bytes of a sample of an MDS shard.

        Args:
            idx: Its row in the shard.
        """
        return self._mds().sample_bytes(idx)

    def decode_sample(self, data: bytes) -> dict[str, Any]:
        """The sample of an MDS shard that has these bytes.

        Args:
            data: The bytes.
        """
        return self._mds().decode(data)

    def _mds(self) -> MdsRows:
        rows = self._rows()
        if not isinstance(rows, MdsRows):
            raise SettingError(subject=f"{self}", expected="a shard of MDS", found="another format")
        return rows

    def __repr__(self) -> str:
        return f"<shard {self.file_pairs[0][0].basename}: {self.samples} samples>"


class ShardReaders(Sequence[ShardReader]):
    """The readers of all shards, each made on access.

    Args:
        count: The number of shards.
        make: A function that makes the reader of the shard with this number.
    """

    def __init__(self, count: int, make: Callable[[int], ShardReader]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        found = range(self._count)[i]
        return [self._make(each) for each in found] if isinstance(found, range) else self._make(found)


def get_index_basename() -> str:
    """The name of an index."""
    return "index.json"
