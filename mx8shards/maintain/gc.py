"""Garbage collection (`mx8shards gc`): which files belong only to old snapshots, and may be removed?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.map import ReadFile
from mx8shards.errors import SettingError, finite_seconds, real_number, shown, whole_number
from mx8shards.format.index import Index
from mx8shards.maintain.conversion import removable_parts, remove_part
from mx8shards.maintain.log import history
from mx8shards.maintain.parallel import Progress, Ticker
from mx8shards.maintain.removal import Key, collect_parts, shards_by_content
from mx8shards.shards.cache import cached_name, copies_in
from mx8shards.shards.links import Link, RemoteLink, parse_any
from mx8shards.shards.local_files import shard_path
from mx8shards.shards.parts import part_roots
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import files_of, remove_files
from mx8shards.shards.snapshots import STATE, Snapshot, current_bytes, kept_path, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The result of `gc`."""

    snapshots: tuple[str, ...]
    files: tuple[str, ...]  # relative to the dataset's directory
    freed_bytes: int  # size of the removed files that had no other hard link, indexes included
    kept: tuple[str, ...]  # the remaining snapshots
    parts: tuple[str, ...] = ()  # parts of ranks that were kept, because no snapshot has their samples yet
    removed_parts: tuple[str, ...] = ()  # parts whose samples are in a snapshot, or can no longer be added to one

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


def gc(
    link: str | os.PathLike[str],
    *,
    keep: int = 3,
    older_than_days: float | None = None,
    deadline_s: float = 300.0,
    progress: Progress | None = None,
) -> Removed:
    """Remove old snapshots, and the shards, side-cars and decompressed copies that only these use.

    Args:
        link: The dataset's directory or URL.
        keep: How many of the newest snapshots to keep, in `log`'s order. The current one is always kept, even with 0.
        older_than_days: Of a URL, no object younger than this is removed. None: seven days. Writers may be uploading
            young objects, and readers of a snapshot that was just replaced may still fetch them.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.
        progress: A function, called with the number of bytes removed and the total number of bytes to remove.

    Of a URL, objects that killed or interrupted writers left are removed too, also parts of incomplete uploads.

    Parts that ranks or a conversion wrote below the dataset are removed too, if a snapshot has all their samples and
    no process is writing them. Files that never belonged to a snapshot are not removed. If gc is killed, the next
    operation that changes the dataset finishes it.
    """
    where = parse_any(link)
    if where.snapshot is not None:
        expected = "a directory or URL, without @sha256:…"
        raise SettingError(subject=str(where), expected=expected, found="a snapshot")
    keep = whole_number("keep", keep, 0)
    deadline_s = finite_seconds("deadline_s", deadline_s)
    if isinstance(where, RemoteLink):
        from mx8shards.maintain.remote_gc import collect  # only for URLs

        limit = 7.0 if older_than_days is None else older_than_days
        days = real_number("older_than_days", limit, "a number of days from 0", lambda days: 0 <= days < math.inf)
        found = collect(where.url, keep, days * 24 * 3600, deadline_s, progress)
        return Removed(snapshots=found.snapshots, files=found.files, freed_bytes=found.freed_bytes, kept=found.kept)
    if older_than_days is not None:
        raise SettingError(subject="older_than_days", expected="None for a local dataset", found=shown(older_than_days))
    if current_bytes(where.root) is None:
        load(where)  # raises: there is no dataset
    with (
        operations.disk_errors("gc", where.root),
        contextlib.closing(LocalPublication(where.root)),
        removable_parts(where.root) as conversions,
    ):
        return _collect(where.root, keep, conversions, progress)


def _collect(root: Path, keep: int, conversions: Sequence[Path], progress: Progress | None) -> Removed:
    """`conversions` are the unused parts of conversions."""
    wanted: list[str] = []
    unwanted: list[str] = []
    needed: set[str] = set()
    names: set[str] = set()
    published: dict[Key, str] = {}
    now = ""
    has_parts = bool(part_roots(root))

    def look(index: Index) -> set[str]:
        if has_parts:
            published.update(shards_by_content(index))
        return _names(index)

    for i, (entry, files) in enumerate(history(Link(root), look)):
        stays = i < keep or entry.current
        now = entry.snapshot if entry.current else now
        (wanted if stays else unwanted).append(entry.snapshot)
        (needed if stays else names).update(files)
    names -= needed
    parts = list(collect_parts(root, now, published))
    there = [name for name in sorted(names) if (root / name).is_file()]
    stale = list(_stale(root, wanted))
    unused = [(path, sum(map(_freed_bytes, publish.files_below(path)))) for path in conversions]
    unused = [(path, freed) for path, freed in unused if remove_part(path)]
    freed = sum(freed for _, freed in (*parts, *unused) if freed)
    indexes = [kept_path(root, name) for name in unwanted]
    freed += sum(map(_freed_bytes, [*(root / name for name in there), *stale, *indexes]))
    ticker = Ticker(progress, freed)
    ticker.tick(0)
    if unwanted:
        remove_files(root, there, unwanted)
    for path in stale:
        _remove_cached(path)
    ticker.tick(freed)
    return Removed(
        snapshots=tuple(unwanted),
        files=(*there, *(str(path.relative_to(root)) for path in (*stale, *(path for path, _ in unused)))),
        freed_bytes=freed,
        kept=tuple(wanted),
        parts=tuple(name for name, freed in parts if freed is None),
        removed_parts=tuple(name for name, freed in parts if freed is not None),
    )


def _freed_bytes(path: Path) -> int:
    """The bytes that removing this path frees: none while another hard link to the file remains."""
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return 0  # a temporary file in the cache, which a reader has renamed meanwhile
    return stat.st_size if stat.st_nlink == 1 else 0


def _names(index: Index) -> set[str]:
    return set(map(sys.intern, files_of(index)))  # saves memory: most snapshots share most names


# the cache of decompressed shards ---------------------------------------------------------------------------------


def _stale(root: Path, wanted: Iterable[str]) -> Iterator[Path]:
    """Copies that no remaining snapshot uses, and temporary files left by killed processes."""
    found = copies_in(root / STATE / "cache")
    if found:
        try:
            needed = {name for snapshot in wanted for name in _cached_names(load(Link(root, snapshot)))}
        except OSError:  # a shard file is missing, and its only copy may be in the cache
            return
        yield from (path for path in found if path.name not in needed)


def _cached_names(snapshot: Snapshot) -> Iterator[str]:
    for i in np.flatnonzero(snapshot.index.compressed).tolist():
        entry = snapshot.index.entry(i)
        yield cached_name(entry, ReadFile(shard_path(snapshot, entry.stored)))


def _remove_cached(path: Path) -> None:
    if path.suffix == ".tmp":
        with lock.only_writer(path):  # a process that was writing it has renamed it by now
            operations.unlink(path)
    else:
        operations.unlink(path)
