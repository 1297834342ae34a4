"""What does a Writer start from: which snapshot is current, and how are the new shards named?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from mx8shards.errors import DatasetExistsError
from mx8shards.format.columns import Columns
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, load, require_columns

Mode = Literal["create", "append", "overwrite"]
MODES: tuple[Mode, ...] = ("create", "append", "overwrite")

_SHARD = re.compile(r"shard\.(\d{5,18})\.mds(?:\.[a-z0-9]+)?")
_GENERATION = re.compile(r"g(\d{4,})")
_IN_GENERATION = re.compile(r"g\d{4,}/")


@dataclass(frozen=True, slots=True)
class Base:
    """The state of the dataset that a Writer starts from."""

    snapshot: Snapshot | None = None  # the current snapshot
    keeps_samples: bool = False  # whether the new snapshot begins with the samples of the current one
    prefix: str = ""  # the directory of the new shards, relative to the dataset's
    first: int = 0  # the number of the first new shard

    @property
    def kept(self) -> Snapshot | None:
        """The snapshot whose samples come first in the new one."""
        return self.snapshot if self.keeps_samples else None


def base_of(root: Path, mode: Mode, columns: Columns) -> Base:
    """The state to start from; an error if `mode` does not allow it. The caller must hold the dataset's lock."""

    def names(directory: str) -> Iterable[str]:
        there = root / directory
        return (path.name for path in there.iterdir()) if there.is_dir() else ()

    if not (root / INDEX).exists():
        require_empty(str(root), names(""))
        return Base()
    if mode == "create":
        raise exists_already(str(root))
    return base_after(load(Link(root)), names, mode, columns)


def base_after(snapshot: Snapshot, names: Callable[[str], Iterable[str]], mode: Mode, columns: Columns) -> Base:
    """The state to start from where `snapshot` is the current one.

    `names` gives the names in a directory of the dataset: in "" those of its root, in "g0001/" those of a generation.
    """
    if mode == "overwrite":
        return Base(snapshot, prefix=f"g{next_generation(names('')):04}/")
    require_columns(snapshot, columns)
    prefix, first = _next_shard(names, snapshot)
    return Base(snapshot, keeps_samples=True, prefix=prefix, first=first)


def exists_already(where: str) -> DatasetExistsError:
    """The error of mode "create" where a dataset is."""
    hint = 'mode="append" adds to it, "overwrite" replaces it'
    return DatasetExistsError("the directory already contains a dataset", subject=where, hint=hint)


def shard_number(name: str) -> int | None:
    """The number in the name that a Writer gives a shard's file; None for other names."""
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match else None


def _next_shard(names: Callable[[str], Iterable[str]], base: Snapshot) -> tuple[str, int]:
    """Directory and number of the first shard of an append: the last shard's directory, and the next free number in it.

    After an overwrite, names without a generation are not reused: after gc they would be free, but a process may still
    read the old generation, and would find other shards under its names.
    """
    last = _IN_GENERATION.match(base.index.raw.basenames[-1]) if base.index.shards else None
    prefix = last[0] if last else ""
    known = (name.removeprefix(prefix) for name in base.index.raw.basenames)
    numbers = map(shard_number, chain(known, names(prefix)))
    return prefix, max((number + 1 for number in numbers if number is not None), default=0)


def next_generation(names: Iterable[str]) -> int:
    """The number of a new generation, where these names are in the dataset's root."""
    found = (_GENERATION.fullmatch(name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def require_empty(where: str, names: Iterable[str]) -> None:
    """DatasetExistsError if there are names beside that of our own directory in the root of a new dataset."""
    others = sorted(name for name in names if name != STATE)
    if others:
        raise DatasetExistsError(
            subject=where, expected="an empty directory, or a dataset", found=f"{others[0]!r} and no {INDEX}"
        )
