"""How is a stream opened: from its local directory, a mirror of its remote, or in another format than MDS?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mx8shards.errors import DatasetNotFoundError, FormatError, RemoteError, SettingError, shown
from mx8shards.format.index import parse_index
from mx8shards.shards.links import RemoteLink, is_url, parse_any
from mx8shards.shards.open_shard import ProvidedSnapshot, Shards
from mx8shards.shards.providers import LocalFiles, Provider
from mx8shards.shards.snapshots import INDEX, Snapshot, current, current_bytes, read_index, snapshot_id
from mx8shards.streaming.compatible_errors import MissingIndexError
from mx8shards.streaming.mds_samples import MdsSamples
from mx8shards.streaming.own_decompression import OwnDecompression
from mx8shards.streaming.shard_files import ShardReader
from mx8shards.streaming.split_entries import has_other_formats
from mx8shards.streaming.split_samples import SplitSamples
from mx8shards.streaming.stream import Stream, require_hash

Samples = MdsSamples | SplitSamples


def open_stream(stream: Stream, *, cache_limit: int | None, allow_unsafe_types: bool) -> Samples:
    """The samples of a stream.

    Args:
        stream: The stream, with all its settings.
        cache_limit: The most bytes of shards to keep of a remote.
        allow_unsafe_types: Also read columns whose decoding runs code.
    """
    remote = stream.source
    if remote is None and not (stream.directory / INDEX).exists():
        message = f"no `remote` is given, and there is no local {INDEX}"
        raise MissingIndexError(message, subject=str(stream.directory))
    try:
        opened = _local(stream) if remote is None or is_complete(stream.directory) else _mirror(stream, cache_limit)
    except FormatError:
        data = _other_index(stream)
        if data is None:
            raise
        return SplitSamples(stream.directory, data, _source_url(remote), stream.deadline_s, stream.local, stream.split)
    if stream.validate_hash:
        index = opened.snapshot.index
        for kind in index.kinds:
            require_hash(stream.validate_hash, {*kind.hashes, *index.raw.hashes, *index.zip.hashes})
    shards = Shards.of((opened,))
    return MdsSamples(shards, stream.local, stream.split, allow_unsafe_types=allow_unsafe_types)


def open_entries(root: Path, index: bytes) -> Samples:
    """The samples of local shards that this index names, whatever index.json is in their directory."""
    if has_other_formats(index):
        return SplitSamples(root, index, None, 0.0, str(root), "")
    snapshot = Snapshot(root, snapshot_id(index), parse_index(index), kept=False)
    opened = ProvidedSnapshot(snapshot, "structure", LocalFiles(snapshot, None, check=False))
    return MdsSamples(Shards.of((opened,)), str(root), "", allow_unsafe_types=False)


def reader_from_json(dirname: str, split: str | None, obj: Mapping[str, Any]) -> ShardReader:
    """The reader of a local shard, from its entry in an index.

    Args:
        dirname: The directory of the dataset.
        split: The split, a sub-directory; None or "" for none.
        obj: The entry, as JSON.
    """
    if obj.get("version") != 2:
        raise SettingError(subject="shard", expected="version 2", found=shown(obj.get("version")))
    samples = open_entries(Path(dirname) / (split or ""), json.dumps({"shards": [obj], "version": 2}).encode())
    return ShardReader(dirname, split, obj, lambda: samples.rows(0))


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
        provider = OwnDecompression(provider, snapshot, stream)
    return ProvidedSnapshot(snapshot, "structure", provider)


def _mirror(stream: Stream, cache_limit: int | None) -> ProvidedSnapshot:
    from mx8shards.remote.mirror import adopt, open_mirror

    link, root = _link(stream.source or ""), stream.directory
    adopt(root, link.url, stream.deadline_s)
    opened = open_mirror(
        link,
        local=root,
        cache_limit=cache_limit,
        keep_zip=bool(stream.keep_zip) or stream.decompresses_itself,
        deadline_s=stream.deadline_s,
    )
    if stream.decompresses_itself:
        return opened._replace(provider=OwnDecompression(opened.provider, opened.snapshot, stream))
    return opened


def _link(remote: str) -> RemoteLink:
    """The link of a URL or, as file:///…, of a directory."""
    if not is_url(remote) and Path(remote).is_dir():  # also if its name ends with @refresh or @sha256:…
        return RemoteLink(f"file://{remote}")
    found = parse_any(remote)
    return found if isinstance(found, RemoteLink) else RemoteLink(f"file://{found.root}")


def _source_url(remote: str | None) -> str | None:
    return None if remote is None else _link(remote).url


def _other_index(stream: Stream) -> bytes | None:
    """The index of a stream that has shards of other formats than MDS; None if it has none, or cannot be read."""
    from mx8shards.format.index import MAX_INDEX_BYTES
    from mx8shards.remote.provider import connect

    try:
        data = read_index(stream.directory / INDEX)
    except DatasetNotFoundError:
        if stream.source is None:
            return None
        with _found_or_none():
            data = connect(_link(stream.source).url, stream.deadline_s).read(INDEX, MAX_INDEX_BYTES).data
            return data if has_other_formats(data) else None
        return None
    return data if has_other_formats(data) else None


@contextmanager
def _found_or_none() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        if error.reason != "missing":
            raise
