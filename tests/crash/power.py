"""Simulated power cuts: which disk states are possible afterwards?

`Disk` replays the steps of a run on a file system with only POSIX's guarantees: a file's bytes are durable once the
file was synced, a name once its directory was synced; everything else may or may not be on the disk, in any order. Real
file systems guarantee more order, which hides bugs. See "All File Systems Are Not Created Equal" (OSDI '14).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.double import Step


@dataclass(eq=False)
class File:
    """A file: what was written to it, and what of that is certain to be there."""

    data: bytes = b""
    synced: bytes = b""

    def after_cut(self, rng: random.Random) -> bytes:
        """Bytes that may be found in it."""
        if self.data == self.synced:
            return self.synced
        return rng.choice([self.synced, self.data, self.data[: len(self.data) // 2], bytes(len(self.data))])


Node = File | None  # None: a directory
Names = dict[str, Node]


@dataclass(frozen=True)
class Change:
    """Names that appear with a node or vanish (False), all at once or not at all."""

    names: Mapping[str, Node | bool]

    def applied(self, names: Names) -> None:
        for name, node in self.names.items():
            if isinstance(node, bool):
                names.pop(name, None)
            else:
                names[name] = node

    def touches(self, directory: str) -> bool:
        return any(os.path.dirname(name) == directory for name in self.names)


@dataclass
class Disk:
    """The names as a process sees them, those that would outlive a power cut, and the changes in between."""

    now: Names
    synced: Names = field(init=False)
    pending: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.synced = dict(self.now)

    @classmethod
    def of(cls, place: Path) -> Disk:
        """What lies below a directory, all of it synced."""
        paths = [place, *place.rglob("*")]
        return cls({str(p): None if p.is_dir() else File(p.read_bytes(), p.read_bytes()) for p in paths})

    def play(self, step: Step) -> None:
        """Do what a step does."""
        name, arguments = step
        paths = [str(argument) for argument in arguments if isinstance(argument, Path)]
        getattr(self, f"_{name}")(*paths, *(argument for argument in arguments if not isinstance(argument, Path)))

    def _change(self, names: Mapping[str, Node | bool]) -> None:
        change = Change(names)
        change.applied(self.now)
        self.pending.append(change)

    def _file(self, path: str) -> File:
        if path not in self.now:
            self._change(
                {path: File()}
            )  # the decompression cache opens its drafts by the lock's call, which is no step
        node = self.now[path]
        assert node is not None
        return node

    def _create(self, path: str) -> None:
        self._change({path: File()})

    def _write(self, path: str, _descriptor: int, data: Any) -> None:
        self._file(path).data += bytes(data)

    def _truncate(self, path: str, _descriptor: int, size: int) -> None:
        self._file(path).data = self._file(path).data[:size]

    def _sync(self, path: str, _descriptor: int) -> None:
        self._file(path).synced = self._file(path).data

    def _rename(self, source: str, target: str) -> None:
        self._change({source: False, target: self.now[source]})

    def _link(self, source: str, target: str) -> None:
        self._change({target: self.now[source]})

    def _unlink(self, path: str) -> None:
        if path in self.now:
            self._change({path: False})

    def _remove_directory(self, path: str) -> None:
        known = self.synced.keys() | {name for change in self.pending for name in change.names}
        inside = {name: False for name in known if name.startswith(f"{path}/")}
        self._change({**inside, path: False})  # without it there is nothing in it, synced or not

    def _make_directory(self, path: str) -> None:
        if path not in self.now:
            self._change({path: None})

    def _sync_directory(self, path: str) -> None:
        self.synced = self._with(change for change in self.pending if change.touches(path))

    def _with(self, wanted: Iterable[Change]) -> Names:
        """The synced names after these changes and all earlier ones to the same names; they are pending no longer."""
        chosen, names = set(map(id, wanted)), set[str]()
        for change in reversed(self.pending):
            if id(change) in chosen or names & change.names.keys():
                chosen.add(id(change))
                names |= change.names.keys()
        found = dict(self.synced)
        for change in self.pending:
            if id(change) in chosen:
                change.applied(found)
        self.pending = [change for change in self.pending if id(change) not in chosen]
        return found

    def cut(self, place: Path, target: Path, rng: random.Random, chance: float) -> None:
        """Put into `target` what may be left of `place`: of what was not synced, every change with this chance."""
        pending = list(self.pending)
        names = self._with([change for change in pending if rng.random() < chance])
        self.pending = pending
        for name in sorted(names):
            path, node = target / Path(name).relative_to(place), names[name]
            if not path.parent.is_dir() and path != target:
                continue  # its directory did not make it
            if node is None:
                path.mkdir()
            else:
                path.write_bytes(node.after_cut(rng) if chance else node.synced)
