"""How is a damaged file made whole again from its good blocks and from parts of its object?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mx8shards.disk import operations, publish
from mx8shards.disk.map import ReadFile
from mx8shards.errors import FormatError, IntegrityError, RemoteError
from mx8shards.format.entries import FileInfo
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.hashing import hash_hex
from mx8shards.remote.block_reads import checked_blocks, object_etag, runs
from mx8shards.remote.fetching import Claim, check_file
from mx8shards.remote.store import Span, Store

_MOST_DAMAGED = 2 / 3  # of a file: beyond that, one request for the whole object costs less than many for its parts …
_REQUEST_BYTES = 1 << 20  # … of which each costs as much as these bytes
_BYTES_AT_ONCE = 16 << 20  # of blocks that are in memory


class Repaired(NamedTuple):
    """A file of a mirror that was replaced; which blocks of which size were fetched for it (None: the whole file)."""

    file: str
    blocks: tuple[int, ...] | None
    block_bytes: int | None = None


class MadeWhole(NamedTuple):
    """The whole file in the claim's private directory, and the blocks of it that were fetched."""

    path: Path
    blocks: tuple[int, ...]


def made_whole(
    store: Store, info: FileInfo, damaged: Path, digests: BlockDigests, claim: Claim, name: str
) -> MadeWhole | None:
    """Copy the good blocks of a damaged file, and fetch the others. The damaged file is not touched.

    Blocks are also copied from a file that was truncated, that grew, or that is readable only in part. None if the
    whole object has to be fetched: too many blocks are damaged, or the object in the store differs.
    """
    try:
        file = ReadFile(damaged)
    except OSError:
        return None
    spans = [digests.span(i, info.size_bytes) for i in range(len(digests.rows))]
    blocks = [i for i, span in enumerate(spans) if not _is_good(file, span, bytes(digests.rows[i]).hex())]
    cost = sum(spans[i][1] - spans[i][0] for i in blocks) + _REQUEST_BYTES * (len(runs(blocks)) - 1)
    if cost > _MOST_DAMAGED * info.size_bytes:
        return None
    bad, draft = frozenset(blocks), claim.draft()
    try:
        fetched = _fetched(store, info, blocks, digests)
        with operations.disk_errors("repair", claim.root), publish.NewFile(draft) as target:
            for i, span in enumerate(spans):
                target.write(next(fetched) if i in bad else _block(file, span))
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


def _is_good(file: ReadFile, span: Span, digest: str) -> bool:
    try:
        return hash_hex("blake3", _block(file, span)) == digest
    except OSError:  # a bad sector
        return False


def _fetched(store: Store, info: FileInfo, blocks: list[int], digests: BlockDigests) -> Iterator[memoryview]:
    """The damaged blocks, all from one object. IntegrityError if the object or a block is not the one of the index."""
    etag = object_etag(store, info) if blocks else ""
    count = _BYTES_AT_ONCE // digests.block_bytes
    for start in range(0, len(blocks), count):
        yield from checked_blocks(store, info, digests, blocks[start : start + count], etag)


def _block(file: ReadFile, span: Span) -> bytes:
    return file.read(span[0], span[1] - span[0])
