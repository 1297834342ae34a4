"""Which snapshots of a dataset does `verify` check, and does the hash of each kept index match its name?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError
from mx8shards.maintain.report import Damage, damage_of
from mx8shards.shards.links import Link
from mx8shards.shards.recovery import is_unfinished
from mx8shards.shards.snapshots import (
    INDEX,
    Snapshot,
    current,
    current_bytes,
    kept,
    kept_path,
    load,
    read_index,
    snapshot_id,
)


@dataclass
class SnapshotsToCheck:
    """The snapshots to check, and the damage found in index files."""

    id: str  # of the requested snapshot
    requested: Snapshot | None  # None if its index is damaged
    intact: list[str] = field(default_factory=list)  # ids of the other kept snapshots whose index files are intact
    checked: int = 0
    damage: list[Damage] = field(default_factory=list)

    def others(self, root: Path) -> Iterator[Snapshot]:
        """The other kept snapshots, loaded one at a time because an index may be large."""
        return (load(Link(root, name)) for name in self.intact)


def find_snapshots(link: Link) -> SnapshotsToCheck:
    """The snapshots to check for a link: only the pinned one, or the current one and all other kept ones."""
    if link.snapshot is not None:
        pinned = load(link)
        return SnapshotsToCheck(pinned.id, pinned, checked=1)
    data = current_bytes(link.root)
    names = kept(link.root)
    if data is None and (not names or is_unfinished(link.root)):
        current(link.root)  # raises unless the first snapshot has been published meanwhile
    snapshots = _current_snapshot(link.root, "" if data is None else snapshot_id(data))
    for name in names:
        _check_kept(link.root, name, snapshots)
    return snapshots


def is_still_there(root: Path, name: str) -> bool:
    """Whether the dataset still has this snapshot, as a kept or the current one. "": whether index.json is missing."""
    if name and kept_path(root, name).exists():
        return True
    data = current_bytes(root)
    return name == ("" if data is None else snapshot_id(data))


def _current_snapshot(root: Path, name: str) -> SnapshotsToCheck:
    try:
        found = current(root)
        return SnapshotsToCheck(found.id, found)
    except (FormatError, IntegrityError, DatasetNotFoundError) as error:
        return SnapshotsToCheck(name, None, damage=[damage_of(error, file=INDEX, snapshot=name)])


def _check_kept(root: Path, name: str, snapshots: SnapshotsToCheck) -> None:
    file = kept_path(root, name)
    snapshots.checked += 1
    try:
        found = snapshot_id(read_index(file))
        if found != name:
            raise IntegrityError(subject=str(file), expected=f"an index whose id is {name}", found=found)
    except (FormatError, IntegrityError, OSError) as error:
        snapshots.damage.append(damage_of(error, file=str(file.relative_to(root)), snapshot=name))
    else:
        if name != snapshots.id or snapshots.requested is None:
            snapshots.intact.append(name)
