"""How does an unsealed dataset get content hashes (`mx8shards verify --seal`)?"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from mx8shards.disk import operations
from mx8shards.disk.map import ReadFile
from mx8shards.errors import FormatError, SettingError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.file_blocks import best_block_bytes
from mx8shards.format.hashing import hasher
from mx8shards.format.index import Index, index_bytes
from mx8shards.format.sidecar_bytes import Sidecar, scalar_columns
from mx8shards.maintain.parallel import Progress, Ticker, map_in_threads
from mx8shards.maintain.report import Report
from mx8shards.maintain.shard_check import Facts, check_shard, check_threads
from mx8shards.maintain.verify_plan import ShardCheck
from mx8shards.shards.links import Link
from mx8shards.shards.local_files import file_pieces
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.recovery import is_unfinished
from mx8shards.shards.sidecar_files import NewSidecar
from mx8shards.shards.snapshots import Snapshot, current, kept, sidecar_path


def seal_current(link: Link, progress: Progress | None) -> Report | None:
    """Check every byte of the current snapshot and publish it with content hashes. None if it is already sealed."""
    if link.snapshot is not None:
        raise SettingError(
            subject=str(link),
            expected="a link without an id, because only the current snapshot can be sealed",
            found="one",
        )
    if _unsealed(link.root) is None and not is_unfinished(link.root):
        return None
    with operations.disk_errors("seal", link.root), contextlib.closing(LocalPublication(link.root)) as publication:
        snapshot = _unsealed(link.root)  # again, now that the lock is held
        return None if snapshot is None else _Seal(publication, snapshot).publish(progress)


def _unsealed(root: Path) -> Snapshot | None:
    snapshot = current(root, trusting=True)
    return None if snapshot.index.sealed and snapshot.id in kept(root) else snapshot


class _Seal:
    """Makes a new snapshot of unchanged files, with content hashes and side-cars."""

    def __init__(self, publication: LocalPublication, snapshot: Snapshot) -> None:
        self._publication = publication
        self._snapshot = snapshot
        self._index = snapshot.index
        self._scalars = _shared_scalars(snapshot.index)

    def publish(self, progress: Progress | None) -> Report:
        """Check all shards and publish. Raises the first error, because damaged data must not be sealed."""
        checks = [ShardCheck(self._snapshot, i, self._index.entry(i), data=True) for i in range(self._index.shards)]
        ticker = Ticker(progress, sum(task.cost_bytes for task in checks))
        entries, sidecars = self._read(checks, ticker)
        for sidecar in sidecars:
            self._drop_if_damaged(sidecar)
        data = index_bytes(
            entries,
            metadata=self._index.metadata,
            sidecars=sidecars,
            parent=self._snapshot.id,
            extra=self._index.extra,
        )
        return Report(
            snapshot=self._publication.put_index(data, self._snapshot.id, keep_old=self._has_sidecars(sidecars)),
            sealed=True,
            mode="data",
            snapshots=0,
            shards=len(checks),
            data_shards=len(checks),
            unchecked=0,
            samples=int(self._index.samples.sum()),
            bytes_checked=ticker.done,
        )

    def _read(self, checks: list[ShardCheck], ticker: Ticker) -> tuple[list[Entry], tuple[Sidecar, ...]]:
        entries = []
        is_compressed = any(kind.compression for kind in self._index.kinds)
        size = best_block_bytes(self._index.metadata, is_compressed=is_compressed)
        with contextlib.ExitStack() as stack:
            new = NewSidecar(self._publication, "blocks", block_bytes=size)
            blocks = stack.enter_context(contextlib.closing(new))
            numbers = stack.enter_context(contextlib.closing(NewSidecar(self._publication, "columns", self._scalars)))
            check = partial(check_shard, tick=ticker.tick, facts=size)
            for checked in stack.enter_context(map_in_threads(check, checks, check_threads(checks))):
                if checked.facts is None or checked.errors:
                    raise checked.errors[0]
                entries.append(_sealed_entry(checked.task.entry, checked.facts))
                blocks.write([checked.facts.digests])
                numbers.write(checked.facts.numbers if self._scalars else [])
            count = len(entries)
            return entries, blocks.finish(0, count) + numbers.finish(0, count if self._scalars else 0)

    def _has_sidecars(self, new: tuple[Sidecar, ...]) -> bool:
        """Whether all side-cars of the old snapshot exist, or are among the new ones.

        They are missing in a copy made without hidden files. Then the old index is not kept, because `verify --data`
        would report that snapshot as damaged.
        """
        made = {sidecar.blake3 for sidecar in new}
        old = (sidecar.blake3 for sidecar in self._index.sidecars)
        return all(digest in made or sidecar_path(self._snapshot.root, digest).exists() for digest in old)

    def _drop_if_damaged(self, sidecar: Sidecar) -> None:
        """Remove an existing side-car of this name if it is damaged: publishing would keep it."""
        path = sidecar_path(self._snapshot.root, sidecar.blake3)
        if path.exists():
            file = ReadFile(path)
            found = hasher("blake3")
            for piece in file_pieces(file, min(file.size_bytes, sidecar.size_bytes)):
                found.update(piece)
            if file.size_bytes != sidecar.size_bytes or found.hexdigest() != sidecar.blake3:
                operations.unlink(path)


def _shared_scalars(index: Index) -> tuple[str, ...]:
    try:
        return scalar_columns(index.columns())
    except FormatError:  # the columns differ between shards, and a side-car covers all shards
        return ()


def _sealed_entry(entry: Entry, facts: Facts) -> Entry:
    packed = entry.zip and _with_blake3(entry.zip, facts.stored_blake3)
    return replace(entry, raw=_with_blake3(entry.raw, facts.raw_blake3), zip=packed)


def _with_blake3(info: FileInfo, digest: str) -> FileInfo:
    return replace(info, hashes={**info.hashes, "blake3": digest})
