"""What does index.json say, and can it be believed? (spec: index.json)

The file is parsed once and strictly: entry by entry into lists of fields, which are then checked column-wise and kept
as arrays. As Python objects the whole of it would cost three times the memory.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format import jsontext, kinds
from mx8shards.format.basename import MAX_CHARS, RULE, is_basename
from mx8shards.format.columns import Columns
from mx8shards.format.hashing import CONTENT_HASHES, HASHES, hex_length
from mx8shards.format.jsontext import kind_of
from mx8shards.format.shard import VERSION, ShardKind
from mx8shards.format.sidecars import Sidecar, parse_sidecars

SUBJECT = "index.json"
MAX_INDEX_BYTES = 512 << 20
SPEC = 1
KEY = "mx8shards"
MAX_RAW_BYTES = (1 << 32) - 1
MAX_ZIP_BYTES = (1 << 33) - 1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a shard: its name below the dataset's root, its size and its hashes by algorithm."""

    basename: str
    size_bytes: int
    hashes: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """As it stands in raw_data and zip_data."""
        return {"basename": self.basename, "bytes": self.size_bytes, "hashes": dict(self.hashes)}


@dataclass(frozen=True, slots=True)
class MdsEntry:
    """One MDS shard of an index."""

    kind: ShardKind
    samples: int
    raw: FileInfo
    zip: FileInfo | None

    @property
    def stored(self) -> FileInfo:
        """The file that lies on disk: the compressed one where there is one."""
        return self.zip or self.raw

    def to_json(self) -> dict[str, object]:
        """As it stands in the index's list of shards."""
        return self.kind.config() | {
            "raw_data": self.raw.to_json(),
            "samples": self.samples,
            "zip_data": self.zip.to_json() if self.zip else None,
        }


# JSON and CSV shards would join here: entries are a union tagged by `format`.
Entry = MdsEntry


@dataclass(frozen=True, slots=True)
class Files:
    """The raw or the compressed files of all shards: an entry's FileInfo turned sideways. No file: size -1, name ''."""

    basenames: list[str]
    size_bytes: Ints
    hashes: dict[str, npt.NDArray[np.bytes_]]

    def info(self, i: int) -> FileInfo | None:
        """The file of shard `i`, or None where it has none."""
        if self.size_bytes[i] < 0:
            return None
        found = {name: values[i].decode() for name, values in self.hashes.items() if values[i]}
        return FileInfo(self.basenames[i], int(self.size_bytes[i]), found)


@dataclass(frozen=True)
class Index:
    """What an index.json says, in arrays: one row per shard."""

    kinds: tuple[ShardKind, ...]
    kind: Ints
    samples: Ints
    raw: Files
    zip: Files
    metadata: dict[str, Any] = field(default_factory=dict)
    sidecars: tuple[Sidecar, ...] = ()
    parent: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def starts(self) -> Ints:
        """The first sample_id of every shard, and after the last one the number of samples."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.samples)])

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.samples)

    @cached_property
    def compressed(self) -> npt.NDArray[np.bool_]:
        """Which shards lie compressed on disk."""
        return self.zip.size_bytes >= 0

    @cached_property
    def stored_bytes(self) -> Ints:
        """How many bytes every shard has on disk."""
        return np.where(self.compressed, self.zip.size_bytes, self.raw.size_bytes)

    @cached_property
    def sealed(self) -> bool:
        """Whether a content hash of every shard's stored file stands in the index."""
        known = np.zeros(self.shards, bool)
        for files, here in ((self.zip, self.compressed), (self.raw, ~self.compressed)):
            for name in CONTENT_HASHES & files.hashes.keys():
                known |= here & (files.hashes[name] != b"")
        return bool(known.all())

    def entry(self, i: int) -> Entry:
        """Shard `i` as one value."""
        raw = self.raw.info(i)
        assert raw is not None  # parse_index gave every shard a raw file
        return MdsEntry(self.kinds[int(self.kind[i])], int(self.samples[i]), raw, self.zip.info(i))

    def columns(self, names: Sequence[str] | None = None) -> Columns:
        """The columns that all shards share, or those of them that are picked; FormatError where they differ."""
        every = [kind.columns if names is None else kind.columns.pick(names) for kind in self.kinds]
        if not every:
            return Columns((), (), ())
        for number, found in enumerate(every):
            if found != every[0]:
                i = int(np.flatnonzero(self.kind == number)[0])
                raise FormatError(
                    subject=SUBJECT,
                    place=f"$.shards[{i}]",
                    expected=f"the columns of $.shards[0]: {_describe(every[0])}",
                    found=_describe(found),
                    hint="columns=[…] picks columns that are equal in all shards",
                )
        return every[0]


def _describe(columns: Columns) -> str:
    return ", ".join(f"{name} {encoding}" for name, encoding in zip(columns.names, columns.encodings, strict=True))


def index_bytes(
    entries: Iterable[Entry],
    *,
    metadata: Mapping[str, Any],
    sidecars: Sequence[Sidecar] = (),
    parent: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """An index.json in its canonical form: sorted keys, one line. Its sha256 is the snapshot's id."""
    ours: dict[str, object] = {
        "spec": SPEC,
        "metadata": metadata,
        "sidecars": [sidecar.to_json() for sidecar in sidecars],
    }
    if parent is not None:
        ours["parent"] = parent
    fields = {key: jsontext.dump(value) for key, value in {**(extra or {}), KEY: ours, "version": VERSION}.items()}
    fields["shards"] = "[" + ", ".join(jsontext.dump(entry.to_json()) for entry in entries) + "]"
    return ("{" + ", ".join(f"{json.dumps(key)}: {fields[key]}" for key in sorted(fields)) + "}").encode()


def parse_index(data: bytes) -> Index:
    """The index whose bytes these are; FormatError with the JSON path of the first thing that breaks the spec."""
    try:
        return _parse(data)
    except FormatError as error:
        raise error.at(subject=SUBJECT) from error.__cause__


def _parse(data: bytes) -> Index:
    if len(data) > MAX_INDEX_BYTES:
        raise FormatError(expected=f"at most {MAX_INDEX_BYTES} bytes", found=f"{len(data)}")
    rows = _Rows()
    top = jsontext.parse_object(data, array="shards", item=rows.add)
    _expect_version(top.get("version"), "$.version")
    if "shards" not in top:
        raise FormatError(place="$.shards", expected="a list", found="nothing")
    ours = top.pop(KEY, {"spec": SPEC, "metadata": {}, "sidecars": []})
    if not isinstance(ours, dict):
        raise FormatError(place=f"$.{KEY}", expected="an object", found=kind_of(ours))
    index = rows.finish()
    spec = jsontext.integer(ours.get("spec"), f"$.{KEY}.spec", 1)
    if spec > SPEC:
        raise FormatError(
            place=f"$.{KEY}.spec", expected=f"at most {SPEC}", found=f"{spec}", hint="written by a newer version"
        )
    metadata = ours.get("metadata")
    if not isinstance(metadata, dict):
        raise FormatError(place=f"$.{KEY}.metadata", expected="an object", found=kind_of(metadata))
    return Index(
        **index,
        metadata=metadata,
        sidecars=parse_sidecars(ours.get("sidecars"), f"$.{KEY}.sidecars", len(index["samples"])),
        parent=_parent(ours["parent"]) if "parent" in ours else None,
        extra={key: value for key, value in top.items() if key not in ("version", "shards")},
    )


def _expect_version(value: object, place: str) -> None:
    if type(value) is not int or value != VERSION:
        raise FormatError(place=place, expected=f"{VERSION}", found=jsontext.short(value))


def _parent(value: object) -> str:
    if not isinstance(value, str) or not jsontext.SNAPSHOT_ID.fullmatch(value):
        raise FormatError(place=f"$.{KEY}.parent", expected="sha256:<64 hex digits>", found=jsontext.short(value))
    return value


_config_fields = itemgetter(*kinds.CONFIG_KEYS)


class _Rows:
    """The entries read so far, field by field. Adding one is quick; `finish` checks whole fields at once."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, int] = {}
        self._found: list[ShardKind] = []
        self._count = 0
        self._kind: list[int] = []
        self._samples: list[Any] = []
        self._raw = _FileRows("raw_data")
        self._zip = _FileRows("zip_data")

    def add(self, entry: Any) -> None:
        """One more entry of $.shards."""
        try:
            self._kind.append(self._kind_of(entry))
            self._samples.append(entry["samples"])
            self._raw.add(entry["raw_data"])
            self._zip.add(entry["zip_data"])
        except FormatError as error:
            raise error.at(place=f"$.shards[{self._count}]") from error.__cause__
        self._count += 1

    def _kind_of(self, entry: Any) -> int:
        """The number of the entry's kind; its fields are checked where no entry before had just these."""
        if not isinstance(entry, dict) or entry.keys() != kinds.ENTRY_KEYS:
            kinds.parse_kind(entry)
        # as bytes, because as values True, 1 and 1.0 are equal; marshal is the quickest way there
        fields = marshal.dumps(_config_fields(entry), 2)
        number = self._kinds.get(fields)
        if number is None:
            number = self._kinds[fields] = len(self._found)
            self._found.append(kinds.parse_kind(entry))
        return number

    def finish(self) -> dict[str, Any]:
        """The fields of an Index, each checked."""
        samples = _integers(self._samples, "samples", MAX_RAW_BYTES)
        kind = np.array(self._kind, np.int64)
        raw = self._raw.finish(MAX_RAW_BYTES, required=True)
        files = self._zip.finish(MAX_ZIP_BYTES, required=False)
        wants_zip = np.array([found.compression is not None for found in self._found], bool)[kind]
        _require(
            (files.size_bytes >= 0) == wants_zip,
            "zip_data",
            lambda i: ("a file", "null") if wants_zip[i] else ("null, as compression is", "a file"),
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


class _FileRows:
    """The raw_data or the zip_data of the entries read so far."""

    _KEYS = frozenset(("basename", "bytes", "hashes"))

    def __init__(self, which: str) -> None:
        self._which = which
        self._present: list[bool] = []
        self._basenames: list[Any] = []
        self._bytes: list[Any] = []
        self._hashes: dict[str, list[Any]] = {}

    def add(self, info: Any) -> None:
        """The next shard's file, or None."""
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
                values.append(value or None)  # "" stands for no hash in the arrays, so a file may not say it

    def _check_keys(self, info: Any) -> None:
        if not isinstance(info, dict):
            raise FormatError(place=f".{self._which}", expected="an object", found=kind_of(info))
        if info.keys() != self._KEYS:
            kinds.refuse_keys(info, self._KEYS, f".{self._which}")
        if not isinstance(info["hashes"], dict):
            raise FormatError(place=f".{self._which}.hashes", expected="an object", found=kind_of(info["hashes"]))

    def _new_hash(self, name: str) -> list[Any]:
        kinds.check_hash_name(name, f".{self._which}.hashes")
        if len(self._hashes) >= kinds.MAX_HASHES:
            raise FormatError(
                place=f".{self._which}.hashes", expected=f"at most {kinds.MAX_HASHES} algorithms", found="more"
            )
        return []

    def finish(self, most_bytes: int, *, required: bool) -> Files:
        """The files of all shards, every field checked."""
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
        check = kinds.hash_pattern(hex_length(name) if name in HASHES else None).fullmatch
        _require(
            np.fromiter((type(v) is str and check(v) is not None for v in values), bool, len(values)),
            f"{self._which}.hashes.{name}",
            lambda i: (
                f"{hex_length(name)} lower-case hex digits" if name in HASHES else "text",
                jsontext.short(values[i]),
            ),
        )
        return np.array([value.encode() for value in values], np.bytes_)


def _integers(values: list[Any], what: str, most: int, skip: npt.NDArray[np.bool_] | None = None) -> Ints:
    """The values as int64 after each was found to be an integer from 0 to `most`."""
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
