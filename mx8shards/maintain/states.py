"""Which states of a dataset are there to check, and does each index file say what its name promises?"""

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
class States:
    """What the index files of one dataset are."""

    id: str  # of the state that was asked for
    asked: Snapshot | None  # None where its index cannot be believed
    sound: list[str] = field(default_factory=list)  # other kept snapshots, whose index files are intact
    checked: int = 0
    damage: list[Damage] = field(default_factory=list)

    def others(self, root: Path) -> Iterator[Snapshot]:
        """The other kept snapshots, one at a time: an index may be large."""
        return (load(Link(root, name)) for name in self.sound)


def find_states(link: Link) -> States:
    """The states that a link means: a pinned one alone, or else the current one and all that are kept beside it."""
    if link.snapshot is not None:
        pinned = load(link)
        return States(pinned.id, pinned, checked=1)
    data = current_bytes(link.root)
    names = kept(link.root)
    if data is None and (not names or is_unfinished(link.root)):
        current(link.root)  # says that there is no dataset: its first snapshot may be about to be published
    states = _current_state(link.root, "" if data is None else snapshot_id(data))
    for name in names:
        _check_kept(link.root, name, states)
    return states


def is_there(root: Path, name: str) -> bool:
    """Whether a state is one of the dataset's still: kept, or else current. "" is that of one without index.json."""
    if name and kept_path(root, name).exists():
        return True
    data = current_bytes(root)
    return name == ("" if data is None else snapshot_id(data))


def _current_state(root: Path, name: str) -> States:
    try:
        found = current(root)
        return States(found.id, found)
    except (FormatError, IntegrityError, DatasetNotFoundError) as error:
        return States(name, None, damage=[damage_of(error, file=INDEX, snapshot=name)])


def _check_kept(root: Path, name: str, states: States) -> None:
    file = kept_path(root, name)
    states.checked += 1
    try:
        found = snapshot_id(read_index(file))
        if found != name:
            raise IntegrityError(subject=str(file), expected=f"an index of id {name}", found=found)
    except (FormatError, IntegrityError, OSError) as error:
        states.damage.append(damage_of(error, file=str(file.relative_to(root)), snapshot=name))
    else:
        if name != states.id or states.asked is None:
            states.sound.append(name)
