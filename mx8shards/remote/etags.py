"""Which ETag does S3 give to an object that is put whole? The MD5 of its bytes."""

from __future__ import annotations

import hashlib


def md5(data: bytes) -> bytes:
    """The MD5 of bytes, which guards against accidents only."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def is_etag_of(etag: str, data: bytes) -> bool:
    """Whether an ETag is the MD5 of these bytes. False also where S3 encrypts the object with a key of the user."""
    return etag.strip('"') == md5(data).hex()
