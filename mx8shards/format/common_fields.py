"""How are columns, hashes, compression and size limit of a shard entry validated? (spec: index.json, shard entries)"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any

from mx8shards.errors import FormatError
from mx8shards.format import compression
from mx8shards.format.columns import MAX_BYTES, MAX_COLUMNS, MAX_TEXT, Columns
from mx8shards.format.encodings import fits_size, get_encoding
from mx8shards.format.jsontext import kind_of, short
from mx8shards.format.shard_bytes import VERSION, ShardKind

CONFIG_KEYS = (
    "version",
    "format",
    "compression",
    "hashes",
    "size_limit",
    "column_names",
    "column_encodings",
    "column_sizes",
)
ENTRY_KEYS = frozenset((*CONFIG_KEYS, "samples", "raw_data", "zip_data"))
MAX_HASHES = 64

_HASH_NAME = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)


def parse_kind(entry: Any) -> ShardKind:
    """Parse and check the shared fields of one entry. The places of errors begin with the dot before the key."""
    if not isinstance(entry, dict):
        raise FormatError(expected="an object", found=kind_of(entry))
    if entry.get("format") != "mds":
        raise FormatError(place=".format", expected='"mds"', found=short(entry.get("format", "nothing")))
    if entry.keys() != ENTRY_KEYS:
        refuse_keys(entry, ENTRY_KEYS, "")
    if type(entry["version"]) is not int or entry["version"] != VERSION:
        raise FormatError(place=".version", expected=f"{VERSION}", found=short(entry["version"]))
    return ShardKind(_columns(entry), _compression(entry["compression"]), _hashes(entry["hashes"]), _limit(entry))


def refuse_keys(found: Collection[str], wanted: Collection[str], place: str) -> None:
    """Raise FormatError for the first unknown key or, without any, for the first missing key."""
    for key in sorted(set(found) - set(wanted)):
        known = ", ".join(sorted(wanted))
        raise FormatError(place=f"{place}.{key}"[:80], expected=f"one of {known}", found="an unknown key")
    for key in sorted(set(wanted) - set(found)):
        raise FormatError(place=f"{place}.{key}", expected="a value", found="nothing")


def check_hash_name(name: object, place: str) -> None:
    """FormatError unless `name` has the form of a hash algorithm's name, known or not."""
    if not isinstance(name, str) or not _HASH_NAME.fullmatch(name):
        raise FormatError(place=place, expected="names of hash algorithms", found=short(name))


@cache
def hash_pattern(length: int | None) -> re.Pattern[str]:
    """The pattern of hash values: hex digits for a known algorithm, short text for an unknown one, "" for no value."""
    return re.compile(
        r"[^\0\ud800-\udfff]{0,256}" if length is None else rf"(?:[0-9a-f]{{{length}}})?", re.ASCII | re.DOTALL
    )


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(entry[key], list):
        raise FormatError(place=f".{key}", expected="a list", found=kind_of(entry[key]))
    return list(entry[key])


def _texts(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    values = _list(entry, key)
    if not 1 <= len(values) <= MAX_COLUMNS:
        raise FormatError(place=f".{key}", expected=f"1 to {MAX_COLUMNS} columns", found=f"{len(values)}")
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise FormatError(place=f".{key}[{i}]", expected="str", found=kind_of(value))
        if not 1 <= len(value) <= MAX_TEXT:
            raise FormatError(place=f".{key}[{i}]", expected=f"1 to {MAX_TEXT} characters", found=f"{len(value)}")
    return tuple(values)


def _columns(entry: dict[str, Any]) -> Columns:
    names, encodings, sizes = (
        _texts(entry, "column_names"),
        _texts(entry, "column_encodings"),
        _list(entry, "column_sizes"),
    )
    for i in range(1, len(names)):
        if names[i - 1] >= names[i]:
            raise FormatError(
                place=f".column_names[{i}]", expected=f"a name after {short(names[i - 1])}", found=short(names[i])
            )
    for key, values in (("column_encodings", encodings), ("column_sizes", sizes)):
        if len(values) != len(names):
            raise FormatError(place=f".{key}", expected=f"{len(names)}, one for every name", found=f"{len(values)}")
    for i, (text, size) in enumerate(zip(encodings, sizes, strict=True)):
        try:
            fits = (size is None or type(size) is int) and fits_size(text, size)
        except FormatError as error:
            raise error.at(place=f".column_encodings[{i}]") from error.__cause__
        if not fits:
            expected = f"{short(get_encoding(text).size_bytes)}, the size of {text}"
            raise FormatError(place=f".column_sizes[{i}]", expected=expected, found=short(size))
    if sum(size for size in sizes if size is not None) > MAX_BYTES:
        raise FormatError(place=".column_sizes", expected=f"at most {MAX_BYTES} bytes in all", found="more")
    return Columns(names, encodings, tuple(sizes))


def _compression(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise FormatError(place=".compression", expected="str or null", found=kind_of(value))
    try:
        compression.parse(value)
    except FormatError as error:
        raise error.at(place=".compression") from error.__cause__
    return value


def _hashes(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise FormatError(place=".hashes", expected="a list", found=kind_of(values))
    if len(values) > MAX_HASHES:
        raise FormatError(place=".hashes", expected=f"at most {MAX_HASHES} names", found=f"{len(values)}")
    for i, value in enumerate(values):
        check_hash_name(value, f".hashes[{i}]")
    if values != sorted(values):
        raise FormatError(place=".hashes", expected="sorted names", found=short(values))
    return tuple(values)


def _limit(entry: dict[str, Any]) -> int | str | None:
    value = entry["size_limit"]
    if value is None or (type(value) is int and value >= 0) or (isinstance(value, str) and len(value) <= MAX_TEXT):
        return value
    raise FormatError(place=".size_limit", expected="null, bytes, or a text such as 64mb", found=short(value))
