"""How is index.json parsed, validated and written? (spec §4, §8)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError, SettingError
from mx8shards.format import jsontext
from mx8shards.format.columns import Columns
from mx8shards.format.entries import Entry, Files, Ints, MdsEntry
from mx8shards.format.entry_checks import EntryColumns
from mx8shards.format.hashing import CONTENT_HASHES
from mx8shards.format.jsontext import kind_of
from mx8shards.format.shard_bytes import VERSION, ShardKind
from mx8shards.format.sidecar_bytes import Sidecar, parse_sidecars

SUBJECT = "index.json"
MAX_INDEX_BYTES = 512 << 20
SPEC = 1
KEY = "mx8shards"


@dataclass(frozen=True)
class Index:
    """A parsed index.json, in arrays with one element per shard."""

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
        """The first sample_id of every shard, followed by the number of samples."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.samples)])

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.samples)

    @cached_property
    def compressed(self) -> npt.NDArray[np.bool_]:
        """Whether each shard is compressed on disk."""
        return self.zip.size_bytes >= 0

    @cached_property
    def stored_bytes(self) -> Ints:
        """The size of every shard's file on disk."""
        return np.where(self.compressed, self.zip.size_bytes, self.raw.size_bytes)

    @cached_property
    def sealed(self) -> bool:
        """Whether the index has a content hash of every shard's stored file."""
        known = np.zeros(self.shards, bool)
        for files, here in ((self.zip, self.compressed), (self.raw, ~self.compressed)):
            for name in CONTENT_HASHES & files.hashes.keys():
                known |= here & (files.hashes[name] != b"")
        return bool(known.all())

    def entry(self, i: int) -> Entry:
        """The entry of shard `i`."""
        raw = self.raw.info(i)
        assert raw is not None  # parse_index gave every shard a raw file
        return MdsEntry(self.kinds[int(self.kind[i])], int(self.samples[i]), raw, self.zip.info(i))

    def columns(self, names: Sequence[str] | None = None) -> Columns:
        """The columns `names` (None: all), which must be equal in all shards; FormatError otherwise."""
        if not self.kinds:
            return Columns((), (), ())
        wanted = self.kinds[0].columns if names is None else self.kinds[0].columns.pick(names)
        for number, kind in enumerate(self.kinds):
            can_pick = names is not None and set(wanted.names) <= set(kind.columns.names)
            found = kind.columns.pick(wanted.names) if can_pick else kind.columns
            if found != wanted:
                i = int(np.flatnonzero(self.kind == number)[0])
                raise FormatError(
                    subject=SUBJECT,
                    place=f"$.shards[{i}]",
                    expected=f"the columns of $.shards[0]: {_describe(wanted)}",
                    found=_describe(found),
                    hint="columns=[…] picks columns that are equal in all shards",
                )
        return wanted


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
    """An index.json in canonical form: sorted keys, one line. Its sha256 is the snapshot's id."""
    ours: dict[str, object] = {
        "spec": SPEC,
        "metadata": metadata,
        "sidecars": [sidecar.to_json() for sidecar in sidecars],
    }
    if parent is not None:
        ours["parent"] = parent
    fields = {key: jsontext.dump(value) for key, value in {**(extra or {}), KEY: ours, "version": VERSION}.items()}
    fields["shards"] = "[" + ", ".join(jsontext.dump(entry.to_json()) for entry in entries) + "]"
    data = ("{" + ", ".join(f"{json.dumps(key)}: {fields[key]}" for key in sorted(fields)) + "}").encode()
    if len(data) > MAX_INDEX_BYTES:
        found, hint = f"{len(data)}", "no reader would open it; use larger shards or less metadata"
        raise FormatError(subject=SUBJECT, expected=f"at most {MAX_INDEX_BYTES} bytes", found=found, hint=hint)
    return data


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata after a round trip through JSON, as readers get them; SettingError if they are not JSON values."""
    try:
        found: dict[str, Any] = json.loads(jsontext.dump(dict(metadata)))
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingError(f"not JSON: {error}", subject="metadata") from error
    _require_text_keys(metadata, "metadata")
    return found


def _require_text_keys(value: Any, place: str) -> None:
    """SettingError if a key is not a str, as JSON would turn 1 and True into "1" and "true"."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SettingError(subject=place, expected="keys of type str", found=repr(key))
            _require_text_keys(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _require_text_keys(item, f"{place}[{i}]")


def parse_index(data: bytes) -> Index:
    """Parse an index.json; FormatError with the JSON path of the first violation of the spec."""
    try:
        return _parse(data)
    except FormatError as error:
        raise error.at(subject=SUBJECT) from error.__cause__


def _parse(data: bytes) -> Index:
    if len(data) > MAX_INDEX_BYTES:
        raise FormatError(expected=f"at most {MAX_INDEX_BYTES} bytes", found=f"{len(data)}")
    fields = EntryColumns()
    top = jsontext.parse_object(data, array="shards", item=fields.add)
    _expect_version(top.get("version"), "$.version")
    if "shards" not in top:
        raise FormatError(place="$.shards", expected="a list", found="nothing")
    ours = top.pop(KEY, {"spec": SPEC, "metadata": {}, "sidecars": []})
    if not isinstance(ours, dict):
        raise FormatError(place=f"$.{KEY}", expected="an object", found=kind_of(ours))
    index = fields.finish()
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
