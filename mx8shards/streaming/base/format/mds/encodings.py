"""The names of `streaming.base.format.mds.encodings` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.own_encodings import (
    Encoding,
    _encodings,
    get_mds_encoded_size,
    get_mds_encodings,
    is_mds_encoding,
    is_mds_encoding_safe,
    mds_decode,
    mds_encode,
)

__all__ = [
    "Encoding",
    "_encodings",
    "get_mds_encoded_size",
    "get_mds_encodings",
    "is_mds_encoding",
    "is_mds_encoding_safe",
    "mds_decode",
    "mds_encode",
]
