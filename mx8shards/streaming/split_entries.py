"""How are index entries of JSON, CSV, TSV and XSV shards validated? Such a shard has a data and a meta file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mx8shards.errors import FormatError, SettingError
from mx8shards.format import compression as compressions
from mx8shards.format import jsontext
from mx8shards.format.basename import RULE, is_basename
from mx8shards.format.entries import FileInfo
from mx8shards.format.hashing import HASHES, hex_length

FORMATS = ("csv", "json", "tsv", "xsv")
SEPARATORS = {"csv": ",", "tsv": "\t"}
TYPES: dict[str, type] = {"str": str, "int": int, "float": float}
_MOST_BYTES = (1 << 32) - 1


@dataclass(frozen=True)
class SplitEntry:
    """One shard. `files` has the raw and the compressed file (or None) of the data, and of the meta file.

    Args:
        form: The format's name.
        samples: The number of samples.
        columns: The type of each column, by name, in the order of the file.
        newline: What ends a sample.
        separator: What stands between two values, except for JSON.
        compression: The compression of the files.
        files: The data and the meta file, each raw and compressed.
        json: The entry as it stands in the index.
    """

    form: str
    samples: int
    columns: Mapping[str, str]
    newline: str
    separator: str
    compression: str | None
    files: tuple[tuple[FileInfo, FileInfo | None], ...]
    json: Mapping[str, Any]


def has_other_formats(index: bytes) -> bool:
    """Whether an index names shards of these formats."""
    try:
        found = json.loads(index)
        return any(entry["format"] in FORMATS for entry in found["shards"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def split_entries(index: bytes) -> list[SplitEntry]:
    """The entries of an index; FormatError with the JSON path of the first violation."""
    found: list[SplitEntry] = []

    def add(entry: Any) -> None:
        try:
            found.append(_entry(entry))
        except FormatError as error:
            raise error.at(place=f"$.shards[{len(found)}]") from error.__cause__

    try:
        top = jsontext.parse_object(index, array="shards", item=add)
        if top.get("version") != 2:
            raise FormatError(place="$.version", expected="2", found=jsontext.short(top.get("version")))
    except FormatError as error:
        raise error.at(subject="index.json") from error.__cause__
    return found


def _entry(entry: Any) -> SplitEntry:
    form = entry.get("format") if isinstance(entry, dict) else None
    if form not in FORMATS:
        raise FormatError(place=".format", expected=f"one of {', '.join(FORMATS)}", found=jsontext.short(form))
    compression = entry.get("compression")
    try:
        compressions.check(compression)
    except SettingError as error:
        raise FormatError(place=".compression", expected=error.expected, found=error.found) from None
    files = tuple(
        (_file(entry, f"raw_{part}"), _file(entry, f"zip_{part}") if compression else None) for part in ("data", "meta")
    )
    newline = _text(entry, "newline")
    separator = "" if form == "json" else SEPARATORS.get(form) or _text(entry, "separator")
    samples = jsontext.integer(entry.get("samples"), ".samples", 0)
    if samples >= _MOST_BYTES // 4:
        raise FormatError(place=".samples", expected="fewer samples", found=f"{samples}")
    return SplitEntry(form, samples, _columns(entry, form), newline, separator, compression, files, entry)


def _columns(entry: Mapping[str, Any], form: str) -> dict[str, str]:
    """The type of each column, by name."""
    if form == "json":
        columns = entry.get("columns")
    else:
        names: Any = entry.get("column_names")
        encodings: Any = entry.get("column_encodings")
        fits = isinstance(names, list) and isinstance(encodings, list) and len(names) == len(encodings)
        columns = dict(zip(map(str, names), encodings, strict=True)) if fits else None
    if not isinstance(columns, dict) or not columns:
        raise FormatError(place=".columns", expected="a type for each column", found=jsontext.short(columns))
    for name, encoding in columns.items():
        if encoding not in TYPES:
            raise FormatError(
                place=f".columns.{name}"[:80], expected=f"one of {', '.join(TYPES)}", found=jsontext.short(encoding)
            )
    return columns


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise FormatError(place=f".{key}", expected="text", found=jsontext.short(value))
    return value


def _file(entry: Mapping[str, Any], key: str) -> FileInfo:
    info = entry.get(key)
    if not isinstance(info, dict) or info.keys() != {"basename", "bytes", "hashes"}:
        raise FormatError(place=f".{key}", expected="basename, bytes and hashes", found=jsontext.short(info))
    if not isinstance(info["basename"], str) or not is_basename(info["basename"]):
        raise FormatError(place=f".{key}.basename", expected=RULE, found=jsontext.short(info["basename"]))
    size = jsontext.integer(info["bytes"], f".{key}.bytes", 0)
    hashes = info["hashes"]
    if size > 2 * _MOST_BYTES or not isinstance(hashes, dict):
        raise FormatError(place=f".{key}", expected="a size and hashes of a file", found=jsontext.short(info))
    for name, value in hashes.items():
        if name in HASHES and not (isinstance(value, str) and len(value) == hex_length(name)):
            raise FormatError(place=f".{key}.hashes.{name}", expected="a hash", found=jsontext.short(value))
    return FileInfo(info["basename"], size, hashes)
