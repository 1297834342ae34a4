"""The names of `streaming.base.compression` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.whole_files import (
    compress,
    decompress,
    get_compression_extension,
    get_compressions,
    is_compression,
)

__all__ = [
    "compress",
    "decompress",
    "get_compression_extension",
    "get_compressions",
    "is_compression",
]
