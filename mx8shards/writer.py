"""The Writer class: how are samples written into shards and published as a snapshot?"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mx8shards.errors import (
    SchemaError,
    SettingError,
    ShardsError,
    finite_seconds,
    one_of,
    shown,
    true_or_false,
    whole_number,
)
from mx8shards.format import compression as compressions
from mx8shards.format.columns import MAX_BYTES, Columns
from mx8shards.format.entries import MdsEntry
from mx8shards.format.file_blocks import best_block_bytes
from mx8shards.format.hashing import HASHES
from mx8shards.format.index import checked_metadata, index_bytes
from mx8shards.format.shard_bytes import ShardKind
from mx8shards.format.sizes import parse_size_limit
from mx8shards.shards.cores import core_count, local_world_size
from mx8shards.shards.links import parse_any_target
from mx8shards.shards.new_shards import ShardMaker, StoredShard
from mx8shards.shards.parts import part_root
from mx8shards.shards.publication import LocalPublication, Publication
from mx8shards.shards.sidecar_files import new_sidecars
from mx8shards.shards.writer_base import MODES, Mode

if TYPE_CHECKING:
    from mx8shards.remote.upload import RemotePublication

MOST_THREADS = 1 << 12


class Writer:
    """Writes samples into shards, and publishes them as one new snapshot at the end.

    Args:
        out: The directory of the dataset, which is created if it is missing, or a URL (`s3://bucket/train`): shards are
            uploaded while others are written, and the index last. A pair `(directory, url)` writes both.
        columns: The name of each column and its encoding, such as `{"image": "bytes", "label": "int"}`.
        compression: None, or a codec with an optional level: `"zstd"`, `"zstd:7"`, `"gz"`, `"bz2"`, `"br"`, `"snappy"`.
        hashes: The names of the hashes that the index has of each file; blake3 is always added.
        size_limit: The largest size of an uncompressed shard, in bytes or as `"64mb"`. None: one shard for all samples.
        mode: `"create"` needs an empty directory, `"append"` adds samples to an existing dataset, `"overwrite"`
            replaces them. The previous snapshot stays readable under its id.
        metadata: A mapping of names to JSON values. None: no metadata, or with `"append"` those of the previous
            snapshot. With the key "videos", which says where packet indices are, shards get digests of smaller blocks.
        threads: The number of threads that compress, hash and write. None: one for each core of this process.
        rank: The number, from 0, of the part of the dataset that this Writer writes; `merge([out], out)` joins the
            parts of all ranks. If `out` is a dataset already, `mode="append"` writes parts that
            `merge([out], out, mode="append")` adds to it.
        world_size: The number of ranks that write parts. Ranks do not share shards, so the merged snapshot's id depends
            on it.
        allow_pickle: Allow columns with the encoding `pkl`. Decoding them runs code, so readers must allow it too.
        match_streaming: Make every shard file byte-identical to the output of Streaming's MDSWriter.
        single_writer: Also write to a store without conditional puts. No other process may write there then: two that
            publish at the same time would damage the dataset.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.

    Use it as a context manager: if the block raises or the process is killed, nothing is published. Equal samples and
    options give equal bytes and an equal `snapshot`, on any machine and with any number of threads.

    Only one thread at a time may use a Writer: `write` and `finish` raise ShardsError while another thread is in one of
    them. To write from several threads, give each a Writer with its own rank.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | tuple[str | os.PathLike[str], str],
        *,
        columns: Mapping[str, str],
        compression: str | None = None,
        hashes: Sequence[str] = ("blake3", "xxh128"),
        size_limit: int | str | None = "64mb",
        mode: Mode = "create",
        metadata: Mapping[str, Any] | None = None,
        threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        allow_pickle: bool = False,
        match_streaming: bool = False,
        single_writer: bool = False,
        deadline_s: float = 300.0,
    ) -> None:
        self._publication: Publication | None = None
        self._failure: BaseException | None = None
        # The id of the thread inside `write` or `finish`. setdefault is atomic under the GIL and takes a third of the
        # time of a lock. If Ctrl-C prevents a thread from removing its id, that thread can still call again.
        self._user: dict[str, int] = {}
        self.snapshot: str | None = None
        one_of("mode", mode, MODES)
        compressions.check(compression)
        true_or_false("allow_pickle", allow_pickle)
        self._match_streaming = true_or_false("match_streaming", match_streaming)
        self._columns = Columns.of(columns, allow_pickle=allow_pickle)
        self._warn_above: float = len(self._columns.names)  # of values in a sample
        self._limit = parse_size_limit(size_limit)
        kind = ShardKind(self._columns, compression, _sorted_hashes(hashes), self._limit)
        self._maker = ShardMaker(kind, self._columns, match_streaming=self._match_streaming)
        self._metadata = None if metadata is None else checked_metadata(metadata)
        self._threads = _thread_count(threads)
        self._start_shard()
        self._written = 0
        self._running: deque[Future[StoredShard]] = deque()
        self._entries: list[MdsEntry] = []
        true_or_false("single_writer", single_writer)
        deadline_s = finite_seconds("deadline_s", deadline_s)
        open_publication = _opener(out, single_writer, deadline_s)
        if rank is not None or world_size is not None:
            root = part_root(_local_only(out, "rank"), mode, self._columns, rank, world_size)
            open_publication = partial(LocalPublication, root)
        self._maker.import_packages()
        try:
            self._publication = self._opened(open_publication)
            self._base = self._publication.base(mode, self._columns)
            self._number = self._base.first
            self._maker.block_bytes = best_block_bytes(self._all_metadata, is_compressed=compression is not None)
            self._sidecars = new_sidecars(self._publication, self._columns, self._maker.block_bytes)
            self._pool = ThreadPoolExecutor(self._threads, "mx8shards-writer")
        except BaseException:
            self.abandon()
            raise

    def _opened(self, open_publication: Callable[[], Publication]) -> Publication:
        """The publication. Nothing was changed before this, and all arguments are checked."""
        return open_publication()

    # samples in -------------------------------------------------------------------------------------------------

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add one sample.

        Args:
            sample: A value for every column, by name. Other values are not written; a warning names them, once.
        """
        if self._user.setdefault("thread", me := get_ident()) != me:
            raise _used_concurrently()
        try:  # inlined for speed: a method call would take longer than this check
            if self._publication is None:
                raise _closed("no samples can be added")
            pieces = self._columns.encode(sample, self._written)
            if len(sample) > self._warn_above:
                self._columns.warn_of_others(sample)
                self._warn_above = math.inf  # one warning is enough
            size = sum(map(len, pieces))
            if self._over_limit(size):
                self._flush()
            if self._bytes + size + 4 > MAX_BYTES:
                raise SchemaError(
                    subject=f"sample {self._written}",
                    expected=f"a shard of at most {MAX_BYTES} bytes",
                    found=f"{self._bytes + size + 4} bytes",
                    hint="set size_limit",
                )
            self._bytes += size + 4
            self._pieces += pieces
            self._sizes.append(size)
            self._written += 1
        finally:
            self._user.pop("thread", None)

    def _end_shard(self) -> None:
        """Begin a new shard, whatever the size of this one."""
        if self._user.setdefault("thread", me := get_ident()) != me:
            raise _used_concurrently()
        try:
            if self._publication is None:
                raise _closed("no shard can be added")
            self._flush()
        finally:
            self._user.pop("thread", None)

    @property
    def _new_samples(self) -> list[bytes]:
        """The samples of the current shard, as they will be stored."""
        each = 1 + len(self._columns.names)
        return [b"".join(self._pieces[i : i + each]) for i in range(0, len(self._pieces), each)]

    def _over_limit(self, size: int) -> bool:
        """Whether the sample starts a new shard, by Streaming's rule: only a single sample may exceed the limit.

        If the first sample alone exceeds it, Streaming writes an empty shard before it; `match_streaming` does too.
        """
        over = bool(self._limit) and self._bytes + size + 4 > (self._limit or 0)
        return over and bool(self._sizes or self._match_streaming)

    def _start_shard(self) -> None:
        self._pieces: list[bytes] = []
        self._sizes: list[int] = []
        self._bytes = 8 + len(self._maker.config)

    def _flush(self) -> None:
        """Submit the current shard to the threads. At most `threads` + 1 others are in memory at a time."""
        assert self._publication is not None
        self._publication.require_owner()
        basename = f"{self._base.prefix}shard.{self._number:05}.mds"
        try:
            self._running.append(
                self._pool.submit(self._maker.store, self._publication, basename, self._pieces, self._sizes)
            )
            self._number += 1
            self._start_shard()
            while len(self._running) > self._threads or (self._running and self._running[0].done()):
                self._collect(self._running.popleft().result())
        except BaseException as error:  # a shard may be lost, so the others must not be published without it
            self._failure = error
            self.abandon()
            raise

    def _collect(self, stored: StoredShard) -> None:
        self._entries.append(stored.entry)
        blocks, scalars = self._sidecars
        blocks.write([stored.digests])
        if scalars is not None:
            scalars.write(stored.scalars)

    # publishing -------------------------------------------------------------------------------------------------

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Set the metadata, at any time before the Writer closes.

        Args:
            metadata: A mapping of names to JSON values. It replaces the metadata given before.
        """
        if self._publication is None:
            raise _closed("its metadata cannot be changed")
        self._metadata = checked_metadata(metadata)

    @property
    def _all_metadata(self) -> Mapping[str, Any]:
        if self._metadata is None and self._base.kept is not None:
            return self._base.kept.index.metadata
        return self._metadata or {}

    def finish(self) -> str:
        """Publish everything written and return the snapshot's id."""
        if self._user.setdefault("thread", me := get_ident()) != me:
            raise _used_concurrently()
        try:
            return self._finish()
        finally:
            self._user.pop("thread", None)

    def _finish(self) -> str:
        if self._publication is None:
            raise _closed("nothing can be published") from self._failure
        try:
            self._publication.require_owner()
            if self._sizes or self._is_empty():
                self._flush()
            while self._running:
                self._collect(self._running.popleft().result())
            self.snapshot = self._publish(self._publication)
        except BaseException:
            self.abandon()
            raise
        self._close()
        return self.snapshot

    def _is_empty(self) -> bool:
        """Whether the dataset would have no shard. Then a shard without samples is written, to record the columns.

        Streaming writes none.
        """
        return not (self._entries or self._running or self._base.kept is not None or self._match_streaming)

    def _publish(self, publication: Publication) -> str:
        base, old = self._base.snapshot, self._base.kept
        if old is not None and not self._entries and self._metadata in (None, old.index.metadata):
            return old.id  # nothing changed
        sidecars = old.index.sidecars if old else ()
        before = old.index.shards if old else 0
        for writer in filter(None, self._sidecars):
            sidecars += writer.finish(before, len(self._entries))
        kept: Iterable[MdsEntry] = map(old.index.entry, range(before)) if old else ()
        data = index_bytes(
            chain(kept, self._entries),
            metadata=self._all_metadata,
            sidecars=sidecars,
            parent=base.id if base else None,
            extra=old.index.extra if old else None,
        )
        return publication.put_index(data, base.id if base else None)

    def abandon(self) -> None:
        """Publish nothing, and restore the directory as it was."""
        for job in self._running:
            job.cancel()
        self._close()

    def _close(self) -> None:
        publication, self._publication = self._publication, None
        if hasattr(self, "_pool"):
            self._pool.shutdown(cancel_futures=True)
        for writer in filter(None, getattr(self, "_sidecars", ())):
            with contextlib.suppress(ShardsError):  # these files are published already, or not needed
                writer.close()
        if publication is not None:
            publication.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self.abandon()
        elif self._publication is not None or self._failure is not None:
            self.finish()


def _opener(out: Any, single_writer: bool, deadline_s: float) -> Callable[[], Publication]:
    """A function that opens the publication for a Writer's `out`."""
    if isinstance(out, tuple | list):
        if len(out) != 2:
            raise SettingError(subject="out", expected="a directory, a URL, or both as a pair", found=shown(out))
        root, url = map(parse_any_target, out)
        if not isinstance(root, Path) or isinstance(url, Path):
            raise SettingError(subject="out", expected="a pair of a directory and a URL", found=shown(out))
        return partial(_open_both, root, partial(_open_url, url, single_writer, deadline_s))
    target = parse_any_target(out)
    if isinstance(target, Path):
        return partial(LocalPublication, target)
    return partial(_open_url, target, single_writer, deadline_s)


def _open_url(url: str, single_writer: bool, deadline_s: float) -> RemotePublication:
    from mx8shards.remote.open_store import open_store
    from mx8shards.remote.upload import RemotePublication

    return RemotePublication(open_store(url, deadline_s=deadline_s), single_writer=single_writer)


def _open_both(root: Path, open_remote: Callable[[], RemotePublication]) -> Publication:
    from mx8shards.remote.both_places import PublicationInBoth

    local = LocalPublication(root)
    try:
        return PublicationInBoth(local, open_remote())
    except BaseException:
        local.close()
        raise


def _local_only(out: Any, setting: str) -> Path:
    """The directory of a Writer's `out`; SettingError, naming the setting that needs one, if it is a URL."""
    target = None if isinstance(out, tuple | list) else parse_any_target(out)
    if not isinstance(target, Path):
        raise SettingError(
            subject=setting,
            expected="None, because `out` is a URL",
            found="a number",
            hint="let the ranks write to a directory that they share, merge their parts, and sync it to the URL",
        )
    return target


def _closed(consequence: str) -> SettingError:
    return SettingError(f"the Writer is closed: {consequence}")


def _used_concurrently() -> ShardsError:
    return ShardsError(
        "the Writer is used by two threads at once, so this call did nothing",
        hint="write from one thread, hold a lock around the calls, or give each thread a Writer with a rank",
    )


def _sorted_hashes(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Collection):
        raise SettingError(subject="hashes", expected=f"a list of some of {', '.join(HASHES)}", found=shown(names))
    for name in names:
        if not isinstance(name, str) or name not in HASHES:
            raise SettingError(subject="hashes", expected=f"some of {', '.join(HASHES)}", found=shown(name))
    if len(set(names)) != len(names):
        raise SettingError(subject="hashes", expected="every name once", found=", ".join(names))
    return tuple(sorted(names))


def _thread_count(threads: int | None) -> int:
    if threads is None:
        return max(1, core_count() // local_world_size())
    return whole_number("threads", threads, 1, MOST_THREADS)
