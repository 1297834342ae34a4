"""What does a Writer start from: which snapshot is current, and how are the new shards named?"""

from __future__ import annotations

import re
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
    if not (root / INDEX).exists():
        _require_empty(root)
        return Base()
    if mode == "create":
        hint = 'mode="append" adds to it, "overwrite" replaces it'
        raise DatasetExistsError("the directory already contains a dataset", subject=str(root), hint=hint)
    snapshot = load(Link(root))
    if mode == "overwrite":
        return Base(snapshot, prefix=f"g{_next_generation(root):04}/")
    require_columns(snapshot, columns)
    prefix, first = _next_shard(root, snapshot)
    return Base(snapshot, keeps_samples=True, prefix=prefix, first=first)


def _next_shard(root: Path, base: Snapshot) -> tuple[str, int]:
    """Directory and number of the first shard of an append: the last shard's directory, and the next free number in it.

    After an overwrite, names without a generation are not reused: after gc they would be free, but a process may still
    read the old generation, and would find other shards under its names.
    """
    last = _IN_GENERATION.match(base.index.raw.basenames[-1]) if base.index.shards else None
    prefix = last[0] if last else ""
    there = root / prefix
    files = (path.name for path in there.iterdir()) if there.is_dir() else ()
    names = chain((name.removeprefix(prefix) for name in base.index.raw.basenames), files)
    return prefix, max((int(match[1]) + 1 for match in map(_SHARD.fullmatch, names) if match), default=0)


def _next_generation(root: Path) -> int:
    found = (_GENERATION.fullmatch(path.name) for path in root.iterdir())
    return 1 + max((int(match[1]) for match in found if match), default=0)


def _require_empty(root: Path) -> None:
    others = sorted(path.name for path in root.iterdir() if path.name != STATE)
    if others:
        raise DatasetExistsError(
            subject=str(root), expected="an empty directory, or a dataset", found=f"{others[0]!r} and no {INDEX}"
        )
