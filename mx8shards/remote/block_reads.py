"""How are blocks of a shard read from the store? Each is checked against its digest, and all are of one object."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping, Sequence

import numpy as np

from mx8shards.errors import IntegrityError, RemoteError
from mx8shards.format.entries import FileInfo
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.hashing import hash_hex
from mx8shards.remote.store import Store

_ATTEMPTS = 2  # a damaged block, or one of a replaced object, is fetched once more …
_PAUSE_S = 0.2  # … after this pause


def read_blocks(
    store: Store, info: FileInfo, digests: BlockDigests, blocks: Sequence[int], etags: MutableMapping[str, str]
) -> list[memoryview]:
    """The blocks with these numbers, in ascending order. `etags` keeps the ETag of each object for the next call.

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


def checked_blocks(
    store: Store, info: FileInfo, digests: BlockDigests, blocks: Sequence[int], etag: str
) -> Iterator[memoryview]:
    """These blocks, in ascending order, of the object with this ETag. Neighbours come in one request.

    IntegrityError for a block that differs from its digest.
    """
    parts = [range(*run) for run in runs(blocks)]
    spans = [(digests.span(run[0], info.size_bytes)[0], digests.span(run[-1], info.size_bytes)[1]) for run in parts]
    for run, data in zip(parts, store.read_spans(info.basename, spans, etag), strict=True):
        for i in run:
            begin = (i - run[0]) * digests.block_bytes
            block = memoryview(data)[begin : begin + digests.block_bytes]
            found, expected = hash_hex("blake3", block), bytes(digests.rows[i]).hex()
            if found != expected:
                raise IntegrityError(subject=info.basename, place=f"block {i}", expected=expected, found=found)
            yield block


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as half-open ranges."""
    ids = np.asarray(numbers, np.int64)
    cuts = np.flatnonzero(np.diff(ids) != 1)
    begins, ends = np.concatenate([ids[:1], ids[cuts + 1]]), np.concatenate([ids[cuts], ids[-1:]]) + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
