"""How are size limits such as "64mb" parsed into bytes? (spec: size_limit)"""

from __future__ import annotations

import re

from mx8shards.errors import SettingError, shown, whole_number
from mx8shards.format.columns import MAX_BYTES

# Streaming's suffixes: powers of 1024, in upper or lower case. Fractions are allowed, except of bytes.
_UNITS = {"": 1, "b": 1} | {f"{letter}b": 1 << (10 * (i + 1)) for i, letter in enumerate("kmgtpez")}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)


def parse_size_limit(value: int | str | None) -> int | None:
    """The largest size of a raw shard in bytes; None and 0 mean the format's own limit of 4 GiB."""
    if value is None:
        return None
    try:
        found = whole_number("size_limit", parse_size(value) if isinstance(value, str) else value, 0, MAX_BYTES)
    except SettingError:
        expected = f"0 to {MAX_BYTES} bytes, as a number or as a text such as 64mb"
        raise SettingError(subject="size_limit", expected=expected, found=shown(value)) from None
    return None if found == 0 and not isinstance(value, str) else found  # Streaming writes null for 0, not for "0"


def size_setting(name: str, value: int | str) -> int:
    """The number of bytes of the setting `name`: an int from 1, or a text such as 64mb."""
    try:
        return whole_number(name, parse_size(value) if isinstance(value, str) else value, 1)
    except SettingError:
        raise SettingError(
            subject=name, expected="bytes, as an int or as a text such as 64gb", found=shown(value)
        ) from None


def parse_size(text: object) -> int | None:
    """The number of bytes of a text such as 64mb; None if it is invalid."""
    match = _SIZE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None or match[2] not in _UNITS:
        return None
    if match[2] in ("", "b") and not match[1].isdigit():
        return None
    size = float(match[1]) * _UNITS[match[2]]
    return int(size) if size < 1 << 63 else None
