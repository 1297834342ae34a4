"""How are several datasets merged into one without rewriting samples?"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

from mx8shards.disk import operations
from mx8shards.errors import (
    DatasetExistsError,
    DiskError,
    SettingError,
    ShardsError,
    finite_seconds,
    one_of,
    shown,
    true_or_false,
)
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.index import index_bytes
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.maintain.merge_inputs import find_parts, is_same, moved_parts, parse_links
from mx8shards.maintain.merge_metadata import common_extra, common_metadata
from mx8shards.maintain.parallel import Progress, Ticker, map_in_threads, thread_count
from mx8shards.maintain.removal import finish_removal
from mx8shards.shards.links import Link, RemoteLink, parse_any_target
from mx8shards.shards.local_files import check_size, shard_name, shard_path
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import sidecar_name
from mx8shards.shards.shard import open_shard_file
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import (
    INDEX,
    Snapshot,
    current,
    current_bytes,
    kept,
    load,
    sidecar_path,
    snapshot_id,
)

How = Literal["link", "copy", "move"]
Mode = Literal["create", "append"]
HOWS: tuple[How, ...] = ("link", "copy", "move")
MODES: tuple[Mode, ...] = ("create", "append")

_PART_DIRECTORY = re.compile(r"p(\d{4,})(?:/|$)")  # directory of a part's shards in the merged dataset


def merge(
    parts: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    how: How = "link",
    mode: Mode = "create",
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    onto: str | None = None,
    single_writer: bool = False,
    deadline_s: float = 300.0,
) -> str:
    """Publish the samples of all parts, in order, as one dataset, and return the snapshot's id.

    Args:
        parts: Links to datasets, in the order of their samples. A directory without index.json means all datasets
            beneath it, at any depth, sorted by name, except those in hidden directories or below another dataset:
            `merge(["data/train"], "data/train")` merges the parts that the ranks of a Writer left there. With
            `mode="append"` these are the parts that ranks wrote for the current snapshot.
        out: The directory or URL of the merged dataset. Remote parts are downloaded first, into a temporary directory.
        how: `"link"` makes hard links where possible and copies elsewhere, `"copy"` makes copies, and `"move"` makes
            links and then removes the parts with their history.
        mode: `"create"` makes a new dataset; `"append"` adds the samples to the one in `out`, if there is one.
        metadata: The metadata of the merged dataset. None: the union of the metadata of all parts, and of the dataset
            that is appended to. It is an error if values differ, or if only some parts have a list of class names
            (`classes`). Only `conversion`, which describes how one part was converted, is left out if values differ.
        progress: A function, called with the number of bytes done and the total number of bytes.
        onto: With `"append"`, the id of the snapshot that must be the current one. None: any.
        single_writer: Also merge into a store without conditional puts. No other process may write there then.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.

    No sample is rewritten. After an error nothing is published. If a `"move"` is killed after publishing, calling merge
    again with these arguments removes the remaining parts.
    """
    one_of("how", how, HOWS)
    one_of("mode", mode, MODES)
    true_or_false("single_writer", single_writer)
    deadline_s = finite_seconds("deadline_s", deadline_s)
    if onto is not None and mode != "append":
        raise SettingError(subject="onto", expected='None unless mode is "append"', found=shown(onto))
    target = parse_any_target(out)
    links = parse_links(parts)
    if isinstance(target, str) or any(isinstance(link, RemoteLink) for link in links):
        if how == "move":
            raise SettingError(subject="how", expected="'link' or 'copy' where a URL is involved", found=repr(how))
        return _merge_remotely(links, target, how, mode, metadata, progress, onto, single_writer, deadline_s)
    given = [link for link in links if isinstance(link, Link)]
    if how == "move" and any(link.snapshot for link in given):
        raise SettingError(subject="how", expected="'link' or 'copy' for a link with an id", found=repr(how))
    with operations.disk_errors("merge", target):
        _require_no_index(target, mode, given if how == "move" else ())
        with contextlib.closing(LocalPublication(target)) as publication:
            # taking the lock has finished or rolled back an interrupted publication
            if how == "move" and (name := _finish_moves(given, target)):
                return name
            _require_no_index(target, mode, ())
            _require_base(target, onto)
            return _merge(publication, given, how, metadata, progress)


def _require_base(target: Path, onto: str | None) -> None:
    """DatasetExistsError if `onto` is given and is not the current snapshot."""
    if onto is not None and (now := current(target).id) != onto:
        raise DatasetExistsError(subject=str(target), expected=f"{onto} to be the current snapshot", found=now)


def _merge_remotely(
    links: Sequence[Link | RemoteLink],
    target: Path | str,
    how: How,
    mode: Mode,
    metadata: Mapping[str, Any] | None,
    progress: Progress | None,
    onto: str | None,
    single_writer: bool,
    deadline_s: float,
) -> str:
    from mx8shards.maintain.remote_merge import MergeIntoStore, brought_here  # only for URLs

    with brought_here(links, target, deadline_s) as given:
        if isinstance(target, Path):
            parts = [str(link) for link in given]
            return merge(parts, target, how=how, mode=mode, metadata=metadata, progress=progress, onto=onto)
        append = mode == "append"
        snapshots = [load(link) for link in find_parts(given, Path(), None)]
        publication = MergeIntoStore(
            target, append=append, onto=onto, single_writer=single_writer, deadline_s=deadline_s
        )
        with contextlib.closing(publication):
            base = publication.base
            united = common_metadata(base, snapshots, metadata)
            merging = _Merge(publication, base, snapshots, publication.first_part, hard_link=False)
            return publication.put_index(merging.index_bytes(united, progress), base.id if base else None)


def _merge(
    publication: LocalPublication,
    given: Sequence[Link],
    how: How,
    metadata: Mapping[str, Any] | None,
    progress: Progress | None,
) -> str:
    target = publication.root
    base = _base(target)
    snapshots = [load(link) for link in find_parts(given, target, base.id if base else None)]
    for snapshot in snapshots:
        if is_same(snapshot.root, target) and (how == "move" or base is None or snapshot.id == base.id):
            raise DatasetExistsError("a dataset cannot be a part of itself", subject=str(target))
    united = common_metadata(base, snapshots, metadata)
    moved = list({os.path.realpath(snapshot.root): snapshot for snapshot in snapshots}.values())
    first = _next_part_number(target, base) if base else 0
    data = _Merge(publication, base, snapshots, first, hard_link=how != "copy").index_bytes(united, progress)
    name = _publish(publication, data, base, moved if how == "move" else ())
    if how == "move":
        _remove_moved([snapshot.root for snapshot in moved], target, name)
    return name


def _base(target: Path) -> Snapshot | None:
    """The snapshot to append to, or None if a new dataset is made.

    Call it with the lock held: before that, the snapshot of a killed merge may still be visible.
    """
    if (target / INDEX).exists():
        return current(target)
    if kept(target):
        hint = "give another directory"
        raise DatasetExistsError("the directory contains snapshots of a dataset", subject=str(target), hint=hint)
    return None


def _require_no_index(target: Path, mode: Mode, moved: Iterable[Link]) -> None:
    """With mode "create", DatasetExistsError if `target` has a dataset, unless some of the parts were moved into it."""
    if mode == "create" and (target / INDEX).exists() and not moved_parts(moved, target)[0]:
        raise DatasetExistsError(
            "the directory already contains a dataset",
            subject=str(target),
            hint='give another directory, or mode="append" to add to it',
        )


# files ------------------------------------------------------------------------------------------------------------


class _Target(Protocol):
    """Where the files of the parts go."""

    def put_file(self, name: str, source: Path, *, hard_link: bool) -> None:
        """Store the file `source`, to be published as `name`."""


class _Merge:
    """Links, copies or uploads the files of all parts, as p0000/shard.00000.mds and so on from part number `first`."""

    def __init__(
        self,
        target: _Target,
        base: Snapshot | None,
        snapshots: Sequence[Snapshot],
        first: int,
        *,
        hard_link: bool,
    ) -> None:
        self._target = target
        self._base = base
        self._snapshots = snapshots
        self._hard_link = hard_link
        self._first = first
        self._before = base.index.shards if base else 0

    def index_bytes(self, metadata: Mapping[str, Any], progress: Progress | None) -> bytes:
        """Store all files, and return the index of the result."""
        ticker = Ticker(progress, sum(int(snapshot.index.stored_bytes.sum()) for snapshot in self._snapshots))
        numbered = [(n, s, i) for n, s in enumerate(self._snapshots, self._first) for i in range(s.index.shards)]
        with map_in_threads(partial(self._take, ticker), numbered, thread_count()) as entries:
            taken = list(entries)
        base = self._base
        old: Iterable[Entry] = map(base.index.entry, range(self._before)) if base else ()
        return index_bytes(
            chain(old, taken),
            metadata=metadata,
            sidecars=(*(base.index.sidecars if base else ()), *self._take_sidecars()),
            parent=base.id if base else None,
            extra=common_extra([base, *self._snapshots] if base else self._snapshots),
        )

    def _take(self, ticker: Ticker, which: tuple[int, Snapshot, int]) -> Entry:
        number, snapshot, i = which
        entry = snapshot.index.entry(i)
        moved = replace(entry, raw=_below(number, entry.raw), zip=entry.zip and _below(number, entry.zip))
        path, name = shard_path(snapshot, entry.stored), shard_name(snapshot, entry.stored)
        check_size(open_shard_file(path, name), entry.stored, name)
        self._target.put_file(moved.stored.basename, path, hard_link=self._hard_link)
        ticker.tick(entry.stored.size_bytes)
        return moved

    def _take_sidecars(self) -> tuple[Sidecar, ...]:
        """Link or copy the parts' side-cars and shift the shards they cover. Parts may share or lack side-cars."""
        found: list[Sidecar] = []
        files: dict[str, Path] = {}
        before = self._before
        for snapshot in self._snapshots:
            for sidecar in snapshot.index.sidecars:
                if open_sidecar(snapshot, sidecar) is not None:
                    files[sidecar_name(sidecar)] = sidecar_path(snapshot.root, sidecar.blake3)
                    found.append(sidecar.moved(before))
            before += snapshot.index.shards
        for name, path in files.items():
            self._target.put_file(name, path, hard_link=self._hard_link)
        return tuple(found)


def _below(number: int, info: FileInfo) -> FileInfo:
    return replace(info, basename=f"p{number:04}/{info.basename}")


def _next_part_number(root: Path, base: Snapshot) -> int:
    """One more than the highest number of a part's directory, in the base snapshot or on disk."""
    directories = (path.name for path in root.iterdir())
    found = (_PART_DIRECTORY.match(name) for name in chain(base.index.raw.basenames, directories))
    return 1 + max((int(match[1]) for match in found if match), default=-1)


# how="move" -------------------------------------------------------------------------------------------------------
#
# Each part records its intended removal before the merged index is published. So a part is always either complete, or
# the next process that opens it finishes the removal.


def _publish(publication: LocalPublication, data: bytes, base: Snapshot | None, moved: Sequence[Snapshot]) -> str:
    """Publish the index. Each part in `moved` first records that this snapshot replaces it."""
    try:
        for part in moved:
            _hand_over(part, publication.root, snapshot_id(data))
        return publication.put_index(data, base.id if base else None)
    except BaseException:
        if current_bytes(publication.root) != data:
            for part in moved:
                with contextlib.suppress(ShardsError):  # on failure, the next writer of the part rolls back
                    LocalPublication(part.root).close()
        raise


def _hand_over(part: Snapshot, target: Path, name: str) -> None:
    publication = LocalPublication(part.root)
    try:
        if load(Link(part.root)).id != part.id:
            raise DiskError("another process has published here since the merge began", subject=str(part.root))
        publication.hand_over(target, name)
    finally:
        publication.close()


def _remove_moved(roots: Iterable[Path], target: Path, name: str) -> None:
    for root in roots:
        try:
            with operations.disk_errors("remove", root):
                finish_removal(root)
                if (root / INDEX).exists():
                    raise DiskError(
                        "another snapshot was published here since it was merged, so it is not removed",
                        subject=str(root),
                    )
        except DiskError as error:
            error.hint = f"the merged dataset is already published, as {target}@{name}"
            raise


def _finish_moves(given: Iterable[Link], target: Path) -> str | None:
    """Finish removing parts that an earlier, killed run has merged into `target`.

    Returns the snapshot they are in if all given parts are such parts, because then that run was this call. Otherwise
    returns None.
    """
    moved, others = moved_parts(given, target)
    for root, name in moved.items():
        _remove_moved([root], target, name)
    return None if others or not moved else next(iter(moved.values()))
