"""Is a remote dataset damaged? Its files are brought here one by one, and checked like local ones.

A temporary directory gets the indices, and each shard while it is checked: the whole shard if every byte is to be
checked, otherwise a sparse file of the object's size with the shard's offset table in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.scratch import Scratch
from mx8shards.errors import RemoteError
from mx8shards.format.index import MAX_INDEX_BYTES
from mx8shards.format.shard_bytes import table_bytes
from mx8shards.maintain.kept_snapshots import find_snapshots
from mx8shards.maintain.parallel import Progress
from mx8shards.maintain.remote_links import index_of, store_of
from mx8shards.maintain.report import Mode, Report
from mx8shards.maintain.shard_check import Checked, Tick, check_shard
from mx8shards.maintain.verify_plan import ShardCheck
from mx8shards.maintain.verify_run import check_snapshots
from mx8shards.remote.remote_snapshots import kept_in, kept_key
from mx8shards.remote.store import Store
from mx8shards.remote.writer_start import list_objects
from mx8shards.shards.links import Link, RemoteLink
from mx8shards.shards.recovery import SIDECAR
from mx8shards.shards.snapshots import INDEX


def verify_store(link: RemoteLink, mode: Mode, fraction: float, deadline_s: float, progress: Progress | None) -> Report:
    """Check the snapshots of a remote dataset, or only the one of the link."""
    scratch = Scratch(Path(tempfile.gettempdir()))
    try:
        with store_of(link, deadline_s) as store:
            snapshot = index_of(store, link).id if link.snapshot else None
            root = scratch.path / link.url.rpartition("/")[2]
            operations.make_directory(root)
            _bring_index(store, root, INDEX)  # first: the listing then has all that it names
            sizes = {each.key: each.size_bytes for each in list_objects(store)}
            for key in map(kept_key, kept_in(sizes)):
                _bring_index(store, root, key)
            for key in sizes:
                if SIDECAR.fullmatch(key):
                    _bring(store, root, key, sizes, whole=mode != "structure")
            snapshots = find_snapshots(Link(root, snapshot))
            report = check_snapshots(root, snapshots, mode, fraction, progress, partial(_check, store, root, sizes))
        texts = (replace(each, error=each.error.replace(str(root), link.url)) for each in report.damage)
        return replace(report, damage=tuple(texts))
    finally:
        scratch.remove()


def _bring_index(store: Store, root: Path, key: str) -> None:
    target = root / key
    publish.make_directories(target.parent, below=root)
    try:
        publish.write_quickly(target, store.read(key, MAX_INDEX_BYTES).data)
    except RemoteError as error:
        if error.reason != "missing":  # there is none, or it was removed since the listing
            raise


def _bring(store: Store, root: Path, key: str, sizes: Mapping[str, int], *, whole: bool, table: int = 0) -> None:
    """Make a local file of an object: the whole one, or its first `table` bytes in a sparse file. None if missing."""
    size = sizes.get(key)
    if size is None:
        return
    target = root / key
    publish.make_directories(target.parent, below=root)
    try:
        if whole:
            store.fetch(key, target, size)
            return
        (head,) = store.read_spans(key, [(0, min(table, size))], None) if table and size else (b"",)
    except RemoteError as error:
        if error.reason != "missing":
            raise
        return
    with publish.NewFile(target) as file:
        file.write(head)
        file.resize(size)
        file.close()


def _check(store: Store, root: Path, sizes: Mapping[str, int], task: ShardCheck, tick: Tick) -> Checked:
    name = task.entry.stored.basename
    table = 0 if task.entry.zip else table_bytes(task.entry.samples)
    try:
        _bring(store, root, name, sizes, whole=task.data, table=table)
        return check_shard(task, tick)
    finally:
        operations.unlink(root / name)
