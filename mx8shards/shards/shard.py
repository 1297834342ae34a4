"""What does one open shard give: payload bytes by reading, or memory that is mapped?"""

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
from mx8shards.shards.lazily import lazily

_PAIR = struct.Struct("<II")

# Up to here a sample is read whole, in one call; beyond it, only the columns that are asked for, each without a second
# copy. Measured: one more call costs about as much as copying 16 KiB.
_WHOLE_BYTES = 16 << 10

_MOST_EVICTIONS = 3  # of a copy in a cache, between its making and its opening


@dataclass
class OpenFiles:
    """The shards whose descriptors are open; the first opened closes first. Maps and tables need none.

    Tables stay in memory, too, while there is room for them: those of the first shards opened.
    """

    most: int
    table_room: int = 64 << 20
    _shards: deque[ref[Shard]] = field(default_factory=deque)  # weak: a closed dataset's descriptors close at once

    def opened(self, shard: Shard) -> None:
        """Remember that `shard` has a descriptor now, and let go of the oldest beyond `most`.

        Without a lock, which a fork might catch held: two threads here at once close one more than they need to.
        """
        self._shards.append(ref(shard))
        while len(self._shards) > self.most:
            oldest = self._shards.popleft()()
            if oldest is not None:
                oldest.file = None  # it closes once its last reader is done


class Shard:
    """An open shard whose table was checked. Many threads may read it."""

    def __init__(
        self, name: str, path: Path, entry: MdsEntry, files: OpenFiles, provide: Callable[[], Path] | None = None
    ) -> None:
        """`provide` makes the file again where it is a copy in a cache, from which it may be evicted."""
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

    def open_file(self) -> ReadFile:
        """The shard's file, opened anew if it was closed meanwhile; IntegrityError if another took its name."""
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

    @lazily
    def data(self) -> Bytes:
        """The whole shard as mapped memory. Touching it after the file was cut short is a SIGBUS."""
        self.check_size()
        file = self.open_file()  # held: its descriptor must not close, and name another file, before it is mapped
        try:
            return map_file(file.descriptor, self.size_bytes)
        except DiskError as error:
            error.hint = "a process has at most vm.max_map_count maps"
            raise error.at(subject=self.name) from error.__cause__

    @lazily
    def table(self) -> Offsets:
        """The mapped offsets, samples + 1 of them."""
        return read_table(self.data, self.samples)

    def head(self, *, mapped: bool) -> Bytes:
        """Its number of samples and its offsets as memory: what is kept of them, else mapped or read anew."""
        if self._kept_head is not None:
            return np.frombuffer(self._kept_head, np.uint8)
        if mapped:
            return self.data
        head = self.open_file().read(0, table_bytes(self.samples))
        if len(head) < table_bytes(self.samples):
            raise self._changed(f"{len(head)} bytes")
        return np.frombuffer(head, np.uint8)

    @lazily
    def view(self) -> memoryview:
        """The mapped bytes, for slices without a copy."""
        return self.data.data

    @lazily
    def _mapped_offsets(self) -> memoryview:
        return self.view[4 : table_bytes(self.samples)].cast("I")

    def check_size(self) -> None:
        """FormatError if the file is not as long as it was when it was opened."""
        file = self.file or self.open_file()  # held, as everywhere
        # seeking is the cheapest way to ask: 0.3 µs, fstat takes three times as long
        size = os.lseek(file.descriptor, 0, os.SEEK_END)
        if size != self.size_bytes:
            raise self._changed(f"{size} bytes")

    def payloads(self, row: int, wanted: Sequence[int]) -> list[Payload]:
        """The payloads of these columns of one sample, read (never mapped): a file cut short is an error, no signal."""
        file = self.file or self.open_file()  # held until the end: its descriptor must not close under the reads
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
                    raise self._changed(f"sample {row} after its end")
                bounds = self.columns.bounds(whole, size)
                view = memoryview(whole)
                return [view[bounds[c] : bounds[c + 1]] for c in wanted]
            return self._read_columns(file, begin, size, wanted)
        except struct.error:
            raise self._changed(f"nothing where sample {row} was") from None
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row}") from error.__cause__

    def _read_columns(self, file: ReadFile, begin: int, size: int, wanted: Sequence[int]) -> list[Payload]:
        bounds = self.columns.bounds(file.read(begin, self.columns.header_bytes), size)
        found: list[Payload] = []
        for c in wanted:
            length = bounds[c + 1] - bounds[c]
            payload = file.read(begin + bounds[c], length)
            if len(payload) != length:
                raise self._changed(f"a payload after {len(payload)} of {length} bytes")
            found.append(payload)
        return found

    def payload_spans(self, row: int, wanted: Sequence[int]) -> list[tuple[int, int]]:
        """Where in the file the payloads of these columns of one sample begin, and their sizes; none of them is read.

        FormatError if the sample's size header does not add up, or the file ends before it.
        """
        file = self.file or self.open_file()
        try:
            begin, end = _PAIR.unpack(file.read(4 + 4 * row, 8))
            bounds = self.columns.bounds(file.read(begin, self.columns.header_bytes), end - begin)
        except struct.error:
            raise self._changed(f"nothing where sample {row} was") from None
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row}") from error.__cause__
        return [(begin + bounds[c], bounds[c + 1] - bounds[c]) for c in wanted]

    def read_payload(self, begin: int, size: int) -> bytes:
        """The payload, or the part of one, that lies there in the file."""
        payload = (self.file or self.open_file()).read(begin, size)
        if len(payload) != size:
            raise self._changed(f"a payload after {len(payload)} of {size} bytes")
        return payload

    def _changed(self, found: str) -> FormatError:
        return FormatError(
            subject=self.name,
            expected=f"{self.size_bytes} bytes, as when it was opened",
            found=f"the end of the file: {found}",
            hint="shards are replaced by renaming, never changed in place",
        )

    def mapped_payload(self, row: int, column: int) -> memoryview:
        """One payload as a view of the map. Its bytes change or vanish only if someone changes the file in place."""
        self.check_size()
        offsets = self._kept_offsets or self._mapped_offsets
        sample = self.view[offsets[row] : offsets[row + 1]]
        try:
            bounds = self.columns.bounds(sample, len(sample))
        except FormatError as error:
            raise error.at(subject=self.name, place=f"sample {row}") from error.__cause__
        return sample[bounds[column] : bounds[column + 1]]


def open_shard_file(path: Path, name: str) -> ReadFile:
    """The file of the shard called `name`; DatasetNotFoundError where it is missing."""
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
