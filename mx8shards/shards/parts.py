"""How are the directories of parts named, which ranks and conversions write before a merge publishes them?

    <root>/.mx8shards/parts/rank-00000-of-00004                        of a dataset that is not published yet
    <root>/.mx8shards/parts/rank-00000-of-00004-on-<16 hex digits>     to append to the snapshot with this id prefix
    <root>/.mx8shards/parts/<32 hex digits>                            of a conversion

Each part is a complete dataset. The name of a part to append contains the snapshot that it was written for: after a
merge has published it, another snapshot is current, and so no later merge will append it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.errors import DatasetExistsError, SettingError, shown, whole_number
from mx8shards.format.columns import Columns
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import INDEX, STATE, load, require_columns

_RANK = re.compile(r"rank-(\d{5,})-of-(\d{5,})(?:-on-([0-9a-f]{16}))?")


class RankPart(NamedTuple):
    """A rank's part: its rank, the world size, and the snapshot that it is appended to."""

    rank: int
    world_size: int
    base: str  # the first 16 hex digits of the snapshot's id, or ""

    @property
    def name(self) -> str:
        """The name of the part's directory."""
        return f"rank-{self.rank:05}-of-{self.world_size:05}" + (f"-on-{self.base}" if self.base else "")


def base_digits(snapshot: str | None) -> str:
    """The snapshot that a part is appended to, as written in the part's name."""
    return "" if snapshot is None else snapshot.removeprefix("sha256:")[:16]


def parse_rank(name: str) -> RankPart | None:
    """Parse the name of a directory; None if it is not a rank's part."""
    match = _RANK.fullmatch(name)
    return RankPart(int(match[1]), int(match[2]), match[3] or "") if match else None


def parts_directory(root: Path) -> Path:
    """The directory of the parts of a dataset."""
    return root / STATE / "parts"


def part_roots(root: Path) -> list[Path]:
    """The directories of the parts of a dataset, sorted. Symlinks are ignored."""
    directory = parts_directory(root)
    if directory.is_symlink() or directory.parent.is_symlink() or not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())


def part_root(out: Path, mode: str, columns: Columns, rank: Any, world_size: Any) -> Path:
    """The directory for a rank's part; an error if the parts could not be merged into `out` later."""
    if rank is None or world_size is None:
        found = f"rank={shown(rank)}, world_size={shown(world_size)}"
        raise SettingError(subject="rank and world_size", expected="both, or neither", found=found)
    world_size = whole_number("world_size", world_size, 1)
    rank = whole_number("rank", rank, 0, world_size - 1)
    base = load(Link(out)) if (out / INDEX).exists() else None
    part = parts_directory(out) / RankPart(rank, world_size, base_digits(base.id if base else None)).name
    if base is None:
        return part
    if mode == "create":
        hint = 'mode="append" writes parts that merge(…, mode="append") adds to it'
        raise DatasetExistsError("the directory already contains a dataset", subject=str(out), hint=hint)
    if mode == "overwrite":
        hint = "without a rank, mode='overwrite' replaces the samples; or let the ranks write to a new directory"
        raise SettingError(subject="mode", expected=f"'append', as ranks add to {out}", found=repr(mode), hint=hint)
    if (part / INDEX).exists():
        hint = f'merge([out], out, mode="append") publishes it; remove {part} to write it anew'
        raise DatasetExistsError(f"rank {rank} has written its part already", subject=str(out), hint=hint)
    require_columns(base, columns)
    return part
