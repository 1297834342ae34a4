"""How is a raw shard file laid out (offset table, config, samples), and how is it checked? (spec: shard bytes)

    uint32 n | uint32 offset[n + 1] | config JSON | sample 0 | sample 1 | …

Offsets count from the start of the file; sample i is [offset[i], offset[i + 1]), and offset[n] is the file's size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format.columns import MAX_BYTES, Columns

Offsets = npt.NDArray[np.uint32]
VERSION = 2

_OFFSETS_AT_ONCE = 1 << 20  # offsets that are checked at a time: 4 MiB of a table


@dataclass(frozen=True)
class ShardKind:
    """The fields that are equal in all shards of a Writer: everything in their entries except sizes and hashes."""

    columns: Columns
    compression: str | None
    hashes: tuple[str, ...]
    size_limit: int | str | None

    def config(self) -> dict[str, object]:
        """The config, which is stored as JSON in every shard, and key by key in every index entry."""
        return {
            "column_encodings": list(self.columns.encodings),
            "column_names": list(self.columns.names),
            "column_sizes": list(self.columns.sizes),
            "compression": self.compression,
            "format": "mds",
            "hashes": list(self.hashes),
            "size_limit": self.size_limit,
            "version": VERSION,
        }

    def config_bytes(self) -> bytes:
        """The config JSON, byte for byte as Streaming writes it. Readers skip it, as offset[0] tells where it ends."""
        return json.dumps(self.config(), sort_keys=True).encode()


def head(config: bytes, sizes: Sequence[int]) -> bytes:
    """The bytes of a shard file before its first sample, for samples of these sizes."""
    count = len(sizes)
    table = np.zeros(count + 2, np.int64)
    table[0] = count
    table[1] = 4 * (count + 2) + len(config)
    np.cumsum(sizes, out=table[2:])
    table[2:] += table[1]
    if table[-1] > MAX_BYTES:
        raise FormatError(expected=f"a shard of at most {MAX_BYTES} bytes", found=f"{table[-1]}", hint="set size_limit")
    return table.astype("<u4").tobytes() + config


def table_bytes(samples: int) -> int:
    """The size of the sample count and the offset table at the start of a shard."""
    return 4 * (samples + 2)


def read_table(data: npt.NDArray[np.uint8] | bytes | memoryview, samples: int) -> Offsets:
    """The offset table in the first bytes of a shard, unchecked and without a copy."""
    return np.frombuffer(data, "<u4", samples + 1, 4)


def check_table(
    read: Callable[[int, int], npt.NDArray[np.uint8] | bytes | memoryview],
    samples: int,
    size_bytes: int,
    columns: Columns,
) -> None:
    """FormatError unless a shard's offset table is consistent and agrees with the index.

    Then every sample's span is inside the file and has room for its size header and its fixed-size columns.
    `read(begin, size)` returns bytes of the file. The table is read in pieces, up to the first fault, because the table
    of a sparse file may have gigabytes of zeros.
    """
    end = table_bytes(samples)
    (count,) = _words(read, 0, 4, size_bytes)
    if count != samples:
        raise FormatError(place="sample count", expected=f"{samples} (the index)", found=f"{count}")
    (first,), (last,) = _words(read, 4, 8, size_bytes), _words(read, end - 4, end, size_bytes)
    if first < end:
        raise FormatError(
            place=f"offset 0 of {samples}", expected=f"at least {end} (end of the table)", found=f"{first}"
        )
    if last != size_bytes:
        raise FormatError(
            place=f"offset {samples} of {samples}", expected=f"{size_bytes} (end of file)", found=f"{last}"
        )
    for before in range(0, samples, _OFFSETS_AT_ONCE):
        # each piece begins with the last offset of the previous piece
        piece = _words(read, 4 + 4 * before, min(end, 8 + 4 * (before + _OFFSETS_AT_ONCE)), size_bytes)
        check_offsets(piece, before, samples, columns)


def check_offsets(piece: Offsets, before: int, samples: int, columns: Columns) -> None:
    """FormatError if these offsets, which start at number `before` of the table, make a sample too short."""
    least = columns.header_bytes + columns.fixed_bytes
    # a uint32 difference wraps for decreasing offsets, so compare before subtracting
    bad = np.flatnonzero((piece[1:] < piece[:-1]) | (piece[1:] - piece[:-1] < least))
    if bad.size:
        i = int(bad[0])
        raise FormatError(
            place=f"offset {before + i + 1} of {samples}",
            expected=f"at least {int(piece[i]) + least} (a sample has at least {least} bytes)",
            found=f"{int(piece[i + 1])}",
        )


def _words(
    read: Callable[[int, int], npt.NDArray[np.uint8] | bytes | memoryview], begin: int, end: int, size_bytes: int
) -> Offsets:
    """The offsets in these bytes of a file; FormatError if the file ends before them."""
    data = read(begin, end - begin)
    if len(data) < end - begin:
        raise FormatError(expected=f"{size_bytes} bytes (the index)", found=f"a file that ends before byte {end}")
    return np.frombuffer(data, "<u4")
