"""What is in a bucket, and what ought to be there?"""

from __future__ import annotations

from pathlib import Path

from mx8shards.remote.open_store import open_store
from mx8shards.shards.links import Link
from mx8shards.shards.recovery import files_of
from mx8shards.shards.snapshots import kept, kept_path, load


def objects(url: str) -> dict[str, bytes]:
    """All objects below a URL, by key, without those that a killed process has left while it tried the store."""
    store = open_store(url)
    keys = [each for each in store.list() if not each.key.startswith(".mx8shards/trial-")]
    return {each.key: store.read(each.key, each.size_bytes).data for each in keys}


def files(root: Path) -> dict[str, bytes]:
    """All files of a local dataset, by name, without the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def copied(url: str, root: Path) -> Path:
    """A local copy of all objects, made without any code of ours but the store's."""
    for key, data in objects(url).items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def named_files(root: Path) -> set[str]:
    """The names of all files that the kept snapshots of a dataset consist of."""
    names = {"index.json"}
    for snapshot in kept(root):
        names |= files_of(load(Link(root, snapshot)).index)
        names.add(kept_path(root, snapshot).relative_to(root).as_posix())
    return names
