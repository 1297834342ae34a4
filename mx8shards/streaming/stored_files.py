"""How is a single file, of a URL or a path, read and brought to a local path?"""

from __future__ import annotations

import uuid
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.errors import RemoteError, SettingError, shown
from mx8shards.remote.store import Store
from mx8shards.shards.links import absolute, is_url

_DEADLINE_S = 60.0


def store_of(location: str, deadline_s: float = _DEADLINE_S) -> Store:
    """The store of a URL, or of a directory.

    Args:
        location: The URL, or the path of a directory.
        deadline_s: How many seconds the store may fail to answer.
    """
    from mx8shards.remote.provider import connect

    return connect(location.rstrip("/") if is_url(location) else f"file://{absolute(location)}", deadline_s)


def split_location(location: str) -> tuple[str, str]:
    """The directory (or the URL of one) of a file, and the file's name."""
    directory, slash, name = location.rstrip("/").rpartition("/")
    if not name or (is_url(location) and not is_url(f"{directory}/")):
        raise SettingError(subject="file", expected="the path or URL of a file", found=shown(location))
    return (directory or "/") if slash else ".", name


def read_file(location: str, most: int, deadline_s: float = _DEADLINE_S) -> bytes:
    """The bytes of a file of at most `most` bytes."""
    directory, name = split_location(location)
    return store_of(directory, deadline_s).read(name, most).data


def download_file(remote: str | None, local: str, timeout: float = _DEADLINE_S) -> None:
    """Bring a file to a local path, unless it is there.

    Args:
        remote: Its URL or path. None or "": it must be there.
        local: The local path.
        timeout: How many seconds the store may fail to answer.
    """
    target = absolute(local)
    if target.exists():
        return
    if not remote:
        raise FileNotFoundError(f"no remote is given, and there is no local file {target}")
    directory, name = split_location(remote)
    store = store_of(directory, timeout)
    found = store.head(name)
    if found is None:
        raise RemoteError("no such file", subject=remote, reason="missing")
    publish.make_root(target.parent)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        store.fetch(name, draft, found.size_bytes)
        operations.rename(draft, target)
    finally:
        operations.unlink(draft)


def place_file(path: Path, data: bytes) -> None:
    """Write a file, or replace it, in one step."""
    publish.make_root(path.parent)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        publish.write_file(draft, [data])
        operations.rename(draft, path)
    finally:
        operations.unlink(draft)
