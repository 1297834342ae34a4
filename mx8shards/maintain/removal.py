"""How does a part go that a dataset has taken in?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import operations
from mx8shards.disk.publish import files_below
from mx8shards.errors import DiskError
from mx8shards.format.entries import Entry
from mx8shards.format.index import Index
from mx8shards.maintain.conversion import is_part
from mx8shards.shards.parts import base_digits, parse_rank, part_roots
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import moved_to
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, current

Key = tuple[object, ...]


def remove_part(root: Path) -> None:
    """Finish what was begun in a part: if a dataset has taken it in, its files go, and empty directories."""
    LocalPublication(root).close()
    emptied = [root]
    if root.parent.name == "parts" and root.parent.parent.name == STATE:
        emptied.append(root.parent)
    for directory in emptied:
        if directory.is_dir() and not any(directory.iterdir()):
            with contextlib.suppress(DiskError):  # something has come to lie there
                operations.remove_directory(directory)


def standing_shards(index: Index) -> dict[Key, str]:
    """Where the shards of a snapshot lie, by their contents. One without a content hash is none of them."""
    found = {}
    for entry in map(index.entry, range(index.shards)):
        if key := _key(entry):
            found[key] = entry.stored.basename
    return found


def _key(entry: Entry) -> Key | None:
    digest = entry.stored.hashes.get("blake3")
    columns = entry.kind.columns
    facts = (columns.names, columns.encodings, entry.kind.compression, entry.samples, entry.stored.size_bytes, digest)
    return facts if digest else None


def collect_parts(root: Path, now: str, standing: dict[Key, str]) -> Iterator[tuple[str, int | None]]:
    """Remove the parts below `root` that are of no more use; each one's name, and the bytes freed, or None if it stays.

    `now` is the current snapshot, `standing` has the shards of all. Of no more use are: a part that was moved but for
    its removal, what a killed rank left that published nothing, and a part whose every sample stands in the dataset.
    A part stays that somebody is writing, or that a merge can still append to the current snapshot: its samples may be
    meant to stand there twice. Parts of conversions are the business of `maintain.conversion`.
    """
    for part in part_roots(root):
        if is_part(part) or not (parse_rank(part.name) or moved_to(part)):
            continue
        freed = _freed_bytes(part)
        try:
            removed = _collect_part(root, part, base_digits(now), standing)
        except DiskError as error:
            if error.errno:
                raise
            removed = False  # a rank has its lock
        yield str(part.relative_to(root)), freed if removed else None


def _collect_part(root: Path, part: Path, now: str, standing: dict[Key, str]) -> bool:
    remove_part(part)
    if not (part / INDEX).exists():
        return not part.exists()
    with contextlib.closing(LocalPublication(part)) as publication:
        snapshot = current(part)
        rank = parse_rank(part.name)
        if rank is None or rank.base == now or not _stands(root, snapshot, standing):
            return False
        publication.remove()
    remove_part(part)
    return not part.exists()


def _stands(root: Path, part: Snapshot, standing: dict[Key, str]) -> bool:
    """Whether every shard of a part is one of the dataset's, and its file is there."""
    for entry in map(part.index.entry, range(part.index.shards)):
        name = standing.get(_key(entry) or ())
        if name is None:
            return False
        try:
            if (root / name).stat().st_size != entry.stored.size_bytes:
                return False
        except FileNotFoundError:
            return False
    return True


def _freed_bytes(part: Path) -> int:
    return sum(stat.st_size for stat in map(Path.lstat, files_below(part)) if stat.st_nlink == 1)
