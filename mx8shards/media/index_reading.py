"""How do stages of clips read the packet indices of videos, in memory that counts in memory=?

An index of a long video takes as much memory as many clips, so none is kept: it is parsed when a batch is planned, and
what its clips need is copied out of it. Small indices are parsed by several threads at once, large ones by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, TypeVar

import numpy as np

from mx8shards.errors import DecodeError
from mx8shards.format.clip_times import IndexFile
from mx8shards.format.packet_index import HEAD_BYTES, PacketIndex, parse_packet_index, parsing_bytes
from mx8shards.kernels.payloads import copy_payload
from mx8shards.media.picture_memory import LargeMemory
from mx8shards.stages import ClipColumns, Work

_T = TypeVar("_T")

_SMALL_BYTES = 256 << 10  # of an index that is parsed without waiting for others: about a minute of video

_WHOLE_BYTES = 16 << 10  # of an index that is read before it is known how much memory parsing it takes


class Indices(NamedTuple):
    """The packet index of a video, and that of the video whose frames or moments count its clips: often the same."""

    video: PacketIndex
    reference: PacketIndex


class IndexReader:
    """Reads the packet indices of a column of videos.

    columns   where the indices are
    number    the number of the column of videos
    large     the memory in which large indices are parsed
    """

    def __init__(self, columns: ClipColumns, number: int, large: LargeMemory) -> None:
        self._sources = dict.fromkeys((columns.packets, columns.reference))
        self._columns = columns
        self._number = number
        self._large = large

    def most_bytes(self, threads: int) -> int:
        """The memory of small indices, in this number of threads and the planner's."""
        return _SMALL_BYTES * (threads + 1)

    @contextmanager
    def indices(self, work: Work, row: int) -> Iterator[Indices]:
        """The indices for the video in a row. No reference to them may be kept after the block.

        OSError if they cannot be read, FormatError or DecodeError if there are none or they are too large.
        """
        sizes = {source: _size(work, row, source) for source in self._sources}
        read = {source: _read(work, row, source, _first_bytes(size)) for source, size in sizes.items()}
        with self.room(sum(parsing_bytes(read[source], size) for source, size in sizes.items())):
            for source, size in sizes.items():
                if len(read[source]) < size:
                    read[source] = _read(work, row, source, size)
            found = {source: self._parsed(work, row, source, data) for source, data in read.items()}
            yield Indices(found[self._columns.packets], found[self._columns.reference])

    def copied(self, work: Work, row: int, part: Callable[[PacketIndex], _T]) -> _T:
        """What `part` copies out of the index of the video in a row."""
        with self.indices(work, row) as indices:
            return part(indices.video)

    def _parsed(self, work: Work, row: int, source: int | IndexFile, data: memoryview) -> PacketIndex:
        is_own = source == self._columns.packets
        return parse_packet_index(data, payload_bytes(work, row, self._number) if is_own else None)

    def room(self, size_bytes: int) -> AbstractContextManager[None]:
        """Memory for an index or a part of one. DecodeError if there is not that much."""
        if size_bytes <= _SMALL_BYTES:
            return nullcontext()
        if size_bytes > self._large.most_bytes:
            raise DecodeError(
                expected=f"a packet index that is parsed in {self._large.most_bytes} bytes, an eighth of memory=",
                found=f"one that may take {size_bytes}",
                hint=f"memory={8 * size_bytes}",
                reason="unsupported",
            )
        return self._large.alone(size_bytes)


def _first_bytes(size: int) -> int:
    """How much of an index of this size is read at once: all of a small one, else its head."""
    return size if size <= _WHOLE_BYTES else HEAD_BYTES


def payload_bytes(work: Work, row: int, number: int) -> int:
    """The size of a payload of a column whose spans stages have narrowed."""
    return int(work.notes["payloads", number]["size"][row])


def _size(work: Work, row: int, source: int | IndexFile) -> int:
    """The size of an index; DecodeError if there is none."""
    reason = ""
    if isinstance(source, int):
        size = int(work.spans["size"][row, source])
    else:
        sample_id = int(work.rows["sample_id"][row])
        size = source.size(sample_id)
        reason = "" if size else source.reason(sample_id)
    if not size:
        raise DecodeError(expected="a packet index", found="an empty one", hint=reason, reason="missing")
    return size


def _read(work: Work, row: int, source: int | IndexFile, size: int) -> memoryview:
    """The first `size` bytes of an index, or all if it has fewer."""
    if not isinstance(source, int):
        return memoryview(source.read(int(work.rows["sample_id"][row]), size))
    begin, whole = work.spans[row, source].tolist()
    memory = np.empty(min(size, whole), np.uint8)
    if not copy_payload(work.shards, work.rows[row], begin, len(memory), memory.ctypes.data):
        raise OSError("the packet index cannot be read")
    return memory.data
