"""The Shard class: how are payloads of an open shard read (pread) or mapped (mmap)?"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import ref

import numpy as np

from mx8shards.disk.map import Bytes, ReadFile, map_file
from mx8shards.errors import DatasetNotFoundError, DiskError, FormatError, IntegrityError
from mx8shards.format.columns import Columns, Payload
from mx8shards.format.entries import MdsEntry
from mx8shards.format.shard_bytes import Offsets, check_table, read_table, table_bytes
from mx8shards.shards.cached_attribute import cached_attribute

_PAIR = struct.Struct("<II")

# Samples up to this size are read in one call; of larger ones, only the wanted columns, one call for each. Measured: a
# system call takes about as long as copying 16 KiB.
_WHOLE_BYTES = 16 << 10

_MOST_EVICTIONS = 3  # the number of times that a cached copy may be evicted before it is opened


@dataclass
class OpenFiles:
    """Bounds the number of open descriptors of shards (first opened, first closed). Mappings need no descriptor.

    Also bounds the memory for offset tables: those of the first shards opened are kept until `table_room` is used up.
    """

    most: int
    table_room: int = 64 << 20
    _shards: deque[ref[Shard]] = field(default_factory=deque)  # weak, so that a closed dataset closes its descriptors

    def opened(self, shard: Shard) -> None:
        """Record that `shard` has opened its file, and close the oldest descriptors beyond `most`.

        There is no lock, as it could be held during a fork: at worst, two threads close one descriptor too many.
        """
        self._shards.append(ref(shard))
        while len(self._shards) > self.most:
            oldest = self._shards.popleft()()
            if oldest is not None:
                oldest.file = None  # the file is closed when its last reader drops it


class Shard:
    """An open shard whose offset table was checked. Thread-safe."""

    def __init__(
        self, name: str, path: Path, entry: MdsEntry, files: OpenFiles, provide: Callable[[], Path] | None = None
    ) -> None:
        """`provide` makes the file again after eviction, if it is a copy in a cache."""
        self.name = name
        self.samples = entry.samples
        self.size_bytes = entry.raw.size_bytes
        self.columns: Columns = entry.kind.columns
        self.file: ReadFile | None = None
        self.path = path
        self._files = files
        self._provide = provide
        self._inode: tuple[int, int] | None = None
        self._kept_head: bytes | None = None
        self._kept_offsets: memoryview | None = None
        try:
            self._check_table(self.open_file())
        except FormatError as error:
            raise error.at(subject=name) from error.__cause__

    def _check_table(self, file: ReadFile) -> None:
        size = file.size_bytes
        if size != self.size_bytes:
            raise FormatError(expected=f"{self.size_bytes} bytes (the index)", found=f"{size}")
        wanted = table_bytes(self.samples)
        if wanted > self._files.table_room:
            check_table(file.read, self.samples, size, self.columns)
            return
        head = file.read(0, wanted)
        view = memoryview(head)
        check_table(lambda begin, count: view[begin : begin + count], self.samples, size, self.columns)
        self._files.table_room -= wanted
        self._kept_head = head
        self._kept_offsets = memoryview(head)[4:].cast("I")

    @property
    def kept_offsets(self) -> memoryview | None:
        """The offsets of the samples, checked; None if there is no room for them in memory."""
        return self._kept_offsets

    @property
    def is_readable(self) -> bool:
        """Whether its file is open, or can be opened without being provided again."""
        return self.file is not None or self._provide is None or os.access(self.path, os.R_OK)

    def open_file(self) -> ReadFile:
        """The shard's file, reopened if it was closed meanwhile; IntegrityError if it was replaced by another file."""
        file = self.file
        if file is None:
            file = self._open()
            stat = os.fstat(file.descriptor)
            if self._inode not in (None, (stat.st_dev, stat.st_ino)):
                raise IntegrityError("the file was replaced since it was opened", subject=self.name)
            if self._provide is None:
                self._inode = (stat.st_dev, stat.st_ino)
            self.file = file
            self._files.opened(self)
        return file

    def _open(self) -> ReadFile:
        for _ in range(_MOST_EVICTIONS):
            try:
                return open_shard_file(self.path, self.name)
            except DatasetNotFoundError:
                if self._provide is None:
                    raise
                self.path = self._provide()
        return open_shard_file(self.path, self.name)

    @cached_attribute
    def data(self) -> Bytes:
        """The whole shard as mapped memory. Accessing it after the file was truncated raises SIGBUS."""
        self.check_size()
        file = self.open_file()  # the reference keeps the descriptor open until the file is mapped
        try:
            return map_file(file.descriptor, self.size_bytes)
        except DiskError as error:
            error.hint = "a process can have at most vm.max_map_count mappings"
            raise error.at(subject=self.name) from error.__cause__

    @cached_attribute
    def table(self) -> Offsets:
        """The mapped offset table, with samples + 1 offsets."""
        return read_table(self.data, self.samples)

    def head(self, *, mapped: bool) -> Bytes:
        """The number of samples and the offset table as bytes: the copy kept in memory, or else mapped or read."""
        if self._kept_head is not None:
            return np.frombuffer(self._kept_head, np.uint8)
        if mapped:
            return self.data
        head = self.open_file().read(0, table_bytes(self.samples))
        if len(head) < table_bytes(self.samples):
            raise self._changed(f"{len(head)} bytes")
        return np.frombuffer(head, np.uint8)

    @cached_attribute
    def view(self) -> memoryview:
        """The mapped bytes as a memoryview, for slices without a copy."""
        return self.data.data

    @cached_attribute
    def _mapped_offsets(self) -> memoryview:
        return self.view[4 : table_bytes(self.samples)].cast("I")

    def check_size(self) -> None:
        """FormatError if the size of the file has changed since it was opened."""
        file = self.file or self.open_file()  # the reference keeps the descriptor open
        # lseek is the fastest way to get the size: 0.3 µs; fstat takes three times as long
        size = os.lseek(file.descriptor, 0, os.SEEK_END)
        if size != self.size_bytes:
            raise self._changed(f"{size} bytes")

    def payloads(self, row: int, wanted: Sequence[int]) -> list[Payload]:
        """Read the payloads of these columns of one sample. As nothing is mapped, a truncated file raises an error."""
        file = self.file or self.open_file()  # the reference keeps the descriptor open during the reads
        offsets = self._kept_offsets
        try:
            if offsets is not None:
                begin, end = offsets[row], offsets[row + 1]
            else:
                begin, end = _PAIR.unpack(file.read(4 + 4 * row, 8))
            size = end - begin
            if 0 <= size <= _WHOLE_BYTES:
                whole = file.read(begin, size)
                if len(whole) != size:
                    raise self._changed(f"a file that ends before the end of sample {row} of this shard")
                bounds = self.columns.bounds(whole, size)
                view = memoryview(whole)
                return [view[bounds[c] : bounds[c + 1]] for c in wanted]
            return self._read_columns(file, begin, size, wanted)
        except struct.error:
            raise self._changed(f"a file that ends before the offsets of sample {row} of this shard") from None
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row} of this shard") from error.__cause__

    def _read_columns(self, file: ReadFile, begin: int, size: int, wanted: Sequence[int]) -> list[Payload]:
        bounds = self.columns.bounds(file.read(begin, self.columns.header_bytes), size)
        found: list[Payload] = []
        for c in wanted:
            length = bounds[c + 1] - bounds[c]
            payload = file.read(begin + bounds[c], length)
            if len(payload) != length:
                raise self._changed(f"a file that ends after {len(payload)} of {length} bytes of a payload")
            found.append(payload)
        return found

    def payload_spans(self, row: int, wanted: Sequence[int]) -> list[tuple[int, int]]:
        """Offsets in the file and sizes of the payloads of these columns of one sample, without reading them.

        FormatError if the sizes in the sample's header do not add up, or the file ends before them.
        """
        file = self.file or self.open_file()
        try:
            begin, end = _PAIR.unpack(file.read(4 + 4 * row, 8))
            bounds = self.columns.bounds(file.read(begin, self.columns.header_bytes), end - begin)
        except struct.error:
            raise self._changed(f"a file that ends before the offsets of sample {row} of this shard") from None
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row} of this shard") from error.__cause__
        return [(begin + bounds[c], bounds[c + 1] - bounds[c]) for c in wanted]

    def read_payload(self, begin: int, size: int) -> bytes:
        """Read a payload, or a part of one, at this offset of the file."""
        payload = (self.file or self.open_file()).read(begin, size)
        if len(payload) != size:
            raise self._changed(f"a file that ends after {len(payload)} of {size} bytes of a payload")
        return payload

    def _changed(self, found: str) -> FormatError:
        return FormatError(
            subject=self.name,
            expected=f"{self.size_bytes} bytes, as when it was opened",
            found=found,
            hint="shards are replaced by renaming, never changed in place",
        )

    def mapped_payload(self, row: int, column: int) -> memoryview:
        """One payload as a view of the mapping, which stays valid unless the file is changed in place."""
        self.check_size()
        offsets = self._kept_offsets or self._mapped_offsets
        sample = self.view[offsets[row] : offsets[row + 1]]
        try:
            bounds = self.columns.bounds(sample, len(sample))
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row} of this shard") from error.__cause__
        return sample[bounds[column] : bounds[column + 1]]


def open_shard_file(path: Path, name: str) -> ReadFile:
    """Open the file of the shard called `name`; DatasetNotFoundError if it is missing or cannot be opened."""
    try:
        return ReadFile(path)
    except FileNotFoundError:
        raise DatasetNotFoundError(
            "the index names this shard, but there is no such file", subject=name, hint=f"looked for {path}"
        ) from None
    except OSError as error:
        found = DatasetNotFoundError(f"cannot be opened: {error.strerror}", subject=name, hint=f"tried to open {path}")
        found.errno = error.errno
        raise found from error
