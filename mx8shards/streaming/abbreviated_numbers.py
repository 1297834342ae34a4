"""Which number does a text such as "64M" (samples) or "100gb" (bytes) mean? By Streaming's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mx8shards.errors import SettingError

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)
_COUNTS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_BYTES = {f"{letter}b": 1024 ** (i + 1) for i, letter in enumerate("kmgtpezy")} | {"b": 1}


def number_abbrev_to_int(abbrev_str: int | str) -> int:
    """A number of samples: k, M, b and t are powers of 1000.

    Args:
        abbrev_str: An int, or a text such as `"64M"`.
    """
    return _parsed(abbrev_str, _COUNTS)


def bytes_to_int(bytes_str: int | str) -> int:
    """A number of bytes: kb, mb and so on are powers of 1024.

    Args:
        bytes_str: An int, or a text such as `"100gb"`.
    """
    return _parsed(bytes_str, _BYTES)


def _parsed(value: int | str, units: Mapping[str, int]) -> int:
    if not isinstance(value, str):
        return int(value)
    found = _NUMBER.fullmatch(value.strip().lower())
    if found is None or (found[2] and found[2] not in units) or (not found[2] and not found[1].isdigit()):
        raise SettingError(f"Unsupported value/suffix {value!r}. Supported suffixes are {', '.join(units)}.")
    return int(found[1]) if not found[2] else int(float(found[1]) * units[found[2]])
