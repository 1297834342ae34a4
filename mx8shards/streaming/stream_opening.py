"""How is a stream opened: from its local directory, a mirror of its remote, or in another format than MDS?

Each worker that a DataLoader spawns imports this. What only remote streams or other formats need is imported there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mx8shards.errors import FormatError, RemoteError, SettingError, shown
from mx8shards.format.index import parse_index
from mx8shards.shards.links import RemoteLink, is_url, parse_any
from mx8shards.shards.not_found_hints import not_found_hint
from mx8shards.shards.open_shard import ProvidedSnapshot, Shards
from mx8shards.shards.providers import LocalFiles, Provider
from mx8shards.shards.snapshots import INDEX, Snapshot, current, current_bytes, snapshot_id
from mx8shards.streaming.compatible_errors import MissingIndexError
from mx8shards.streaming.mds_samples import MdsSamples
from mx8shards.streaming.shard_files import Row, ShardReader
from mx8shards.streaming.stream import Stream, require_hash

if TYPE_CHECKING:
    from mx8shards.remote.eviction import Limit
    from mx8shards.streaming.split_samples import SplitSamples

    Samples = MdsSamples | SplitSamples


def open_streams(streams: Sequence[Stream], *, cache_limit: int | None, allow_unsafe_types: bool) -> list[Samples]:
    """The samples of each stream.

    Args:
        streams: The streams, with all their settings.
        cache_limit: The most bytes of shards to keep of all their remotes together.
        allow_unsafe_types: Also read columns whose decoding runs code.
    """
    limit = None if cache_limit is None else _limit_of(cache_limit)
    return [_open_stream(stream, limit, allow_unsafe_types=allow_unsafe_types) for stream in streams]


def _limit_of(cache_limit: int) -> Limit:
    from mx8shards.remote.eviction import Limit

    return Limit(cache_limit)


def _open_stream(stream: Stream, cache_limit: Limit | None, *, allow_unsafe_types: bool) -> Samples:
    """The samples of a stream."""
    remote = stream.source
    if remote is None and not (stream.directory / INDEX).exists():
        message = f"no `remote` is given, and there is no local {INDEX}"
        hint = not_found_hint(stream.directory)
        raise MissingIndexError(message, subject=str(stream.directory), hint=hint)
    try:
        opened = _local(stream) if remote is None or is_complete(stream.directory) else _mirror(stream, cache_limit)
    except (FormatError, SettingError):
        data = _other_index(stream)
        if data is None:
            raise
        return _other_samples(stream, data)
    if stream.validate_hash:
        index = opened.snapshot.index
        for kind in index.kinds:
            require_hash(stream.validate_hash, {*kind.hashes, *index.raw.hashes, *index.zip.hashes})
    shards = Shards.of((opened,))
    return MdsSamples(shards, stream.local, stream.split, allow_unsafe_types=allow_unsafe_types)


def _other_samples(stream: Stream, index: bytes) -> SplitSamples:
    """The samples of a stream of another format than MDS."""
    from mx8shards.streaming.split_files import SplitFiles
    from mx8shards.streaming.split_samples import SplitSamples

    url = None if stream.source is None else _link(stream.source).url
    files = SplitFiles(stream.directory, url, stream.deadline_s, keep_zip=bool(stream.keep_zip))
    return SplitSamples(files, index, stream.local, stream.split, validate_hash=stream.validate_hash)


def open_entries(root: Path, index: bytes) -> Samples:
    """The samples of local shards that this index names, whatever index.json is in their directory."""
    from mx8shards.streaming.split_entries import has_other_formats
    from mx8shards.streaming.split_files import SplitFiles
    from mx8shards.streaming.split_samples import SplitSamples

    if has_other_formats(index):
        return SplitSamples(SplitFiles(root, None, 0.0, keep_zip=True), index, str(root), "")
    snapshot = Snapshot(root, snapshot_id(index), parse_index(index), kept=False)
    opened = ProvidedSnapshot(snapshot, "structure", LocalFiles(snapshot, None, check=False))
    return MdsSamples(Shards.of((opened,)), str(root), "", allow_unsafe_types=False)


def entry_rows(dirname: str, split: str | None, obj: Mapping[str, Any]) -> Callable[[], Row]:
    """A function that opens the local shard with this entry in an index, and returns one from rows to samples."""
    if obj.get("version") != 2:
        raise SettingError(subject="shard", expected="version 2", found=shown(obj.get("version")))
    samples = open_entries(Path(dirname) / (split or ""), json.dumps({"shards": [obj], "version": 2}).encode())
    return lambda: samples.rows(0)


def reader_from_json(dirname: str, split: str | None, obj: Mapping[str, Any]) -> ShardReader:
    """The reader of a local shard, from its entry in an index.

    Args:
        dirname: The directory of the dataset.
        split: The split, a sub-directory; None or "" for none.
        obj: The entry, as JSON.
    """
    return ShardReader(dirname, split, obj, entry_rows(dirname, split, obj))


def is_complete(root: Path) -> bool:
    """Whether a directory, which is no mirror, has all files of its index: as Streaming leaves it after an epoch."""
    from mx8shards.remote.mirror_facts import mirrored_url

    data = current_bytes(root)
    if data is None or mirrored_url(root) is not None:
        return False
    try:
        index = parse_index(data)
    except FormatError:
        return False
    for i in range(index.shards):
        entry = index.entry(i)
        if not any(_is_there(root / info.basename, info.size_bytes) for info in (entry.raw, entry.stored)):
            return False
    return True


def _is_there(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _local(stream: Stream) -> ProvidedSnapshot:
    snapshot = current(stream.directory)
    provider: Provider = LocalFiles(snapshot, None, check=False)
    if stream.decompresses_itself:
        provider = _own_decompression(provider, snapshot, stream)
    return ProvidedSnapshot(snapshot, "structure", provider)


def _mirror(stream: Stream, cache_limit: Limit | None) -> ProvidedSnapshot:
    from mx8shards.remote.mirror import adopt, open_mirror

    link, root = _link(stream.source or ""), stream.directory
    if stream.asks_for_index and link.snapshot is None:
        link = RemoteLink(link.url, refresh=True)
    adopt(root, link.url, stream.deadline_s)
    with _copy_in_hint(stream):
        opened = open_mirror(
            link,
            local=root,
            cache_limit=cache_limit,
            keep_zip=bool(stream.keep_zip) or stream.decompresses_itself,
            deadline_s=stream.deadline_s,
        )
    if stream.decompresses_itself:
        return opened._replace(provider=_own_decompression(opened.provider, opened.snapshot, stream))
    return opened


def _own_decompression(inner: Provider, snapshot: Snapshot, stream: Stream) -> Provider:
    from mx8shards.streaming.own_decompression import OwnDecompression

    return OwnDecompression(inner, snapshot, stream)


@contextmanager
def _copy_in_hint(stream: Stream) -> Iterator[None]:
    """If the store does not answer, say how a copy that is here can be used."""
    try:
        yield
    except RemoteError as error:
        if stream.asks_for_index and (stream.directory / INDEX).exists():
            error.hint = error.hint or f"local={stream.local!r} uses the copy that is here, without asking the store"
        raise


def _link(remote: str) -> RemoteLink:
    """The link of a URL or, as file:///…, of a directory."""
    if not is_url(remote) and Path(remote).is_dir():  # also if its name ends with @refresh or @sha256:…
        return RemoteLink(f"file://{remote}")
    found = parse_any(remote)
    return found if isinstance(found, RemoteLink) else RemoteLink(f"file://{found.root}")


def _other_index(stream: Stream) -> bytes | None:
    """The index of a stream that has shards of other formats than MDS; None if it has none, or cannot be read."""
    from mx8shards.format.index import MAX_INDEX_BYTES
    from mx8shards.remote.provider import connect
    from mx8shards.streaming.split_entries import has_other_formats

    here = data = current_bytes(stream.directory)
    if stream.source is not None:
        data = None
        with _found_or_none(), _copy_in_hint(stream):
            data = connect(_link(stream.source).url, stream.deadline_s).read(INDEX, MAX_INDEX_BYTES).data
    if data is None or not has_other_formats(data):
        return None
    if here not in (None, data):
        found = f"{stream.directory}, a copy of an earlier one"
        hint = "remove this directory, or give local=…"
        raise SettingError(subject="local", expected=f"a copy of what {stream.source} has now", found=found, hint=hint)
    return data


@contextmanager
def _found_or_none() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        if error.reason != "missing":
            raise
