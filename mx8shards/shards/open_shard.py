"""The Shards class: which shard contains a sample, and how are shards opened and checked? No other module does so."""

from __future__ import annotations

import os
import resource
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.disk.map import Bytes
from mx8shards.errors import FormatError, IntegrityError, RemoteError
from mx8shards.format.columns import Columns
from mx8shards.format.entries import Entry
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards.local_files import check_hash, shard_name
from mx8shards.shards.providers import (
    NO_LIMIT,
    BlockReader,
    Cause,
    Eviction,
    Fetches,
    LocalFiles,
    NoRoomYetError,
    Provider,
)
from mx8shards.shards.shard import OpenFiles, Shard
from mx8shards.shards.sidecars import digests_in, open_sidecar
from mx8shards.shards.snapshots import Snapshot

Verify = Literal["structure", "shard"]
VERIFY: tuple[Verify, ...] = ("structure", "shard")


class ProvidedSnapshot(NamedTuple):
    """A snapshot with its verification level and the provider that makes its shards local."""

    snapshot: Snapshot
    verify: Verify
    provider: Provider


class Shards:
    """The shards of one or more snapshots as one sequence. Each shard is opened and checked on first use."""

    def __init__(self, snapshots: Sequence[Snapshot], *, verify: Verify, cache_dir: Path | None) -> None:
        """Snapshots whose shards are on local disks; compressed shards are unpacked into `cache_dir`."""
        check = verify == "shard"
        self._open_all(
            tuple(ProvidedSnapshot(each, verify, LocalFiles(each, cache_dir, check=check)) for each in snapshots)
        )

    def _open_all(self, opened: tuple[ProvidedSnapshot, ...]) -> None:
        self.opened = opened
        self.snapshots = tuple(each.snapshot for each in opened)
        counts = np.concatenate([snapshot.index.samples for snapshot in self.snapshots])
        self.starts: npt.NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._begin_of = np.cumsum([0, *(snapshot.index.shards for snapshot in self.snapshots)])
        self._starts = self.starts.data  # a memoryview accesses single elements three times faster than the array
        self._open: list[Shard | None] = [None] * self.count
        self._under_way: dict[tuple[int, int], Future[Path]] = {}  # by process and shard: being provided now
        self._provided: dict[int, Path] = {}  # shards that were made local but not opened yet
        self._sidecars: dict[str, Bytes | None] = {}
        self._files = OpenFiles(_most_files())

    @classmethod
    def joined(cls, parts: Sequence[Shards]) -> Shards:
        """The concatenated shards of several instances; each shard keeps its verification level and cache."""
        return cls.of(tuple(opened for part in parts for opened in part.opened))

    @classmethod
    def of(cls, opened: tuple[ProvidedSnapshot, ...]) -> Shards:
        """The shards of snapshots with providers of any kind."""
        found = cls.__new__(cls)
        found._open_all(opened)
        return found

    @property
    def count(self) -> int:
        """The number of shards."""
        return len(self.starts) - 1

    @property
    def samples(self) -> int:
        """The number of samples."""
        return int(self.starts[-1])

    @property
    def table_room(self) -> int:
        """The remaining memory, in bytes, for cached offset tables."""
        return self._files.table_room

    def columns(self, names: Sequence[str] | None) -> Columns:
        """The columns `names` (None: all), which must be equal in all snapshots; FormatError otherwise."""
        found = [snapshot.index.columns(names) for snapshot in self.snapshots if snapshot.index.shards]
        for other, snapshot in zip(found[1:], self.snapshots[1:], strict=False):
            if other != found[0]:
                raise FormatError(
                    subject=str(snapshot.root), expected=f"the columns {found[0].names}", found=f"{other.names}"
                )
        return found[0] if found else Columns((), (), ())

    def snapshot_of(self, i: int) -> tuple[Snapshot, int]:
        """The snapshot of shard `i`, and the shard's number in it."""
        which = self._snapshot_number(i)
        return self.snapshots[which], i - int(self._begin_of[which])

    def _snapshot_number(self, i: int) -> int:
        return int(np.searchsorted(self._begin_of, i, side="right")) - 1

    def locate(self, sample_id: int) -> tuple[int, int]:
        """The number of the shard with this sample, and the sample's row in it."""
        i = bisect_right(self._starts, sample_id) - 1
        return i, sample_id - self._starts[i]

    def open_shard(self, i: int) -> Shard:
        """Shard `i`, checked. It is opened once and kept."""
        return self._open[i] or self._open_new(i)

    def open_sidecar(self, snapshot: Snapshot, sidecar: Sidecar) -> Bytes | None:
        """The checked bytes of a side-car, or None if it is missing. It is checked once and stays mapped."""
        if sidecar.blake3 not in self._sidecars:
            provider = next(each.provider for each in self.opened if each.snapshot is snapshot)
            provider.provide_sidecar(sidecar)
            try:
                self._sidecars[sidecar.blake3] = open_sidecar(snapshot, sidecar)
            except (FormatError, IntegrityError) as error:
                error.hint = (
                    error.hint or "side-cars are optional: if you remove this file, the shards are read instead"
                )
                raise
        return self._sidecars[sidecar.blake3]

    @property
    def block_bytes(self) -> npt.NDArray[np.int64]:
        """The size of the blocks in which each shard can be read without making it local, if its side-car is there.

        0 for a shard that cannot.
        """
        found = np.zeros(self.count, np.int64)
        for opened, first in zip(self.opened, self._begin_of.tolist(), strict=False):
            index = opened.snapshot.index
            if isinstance(opened.provider, BlockReader):
                for sidecar in (each for each in index.sidecars if each.kind == "blocks"):
                    found[first + sidecar.start : first + sidecar.stop] = sidecar.block_bytes
                packed = np.array([kind.compression is not None for kind in index.kinds], np.bool_)
                found[first : first + index.shards][packed[index.kind]] = 0
        return found

    @property
    def digest_bytes(self) -> list[tuple[slice, int]]:
        """The size of each side-car with digests of blocks, and the shards that it covers."""
        return [
            (slice(first + sidecar.start, first + sidecar.stop), sidecar.size_bytes)
            for opened, first in zip(self.opened, self._begin_of.tolist(), strict=False)
            for sidecar in opened.snapshot.index.sidecars
            if sidecar.kind == "blocks"
        ]

    def _blocks_sidecar(self, i: int) -> Sidecar | None:
        snapshot, number = self.snapshot_of(i)
        sidecars = (each for each in snapshot.index.sidecars if each.kind == "blocks")
        return next((each for each in sidecars if each.start <= number < each.stop), None)

    def block_digests(self, i: int) -> BlockDigests | None:
        """The digests of the blocks of shard `i`; None if there is no side-car with them."""
        snapshot, number = self.snapshot_of(i)
        sidecar = self._blocks_sidecar(i)
        data = None if sidecar is None else self.open_sidecar(snapshot, sidecar)
        return None if data is None or sidecar is None else digests_in(snapshot, sidecar, data, number)

    def read_blocks(self, i: int, digests: BlockDigests, blocks: Sequence[int]) -> list[memoryview]:
        """Blocks of shard `i`, which is not made local: see BlockReader."""
        opened, entry = self._entry(i)
        assert isinstance(opened.provider, BlockReader)
        return opened.provider.read_blocks(entry, digests, blocks)

    @property
    def all_here(self) -> bool:
        """Whether all shards can be opened without being provided first."""
        return all(opened.provider.all_here for opened in self.opened)

    def provider_of(self, i: int) -> Provider:
        """The provider of shard `i`."""
        return self.opened[self._snapshot_number(i)].provider

    @property
    def fetched(self) -> Fetches:
        """Shards, bytes and seconds that all providers of this process have fetched so far, summed."""
        each = [opened.provider.fetched for opened in self.opened]
        return Fetches(*map(sum, zip(*each, strict=True)))

    @property
    def limited(self) -> list[tuple[int, Eviction]]:
        """The number of the first shard of each provider with a limit of its bytes, and that limit."""
        return [(first, eviction) for first, eviction in self.evictions if eviction.limit_bytes < NO_LIMIT]

    @property
    def evictions(self) -> list[tuple[int, Eviction]]:
        """The number of the first shard of each provider whose shards may be evicted, and its Eviction."""
        evictions = [opened.provider.eviction for opened in self.opened]
        pairs = zip(self._begin_of.tolist(), evictions, strict=False)
        return [(begin, eviction) for begin, eviction in pairs if eviction is not None]

    def release(self, i: int) -> None:
        """Close the file of shard `i`, so that its disk space is free once it is evicted. It can be opened again."""
        self._open[i] = None
        self._provided.pop(i, None)

    def awaits(self, i: int) -> Cause | None:
        """Why shard `i` cannot be opened yet ("unpack", "network"); None if its file is local.

        An open shard may have to be provided again: if it is a copy that was evicted, and its file was closed.
        """
        shard = self._open[i]
        if i in self._provided or (shard is not None and shard.is_readable):
            return None
        opened, entry = self._entry(i)
        return opened.provider.awaits(entry)

    def name(self, i: int) -> str:
        """The name of shard `i` in messages."""
        opened, entry = self._entry(i)
        return shard_name(opened.snapshot, entry.stored)

    def provide(self, i: int, *, ahead: bool = False) -> None:
        """Make the file of shard `i` local, unless it is. This may take long. `ahead`: see Provider.provide.

        Thread-safe: of several threads, one provides, and the others wait for it. A forked child does not wait for a
        thread of its parent.
        """
        if self.awaits(i) is None:
            return
        key = os.getpid(), i
        mine: Future[Path] = Future()
        under_way = self._under_way.setdefault(key, mine)  # atomic under the GIL
        if under_way is not mine:
            # It may have begun in an outage that is over, and this caller has a deadline, too; or it was only ahead.
            with suppress(RemoteError, NoRoomYetError):
                under_way.result()
                return
            self._provide(i, ahead=ahead)
            return
        try:
            mine.set_result(self._provide(i, ahead=ahead))
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            del self._under_way[key]

    def _provide(self, i: int, *, ahead: bool) -> Path:
        opened, entry = self._entry(i)
        path = opened.provider.provide(entry, ahead=ahead)
        shard = self._open[i]
        if shard is None:
            self._provided[i] = path
        else:
            shard.path = path
        return path

    def _entry(self, i: int) -> tuple[ProvidedSnapshot, Entry]:
        snapshot, number = self.snapshot_of(i)
        return self.opened[self._snapshot_number(i)], snapshot.index.entry(number)

    def _open_new(self, i: int) -> Shard:
        opened, entry = self._entry(i)
        try:
            shard = self._open_checked(opened, entry, self._provided.pop(i, None))
        finally:
            opened.snapshot.require_kept()
        self._open[i] = shard
        return shard

    def _open_checked(self, opened: ProvidedSnapshot, entry: Entry, path: Path | None) -> Shard:
        snapshot, verify, provider = opened
        name = shard_name(snapshot, entry.stored)
        again = partial(provider.provide, entry) if provider.is_copy(entry) else None
        shard = Shard(name, path or provider.provide(entry), entry, self._files, again)
        if verify == "shard":
            check_hash(shard.open_file(), entry.raw, name)
        return shard

    def __reduce__(self) -> tuple[object, ...]:
        return Shards.of, (self.opened,)  # small for any number of shards


def _most_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(512, soft // 4)) if soft > 0 else 512
