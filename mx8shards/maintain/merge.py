"""How do several datasets become one, without a sample being written anew?"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mx8shards.disk import publish, steps
from mx8shards.errors import DatasetExistsError, DiskError, FormatError, SchemaError, SettingError, one_of
from mx8shards.format.columns import Columns
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.index import checked_metadata, index_bytes
from mx8shards.format.jsontext import dump, short
from mx8shards.format.sidecars import Sidecar
from mx8shards.maintain.parts import find_parts
from mx8shards.maintain.work import Progress, Ticker, in_order, thread_count
from mx8shards.shards.links import Link, parse_target
from mx8shards.shards.open_shard import check_size, shard_name, shard_path
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import files_of, remove_files, sidecar_name
from mx8shards.shards.shard import open_shard_file
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import INDEX, STATE, Snapshot, kept, load, sidecar_path

How = Literal["link", "copy", "move"]
HOWS: tuple[How, ...] = ("link", "copy", "move")

_logger = logging.getLogger("mx8shards")


def merge(
    parts: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    how: How = "link",
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> str:
    """Publish the samples of all parts, one after the other, as one dataset in `out`, and return the snapshot's id.

    A part is a dataset, or a directory of datasets at any depth: `merge(["data/train"], "data/train")` joins what the
    ranks of a Writer left there. Shards become hard links where that is possible ("link"), copies, or, with "move",
    links after which the parts are removed with their history. Metadata are united; for a key on which parts disagree
    give `metadata=`. Should anything be wrong, nothing is published.
    """
    one_of("how", how, HOWS)
    target = parse_target(out)
    with steps.refusals("merge", target):
        _require_no_index(target)
        links = find_parts(parts)
        if how == "move" and any(link.snapshot for link in links):
            raise SettingError(subject="merge", expected='whole datasets for how="move"', found="a link with an id")
        snapshots = [load(link) for link in links]
        _require_equal_columns(snapshots)
        united = _united_metadata(snapshots) if metadata is None else checked_metadata(metadata)
        with contextlib.closing(LocalPublication(target)) as publication:
            _require_no_index(target)
            _require_no_history(target)
            name = _Merge(publication, snapshots, hard_link=how != "copy").publish(united, progress)
    if how == "move":
        for snapshot in snapshots:
            try:
                with steps.refusals("remove", snapshot.root):
                    _remove_part(snapshot)
            except DiskError as error:
                error.hint = f"the merged dataset is in place already, as {target}@{name}"
                raise
    return name


def _require_no_index(out: Path) -> None:
    if (out / INDEX).exists():
        raise DatasetExistsError("a dataset is here already", subject=str(out), hint="merge makes a new one")


def _require_no_history(out: Path) -> None:
    """To be asked under the lock: before, the snapshot of a merge that was killed may still be there."""
    if kept(out):
        raise DatasetExistsError("earlier snapshots are kept here", subject=str(out), hint="merge makes a new dataset")


# what all parts have to agree on ----------------------------------------------------------------------------------


def _require_equal_columns(snapshots: Sequence[Snapshot]) -> None:
    first: Snapshot | None = None
    for snapshot in snapshots:
        if not snapshot.index.shards:
            continue
        first = first or snapshot
        ours, theirs = _columns(first), _columns(snapshot)
        if theirs != ours:
            raise SchemaError(
                subject=str(snapshot.root),
                expected=f"the columns of {first.root}: {dict(zip(ours.names, ours.encodings, strict=True))}",
                found=f"{dict(zip(theirs.names, theirs.encodings, strict=True))}",
            )


def _columns(snapshot: Snapshot) -> Columns:
    try:
        return snapshot.index.columns()
    except FormatError as error:
        error.subject = str(snapshot.root / INDEX)
        raise


def _united_metadata(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    came_from: dict[str, Path] = {}
    for snapshot in snapshots:
        for key, value in snapshot.index.metadata.items():
            if dump(united.setdefault(key, value)) != dump(value):
                raise SchemaError(
                    subject=f"metadata {key!r}",
                    expected=f"{short(united[key])} in all parts, as in {came_from[key]}",
                    found=f"{short(value)} in {snapshot.root}",
                    hint="metadata={…} says what the merged dataset gets",
                )
            came_from.setdefault(key, snapshot.root)
    return united


def _united_extra(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Top-level keys of other programs: those that no part contradicts."""
    texts: dict[str, set[str]] = {}
    values: dict[str, Any] = {}
    for snapshot in snapshots:
        for key, value in snapshot.index.extra.items():
            texts.setdefault(key, set()).add(dump(value))
            values[key] = value
    for key in [key for key, found in texts.items() if len(found) > 1]:
        _logger.warning("merge: the parts differ in %s's key %r, which is left out", INDEX, key)
        del values[key]
    return values


# files ------------------------------------------------------------------------------------------------------------


class _Merge:
    """Brings the files of all parts under their new names and writes the index that names them."""

    def __init__(self, publication: LocalPublication, snapshots: Sequence[Snapshot], *, hard_link: bool) -> None:
        self._publication = publication
        self._snapshots = snapshots
        self._hard_link = hard_link

    def publish(self, metadata: Mapping[str, Any], progress: Progress | None) -> str:
        """The new snapshot's id."""
        ticker = Ticker(progress, sum(int(snapshot.index.stored_bytes.sum()) for snapshot in self._snapshots))
        numbered = [(n, s, i) for n, s in enumerate(self._snapshots) for i in range(s.index.shards)]
        with in_order(partial(self._take, ticker), numbered, thread_count()) as entries:
            taken = list(entries)
        sidecars = self._take_sidecars()
        data = index_bytes(taken, metadata=metadata, sidecars=sidecars, extra=_united_extra(self._snapshots))
        return self._publication.put_index(data, None)

    def _take(self, ticker: Ticker, which: tuple[int, Snapshot, int]) -> Entry:
        number, snapshot, i = which
        entry = snapshot.index.entry(i)
        moved = replace(entry, raw=_below(number, entry.raw), zip=entry.zip and _below(number, entry.zip))
        path, name = shard_path(snapshot, entry.stored), shard_name(snapshot, entry.stored)
        check_size(open_shard_file(path, name), entry.stored, name)
        self._publication.put_file(moved.stored.basename, path, hard_link=self._hard_link)
        ticker.tick(entry.stored.size_bytes)
        return moved

    def _take_sidecars(self) -> tuple[Sidecar, ...]:
        """Those of the parts, each covering the same shards as before. Parts may share one, and may lack one."""
        found: list[Sidecar] = []
        files: dict[str, Path] = {}
        before = 0
        for snapshot in self._snapshots:
            for sidecar in snapshot.index.sidecars:
                if open_sidecar(snapshot, sidecar) is not None:
                    files[sidecar_name(sidecar)] = sidecar_path(snapshot.root, sidecar.blake3)
                    found.append(sidecar.moved(before))
            before += snapshot.index.shards
        for name, path in files.items():
            self._publication.put_file(name, path, hard_link=self._hard_link)
        return tuple(found)


def _below(number: int, info: FileInfo) -> FileInfo:
    return replace(info, basename=f"p{number:04}/{info.basename}")


# how="move" -------------------------------------------------------------------------------------------------------


def _remove_part(part: Snapshot) -> None:
    """Remove a part that was merged, with its history: the files that are a dataset's, and no other."""
    root = part.root
    if not (root / INDEX).exists():
        return  # it was given twice
    with contextlib.closing(LocalPublication(root)):
        if load(Link(root)).id != part.id:
            raise DiskError("something was published here since it was merged, so it is not removed", subject=str(root))
        states = kept(root)
        files = files_of(part.index).union(*(files_of(load(Link(root, name)).index) for name in states))
        steps.unlink(root / INDEX)  # first: what is left of it is no dataset
        steps.sync_directory(root)
        remove_files(root, files, states)
        publish.remove_tree(root / STATE / "cache")
        steps.unlink(root / STATE / "lock")
    emptied = {root, root / STATE, root / STATE / "sidecars", root / STATE / "snapshots"}
    if root.parent.name == "parts" and root.parent.parent.name == STATE:
        emptied.add(root.parent)
    for directory in sorted(emptied, reverse=True):
        with contextlib.suppress(DiskError):  # something else lies there
            steps.remove_directory(directory)
