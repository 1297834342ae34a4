"""Which snapshots does a dataset have, which is current, and how is one loaded?

    <root>/index.json                             the current snapshot
    <root>/.mx8shards/snapshots/<sha256>.json     every snapshot published here, under its id

In a directory with kept snapshots, an index.json that is not among them was changed by other software.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mx8shards.disk.files import read_bounded
from mx8shards.disk.operations import disk_error, disk_errors
from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, SchemaError
from mx8shards.format.columns import Columns
from mx8shards.format.index import MAX_INDEX_BYTES, Index, parse_index
from mx8shards.shards.links import Link
from mx8shards.shards.not_found_hints import kept_snapshot_hint, not_found_hint

INDEX = "index.json"
STATE = ".mx8shards"
MIRROR = "mirror.json"  # in STATE: this directory is the mirror of a remote dataset

_KEPT = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class Snapshot:
    """One published state of a dataset, with its parsed index."""

    root: Path
    id: str
    index: Index
    kept: bool  # whether its index is stored under its id, which is not so for foreign datasets

    @property
    def is_there(self) -> bool:
        """Whether its directory still has an index: it has none if a file system was unmounted, for example."""
        return (self.root / INDEX).exists() or kept_path(self.root, self.id).exists()

    def require_kept(self) -> None:
        """DatasetNotFoundError if gc has removed the snapshot. Call this after opening one of its files, not before.

        After gc, another snapshot may reuse the file names, so that the opened file may belong to that one.
        """
        path = kept_path(self.root, self.id)
        if self.kept and not path.exists() and path.parent.exists():
            raise DatasetNotFoundError("gc removed this snapshot after it was opened", subject=f"{self.root}@{self.id}")

    def __reduce__(self) -> tuple[object, ...]:
        return load, (Link(self.root, self.id),)  # an index may be large, so another process reads it from the disk


def snapshot_id(data: bytes) -> str:
    """The id of the snapshot whose index.json has these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def kept_path(root: Path, snapshot: str) -> Path:
    """The path under which the index of a snapshot is kept."""
    return root / STATE / "snapshots" / f"{snapshot.removeprefix('sha256:')}.json"


def sidecar_path(root: Path, blake3: str) -> Path:
    """The path of the side-car with this hash."""
    return root / STATE / "sidecars" / blake3


def kept(root: Path) -> list[str]:
    """The ids of all snapshots kept in this directory, sorted."""
    directory = root / STATE / "snapshots"
    with disk_errors("list", directory):
        names = (entry.name for entry in directory.iterdir()) if directory.is_dir() else ()
        return sorted(f"sha256:{match[1]}" for match in map(_KEPT.fullmatch, names) if match)


def current_bytes(root: Path) -> bytes | None:
    """The bytes of index.json, or None if it is missing."""
    try:
        return read_index(root / INDEX)
    except DatasetNotFoundError:
        return None


def current(root: Path, *, trusting: bool = False) -> Snapshot:
    """The current snapshot. `trusting` accepts an index.json that was changed by other software (`verify --seal`)."""
    try:
        data = read_index(root / INDEX)
    except DatasetNotFoundError as error:
        error.hint = not_found_hint(root)
        raise
    name = snapshot_id(data)
    known = kept(root)
    while known and name not in known and not trusting:
        data, before = read_index(root / INDEX), data
        if data == before:  # otherwise a snapshot was published meanwhile, and gc removed the one that was read first
            raise IntegrityError(
                subject=str(root / INDEX),
                expected="one of the snapshots kept here",
                found=f"{name}: changed outside mx8shards",
                hint=_changed_advice(root, data),
            )
        name, known = snapshot_id(data), kept(root)
    return Snapshot(root, name, _parse(data, root / INDEX), name in known)


def load(link: Link) -> Snapshot:
    """The snapshot that a link names."""
    if link.snapshot is None:
        return current(link.root)
    known: Collection[str] = [name for name in kept(link.root) if name.startswith(link.snapshot)]
    if len(known) != 1:
        now = current_bytes(link.root)
        if now is not None and snapshot_id(now).startswith(link.snapshot):
            return current(link.root)
        found = "none" if not known else " and ".join(known)
        listing = f"`mx8shards log {quote(str(link.root))}` lists the snapshots"
        hint = not_found_hint(link.root) if now is None else listing
        raise DatasetNotFoundError(subject=str(link), expected="a snapshot of this id", found=found, hint=hint)
    (name,) = known
    data = read_index(kept_path(link.root, name))
    if snapshot_id(data) != name:
        raise IntegrityError(
            subject=str(kept_path(link.root, name)), expected=f"an index whose id is {name}", found=snapshot_id(data)
        )
    return Snapshot(link.root, name, _parse(data, kept_path(link.root, name)), kept=True)


def require_columns(base: Snapshot, columns: Columns) -> None:
    """SchemaError unless samples with these columns can be appended to the snapshot."""
    theirs = base.index.columns()
    if base.index.shards and theirs != columns:
        raise SchemaError(
            subject=str(base.root),
            expected=f"the columns of the dataset: {dict(zip(theirs.names, theirs.encodings, strict=True))}",
            found=f"{dict(zip(columns.names, columns.encodings, strict=True))}",
        )


def _parse(data: bytes, path: Path) -> Index:
    try:
        return parse_index(data)
    except FormatError as error:
        error.subject = str(path)
        if path.name == INDEX:
            error.hint = error.hint or kept_snapshot_hint(path.parent)
        raise


def _changed_advice(root: Path, data: bytes) -> str:
    """A hint for an index.json that was changed outside mx8shards: seal it, unless it is damaged or of a mirror."""
    if (root / STATE / MIRROR).exists():
        return f"its URL with @refresh opens what the store has now; {kept_snapshot_hint(root)}"
    try:
        parse_index(data)
    except FormatError as error:
        return f"it is damaged, {error}; {kept_snapshot_hint(root)}"
    return f"`mx8shards verify --seal` accepts it as a new snapshot; {kept_snapshot_hint(root)}"


def read_index(path: Path) -> bytes:
    """The bytes of an index file, at most MAX_INDEX_BYTES."""
    try:
        return read_bounded(path, MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetNotFoundError("no dataset here: there is no such file", subject=str(path)) from None
    except OSError as error:
        raise disk_error(error, "read", (path,)) from error
