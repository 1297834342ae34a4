"""How does a shard become a local file? It is here, it is unpacked, or it is fetched.

`Shards` asks a provider and never decides how. The file that a provider names is a claim: whoever opens it checks its
size and table, and with `verify="shard"` its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from mx8shards.errors import FormatError
from mx8shards.format.entries import Entry
from mx8shards.shards import cache
from mx8shards.shards.local_files import check_hash, check_size, raw_beside, shard_name, shard_path
from mx8shards.shards.shard import open_shard_file
from mx8shards.shards.snapshots import Snapshot

Cause = Literal["unpack", "network"]
CAUSES: tuple[Cause, ...] = ("unpack", "network")


class Provider(Protocol):
    """Makes the shards of one snapshot local. Several threads may use it, and it can be pickled.

    `all_here` says that no shard will ever have to wait. `parallel` is how many shards it provides side by side at
    most, in threads of their own, where it waits for others; None, where it computes: in the threads of a pool.
    """

    @property
    def all_here(self) -> bool:
        """Whether all files are local for good."""

    @property
    def parallel(self) -> int | None:
        """How many shards at a time."""

    def is_copy(self, entry: Entry) -> bool:
        """Whether the local file is a copy, which may be evicted and made again."""

    def awaits(self, entry: Entry) -> Cause | None:
        """What has to happen before the shard's file is here; None if it is. This is a guess, and quick."""

    def provide(self, entry: Entry) -> Path:
        """The local file of the shard, once it is there.

        FormatError, IntegrityError or DatasetNotFoundError say that this shard is damaged or missing, which on_error=
        of a Loader may pass over. RemoteError and DiskError say that others do not answer or that there is no room.
        """


@dataclass(frozen=True)
class LocalFiles:
    """Shards in the dataset's directory. Compressed ones are unpacked into a cache, unless their raw form is there."""

    snapshot: Snapshot
    cache_dir: Path | None
    check: bool  # hash the compressed bytes also where the raw ones are here

    @property
    def all_here(self) -> bool:
        """Whether no shard is compressed."""
        return not any(kind.compression for kind in self.snapshot.index.kinds)

    @property
    def parallel(self) -> int | None:
        """As many as there are threads."""
        return None

    def is_copy(self, entry: Entry) -> bool:
        """Whether it is compressed."""
        return entry.zip is not None

    def awaits(self, entry: Entry) -> Cause | None:
        """Compressed shards are unpacked, if nobody did that before."""
        if entry.zip is None or raw_beside(self.snapshot, entry) is not None:
            return None
        try:
            stored = open_shard_file(shard_path(self.snapshot, entry.stored), shard_name(self.snapshot, entry.stored))
            found = cache.cached_file(cache.cached_name(entry, stored), self._directories)
        except (FormatError, OSError):
            return "unpack"  # `provide` tells what is wrong
        return None if found is not None and not self.check else "unpack"

    def provide(self, entry: Entry) -> Path:
        """The raw file of a shard: its own, one beside it, or one in a cache, where it is unpacked now.

        The bytes of a compressed file are held against their hash before they are unpacked, and in any case if `check`.
        """
        if entry.zip is None:
            return shard_path(self.snapshot, entry.stored)
        beside = raw_beside(self.snapshot, entry)
        if beside is not None:
            return beside
        name = shard_name(self.snapshot, entry.stored)
        stored = open_shard_file(shard_path(self.snapshot, entry.stored), name)
        check_size(stored, entry.stored, name)
        directories = self._directories
        found = cache.cached_file(cache.cached_name(entry, stored), directories)
        if found is None or self.check:
            check_hash(stored, entry.stored, name)
        try:
            return found or cache.unpack(entry, stored, directories)
        except FormatError as error:
            raise error.at(subject=name) from error.__cause__

    @property
    def _directories(self) -> list[Path]:
        return [self.cache_dir] if self.cache_dir else cache.default_directories(self.snapshot.root)
