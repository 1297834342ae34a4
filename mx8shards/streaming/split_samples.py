"""How are the samples of JSON, CSV, TSV and XSV shards read? SplitSamples, one of the sources of AllSamples."""

from __future__ import annotations

import json
import os
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.disk import operations, publish
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DatasetNotFoundError, FormatError, SettingError
from mx8shards.format import compression as compressions
from mx8shards.format.entries import FileInfo
from mx8shards.shards.local_files import check_hash, check_size
from mx8shards.shards.snapshots import INDEX
from mx8shards.streaming.shard_files import Row, ShardReader
from mx8shards.streaming.split_entries import TYPES, SplitEntry, split_entries

_VALUES = {name: kind for name, kind in TYPES.items() if name != "str"}


class SplitSamples:
    """The samples of one stream, by shard and row. Files that are missing are fetched or decompressed.

    Args:
        root: The local directory with the index and the shards.
        index: The bytes of the index.
        url: The URL that files are fetched from; None if all are local.
        deadline_s: How many seconds the store may fail to answer.
        directory: The local directory of the stream, without the split.
        split: The split.
    """

    def __init__(
        self, root: Path, index: bytes, url: str | None, deadline_s: float, directory: str, split: str
    ) -> None:
        self.root = root
        self._url = url
        self._deadline_s = deadline_s
        self._directory = directory
        self._split = split
        self._entries = split_entries(index)
        self.samples_per_shard: npt.NDArray[np.int64] = np.array([each.samples for each in self._entries], np.int64)
        if url is not None and not (root / INDEX).exists():
            self._place(INDEX, index)

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
        return not all(self._is_here(raw) for raw, _ in self._entries[i].files)

    def provide(self, i: int) -> None:
        """Fetch or decompress the files of shard `i`, unless they are here."""
        entry = self._entries[i]
        for raw, packed in entry.files:
            if self._is_here(raw):
                continue
            stored = packed or raw
            data = self._stored(stored)
            if packed is not None:
                data = b"".join(compressions.decompress(entry.compression or "", data, raw.size_bytes))
            self._place(raw.basename, data)
            check_hash(ReadFile(self.root / raw.basename), raw, raw.basename)

    def release(self, i: int) -> None:
        """Nothing: files are open while a row is read only."""

    @property
    def local_bytes(self) -> int:
        """The bytes of the index and of the files in the local directory."""
        infos = (info for entry in self._entries for pair in entry.files for info in pair if info is not None)
        paths = (self.root / name for name in (INDEX, *(info.basename for info in infos)))
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

    def _is_here(self, info: FileInfo) -> bool:
        path = self.root / info.basename
        return path.is_file() and path.stat().st_size == info.size_bytes

    def _stored(self, info: FileInfo) -> bytes:
        """The verified bytes of a stored file: local, or fetched now."""
        if not self._is_here(info):
            self._fetch(info)
        file = ReadFile(self.root / info.basename)
        check_size(file, info, info.basename)
        check_hash(file, info, info.basename)
        return file.read(0, info.size_bytes)

    def _fetch(self, info: FileInfo) -> None:
        from mx8shards.remote.provider import connect

        if self._url is None:
            raise DatasetNotFoundError(
                "the index names this file, but there is no such file", subject=f"{self.root / info.basename}"
            )
        draft = self._draft(info.basename)
        try:
            connect(self._url, self._deadline_s).fetch(info.basename, draft, info.size_bytes)
            check_hash(ReadFile(draft), info, info.basename)
            operations.rename(draft, self.root / info.basename)
        finally:
            operations.unlink(draft)

    def _place(self, basename: str, data: bytes) -> None:
        draft = self._draft(basename)
        try:
            publish.write_quickly(draft, data)
            operations.rename(draft, self.root / basename)
        finally:
            operations.unlink(draft)

    def _draft(self, basename: str) -> Path:
        """A new path beside a file. It is renamed when it is whole, so other processes never see a part."""
        target = self.root / basename
        publish.make_root(self.root)
        publish.make_directories(target.parent, below=self.root)
        return target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex}")


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
