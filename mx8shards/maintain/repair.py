"""How is the mirror of a remote dataset repaired (`mx8shards verify --repair`)?

Indices come first, because they tell what else there must be; then side-cars, which have the digests of the shards'
blocks; then shards. Each file is made beside the damaged one, checked, and renamed over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from mx8shards.disk import operations
from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, RemoteError, SettingError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.maintain.kept_snapshots import find_snapshots
from mx8shards.maintain.parallel import Progress, Ticker, map_in_threads
from mx8shards.maintain.report import Damage, Repair, Report
from mx8shards.maintain.shard_check import check_shard
from mx8shards.maintain.verify_plan import ShardCheck
from mx8shards.remote import fetching
from mx8shards.remote.mirror import restore_current, restore_kept
from mx8shards.remote.mirror_facts import UNKNOWN, mirrored_url, source_of
from mx8shards.remote.provider import RemoteFiles, RemoteSettings
from mx8shards.remote.remote_snapshots import KEPT
from mx8shards.shards.cache import copies_in, default_directories
from mx8shards.shards.links import Link
from mx8shards.shards.recovery import sidecar_name
from mx8shards.shards.sidecars import blocks_in, open_sidecar
from mx8shards.shards.snapshots import INDEX, Snapshot, load

_PARALLEL = 8


class _Result(NamedTuple):
    """The files that were replaced or removed, and the damage that is left."""

    repairs: Sequence[Repair]
    damage: Sequence[Damage]


def repaired(link: Link, check: Callable[[], Report], deadline_s: float, progress: Progress | None) -> Report:
    """Check a mirror and repair what is damaged. The report has what was repaired, and the damage that is left."""
    url = mirrored_url(link.root)
    if url is None:
        hint = f"`mx8shards sync s3://… {link.root}` fetches the damaged files of a synced dataset again"
        raise SettingError(subject="repair", expected="the mirror of a remote dataset", found=str(link), hint=hint)
    if url == UNKNOWN:
        hint = f"`mx8shards sync s3://… {link.root}` writes mirror.json again"
        raise FormatError("mirror.json, which tells the URL, is damaged", subject=str(link.root), hint=hint)
    fetching.sweep(link.root)
    repairs = list(_repair_indices(link, url, deadline_s))
    report = check()
    results = [_Result(repairs, [each for each in report.damage if not _is_of_snapshot(each)])]
    for name in sorted({each.snapshot for each in report.damage if _is_of_snapshot(each)}):
        damage = [each for each in report.damage if each.snapshot == name and _is_of_snapshot(each)]
        results += _SnapshotRepair(load(Link(link.root, name)), url, deadline_s).results(damage, progress)
    return replace(
        report,
        damage=tuple(damage for result in results for damage in result.damage),
        repaired=tuple(repair for result in results for repair in result.repairs),
    )


def _is_of_snapshot(damage: Damage) -> bool:
    """Whether the damaged file is a shard, a side-car or a copy of a shard, not an index."""
    return damage.file != INDEX and not damage.file.startswith(KEPT)


def _repair_indices(link: Link, url: str, deadline_s: float) -> Iterator[Repair]:
    """Restore kept indices from the store, and index.json if only one snapshot is kept: it must have been that."""
    damaged = find_snapshots(Link(link.root)).damage
    for damage in damaged:
        if damage.file != INDEX and restore_kept(link.root, url, damage.snapshot, deadline_s):
            yield Repair(file=damage.file)
    if any(damage.file == INDEX for damage in damaged) and restore_current(link.root, url, deadline_s):
        yield Repair(file=INDEX)


class _SnapshotRepair:
    """Repairs files of one snapshot."""

    def __init__(self, snapshot: Snapshot, url: str, deadline_s: float) -> None:
        source = source_of(snapshot.root, url, snapshot.id)
        index = snapshot.index
        self._snapshot = snapshot
        self._files = RemoteFiles(snapshot, RemoteSettings(url, source, deadline_s))
        self._sidecars = {sidecar_name(sidecar): sidecar for sidecar in index.sidecars}
        self._numbers = {name: i for part in (index.raw, index.zip) for i, name in enumerate(part.basenames) if name}
        self._keeps_zip = any((snapshot.root / name).exists() for name in index.zip.basenames if name)
        self._digests: dict[int, BlockDigests] = {}

    def results(self, damage: Sequence[Damage], progress: Progress | None) -> Iterator[_Result]:
        """Repair all files with damage, and yield the result of each."""
        files: dict[str, list[Damage]] = {}
        for each in damage:
            files.setdefault(each.file, []).append(each)
        shards = {file: self._snapshot.index.entry(self._numbers[file]) for file in files if file in self._numbers}
        yield from self._repair_sidecars(files, {self._numbers[file] for file in shards})
        for file in files.keys() - shards.keys() - self._sidecars.keys():
            yield self._remove_copy(files[file][0])
        ticker = Ticker(progress, sum(entry.stored.size_bytes for entry in shards.values()))

        def repair(file: str) -> _Result:
            result = self._repair_shard(shards[file], files[file])
            ticker.tick(shards[file].stored.size_bytes)
            return result

        with map_in_threads(repair, shards, _PARALLEL) as results:
            yield from results

    def _repair_sidecars(self, files: dict[str, list[Damage]], shards: set[int]) -> Iterator[_Result]:
        """Fetch damaged side-cars, and those with the digests of damaged shards."""
        for name, sidecar in self._sidecars.items():
            covers = sidecar.kind == "blocks" and not shards.isdisjoint(range(sidecar.start, sidecar.stop))
            if name not in files and not covers:
                continue
            done = self._files.repair_sidecar(sidecar)
            yield _Result([Repair(file=name)], []) if done else _Result([], files.get(name, []))
            if covers:
                with suppress(FormatError, IntegrityError, DatasetNotFoundError):
                    data = open_sidecar(self._snapshot, sidecar)
                    found = {} if data is None else dict(blocks_in(self._snapshot, sidecar, data))
                    self._digests |= {i: found[i] for i in shards & found.keys()}

    def _repair_shard(self, entry: Entry, damage: Sequence[Damage]) -> _Result:
        """Repair the files of a shard, and check every byte again: another job may have repaired it meanwhile."""
        repairs: list[Repair] = []
        infos = self._damaged_files(entry, damage[0])
        try:
            for info in infos:
                digests = self._digests.get(self._numbers[info.basename]) if info is entry.stored else None
                done = self._files.repair(entry, info, digests)
                if done is not None:
                    repairs.append(Repair(file=done.file, blocks=done.blocks, block_bytes=done.block_bytes))
        except (FormatError, IntegrityError, DatasetNotFoundError, RemoteError) as error:
            if isinstance(error, RemoteError) and error.reason not in ("missing", "changed"):
                raise
            return _Result(repairs, [replace(each, error=f"{each.error}; not repaired: {error}") for each in damage])
        rest = [self._remove_copy(each) for each in self._damage_of(entry, infos)]
        repairs += [done for result in rest for done in result.repairs]
        return _Result(repairs, [bad for result in rest for bad in result.damage])

    def _damaged_files(self, entry: Entry, damage: Damage) -> list[FileInfo]:
        """The files of a shard to repair. A missing compressed shard is unpacked if no other is kept compressed."""
        if entry.zip is None or damage.file == entry.raw.basename:
            return [entry.raw]
        if damage.reason == "missing" and not self._keeps_zip:
            return [entry.raw]
        has_copy = (self._snapshot.root / entry.raw.basename).exists()
        return [entry.zip, entry.raw] if has_copy else [entry.zip]

    def _damage_of(self, entry: Entry, infos: Sequence[FileInfo]) -> list[Damage]:
        """The damage of a shard that is left after these files were repaired."""
        is_unpacked = entry.stored not in infos
        number = self._numbers[entry.raw.basename]
        task = ShardCheck(self._snapshot, number, replace(entry, zip=None) if is_unpacked else entry, data=True)
        return check_shard(task, lambda _: None).damage

    def _remove_copy(self, damage: Damage) -> _Result:
        """Remove a damaged copy of a shard from the cache of unpacked ones. It is made again when it is needed."""
        path = self._snapshot.root / damage.file
        copies = [copy for directory in default_directories(self._snapshot.root) for copy in copies_in(directory)]
        if path not in copies:
            return _Result([], [damage])
        operations.unlink(path)
        return _Result([Repair(file=damage.file, blocks=())], [])
