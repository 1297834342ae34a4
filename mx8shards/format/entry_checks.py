"""How are the shard entries of an index validated? (spec §4)

The fields of the entries are collected in lists, which are then checked as a whole and converted to arrays. One Python
object per entry would take three times the memory.
"""

from __future__ import annotations

import marshal
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format import common_fields, jsontext
from mx8shards.format.basename import MAX_CHARS, RULE, is_basename
from mx8shards.format.entries import Files, Ints
from mx8shards.format.hashing import HASHES, hex_length
from mx8shards.format.jsontext import kind_of
from mx8shards.format.shard_bytes import ShardKind

MAX_RAW_BYTES = (1 << 32) - 1
MAX_ZIP_BYTES = (1 << 33) - 1

_config_fields = itemgetter(*common_fields.CONFIG_KEYS)


class EntryColumns:
    """The entries read so far, field by field. `add` checks little; `finish` checks each field for all entries."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, int] = {}
        self._found: list[ShardKind] = []
        self._count = 0
        self._kind: list[int] = []
        self._samples: list[Any] = []
        self._raw = _FileColumns("raw_data")
        self._zip = _FileColumns("zip_data")

    def add(self, entry: Any) -> None:
        """Add the next entry of $.shards."""
        try:
            self._kind.append(self._kind_of(entry))
            self._samples.append(entry["samples"])
            self._raw.add(entry["raw_data"])
            self._zip.add(entry["zip_data"])
        except FormatError as error:
            raise error.at(place=f"$.shards[{self._count}]") from error.__cause__
        self._count += 1

    def _kind_of(self, entry: Any) -> int:
        """The number of the entry's kind. Its fields are checked only if no earlier entry had equal ones."""
        if not isinstance(entry, dict) or entry.keys() != common_fields.ENTRY_KEYS:
            common_fields.parse_kind(entry)
        # compared as bytes, because True == 1 == 1.0; marshal is the fastest serialisation
        fields = marshal.dumps(_config_fields(entry), 2)
        number = self._kinds.get(fields)
        if number is None:
            number = self._kinds[fields] = len(self._found)
            self._found.append(common_fields.parse_kind(entry))
        return number

    def finish(self) -> dict[str, Any]:
        """The checked fields, as arguments of Index."""
        samples = _integers(self._samples, "samples", MAX_RAW_BYTES)
        kind = np.array(self._kind, np.int64)
        raw = self._raw.finish(MAX_RAW_BYTES, required=True)
        files = self._zip.finish(MAX_ZIP_BYTES, required=False)
        wants_zip = np.array([found.compression is not None for found in self._found], bool)[kind]
        _require(
            (files.size_bytes >= 0) == wants_zip,
            "zip_data",
            lambda i: ("a file", "null") if wants_zip[i] else ("null, because compression is null", "a file"),
        )
        _require(
            raw.size_bytes >= 4 * (samples + 2),
            "raw_data.bytes",
            lambda i: (f"at least {4 * (samples[i] + 2)} (the offsets of {samples[i]} samples)", raw.size_bytes[i]),
        )
        self._refuse_duplicates(raw, files)
        return {"kinds": tuple(self._found), "kind": kind, "samples": samples, "raw": raw, "zip": files}

    def _refuse_duplicates(self, raw: Files, files: Files) -> None:
        zips = list(filter(None, files.basenames))
        if len({*raw.basenames, *zips}) == len(raw.basenames) + len(zips):
            return
        seen: dict[str, str] = {}
        for i, pair in enumerate(zip(raw.basenames, files.basenames, strict=True)):
            for which, name in zip(("raw_data", "zip_data"), pair, strict=True):
                place = f"$.shards[{i}].{which}.basename"
                if name and name in seen:
                    raise FormatError(place=place, expected=f"a name other than {seen[name]}'s", found=repr(name))
                seen[name] = place


class _FileColumns:
    """The raw_data or the zip_data of the entries read so far."""

    _KEYS = frozenset(("basename", "bytes", "hashes"))

    def __init__(self, which: str) -> None:
        self._which = which
        self._present: list[bool] = []
        self._basenames: list[Any] = []
        self._bytes: list[Any] = []
        self._hashes: dict[str, list[Any]] = {}

    def add(self, info: Any) -> None:
        """Add the file of the next shard; None if it has none."""
        count = len(self._present)
        self._present.append(info is not None)
        if info is None:
            self._basenames.append("")
            self._bytes.append(-1)
        else:
            self._check_keys(info)
            self._basenames.append(info["basename"])
            self._bytes.append(info["bytes"])
            for name, value in info["hashes"].items():
                values = self._hashes.get(name)
                if values is None:
                    values = self._hashes[name] = self._new_hash(name)
                if len(values) < count:
                    values.extend([""] * (count - len(values)))
                values.append(value or None)  # "" means no hash in the arrays; in an index it is an error

    def _check_keys(self, info: Any) -> None:
        if not isinstance(info, dict):
            raise FormatError(place=f".{self._which}", expected="an object", found=kind_of(info))
        if info.keys() != self._KEYS:
            common_fields.refuse_keys(info, self._KEYS, f".{self._which}")
        if not isinstance(info["hashes"], dict):
            raise FormatError(place=f".{self._which}.hashes", expected="an object", found=kind_of(info["hashes"]))

    def _new_hash(self, name: str) -> list[Any]:
        common_fields.check_hash_name(name, f".{self._which}.hashes")
        if len(self._hashes) >= common_fields.MAX_HASHES:
            raise FormatError(
                place=f".{self._which}.hashes", expected=f"at most {common_fields.MAX_HASHES} algorithms", found="more"
            )
        return []

    def finish(self, most_bytes: int, *, required: bool) -> Files:
        """The files of all shards, after checking every field."""
        present = np.array(self._present, bool)
        if required:
            _require(present, self._which, lambda i: ("an object", "null"))
        names = self._basenames
        good = map(is_basename, names)
        _require(
            np.fromiter(good, bool, len(names)) | ~present,
            f"{self._which}.basename",
            lambda i: (f"{RULE}, {MAX_CHARS} characters at most", jsontext.short(names[i])),
        )
        sizes = _integers(self._bytes, f"{self._which}.bytes", most_bytes, skip=~present)
        return Files(names, sizes, {name: self._finish_hash(name) for name in sorted(self._hashes)})

    def _finish_hash(self, name: str) -> npt.NDArray[np.bytes_]:
        values = self._hashes.pop(name)
        values.extend([""] * (len(self._present) - len(values)))
        check = common_fields.hash_pattern(hex_length(name) if name in HASHES else None).fullmatch
        _require(
            np.fromiter((type(v) is str and check(v) is not None for v in values), bool, len(values)),
            f"{self._which}.hashes.{name}",
            lambda i: (
                f"{hex_length(name)} lower-case hex digits" if name in HASHES else "text",
                jsontext.short(values[i]),
            ),
        )
        # a bytes array has the width of its longest value: it is used for known lengths only
        return np.array([value.encode() for value in values], np.bytes_ if name in HASHES else object)


def _integers(values: list[Any], what: str, most: int, skip: npt.NDArray[np.bool_] | None = None) -> Ints:
    """The values as int64; FormatError unless each is an integer from 0 to `most`, or skipped."""
    good = np.fromiter((type(v) is int and 0 <= v <= most for v in values), bool, len(values))
    _require(
        good if skip is None else good | skip,
        what,
        lambda i: (f"an integer from 0 to {most}", jsontext.short(values[i])),
    )
    return np.array(values, np.int64)


def _require(good: npt.NDArray[np.bool_], what: str, explain: Any) -> None:
    if not good.all():
        i = int(np.argmin(good))
        expected, found = explain(i)
        raise FormatError(place=f"$.shards[{i}].{what}", expected=expected, found=f"{found}")
