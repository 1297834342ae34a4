"""How is a snapshot published atomically: staging, the intent, renames, index.json last?

`Publication` is the interface that the Writer needs. `LocalPublication` implements it on a local disk:

1. Shards and side-cars are written to `.mx8shards/staging/`, each durable before the next step needs it.
2. `staging/intent.json` lists them all and the snapshot they belong to.
3. They are renamed to their final names, the index is stored under its id, and index.json is replaced last.

`recovery` rolls back interrupted publications. A name that depends on another is created after the other is durable,
and removed before it: a snapshot stays complete in whatever order the file system writes its directories to the disk.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mx8shards.disk import lock, operations, publish
from mx8shards.errors import DatasetExistsError, DiskError, SettingError, ShardsError
from mx8shards.format.columns import Columns
from mx8shards.format.index import parse_index
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards.recovery import (
    SIDECAR,
    Intent,
    recover,
    removal_of,
    sidecar_name,
    staged_name,
    write_intent,
)
from mx8shards.shards.snapshots import INDEX, MIRROR, STATE, current_bytes, kept_path, snapshot_id
from mx8shards.shards.writer_base import Base, Mode, base_of

Pieces = Iterable[bytes | memoryview]

_MOST_ATTEMPTS = 100  # attempts to lock a directory that other processes remove meanwhile

_logger = logging.getLogger("mx8shards")


class Publication(Protocol):
    """Accepts shards in any order and from any thread, and publishes all of them at once with the index."""

    def base(self, mode: Mode, columns: Columns) -> Base:
        """The state of the dataset to start from; an error if `mode` does not allow it."""

    def require_owner(self) -> None:
        """DiskError in a process forked from the one that opened this."""

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Store a shard's file, without publishing it. Its bytes are copied or written before this returns."""

    def temporary_path(self, name: str) -> Path:
        """A free local path for a file whose final name is not known yet."""

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Store the durable file `staged`, which has a temporary path, as this side-car."""

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish all stored files as a snapshot and return its id, if the current snapshot still is `if_match`."""

    def close(self) -> None:
        """Discard everything that was not published."""


class LocalPublication:
    """A publication into a local directory. Holds the dataset's lock until `close`."""

    _lock = -1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STATE / "staging"
        self._staging_made = False
        self._names: list[str] = []
        self._process = os.getpid()
        self._missing: list[Path] = []  # directories created here: an abandoned publication removes the empty ones
        with operations.disk_errors("open", root):
            self._missing += itertools.takewhile(
                lambda path: STATE in path.parts or not path.exists(), (root / STATE, root, *root.parents)
            )
            try:
                _require_no_links(root)
                self._take_lock()
                recover(root)
            except BaseException:
                with contextlib.suppress(ShardsError):  # the original error is more useful
                    self._remove_empty_state()
                self._release()
                raise

    def _take_lock(self) -> None:
        """Create the directories and take the lock. Retry if a process that closes removes them meanwhile."""
        for attempt in itertools.count():
            try:
                publish.make_root(self.root)
                publish.make_directories(self.root / STATE, below=self.root)
                self._lock = lock.acquire(self.root / STATE / "lock")
            except DiskError as error:
                if error.errno != errno.ENOENT or attempt == _MOST_ATTEMPTS:
                    raise
            else:
                return

    def base(self, mode: Mode, columns: Columns) -> Base:
        """The state of the dataset to start from; an error if `mode` does not allow it."""
        self._require_no_mirror()
        with operations.disk_errors("open", self.root):
            return base_of(self.root, mode, columns)

    def require_owner(self) -> None:
        """DiskError in a forked process, which has neither the lock nor the threads of the process that opened this."""
        if os.getpid() != self._process:
            raise DiskError(
                f"opened by process {self._process}: a process forked from it cannot publish", subject=str(self.root)
            )

    def stage(self, name: str) -> Path:
        """The staging path of the file to be published as `name`; the caller writes it and makes it durable."""
        self._make_staging()
        self._names.append(name)
        return self.staged(name)

    def _make_staging(self) -> None:
        """Create the staging directory when it is first needed: gc needs none, and a full disk may have no room."""
        self.require_owner()
        if not self._staging_made:
            operations.make_directory(self._staging)
            operations.sync_directory(self._staging.parent)  # also if a killed process created it without syncing
            self._staging_made = True

    def staged(self, name: str) -> Path:
        """The staging path of a file to be published as `name`."""
        return self._staging / staged_name(name)

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Store a durable file to be published as `basename`."""
        publish.write_file(self.stage(basename), pieces)

    def put_file(self, name: str, source: Path, *, hard_link: bool) -> None:
        """Store a durable hard link to the file `source`, or a copy, to be published as `name`."""
        publish.copy_file(source, self.stage(name), hard_link=hard_link)

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Store the finished file `staged`, which has a temporary path, to be published as this side-car."""
        with operations.disk_errors("publish", self.root):
            target = self.stage(sidecar_name(sidecar))
            if not target.exists():
                operations.rename(staged, target)

    def temporary_path(self, name: str) -> Path:
        """A free path on the same disk for a file whose final name is not known yet."""
        self._make_staging()
        return self._staging / f"~{name}"

    def put_index(self, data: bytes, if_match: str | None, *, keep_old: bool = True) -> str:
        """Publish the snapshot; DiskError, without any change, if another snapshot was published meanwhile.

        The index is parsed first, so that an unreadable one is never published. With `keep_old`, the replaced index is
        also stored under its id, unless it is already.
        """
        self._require_no_mirror()
        self._make_staging()
        name = snapshot_id(data)
        parse_index(data)
        now = current_bytes(self.root)
        found = None if now is None else snapshot_id(now)
        if found != if_match:
            raise DiskError(
                f"expected the current snapshot to be {if_match}, got {found}: nothing was published",
                subject=str(self.root / INDEX),
            )
        if found != name:
            # storing the replaced index keeps a foreign dataset's index readable under its id
            with operations.disk_errors("publish", self.root):
                self._publish(name, data, {found: now, name: data} if found and now and keep_old else {name: data})
        return name

    def _require_no_mirror(self) -> None:
        """SettingError if this directory is a mirror: its shards may be evicted, and these would be the only copy."""
        if (self.root / STATE / MIRROR).exists():
            expected, found = "a directory of its own for a dataset", f"{self.root}, the mirror of a remote dataset"
            raise SettingError(subject="out", expected=expected, found=found, hint="write to its URL")

    def _publish(self, name: str, data: bytes, keep: Mapping[str, bytes]) -> None:
        new = sorted(set(self._names))
        for file in new:
            self._require_free(file)
        publish.write_file(self._staging / "index.json", [data])
        keep = {name: data for name, data in keep.items() if not kept_path(self.root, name).exists()}
        write_intent(self.root, Intent(name, tuple(new), tuple(keep)))
        parents = {(self.root / file).parent for file in new}
        for parent in sorted(parents):
            publish.make_directories(parent, below=self.root)
        for file in new:
            operations.rename(self.staged(file), self.root / file)
        for parent in sorted(parents):
            operations.sync_directory(parent)
        for kept_name, kept_data in keep.items():
            self._keep(kept_name, kept_data)
        operations.rename(self._staging / "index.json", self.root / INDEX)
        try:
            operations.sync_directory(self.root)
        except DiskError as error:
            error.hint = f"the snapshot {name} is already published, but may not survive a power failure"
            raise

    def _require_free(self, name: str) -> None:
        """DatasetExistsError if the name of a new shard is taken.

        A new side-car replaces an existing file: its name is the hash of its contents, and the existing file may be
        damaged.
        """
        target = self.root / name
        if os.path.lexists(target) and not SIDECAR.fullmatch(name):
            raise DatasetExistsError("a file with the name of a new shard already exists", subject=str(target))

    def _keep(self, name: str, data: bytes) -> None:
        target = kept_path(self.root, name)
        publish.make_directories(target.parent, below=self.root)
        staged = self._staging / target.name
        publish.write_file(staged, [data])
        operations.rename(staged, target)
        operations.sync_directory(target.parent)

    def hand_over(self, target: Path, snapshot: str) -> None:
        """Close, and mark this dataset for removal once the dataset `target` has published `snapshot`.

        The next publication opened here removes it, or discards the intent if that snapshot was never published.
        """
        with operations.disk_errors("mark for removal", self.root):
            there = os.path.relpath(target.resolve(), self.root.resolve())
            intent = replace(removal_of(self.root), moved=(there, snapshot), whole=False)
            self._make_staging()
            write_intent(self.root, intent)
        self._release()

    def remove(self) -> None:
        """Remove the whole dataset with its history, but no other files."""
        with operations.disk_errors("remove", self.root):
            intent = removal_of(self.root)
            self._make_staging()
            write_intent(self.root, intent)
            recover(self.root)

    def close(self) -> None:
        """Remove the staged files and release the lock. Published files are not touched.

        Files that cannot be removed are left to the next holder of the lock. This is only a warning: after an error,
        the user might append the published samples again.
        """
        if self._lock < 0:
            return
        if os.getpid() != self._process:
            self._close_lock()
            return
        try:
            with operations.disk_errors("clean up", self.root):
                recover(self.root)
                self._remove_empty_state()
        except ShardsError as error:
            _logger.warning("the next publication has to clean up the staging directory: %s", error)
        finally:
            self._release()

    def _remove_empty_state(self) -> None:
        """Remove our state directory if it contains only the lock, and then the empty directories that were created.

        Without the lock, the state directory is kept, because another process may hold the lock.
        """
        state = self.root / STATE
        if self._lock >= 0 and state.is_dir() and {path.name for path in state.iterdir()} <= {"lock"}:
            operations.unlink(state / "lock")
            operations.remove_directory(state)
        for directory in self._missing:
            if directory.is_dir():
                if any(directory.iterdir()):
                    break
                operations.remove_directory(directory)

    def _release(self) -> None:
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            lock.release(descriptor)

    def _close_lock(self) -> None:
        """Close the lock's descriptor; if another process has a copy of it, that process keeps the lock."""
        descriptor, self._lock = self._lock, -1
        os.close(descriptor)

    def __del__(self) -> None:
        if self._lock >= 0:
            forgotten = os.getpid() == self._process
            self._close_lock()
            if forgotten:
                message = f"{self.root}: never closed, so nothing was published; use `with Writer(…)`, or call finish()"
                _logger.warning(message)  # because Python hides a ResourceWarning by default
                warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


def _require_no_links(root: Path) -> None:
    """FormatError if a directory of our state, or a parent directory of a part, is a symlink.

    `staging` may be one: recovery removes the symlink without following it.
    """
    directories = [root / STATE / name for name in ("snapshots", "sidecars", "parts")]
    own = root / STATE
    above = [path for path in (own, *own.parents) if STATE in path.parts]
    for path in (*reversed(above), *directories):
        publish.require_no_link(path)
