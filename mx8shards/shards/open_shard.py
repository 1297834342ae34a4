"""Which shard holds a sample, and may its bytes be believed? The one door to shards: nobody else opens their files."""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.disk.map import Bytes
from mx8shards.errors import FormatError, IntegrityError
from mx8shards.format.columns import Columns
from mx8shards.format.entries import Entry
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards.local_files import check_hash, shard_name
from mx8shards.shards.providers import Cause, LocalFiles, Provider
from mx8shards.shards.shard import OpenFiles, Shard
from mx8shards.shards.sidecars import open_sidecar
from mx8shards.shards.snapshots import Snapshot

Verify = Literal["structure", "shard"]
VERIFY: tuple[Verify, ...] = ("structure", "shard")


class Opened(NamedTuple):
    """A snapshot, how its shards are checked, and what makes them local."""

    snapshot: Snapshot
    verify: Verify
    provider: Provider


class Shards:
    """The shards of one or several snapshots as one row of samples, each opened and checked when first needed."""

    def __init__(self, snapshots: Sequence[Snapshot], *, verify: Verify, cache_dir: Path | None) -> None:
        """Open snapshots whose shards lie on local disks; compressed ones are unpacked into `cache_dir`."""
        check = verify == "shard"
        self._open_all(tuple(Opened(each, verify, LocalFiles(each, cache_dir, check=check)) for each in snapshots))

    def _open_all(self, opened: tuple[Opened, ...]) -> None:
        self._opened = opened
        self.snapshots = tuple(each.snapshot for each in opened)
        counts = np.concatenate([snapshot.index.samples for snapshot in self.snapshots])
        self.starts: npt.NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._begin_of = np.cumsum([0, *(snapshot.index.shards for snapshot in self.snapshots)])
        self._starts = self.starts.data  # three times quicker than the array for one element at a time
        self._open: list[Shard | None] = [None] * self.count
        self._provided: dict[int, Path] = {}  # shards that are local, and not opened yet
        self._sidecars: dict[str, Bytes | None] = {}
        self._files = OpenFiles(_most_files())

    @classmethod
    def joined(cls, parts: Sequence[Shards]) -> Shards:
        """The shards of several, one after the other. Those of each are checked and unpacked as they were before."""
        return cls._of(tuple(opened for part in parts for opened in part._opened))

    @classmethod
    def _of(cls, opened: tuple[Opened, ...]) -> Shards:
        found = cls.__new__(cls)
        found._open_all(opened)
        return found

    @property
    def count(self) -> int:
        """How many shards there are."""
        return len(self.starts) - 1

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return int(self.starts[-1])

    @property
    def table_room(self) -> int:
        """How many bytes of offset tables may still be kept in memory."""
        return self._files.table_room

    def columns(self, names: Sequence[str] | None) -> Columns:
        """The columns that the shards of all snapshots share."""
        found = [snapshot.index.columns(names) for snapshot in self.snapshots if snapshot.index.shards]
        for other, snapshot in zip(found[1:], self.snapshots[1:], strict=False):
            if other != found[0]:
                raise FormatError(
                    subject=str(snapshot.root), expected=f"the columns {found[0].names}", found=f"{other.names}"
                )
        return found[0] if found else Columns((), (), ())

    def place(self, i: int) -> tuple[Snapshot, int]:
        """The snapshot that shard `i` belongs to, and its number there."""
        which = self._part_of(i)
        return self.snapshots[which], i - int(self._begin_of[which])

    def _part_of(self, i: int) -> int:
        return int(np.searchsorted(self._begin_of, i, side="right")) - 1

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The shard that holds a sample, and the sample's row in it."""
        i = bisect_right(self._starts, sample_id) - 1
        return i, sample_id - self._starts[i]

    def open_shard(self, i: int) -> Shard:
        """Shard `i`, checked. It is opened once and stays open."""
        return self._open[i] or self._open_new(i)

    def open_sidecar(self, snapshot: Snapshot, sidecar: Sidecar) -> Bytes | None:
        """The checked bytes of a side-car, or None where it is missing. It is checked once and stays mapped."""
        if sidecar.blake3 not in self._sidecars:
            try:
                self._sidecars[sidecar.blake3] = open_sidecar(snapshot, sidecar)
            except (FormatError, IntegrityError) as error:
                error.hint = error.hint or "a side-car is optional: without this file, the shards are read"
                raise
        return self._sidecars[sidecar.blake3]

    @property
    def all_here(self) -> bool:
        """Whether no shard has to be provided before it can be opened."""
        return all(opened.provider.all_here for opened in self._opened)

    @property
    def most_provided(self) -> int | None:
        """How many shards may be provided side by side; None: as many as there are threads, as it is computing."""
        limits = [opened.provider.parallel for opened in self._opened if not opened.provider.all_here]
        waiting = [limit for limit in limits if limit is not None]
        return min(waiting) if waiting else None

    def awaits(self, i: int) -> Cause | None:
        """What has to happen before shard `i` can be opened; None if its file is here."""
        if self._open[i] is not None or i in self._provided:
            return None
        opened, entry = self._entry(i)
        return opened.provider.awaits(entry)

    def name(self, i: int) -> str:
        """How messages call shard `i`."""
        opened, entry = self._entry(i)
        return shard_name(opened.snapshot, entry.stored)

    def provide(self, i: int) -> None:
        """Make the file of shard `i` local, if it is not. This may take long; several threads may provide at a time."""
        if self._open[i] is None and i not in self._provided:
            opened, entry = self._entry(i)
            self._provided[i] = opened.provider.provide(entry)

    def _entry(self, i: int) -> tuple[Opened, Entry]:
        snapshot, number = self.place(i)
        return self._opened[self._part_of(i)], snapshot.index.entry(number)

    def _open_new(self, i: int) -> Shard:
        opened, entry = self._entry(i)
        try:
            shard = self._open_checked(opened, entry, self._provided.pop(i, None))
        finally:
            opened.snapshot.require_kept()
        self._open[i] = shard
        return shard

    def _open_checked(self, opened: Opened, entry: Entry, path: Path | None) -> Shard:
        snapshot, verify, provider = opened
        name = shard_name(snapshot, entry.stored)
        again = partial(provider.provide, entry) if provider.is_copy(entry) else None
        shard = Shard(name, path or provider.provide(entry), entry, self._files, again)
        if verify == "shard":
            check_hash(shard.open_file(), entry.raw, name)
        return shard

    def __reduce__(self) -> tuple[object, ...]:
        return Shards._of, (self._opened,)  # small, however many shards there are


def _most_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(512, soft // 4)) if soft > 0 else 512
