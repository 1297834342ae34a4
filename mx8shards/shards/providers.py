"""What is a shard provider? It makes a shard's file local: the file is there, is unpacked, or is fetched.

`Shards` uses providers and does not know how they work. A provider's file is not trusted: its size and offsets are
checked when it is opened, and with `verify="shard"` its hash too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from mx8shards.errors import FormatError, ShardsError
from mx8shards.format.entries import Entry, Ints
from mx8shards.format.file_blocks import BlockDigests
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards import cache
from mx8shards.shards.local_files import check_hash, check_size, existing_raw_file, shard_name, shard_path
from mx8shards.shards.shard import open_shard_file
from mx8shards.shards.snapshots import Snapshot

Cause = Literal["unpack", "network"]
CAUSES: tuple[Cause, ...] = ("unpack", "network")


class NoRoomYetError(ShardsError):
    """A shard that no batch needs yet is not provided, because everything in the cache is needed sooner."""


class Fetches(NamedTuple):
    """What a provider has fetched: shards, their bytes, and the seconds in which at least one was under way."""

    shards: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


class Follower(Protocol):
    """Tells a cache with a limit how far one run has come."""

    def at(self, oldest: int, newest: int) -> None:
        """The batches in flight begin at these order positions."""

    def close(self) -> None:
        """The run has ended."""


NO_LIMIT = 1 << 62


class Eviction(Protocol):
    """Decides which shards a provider keeps."""

    @property
    def limit_bytes(self) -> int:
        """The most bytes of shards to keep. With NO_LIMIT only other jobs evict shards."""

    @property
    def sizes(self) -> Ints:
        """The bytes that each shard of the snapshot takes."""

    @property
    def shared_limit(self) -> object:
        """An object that is the same for all snapshots that share the limit."""

    @property
    def total_bytes(self) -> int:
        """The bytes of all shards that share the limit: of this snapshot, and perhaps of others."""

    def follow(self, shard: Ints, begin: Ints, end: Ints, *, trims: bool = True) -> Follower | None:
        """Begin a run, which uses shard `shard[k]` at order positions from `begin[k]` to before `end[k]`.

        Unless it only continues a run, it `trims`: shards beyond the limit are evicted now.

        None if this run cannot be announced to other jobs, and need not be, because nothing is evicted for it.
        """


class Provider(Protocol):
    """Makes the shards of one snapshot local. It is thread-safe and can be pickled."""

    @property
    def all_here(self) -> bool:
        """Whether all files are local already, so that no reader has to wait."""

    @property
    def parallel(self) -> int | None:
        """The most shards to provide concurrently, each in its own thread, for a provider that waits (network).

        None for a provider that computes: it runs in the threads of the pool.
        """

    @property
    def fetched(self) -> Fetches:
        """What this process has fetched so far."""

    @property
    def eviction(self) -> Eviction | None:
        """What decides which shards are kept; None if nobody evicts any."""

    def is_copy(self, entry: Entry) -> bool:
        """Whether the local file is a cached copy, which may be evicted and made again."""

    def awaits(self, entry: Entry) -> Cause | None:
        """Why the shard's file is not local yet ("unpack", "network"); None if it is. A quick estimate."""

    def provide(self, entry: Entry, *, ahead: bool = False) -> Path:
        """Make the shard's file local and return its path.

        `ahead`: no batch needs it yet, so NoRoomYetError is raised if there is no room for it beside what is needed.
        FormatError, IntegrityError or DatasetNotFoundError mean that the shard is damaged or missing, which a Loader's
        on_error= may skip. RemoteError and DiskError are not errors of the shard: the network or the disk failed, or
        the store no longer has the object that the index names.
        """

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        """Make a side-car local, if the provider can; it may also be missing, as side-cars are optional."""

    def close(self) -> None:
        """End what is being fetched. A later call to `provide` connects again, as views of the dataset may live on."""


@runtime_checkable
class BlockReader(Protocol):
    """A provider that can also read blocks of shards without making them local."""

    def read_blocks(self, entry: Entry, digests: BlockDigests, blocks: Sequence[int]) -> list[memoryview]:
        """The blocks with these numbers of a shard that is not compressed, checked against the digests of its blocks.

        IntegrityError means that the shard is damaged; RemoteError is no error of the shard, as for `provide`.
        """


@dataclass(frozen=True)
class LocalFiles:
    """Shards in the dataset's directory. Compressed ones are unpacked into a cache unless their raw file is there."""

    snapshot: Snapshot
    cache_dir: Path | None
    check: bool  # whether to verify the hash of the compressed file even if the raw file is in the cache

    @property
    def all_here(self) -> bool:
        """Whether no shard is compressed."""
        return not any(kind.compression for kind in self.snapshot.index.kinds)

    @property
    def parallel(self) -> int | None:
        """None: unpacking runs in the pool's threads."""
        return None

    @property
    def fetched(self) -> Fetches:
        """Nothing."""
        return Fetches()

    @property
    def eviction(self) -> Eviction | None:
        """None: unpacked copies are evicted by their age."""
        return None

    def is_copy(self, entry: Entry) -> bool:
        """Whether the shard is compressed."""
        return entry.zip is not None

    def awaits(self, entry: Entry) -> Cause | None:
        """The cause "unpack" for a compressed shard without a raw file; otherwise None."""
        if entry.zip is None or existing_raw_file(self.snapshot, entry) is not None:
            return None
        try:
            stored = open_shard_file(shard_path(self.snapshot, entry.stored), shard_name(self.snapshot, entry.stored))
            found = cache.find_cached(cache.cached_name(entry, stored), self._directories, entry.raw.size_bytes)
        except (FormatError, OSError):
            return "unpack"  # `provide` raises the error
        return None if found is not None and not self.check else "unpack"

    def provide(self, entry: Entry, *, ahead: bool = False) -> Path:
        """The raw file of a shard: in the dataset's directory, in a cache, or unpacked into a cache now.

        The hash of a compressed file is verified before it is unpacked, and always if `check` is true.
        """
        if entry.zip is None:
            return shard_path(self.snapshot, entry.stored)
        beside = existing_raw_file(self.snapshot, entry)
        if beside is not None:
            return beside
        name = shard_name(self.snapshot, entry.stored)
        stored = open_shard_file(shard_path(self.snapshot, entry.stored), name)
        check_size(stored, entry.stored, name)
        directories = self._directories
        found = cache.cached_file(cache.cached_name(entry, stored), directories, entry.raw.size_bytes)
        if found is None or self.check:
            check_hash(stored, entry.stored, name)
        try:
            return found or cache.unpack(entry, stored, directories)
        except FormatError as error:
            raise error.at(subject=name) from error.__cause__

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        """Nothing: a side-car is local or missing."""

    def close(self) -> None:
        """Nothing."""

    @property
    def _directories(self) -> list[Path]:
        return [self.cache_dir] if self.cache_dir else cache.default_directories(self.snapshot.root)
