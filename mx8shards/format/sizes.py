"""How many bytes is "64mb"? (spec: size_limit)"""

from __future__ import annotations

import re

from mx8shards.errors import SchemaError
from mx8shards.format.columns import MAX_BYTES

# Streaming's suffixes: powers of 1024 in either case; a fraction is fine except of a byte.
_UNITS = {"": 1, "b": 1} | {f"{letter}b": 1 << (10 * (i + 1)) for i, letter in enumerate("kmgtpez")}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)


def parse_size_limit(value: int | str | None) -> int | None:
    """The most bytes a raw shard may have; None and 0 mean no limit but the format's own 4 GiB."""
    if value is None or (type(value) is int and value == 0):  # Streaming writes null for 0, though not for "0"
        return None
    found = value if type(value) is int else parse_size(value)
    if found is None or not 0 <= found <= MAX_BYTES:
        raise SchemaError(
            subject="size_limit",
            expected=f"0 to {MAX_BYTES} bytes, as a number or as a text such as 64mb",
            found=repr(value),
        )
    return found


def parse_size(text: object) -> int | None:
    """The number of bytes that a text such as 64mb means; None if it means none."""
    match = _SIZE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None or match[2] not in _UNITS:
        return None
    if match[2] in ("", "b") and not match[1].isdigit():
        return None
    size = float(match[1]) * _UNITS[match[2]]
    return int(size) if size < 1 << 63 else None
