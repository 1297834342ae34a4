"""How do the indices of partitions become one index, whose shards stay where they are? The function merge_index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mx8shards.disk import operations, publish
from mx8shards.errors import DatasetNotFoundError, FormatError, SettingError, shown
from mx8shards.format.index import MAX_INDEX_BYTES
from mx8shards.shards.links import absolute, is_url
from mx8shards.shards.snapshots import INDEX, kept, kept_path, snapshot_id
from mx8shards.streaming.stored_files import place_file, read_file, store_of

Place = str | os.PathLike[str] | tuple[str, str]

_FILES = ("raw_data", "zip_data", "raw_meta", "zip_meta")


def merge_index(*args: Any, **kwargs: Any) -> None:
    """Merge the indices of partitions: `merge_index(paths, out)`, or `merge_index(out)` for all below a directory.

    The merged index is written into `out`, in which the shards of the partitions stay.

    Args:
        args: The paths or URLs of the partitions' index.json, in order, each also as a pair of a local path and a URL;
            then `out`: a directory, a URL, or a pair of both, which has the partitions as sub-directories.
        kwargs: `keep_local=False` removes the local copy of the merged index after it was uploaded;
            `download_timeout` is how many seconds the store may fail to answer, 60 by default.
    """
    if not args:
        raise SettingError(subject="merge_index", expected="a list of indices, or a directory", found="nothing")
    if isinstance(args[0], list) and 2 <= len(args) + len(kwargs) <= 4:
        _merge(*args, **kwargs)
    elif isinstance(args[0], str | os.PathLike | tuple) and len(args) + len(kwargs) <= 3:
        _merge_below(*args, **kwargs)
    else:
        expected = "(paths, out, keep_local, download_timeout) or (out, keep_local, download_timeout)"
        raise SettingError(subject="merge_index", expected=expected, found=shown(args))


def _merge_below(out: Place, keep_local: bool = True, download_timeout: float = 60) -> None:
    local, remote = _places(out)
    found = [] if local is None else _indices_in(local)
    if not found and remote is not None:
        keys = (listed.key for listed in store_of(remote, download_timeout).list())
        found = [f"{remote.rstrip('/')}/{key}" for key in _topmost(keys)]
    if not found:
        raise DatasetNotFoundError(f"no {INDEX} in a sub-directory", subject=str(remote or local))
    _merge(found, out, keep_local, download_timeout)


def _merge(
    index_file_urls: Sequence[str | tuple[str, str]], out: Place, keep_local: bool = True, download_timeout: float = 60
) -> None:
    local, remote = _places(out)
    shards: list[dict[str, Any]] = []
    for location in dict.fromkeys(map(_chosen, index_file_urls)):
        shards += _shards(location, _prefix(location, local, remote), download_timeout)
    _refuse_duplicates(shards)
    data = json.dumps({"version": 2, "shards": shards}).encode()
    if local is not None and (keep_local or remote is None):
        publish.make_root(local)
        if kept(local):
            place_file(kept_path(local, snapshot_id(data)), data)
        place_file(local / INDEX, data)
    if remote is not None and is_url(remote):
        store_of(remote, download_timeout).put(INDEX, data)
    elif remote is not None:
        place_file(absolute(remote) / INDEX, data)
    if local is not None and remote is not None and not keep_local:
        operations.unlink(local / INDEX)


def _places(out: Place) -> tuple[Path | None, str | None]:
    """The local directory and the remote place."""
    if isinstance(out, tuple):
        return absolute(out[0]), out[1] or None
    text = os.fspath(out)
    return (None, text) if is_url(text) else (absolute(text), None)


def _chosen(location: Any) -> str:
    """Of a pair, the local path if it exists."""
    if isinstance(location, tuple | list):
        local, remote = location
        return str(local if not remote or (local and Path(local).exists()) else remote).rstrip("/").strip()
    return str(os.fspath(location)).rstrip("/").strip()


def _prefix(location: str, local: Path | None, remote: str | None) -> str:
    """The partition's directory below `out`; the name of its directory if it is elsewhere."""
    parent = location.rpartition("/")[0]
    roots = [str(root).rstrip("/") for root in (local, remote) if root is not None]
    whole = parent if is_url(location) else str(absolute(parent or "."))
    for root in roots:
        if whole.startswith(f"{root}/"):
            return whole.removeprefix(f"{root}/")
    return whole.rpartition("/")[2]


def _shards(location: str, prefix: str, timeout_s: float) -> list[dict[str, Any]]:
    """The entries of a partition's index, with its directory before each file."""
    try:
        shards: list[dict[str, Any]] = json.loads(read_file(location, MAX_INDEX_BYTES, timeout_s))["shards"]
        for entry in shards:
            for info in (entry[key] for key in _FILES if entry.get(key)):
                info["basename"] = f"{prefix}/{info['basename']}"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(subject=location, expected="the index of a partition", found=f"{error}"[:200]) from error
    return shards


def _refuse_duplicates(shards: Iterable[dict[str, Any]]) -> None:
    seen = set()
    for entry in shards:
        name = entry["raw_data"]["basename"]
        if name in seen:
            hint = "give each partition a directory of its own below out"
            raise SettingError(
                subject="merge_index", expected="a name for each shard", found=f"{name} twice", hint=hint
            )
        seen.add(name)


def _indices_in(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    keys = (path.relative_to(root).as_posix() for path in publish.files_below(root))
    return [str(root / key) for key in _topmost(keys)]


def _topmost(keys: Iterable[str]) -> list[str]:
    """The indices in sub-directories, sorted, without hidden ones and those of directories that were merged."""
    paths = [PurePosixPath(key) for key in keys if key.endswith(f"/{INDEX}") and "/." not in f"/{key}"]
    directories = {path.parent for path in paths}
    return sorted(str(path) for path in paths if not directories & set(path.parent.parents))
