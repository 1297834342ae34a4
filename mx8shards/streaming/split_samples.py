"""How are the samples of JSON, CSV, TSV and XSV shards read? SplitSamples, one of the sources of AllSamples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.disk.map import ReadFile
from mx8shards.errors import FormatError, SettingError
from mx8shards.format.entries import FileInfo
from mx8shards.shards.local_files import check_size
from mx8shards.shards.providers import Eviction
from mx8shards.shards.snapshots import INDEX
from mx8shards.streaming.shard_files import Row, ShardReader
from mx8shards.streaming.split_entries import TYPES, SplitEntry, split_entries
from mx8shards.streaming.split_files import SplitFiles
from mx8shards.streaming.stream import require_hash

_VALUES = {name: kind for name, kind in TYPES.items() if name != "str"}


class SplitSamples:
    """The samples of one stream, by shard and row.

    Args:
        files: The files in the local directory.
        index: The bytes of the index.
        directory: The local directory of the stream, without the split.
        split: The split.
        validate_hash: A hash that the index must have of its files.
    """

    def __init__(
        self, files: SplitFiles, index: bytes, directory: str, split: str, *, validate_hash: str | None = None
    ) -> None:
        self.root = files.root
        self._files = files
        self._directory = directory
        self._split = split
        self._entries = split_entries(index)
        self.samples_per_shard: npt.NDArray[np.int64] = np.array([each.samples for each in self._entries], np.int64)
        if validate_hash:
            require_hash(validate_hash, {name for info in self._infos() for name in info.hashes})
        if files.is_remote and not (self.root / INDEX).exists():
            files.place(INDEX, index)

    def _infos(self) -> Iterator[FileInfo]:
        """All files of all shards."""
        return (info for entry in self._entries for pair in entry.files for info in pair if info is not None)

    @property
    def largest_bytes(self) -> int:
        """The most bytes that one shard takes, raw and compressed."""
        files = (filter(None, (info for pair in each.files for info in pair)) for each in self._entries)
        return max((sum(info.size_bytes for info in infos) for infos in files), default=0)

    @property
    def all_here(self) -> bool:
        """Whether no file has to be fetched or decompressed."""
        return not any(map(self.awaits, range(len(self._entries))))

    def awaits(self, i: int) -> bool:
        """Whether a file of shard `i` has to be fetched or decompressed."""
        return not all(self._files.is_here(raw) for raw, _ in self._entries[i].files)

    @property
    def limited(self) -> Sequence[tuple[int, Eviction]]:
        """Nothing: these files have no cache with a limit."""
        return ()

    def provide(self, i: int, *, ahead: bool = False) -> None:
        """Fetch or decompress the files of shard `i`, unless they are here. `ahead` makes no difference."""
        entry = self._entries[i]
        for raw, packed in entry.files:
            self._files.provide(raw, packed, entry.compression)

    def release(self, i: int) -> None:
        """Nothing: files are open while a row is read only."""

    @property
    def local_bytes(self) -> int:
        """The bytes of the index and of the files in the local directory."""
        paths = (self.root / name for name in (INDEX, *(info.basename for info in self._infos())))
        return sum(path.stat().st_size for path in paths if path.is_file())

    def last_read(self, i: int) -> float | None:
        """None: files of these formats are not evicted."""
        return None

    def evict(self, i: int) -> None:
        """SettingError: files of these formats are not evicted."""
        raise SettingError(subject="evict_shard", expected="a shard of MDS", found=f"shard {i} of {self.root}")

    def rows(self, i: int) -> Row:
        """A function from rows of shard `i` to samples."""
        self.provide(i)
        entry = self._entries[i]
        (data, _), (meta, _) = entry.files
        file = ReadFile(self.root / data.basename)
        check_size(file, data, data.basename)
        decode = _json_sample if entry.form == "json" else _separated_sample
        return partial(_read_row, file, self._offsets(entry, meta, data.size_bytes), partial(decode, entry))

    def reader(self, i: int) -> ShardReader:
        """What is known of shard `i`."""
        return ShardReader(self._directory, self._split, self._entries[i].json, lambda: self.rows(i))

    def _offsets(self, entry: SplitEntry, meta: FileInfo, size_bytes: int) -> npt.NDArray[np.uint32]:
        """The offsets of the samples in the data file, from the meta file."""
        file = ReadFile(self.root / meta.basename)
        check_size(file, meta, meta.basename)
        table_bytes = 4 * (entry.samples + 2)
        table = np.frombuffer(file.read(0, min(table_bytes, meta.size_bytes) // 4 * 4), "<u4")
        good = len(table) == entry.samples + 2 and table[0] == entry.samples
        if not good or (np.diff(table[1:].astype(np.int64)) < 0).any() or table[-1] > size_bytes:
            expected = f"the offsets of {entry.samples} samples in {size_bytes} bytes"
            raise FormatError(subject=meta.basename, expected=expected, found="others")
        return table[1:]


def _read_row(file: ReadFile, offsets: npt.NDArray[np.uint32], decode: Any, row: int) -> dict[str, Any]:
    begin, end = offsets[row : row + 2].tolist()
    try:
        found: dict[str, Any] = decode(file.read(begin, end - begin).decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            subject=Path(file.path).name,
            place=f"sample {row} of this shard",
            expected="a sample",
            found=f"{error}"[:200],
        ) from error
    return found


def _json_sample(entry: SplitEntry, text: str) -> Any:
    return json.loads(text)


def _separated_sample(entry: SplitEntry, text: str) -> dict[str, Any]:
    values = text.removesuffix(entry.newline).split(entry.separator)
    if len(values) != len(entry.columns):
        raise ValueError(f"{len(values)} values for {len(entry.columns)} columns")
    pairs = zip(entry.columns.items(), values, strict=True)
    return {name: _VALUES.get(kind, str)(value) for (name, kind), value in pairs}
