"""How does a snapshot come from a store into a local dataset (`sync` downwards)? Verified, and with the index last.

A file gets its final name only after its size and hash were checked, and index.json comes last. Interrupted downloads
go on where they stopped, because files that are there already are checked instead of fetched. Nothing is ever deleted.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mx8shards.disk import operations
from mx8shards.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    DiskError,
    FormatError,
    IntegrityError,
    RemoteError,
)
from mx8shards.format.entries import FileInfo
from mx8shards.format.index import Index
from mx8shards.remote import fetching
from mx8shards.remote.remote_snapshots import RemoteIndex, find_snapshot, read_kept, require_current
from mx8shards.remote.store import Store
from mx8shards.remote.transfers import fetch_all
from mx8shards.remote.upload_snapshot import agree, stored_files
from mx8shards.shards.links import Link
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import sidecar_file
from mx8shards.shards.snapshots import STATE, current_bytes, kept, load

_IF_FULL = "free some space, and sync again: it goes on with the files that are missing"
_CLAIM_S = 3600.0  # the longest wait for another job that fetches the same file into this directory

_logger = logging.getLogger("mx8shards")


def download_snapshot(
    store: Store, snapshot: str | None, root: Path, *, planned: Callable[[int], Callable[[int], object]]
) -> str:
    """Make a remote snapshot (None: the current one) the current one of a local dataset, which need not exist.

    `planned` gets the number of bytes to fetch or check, and returns a function that is called with those done.
    DatasetExistsError, before anything is fetched, if the local dataset has snapshots that this one was not made from.
    """
    wanted = require_current(store) if snapshot is None else find_snapshot(store, snapshot)
    index = wanted.parse()
    with contextlib.closing(LocalPublication(root)) as publication:
        fetching.sweep(root)
        base = _base(store, root, wanted, index)
        files = _files(root, wanted, index)
        tick = planned(sum(info.size_bytes for info in files))
        fetch_all(partial(_fetch, store, root, tick), files, store.close)
        with operations.disk_errors("sync", root):
            for name in ("claims", "fetching"):
                directory = root / STATE / name
                with contextlib.suppress(DiskError, FileNotFoundError):
                    operations.remove_directory(directory)
        return wanted.id if base == wanted.id else publication.put_index(wanted.data, base)


def _base(store: Store, root: Path, wanted: RemoteIndex, index: Index) -> str | None:
    """The local current snapshot; DatasetExistsError unless it is the wanted one or one that it was made from."""
    data = current_bytes(root)
    if data is None:
        return None
    base = load(Link(root)).id
    if base != wanted.id and not _descends(store, index, base):
        raise DatasetExistsError(
            subject=str(root),
            expected=f"a dataset that {wanted.id} was made from, or none",
            found=f"{base} as the current snapshot",
            hint="sync to another directory, or upload the local snapshot",
        )
    return base


def _descends(store: Store, index: Index, base: str) -> bool:
    """Whether a remote snapshot was made from the snapshot `base`, as far as the snapshots kept there tell."""
    while index.parent is not None and index.parent != base:
        try:
            index = read_kept(store, index.parent).parse()
        except DatasetNotFoundError:
            return False
    return index.parent == base


def _files(root: Path, wanted: RemoteIndex, index: Index) -> list[FileInfo]:
    """The stored files and side-cars of a snapshot; DatasetExistsError if a local one has a name and other contents."""
    files = stored_files(index)
    for name in set(kept(root)) - {wanted.id}:
        for basename, info in stored_files(load(Link(root, name)).index).items():
            if basename in files and not agree(files[basename], info):
                raise DatasetExistsError(
                    "the snapshot has a shard of this name with other contents",
                    subject=str(root / basename),
                    hint="sync to another directory",
                )
    return [*files.values(), *{info.basename: info for info in map(sidecar_file, index.sidecars)}.values()]


def _fetch(store: Store, root: Path, tick: Callable[[int], object], info: FileInfo) -> None:
    """Fetch a file, unless it is there with the right contents."""
    with fetching.claimed(root, info.basename, _CLAIM_S) as claim:
        if not _is_there(root, info):
            try:
                path = fetching.fetch(store, info, claim, f"{store.url}/{info.basename}", if_full=_IF_FULL)
            except RemoteError as error:
                is_optional = info.basename.startswith(f"{STATE}/")
                if error.reason != "missing" and not (is_optional and error.reason == "denied"):
                    raise
                _missing(store, info, error)
            else:
                fetching.place(path, info.basename, claim)
    tick(info.size_bytes)


def _is_there(root: Path, info: FileInfo) -> bool:
    path = root / info.basename
    try:
        fetching.check_file(path, info, str(path))
    except FileNotFoundError:
        return False
    except (FormatError, IntegrityError) as error:
        known = {name for snapshot in kept(root) for name in stored_files(load(Link(root, snapshot)).index)}
        if info.basename in known or info.basename.startswith(f"{STATE}/"):
            return False  # a damaged file of this dataset: it is replaced
        raise DatasetExistsError(
            f"a file is here that differs from the snapshot's: {error}", subject=str(path), hint="move it away"
        ) from error
    return True


def _missing(store: Store, info: FileInfo, error: RemoteError) -> None:
    if info.basename.startswith(f"{STATE}/"):  # side-cars are optional
        _logger.warning("%s/%s: a side-car is left out: %s", store.url, info.basename, error.message)
        return
    raise DatasetNotFoundError(
        "the index names this shard, but there is no such object", subject=f"{store.url}/{info.basename}"
    ) from error
