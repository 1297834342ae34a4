"""Which shards and side-cars does `verify` check? Files that several snapshots share are checked once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mx8shards.disk.map import Bytes
from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError
from mx8shards.format.entries import Entry, FileInfo
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.shard_bytes import table_bytes
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.maintain.report import Damage, damage_of
from mx8shards.shards.local_files import existing_raw_file
from mx8shards.shards.recovery import sidecar_name
from mx8shards.shards.sidecars import blocks_in, numbers_in, open_sidecar
from mx8shards.shards.snapshots import STATE, Snapshot, sidecar_path


@dataclass(slots=True)
class ShardCheck:
    """One shard to check, and its hashes and numbers from side-cars."""

    snapshot: Snapshot
    number: int
    entry: Entry  # without its compressed file, if only the raw file exists
    data: bool = False  # check every byte, not only the structure
    blocks: BlockDigests | None = None  # the digests of its blocks …
    blocks_file: str = ""  # … and the side-car they are from
    numbers: Mapping[str, Bytes] = field(default_factory=dict)  # the numbers of its scalar columns in a side-car …
    numbers_file: str = ""  # … and the name of that side-car

    @property
    def cost_bytes(self) -> int:
        """How many bytes of the shard's file will be read."""
        if self.data:
            return self.entry.stored.size_bytes
        return 0 if self.entry.zip else table_bytes(self.entry.samples)


class VerifyPlan:
    """Collects the shards of several snapshots to check, and checks their side-cars at once, with `data` every byte."""

    def __init__(self, *, data: bool) -> None:
        self.checks: list[ShardCheck] = []
        self.damage: list[Damage] = []
        self.sidecar_bytes = 0
        self._data = data
        self._shards: dict[str, Entry] = {}
        self._sidecars: set[str] = set()

    def add(self, snapshot: Snapshot) -> None:
        """Check a snapshot's side-cars and plan its shards, except those already planned for another snapshot."""
        entries = map(snapshot.index.entry, range(snapshot.index.shards))
        checks = {i: _check_of(snapshot, i, entry) for i, entry in enumerate(entries) if self._is_new(entry)}
        for sidecar in snapshot.index.sidecars:
            wanted = self._data and any(i in checks for i in range(sidecar.start, sidecar.stop))
            if wanted or sidecar.blake3 not in self._sidecars:
                self._check_sidecar(snapshot, sidecar, checks)
        self.checks += checks.values()

    def _is_new(self, entry: Entry) -> bool:
        known = self._shards.setdefault(entry.stored.basename, entry)
        return known is entry or not _covers(known, entry)

    def _check_sidecar(self, snapshot: Snapshot, sidecar: Sidecar, checks: Mapping[int, ShardCheck]) -> None:
        try:
            data = _checked(snapshot, sidecar, data=self._data)
        except (FormatError, IntegrityError, DatasetNotFoundError) as error:
            if sidecar.blake3 not in self._sidecars:
                self.damage.append(damage_of(error, file=sidecar_name(sidecar), snapshot=snapshot.id))
            data = None
        self._sidecars.add(sidecar.blake3)
        if data is None:
            return
        self.sidecar_bytes += sidecar.size_bytes
        if sidecar.kind == "blocks":
            for i, digests in blocks_in(snapshot, sidecar, data):
                if i in checks and checks[i].entry.stored.basename == snapshot.index.entry(i).stored.basename:
                    checks[i].blocks = digests
                    checks[i].blocks_file = sidecar_name(sidecar)
        else:
            for i, column, numbers in numbers_in(snapshot, sidecar, data):
                if i in checks:
                    checks[i].numbers = {**checks[i].numbers, column: numbers}
                    checks[i].numbers_file = sidecar_name(sidecar)


def _check_of(snapshot: Snapshot, number: int, entry: Entry) -> ShardCheck:
    """The check of one shard. If only the raw file of a compressed shard exists, checks that, as readers do (§1.8)."""
    if entry.zip is not None and not os.path.lexists(snapshot.root / entry.zip.basename):
        with contextlib.suppress(FormatError):  # a symlink, which readers refuse
            if existing_raw_file(snapshot, entry) is not None:
                return ShardCheck(snapshot, number, replace(entry, zip=None))
    return ShardCheck(snapshot, number, entry)


def _covers(known: Entry, entry: Entry) -> bool:
    """Whether a check of `known` also checks `entry`. A sealed snapshot has more hashes of the same files."""
    return (
        (known.kind.columns, known.kind.compression, known.samples)
        == (entry.kind.columns, entry.kind.compression, entry.samples)
        and _adds_no_hash(entry.raw, known.raw)
        and (entry.zip is known.zip or (entry.zip and known.zip and _adds_no_hash(entry.zip, known.zip)) is True)
    )


def _adds_no_hash(info: FileInfo, known: FileInfo) -> bool:
    return info.size_bytes == known.size_bytes and info.hashes.items() <= known.hashes.items()


def _checked(snapshot: Snapshot, sidecar: Sidecar, *, data: bool) -> Bytes | None:
    """Check a side-car. Returns its bytes if `data`, otherwise checks only its size and returns None."""
    path = sidecar_path(snapshot.root, sidecar.blake3)
    found = open_sidecar(snapshot, sidecar) if data else None
    if data and found is not None:
        return found
    try:
        size = path.stat().st_size
    except OSError:
        size = None
    if size is None or data:
        raise DatasetNotFoundError(
            "the index names this side-car, but it cannot be opened",
            subject=str(path),
            hint="" if snapshot.kept else f"a copy without {STATE}? `mx8shards verify --seal` makes new side-cars",
        )
    if size != sidecar.size_bytes:
        raise FormatError(subject=str(path), expected=f"{sidecar.size_bytes} bytes (the index)", found=f"{size}")
    return None
