"""How are parts removed after a merge has added their samples to a dataset?"""

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


def finish_removal(root: Path) -> None:
    """Finish an interrupted operation on a part. If it was moved into a dataset, remove its files and directory."""
    LocalPublication(root).close()
    emptied = [root]
    if root.parent.name == "parts" and root.parent.parent.name == STATE:
        emptied.append(root.parent)
    for directory in emptied:
        if directory.is_dir() and not any(directory.iterdir()):
            with contextlib.suppress(DiskError):  # a file was created there meanwhile
                operations.remove_directory(directory)


def shards_by_content(index: Index) -> dict[Key, str]:
    """The basenames of a snapshot's shards, by content. Shards without a content hash are left out."""
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


def collect_parts(root: Path, now: str, published: dict[Key, str]) -> Iterator[tuple[str, int | None]]:
    """Remove the useless parts of ranks below `root`. Yields the name of each part and the bytes freed, None if kept.

    `now` is the current snapshot; `published` has the shards of all snapshots, by content. A part is useless if a merge
    has begun to remove it, if a killed rank published nothing in it, or if all its samples are in the dataset. A part
    is kept if a process is writing it, or if it was written to append to the current snapshot, because the user may
    want its samples twice. Parts of conversions are handled in `maintain.conversion`.
    """
    for part in part_roots(root):
        if is_part(part) or not (parse_rank(part.name) or moved_to(part)):
            continue
        freed = _freed_bytes(part)
        try:
            removed = _collect_part(root, part, base_digits(now), published)
        except DiskError as error:
            if error.errno:
                raise
            removed = False  # a rank holds its lock
        yield str(part.relative_to(root)), freed if removed else None


def _collect_part(root: Path, part: Path, now: str, published: dict[Key, str]) -> bool:
    finish_removal(part)
    if not (part / INDEX).exists():
        return not part.exists()
    with contextlib.closing(LocalPublication(part)) as publication:
        snapshot = current(part)
        rank = parse_rank(part.name)
        if rank is None or rank.base == now or not _is_published(root, snapshot, published):
            return False
        publication.remove()
    finish_removal(part)
    return not part.exists()


def _is_published(root: Path, part: Snapshot, published: dict[Key, str]) -> bool:
    """Whether every shard of a part is also in the dataset, with a file of the right size."""
    for entry in map(part.index.entry, range(part.index.shards)):
        name = published.get(_key(entry) or ())
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
