"""How are blocks of a shard read from the store? Each is checked against its digest, and all are of one object."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping, Sequence

from mx8shards.disk.map import Bytes
from mx8shards.errors import IntegrityError, RemoteError
from mx8shards.format.entries import FileInfo
from mx8shards.format.hashing import hash_hex
from mx8shards.format.sidecar_bytes import BLOCK_BYTES
from mx8shards.remote.store import Span, Store

_ATTEMPTS = 2  # a damaged block, or one of a replaced object, is fetched once more …
_PAUSE_S = 0.2  # … after this pause


def read_blocks(
    store: Store, info: FileInfo, digests: Bytes, blocks: Sequence[int], etags: MutableMapping[str, str]
) -> list[bytes]:
    """The blocks with these numbers. `etags` keeps the ETag of each object for the next call.

    IntegrityError if a block is wrong twice; RemoteError if the store does not answer, or the object was replaced.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            etag = etags.setdefault(info.basename, "") or object_etag(store, info)
            etags[info.basename] = etag
            return list(checked_blocks(store, info, digests, blocks, etag))
        except (IntegrityError, RemoteError) as error:
            etags.pop(info.basename, None)
            transient = isinstance(error, IntegrityError) or error.reason == "changed"
            if attempt == _ATTEMPTS or not transient:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError


def object_etag(store: Store, info: FileInfo) -> str:
    """The ETag of the object of a file. RemoteError if there is none, or if it has another size."""
    found = store.head(info.basename)
    if found is None:
        message = "the index names this shard, but there is no such object"
        raise RemoteError(message, subject=f"{store.url}/{info.basename}", reason="missing")
    if found.size_bytes != info.size_bytes:
        subject, expected = f"{store.url}/{info.basename}", f"{info.size_bytes} bytes"
        raise RemoteError(subject=subject, expected=expected, found=f"{found.size_bytes}", reason="changed")
    return found.etag


def checked_blocks(store: Store, info: FileInfo, digests: Bytes, blocks: Sequence[int], etag: str) -> Iterator[bytes]:
    """These blocks of the object with this ETag. IntegrityError for a block that differs from its digest."""
    parts = store.read_spans(info.basename, [block_span(info, i) for i in blocks], etag)
    for i, data in zip(blocks, parts, strict=True):
        found, expected = hash_hex("blake3", data), bytes(digests[i]).hex()
        if found != expected:
            raise IntegrityError(subject=info.basename, place=f"block {i}", expected=expected, found=found)
        yield data


def block_span(info: FileInfo, block: int) -> Span:
    """Where a block begins and ends in its file."""
    begin = block * BLOCK_BYTES
    return begin, min(begin + BLOCK_BYTES, info.size_bytes)
