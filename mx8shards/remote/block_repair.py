"""How is a damaged file made whole again from its good blocks and from parts of its object?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mx8shards.disk import operations, publish
from mx8shards.disk.map import Bytes, ReadFile
from mx8shards.errors import FormatError, IntegrityError, RemoteError
from mx8shards.format.entries import FileInfo
from mx8shards.format.hashing import hash_hex
from mx8shards.format.sidecar_bytes import BLOCK_BYTES
from mx8shards.remote.block_reads import block_span, checked_blocks, object_etag
from mx8shards.remote.fetching import Claim, check_file
from mx8shards.remote.store import Store

_MOST_DAMAGED = 2 / 3  # of a file: beyond that, one request for the whole object costs less than many for its parts
_BLOCKS_AT_ONCE = 16  # of one request to the store: they are in memory


class Repaired(NamedTuple):
    """A file of a mirror that was replaced, and which of its blocks were fetched; None: the whole file."""

    file: str
    blocks: tuple[int, ...] | None


class MadeWhole(NamedTuple):
    """The whole file in the claim's private directory, and the blocks of it that were fetched."""

    path: Path
    blocks: tuple[int, ...]


def made_whole(
    store: Store, info: FileInfo, damaged: Path, digests: Bytes, claim: Claim, name: str
) -> MadeWhole | None:
    """Copy the good blocks of a damaged file, and fetch the others. The damaged file is not touched.

    Blocks are also copied from a file that was truncated, that grew, or that is readable only in part. None if the
    whole object has to be fetched: too many blocks are damaged, or the object in the store differs.
    """
    try:
        file = ReadFile(damaged)
    except OSError:
        return None
    expected = [bytes(row).hex() for row in digests]
    blocks = [i for i, digest in enumerate(expected) if not _is_good(file, info, i, digest)]
    if sum(_size(info, i) for i in blocks) > _MOST_DAMAGED * info.size_bytes:
        return None
    bad, draft = frozenset(blocks), claim.draft()
    try:
        fetched = _fetched(store, info, blocks, digests)
        with operations.disk_errors("repair", claim.root), publish.NewFile(draft) as target:
            for i in range(len(expected)):
                target.write(next(fetched) if i in bad else _block(file, info, i))
            target.close()
        check_file(draft, info, name)
    except (FormatError, IntegrityError):
        operations.unlink(draft)
        return None
    except RemoteError as error:
        if error.reason not in ("changed", "missing"):
            raise
        return None
    return MadeWhole(draft, tuple(blocks))


def _is_good(file: ReadFile, info: FileInfo, block: int, digest: str) -> bool:
    try:
        return hash_hex("blake3", _block(file, info, block)) == digest
    except OSError:  # a bad sector
        return False


def _fetched(store: Store, info: FileInfo, blocks: list[int], digests: Bytes) -> Iterator[bytes]:
    """The damaged blocks, all from one object. IntegrityError if the object or a block is not the one of the index."""
    etag = object_etag(store, info) if blocks else ""
    for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
        yield from checked_blocks(store, info, digests, blocks[start : start + _BLOCKS_AT_ONCE], etag)


def _size(info: FileInfo, block: int) -> int:
    begin, end = block_span(info, block)
    return end - begin


def _block(file: ReadFile, info: FileInfo, block: int) -> bytes:
    return file.read(block * BLOCK_BYTES, _size(info, block))
