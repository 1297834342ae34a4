"""The names of `streaming.base.hashing` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.whole_files import (
    get_hash,
    get_hashes,
    is_hash,
)

__all__ = [
    "get_hash",
    "get_hashes",
    "is_hash",
]
