"""Which hash algorithms exist (blake3, xxh128, sha256, …), and how are bytes hashed? (spec §7, registry)"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from mx8shards.errors import FormatError

_HEX_LENGTHS = {
    "blake2b": 128,
    "blake2s": 64,
    "blake3": 64,
    "md5": 32,
    "sha1": 40,
    "sha224": 56,
    "sha256": 64,
    "sha384": 96,
    "sha3_224": 56,
    "sha3_256": 64,
    "sha3_384": 96,
    "sha3_512": 128,
    "sha512": 128,
    "xxh128": 32,
    "xxh32": 8,
    "xxh3_128": 32,
    "xxh3_64": 16,
    "xxh64": 16,
}
HASHES = tuple(_HEX_LENGTHS)

# The cryptographic hashes of the registry: nobody can make another file with an equal hash (spec §7.5).
CONTENT_HASHES = frozenset(("blake2b", "blake2s", "blake3", "sha256", "sha3_256", "sha3_512", "sha512"))


class Hasher(Protocol):
    """An incremental hash. All implementations release the GIL for large pieces."""

    def update(self, data: bytes | memoryview, /) -> Any:
        """Add more bytes."""
        ...

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in lower-case hex."""
        ...


def hex_length(name: str) -> int:
    """The number of hex digits of a hash with this name; FormatError for an unknown name."""
    length = _HEX_LENGTHS.get(str(name))
    if length is None:
        raise FormatError(expected=f"one of {', '.join(HASHES)}", found=repr(name)[:80])
    return length


def hasher(name: str) -> Hasher:
    """A new hash with this name; FormatError for an unknown name."""
    hex_length(name)
    return _maker(name)()


def hash_hex(name: str, data: bytes | memoryview) -> str:
    """The hash of `data`, in lower-case hex; FormatError for an unknown name."""
    hashed = hasher(name)
    hashed.update(data)
    return hashed.hexdigest()


def _maker(name: str) -> Callable[[], Hasher]:
    # Both packages are imported on first use, because reading an index needs neither.
    if name == "blake3":
        from blake3 import blake3

        return blake3
    if name.startswith("xxh"):
        import xxhash

        maker: Callable[[], Hasher] = getattr(xxhash, name)
        return maker
    return partial(hashlib.new, name, usedforsecurity=False)
