"""How does a new snapshot become visible whole, or not at all?

`Publication` is the port: what the Writer needs of a place to publish to. `LocalPublication` is the local disk:

1. Shards and side-cars are written to `.mx8shards/staging/`, each durable before the next step needs it.
2. `staging/intent.json` names them all and the snapshot they belong to.
3. They are renamed to their final names, the index is kept under its id, and index.json is replaced last.

What is interrupted, `recovery` takes back. A name that depends on another is made after the other one is durable, and
taken away before: no order in which a file system writes its directories to the disk can tear a snapshot.
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
from mx8shards.errors import DatasetExistsError, DiskError, ShardsError
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
from mx8shards.shards.snapshots import INDEX, STATE, current_bytes, kept_path, snapshot_id

Pieces = Iterable[bytes | memoryview]

_MOST_ATTEMPTS = 100  # to lock a directory that others keep removing

_logger = logging.getLogger("mx8shards")


class Publication(Protocol):
    """A place that takes shards in any order and from any thread, and shows them all at once by one index."""

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Store a shard's file, durably, without showing it."""

    def scratch(self, name: str) -> Path:
        """A free local path for a file that has no name yet."""

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Store the durable file `staged`, which lies in scratch, as this side-car."""

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Show everything stored so far as one snapshot and return its id, if the current one still is `if_match`."""

    def close(self) -> None:
        """Forget what was not published."""


class LocalPublication:
    """A publication into a local directory; holds the dataset's lock from opening to `close`."""

    _lock = -1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STATE / "staging"
        self._staging_made = False
        self._names: list[str] = []
        self._process = os.getpid()
        self._missing: list[Path] = []  # our directories, and new ones: an abandoned publication removes them if empty
        with operations.refusals("open", root):
            self._missing += itertools.takewhile(
                lambda path: STATE in path.parts or not path.exists(), (root / STATE, root, *root.parents)
            )
            try:
                _require_no_links(root)
                self._take_lock()
                recover(root)
            except BaseException:
                with contextlib.suppress(ShardsError):  # the error that is under way says more
                    self._leave_nothing()
                self._release()
                raise

    def _take_lock(self) -> None:
        """Make the directories and lock them. Who abandons a publication may just be removing them: then again."""
        for attempt in itertools.count():
            try:
                _make_root(self.root)
                publish.make_directories(self.root / STATE, below=self.root)
                self._lock = lock.acquire(self.root / STATE / "lock")
            except DiskError as error:
                if error.errno != errno.ENOENT or attempt == _MOST_ATTEMPTS:
                    raise
            else:
                return

    def require_owner(self) -> None:
        """DiskError in a process forked from the one that opened this: it has neither the lock nor the threads."""
        if os.getpid() != self._process:
            raise DiskError(
                f"opened by process {self._process}: a process forked from it cannot publish", subject=str(self.root)
            )

    def stage(self, name: str) -> Path:
        """A free path for the file that will be published as `name`; the caller writes it and makes it durable."""
        self._make_staging()
        self._names.append(name)
        return self._staged(name)

    def _make_staging(self) -> None:
        """Not before it is needed: a full disk may have no room for it, and gc does without."""
        self.require_owner()
        if not self._staging_made:
            operations.make_directory(self._staging)
            operations.sync_directory(self._staging.parent)  # also what a killed process made there and could not sync
            self._staging_made = True

    def _staged(self, name: str) -> Path:
        return self._staging / staged_name(name)

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """A durable file that will be `basename`."""
        publish.write_file(self.stage(basename), pieces)

    def put_file(self, name: str, source: Path, *, hard_link: bool) -> None:
        """A durable link to or copy of the file `source`, that will be published as `name`."""
        publish.copy_file(source, self.stage(name), hard_link=hard_link)

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Publish the finished file `staged`, which lies in `scratch`, as this side-car."""
        with operations.refusals("publish", self.root):
            target = self.stage(sidecar_name(sidecar))
            if not target.exists():
                operations.rename(staged, target)

    def scratch(self, name: str) -> Path:
        """A free path on the same disk for something that has no name yet."""
        self._make_staging()
        return self._staging / f"~{name}"

    def put_index(self, data: bytes, if_match: str | None, *, keep_old: bool = True) -> str:
        """Publish; DiskError where another index was put in place meanwhile, and then nothing has changed.

        What no reader could read is not published: the index is parsed once more, as they will. With `keep_old`, the
        index that is replaced is kept too, if it is not already.
        """
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
            # a foreign dataset's index stays readable under its id, too
            with operations.refusals("publish", self.root):
                self._publish(name, data, {found: now, name: data} if found and now and keep_old else {name: data})
        return name

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
            operations.rename(self._staged(file), self.root / file)
        for parent in sorted(parents):
            operations.sync_directory(parent)
        for kept_name, kept_data in keep.items():
            self._keep(kept_name, kept_data)
        operations.rename(self._staging / "index.json", self.root / INDEX)
        try:
            operations.sync_directory(self.root)
        except DiskError as error:
            error.hint = f"the snapshot {name} is in place already, but may not outlive a power cut"
            raise

    def _require_free(self, name: str) -> None:
        """A shard's name that is taken is an error. A side-car has its content's name, and takes the other one's place.

        It may well be the better one: nobody has looked at the bytes that lie there.
        """
        target = self.root / name
        if os.path.lexists(target) and not SIDECAR.fullmatch(name):
            raise DatasetExistsError("a file of this name is here that the snapshot does not know", subject=str(target))

    def _keep(self, name: str, data: bytes) -> None:
        target = kept_path(self.root, name)
        publish.make_directories(target.parent, below=self.root)
        staged = self._staging / target.name
        publish.write_file(staged, [data])
        operations.rename(staged, target)
        operations.sync_directory(target.parent)

    def hand_over(self, target: Path, snapshot: str) -> None:
        """Close, and have this whole dataset removed once the dataset `target` has published `snapshot`.

        Whoever opens a publication here next removes it, or drops the intent if that snapshot was never published.
        """
        with operations.refusals("hand over", self.root):
            there = os.path.relpath(target.resolve(), self.root.resolve())
            intent = replace(removal_of(self.root), moved=(there, snapshot), whole=False)
            self._make_staging()
            write_intent(self.root, intent)
        self._release()

    def remove(self) -> None:
        """Remove the whole dataset with its history, and no file of others."""
        with operations.refusals("remove", self.root):
            intent = removal_of(self.root)
            self._make_staging()
            write_intent(self.root, intent)
            recover(self.root)

    def close(self) -> None:
        """Remove what was staged and free the lock. Published files are not touched.

        What cannot be removed now is left to whoever takes the lock next. It is no reason to say that a publication
        failed: who is told so might well append the same samples once more.
        """
        if self._lock < 0:
            return
        if os.getpid() != self._process:
            self._drop()
            return
        try:
            with operations.refusals("clean up", self.root):
                recover(self.root)
                self._leave_nothing()
        except ShardsError as error:
            _logger.warning("left to the next publication to clean up: %s", error)
        finally:
            self._release()

    def _leave_nothing(self) -> None:
        """Take away the lock, if it is all there is of our state, and the directories that were not there before.

        Who does not hold the lock leaves it: another process may.
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

    def _drop(self) -> None:
        """Close the descriptor of the lock, which is not freed if another process has a copy: that one owns it."""
        descriptor, self._lock = self._lock, -1
        os.close(descriptor)

    def __del__(self) -> None:
        if self._lock >= 0:
            forgotten = os.getpid() == self._process
            self._drop()
            if forgotten:
                message = f"{self.root}: never closed, so nothing was published; use `with Writer(…)`, or call finish()"
                _logger.warning(message)  # most programs do not show a ResourceWarning
                warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


def _make_root(root: Path) -> None:
    if root.is_dir():
        return
    existing = next(parent for parent in root.parents if parent.exists())
    publish.make_directories(root, below=existing)


def _require_no_links(root: Path) -> None:
    """FormatError where a directory of ours, or one that a part of a dataset lies in, is a symlink.

    `staging` may be one: it is swept, and not followed.
    """
    directories = [root / STATE / name for name in ("snapshots", "sidecars", "parts")]
    own = root / STATE
    above = [path for path in (own, *own.parents) if STATE in path.parts]
    for path in (*reversed(above), *directories):
        publish.require_no_link(path)
