"""Where does MDSWriter put its files (a directory, a URL, or both), and which local files stay?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mx8shards.disk import publish
from mx8shards.errors import SettingError, shown
from mx8shards.format.hashing import HASHES
from mx8shards.shards import links
from mx8shards.shards.links import absolute, is_url
from mx8shards.shards.snapshots import INDEX
from mx8shards.streaming.stored_files import store_of

DEFAULT_LIMIT = 1 << 26  # bytes of a shard
_OPTIONS = ("progress_bar", "max_workers", "retry", "exist_ok")


@dataclass(frozen=True)
class Target:
    """Where a dataset is written.

    Args:
        out: What a Writer gets: a directory, a URL, or a pair of both.
        local: The local directory, if the user gave one.
        remote: The URL, or the directory that stands for a remote one.
        copy_to: The directory that gets a copy at the end: the local one, if `remote` is a directory and it is kept.
        remove: The local directory that is removed at the end.
        replaced: The local directory that is emptied before anything is written.
    """

    out: Any
    local: str | None
    remote: str | None
    copy_to: Path | None = None
    remove: Path | None = None
    replaced: Path | None = None

    @property
    def is_pair(self) -> bool:
        """Whether both a directory and a URL are written."""
        return isinstance(self.out, tuple)

    def empty(self) -> None:
        """Empty the local directory, if it is to be replaced. RemoteError if the URL does not answer."""
        if self.replaced is None or not self.replaced.exists():
            return
        if self.remote is not None and is_url(self.remote):
            store = store_of(self.remote)
            try:
                store.head(INDEX)
            finally:
                store.close()
        _empty(self.replaced)

    def finish(self) -> None:
        """Copy or remove the local files, after the dataset was published."""
        if self.copy_to is not None:
            publish.make_root(self.copy_to)
            copy_dataset(Path(self.out), self.copy_to)
        if self.remove is not None:
            publish.remove_tree(self.remove)


def target_of(out: Any, remote: str | None, *, keep_local: bool, exist_ok: bool) -> Target:
    """The target of a writer's `out` and `remote`. With `exist_ok`, `empty` empties the local directory."""
    local, remote = _local_and_remote(out, remote)
    directory = None if local is None else links.directory("out", local)
    replaced = directory if exist_ok else None
    if remote is None:
        return Target(directory, local, None, replaced=replaced)
    if is_url(remote):
        place: Any = remote if directory is None or not keep_local else (directory, remote)
        return Target(place, local, remote, replaced=replaced)
    if directory is not None and not exist_ok and directory.is_dir() and any(directory.iterdir()):
        raise FileExistsError(f"Directory is not empty: {directory}")
    copy_to = directory if keep_local else None
    return Target(absolute(remote), local, remote, copy_to=copy_to, replaced=replaced)


def _empty(directory: Path) -> None:
    """Remove a directory. If it is a link, which may lead to another disk, empty the directory there, and keep both."""
    found = directory.resolve()
    publish.remove_tree(found)
    if directory.is_symlink():
        publish.make_root(found)


def _local_and_remote(out: Any, remote: str | None) -> tuple[str | None, str | None]:
    """The local directory and the remote one, each of which may be None."""
    if isinstance(out, tuple | list):
        if len(out) != 2 or remote is not None:
            found = shown(out) if remote is None else "a pair, beside remote="
            raise SettingError(subject="out", expected="a directory, a URL, or a pair (local, remote)", found=found)
        return os.fspath(out[0]), os.fspath(out[1]) or None
    out = os.fspath(out)
    if remote is not None:
        return out, os.fspath(remote)
    return (None, out) if is_url(out) else (out, None)


def copy_dataset(source: Path, target: Path) -> None:
    """Copy the files of a dataset into an empty directory, the index last."""
    files = sorted(publish.files_below(source), key=lambda path: path.name == "index.json")
    for path in files:
        copy = target / path.relative_to(source)
        publish.make_directories(copy.parent, below=target)
        publish.copy_file(path, copy, hard_link=False)


def checked_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The further arguments of a writer; SettingError for an unknown one."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        known = ", ".join(_OPTIONS)
        raise SettingError(subject="writer", expected=f"no arguments other than {known}", found=", ".join(unknown))
    return options


def checked_hashes(hashes: Sequence[str] | str | None) -> list[str]:
    """The names of hashes as a list; SettingError unless they are sorted and known."""
    names = [hashes] if isinstance(hashes, str) else list(hashes or [])
    if names != sorted(set(names)):
        raise SettingError(subject="hashes", expected="unique names in sorted order", found=shown(hashes))
    for name in names:
        if name not in HASHES:
            raise SettingError(subject="hashes", expected=f"some of {', '.join(HASHES)}", found=shown(name))
    return names
