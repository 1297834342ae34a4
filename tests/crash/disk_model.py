"""Simulated power cuts: which disk states are possible afterwards?

`Disk` replays the steps of a run on a file system with only POSIX's guarantees: a file's bytes are durable once the
file is synced, a name once its directory is synced; all other changes may or may not be on the disk, in any order.
Real file systems guarantee more order, which hides bugs. See "All File Systems Are Not Created Equal" (OSDI '14).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.fault_injection import Step


@dataclass(eq=False)
class File:
    """A file: the bytes written, and the bytes that are durable."""

    data: bytes = b""
    synced: bytes = b""

    def after_cut(self, rng: random.Random) -> bytes:
        """Bytes that the file may contain after a power cut."""
        if self.data == self.synced:
            return self.synced
        return rng.choice([self.synced, self.data, self.data[: len(self.data) // 2], bytes(len(self.data))])


Node = File | None  # None: a directory
Names = dict[str, Node]


@dataclass(frozen=True)
class Change:
    """Names that are added (with a node) or removed (False), atomically."""

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
    """The names that a process sees, the durable names, and the pending changes between them."""

    now: Names
    synced: Names = field(init=False)
    pending: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.synced = dict(self.now)

    @classmethod
    def of(cls, place: Path) -> Disk:
        """The contents of a directory, all synced."""
        paths = [place, *place.rglob("*")]
        return cls({str(p): None if p.is_dir() else File(p.read_bytes(), p.read_bytes()) for p in paths})

    def play(self, step: Step) -> None:
        """Apply a step."""
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
            )  # the cache creates its temporary files by the lock's call, which is not a step
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
        self._change({**inside, path: False})  # its contents vanish with it, synced or not

    def _make_directory(self, path: str) -> None:
        if path not in self.now:
            self._change({path: None})

    def _sync_directory(self, path: str) -> None:
        self.synced = self._with(change for change in self.pending if change.touches(path))

    def _with(self, wanted: Iterable[Change]) -> Names:
        """Make these changes, and earlier ones to the same names, durable. Returns the durable names."""
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
        """Create in `target` a possible state of `place` after a power cut, with each pending change by chance."""
        pending = list(self.pending)
        names = self._with([change for change in pending if rng.random() < chance])
        self.pending = pending
        for name in sorted(names):
            path, node = target / Path(name).relative_to(place), names[name]
            if not path.parent.is_dir() and path != target:
                continue  # its directory is not durable
            if node is None:
                path.mkdir()
            else:
                path.write_bytes(node.after_cut(rng) if chance else node.synced)
