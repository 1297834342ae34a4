"""How are a snapshot's side-cars opened, checked and read?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mx8shards.disk.map import Bytes, ReadFile, map_file
from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, SettingError
from mx8shards.format.columns import Columns
from mx8shards.format.file_blocks import DIGEST_BYTES, BlockDigests, block_count
from mx8shards.format.hashing import hash_hex
from mx8shards.format.sidecar_bytes import MAGIC, Sidecar, padded, sidecar_bytes, widths
from mx8shards.shards.snapshots import Snapshot, sidecar_path


def open_sidecar(snapshot: Snapshot, sidecar: Sidecar) -> Bytes | None:
    """The checked bytes of a side-car, or None if the file is missing, as side-cars are optional.

    One that exists and cannot be read raises DatasetNotFoundError, as merge and seal would otherwise lose it silently.
    """
    path = sidecar_path(snapshot.root, sidecar.blake3)
    try:
        file = ReadFile(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        unreadable = DatasetNotFoundError(f"cannot be opened: {error.strerror}", subject=str(path))
        unreadable.errno = error.errno
        raise unreadable from error
    index = snapshot.index
    try:
        needed = sidecar_bytes(sidecar, index.stored_bytes, index.samples, _columns(snapshot, sidecar))
        for expected, found in ((needed, sidecar.size_bytes), (sidecar.size_bytes, file.size_bytes)):
            if expected != found:
                raise FormatError(expected=f"{expected} bytes", found=f"{found}")
        data = map_file(file.descriptor, sidecar.size_bytes)
        found_hash = hash_hex("blake3", data.data)
        if found_hash != sidecar.blake3:
            raise IntegrityError(place="blake3", expected=sidecar.blake3, found=found_hash)
        if bytes(data[:8]) != MAGIC[sidecar.kind]:
            raise FormatError(expected=f"a side-car of kind {sidecar.kind}", found=repr(bytes(data[:8])))
    except (FormatError, IntegrityError) as error:
        error.subject = str(path)
        raise
    return data


def _columns(snapshot: Snapshot, sidecar: Sidecar) -> Columns:
    try:
        return snapshot.index.columns(sidecar.columns) if sidecar.kind == "columns" else Columns((), (), ())
    except SettingError as error:
        raise FormatError(place="columns", expected=error.expected, found=error.found) from None


def blocks_in(snapshot: Snapshot, sidecar: Sidecar, data: Bytes) -> Iterator[tuple[int, BlockDigests]]:
    """Each shard that a `blocks` side-car with these bytes covers, with the digests of its blocks."""
    rows = data[len(MAGIC["blocks"]) :].reshape(-1, DIGEST_BYTES)
    counts = block_count(snapshot.index.stored_bytes[sidecar.start : sidecar.stop], sidecar.block_bytes)
    ends = np.cumsum(counts)
    for i, (count, end) in enumerate(zip(counts.tolist(), ends.tolist(), strict=True), sidecar.start):
        yield i, BlockDigests(rows[end - count : end], sidecar.block_bytes)


def digests_in(snapshot: Snapshot, sidecar: Sidecar, data: Bytes, i: int) -> BlockDigests:
    """The digests of the blocks of shard `i` in a `blocks` side-car with these bytes that covers it."""
    counts = block_count(snapshot.index.stored_bytes[sidecar.start : i + 1], sidecar.block_bytes)
    end = int(counts.sum())
    rows = data[len(MAGIC["blocks"]) :].reshape(-1, DIGEST_BYTES)[end - int(counts[-1]) : end]
    return BlockDigests(rows, sidecar.block_bytes)


def numbers_in(snapshot: Snapshot, sidecar: Sidecar, data: Bytes) -> Iterator[tuple[int, str, Bytes]]:
    """Each shard and column that a `columns` side-car with these bytes covers, with the bytes of its values."""
    sizes = widths(sidecar, _columns(snapshot, sidecar))
    begin = len(MAGIC["columns"])
    for i in range(sidecar.start, sidecar.stop):
        samples = int(snapshot.index.samples[i])
        for column, width in zip(sidecar.columns, sizes, strict=True):
            yield i, column, data[begin : begin + samples * width]
            begin += padded(samples * width)
