"""How are the bytes of whole files compressed and hashed, by name?"""

from __future__ import annotations

from mx8shards.errors import FormatError
from mx8shards.format import compression as compressions
from mx8shards.format.hashing import HASHES, hash_hex


def get_compressions() -> set[str]:
    """The names of compressions, without levels."""
    return set(compressions.NAMES)


def is_compression(algo: str | None) -> bool:
    """Whether this is None, or the name of a compression with an optional level.

    Args:
        algo: The name.
    """
    try:
        return algo is None or bool(compressions.parse(algo))
    except FormatError:
        return False


def get_compression_extension(algo: str) -> str:
    """The extension of files with this compression.

    Args:
        algo: The name.
    """
    return compressions.extension(algo)


def compress(algo: str | None, data: bytes) -> bytes:
    """Compressed bytes.

    Args:
        algo: The name of the compression, with an optional level; None leaves the bytes as they are.
        data: The bytes.
    """
    return data if algo is None else compressions.compress(algo, data, match_streaming=True)


def decompress(algo: str | None, data: bytes) -> bytes:
    """Decompressed bytes, of any size: give it trusted bytes only.

    Args:
        algo: The name of the compression; None leaves the bytes as they are.
        data: The compressed bytes.
    """
    return data if algo is None else compressions.decompress_whole(algo, data)


def get_hashes() -> set[str]:
    """The names of hashes."""
    return set(HASHES)


def is_hash(algo: str) -> bool:
    """Whether there is a hash of this name.

    Args:
        algo: The name.
    """
    return algo in HASHES


def get_hash(algo: str, data: bytes) -> str:
    """The hash of bytes, in hex.

    Args:
        algo: The name.
        data: The bytes.
    """
    return hash_hex(algo, data)
