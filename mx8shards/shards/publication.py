"""How does a new snapshot become visible whole, or not at all?

`Publication` is the port: what the Writer needs of a place to publish to. `LocalPublication` is the local disk:

1. Shards and side-cars are written to `.mx8shards/staging/`, each durable before the next step needs it.
2. `staging/intent.json` names them all and the snapshot they belong to.
3. They are renamed to their final names, the index is kept under its id, and index.json is replaced last.

Whoever takes the lock next finds an unfinished staging directory and, unless index.json already is the intended one,
takes back exactly what the intent names and no kept snapshot uses. Nothing else is ever removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mx8shards.disk import lock, publish, steps
from mx8shards.errors import DatasetExistsError, DiskError, FormatError
from mx8shards.format.index import Index, parse_index
from mx8shards.format.sidecars import Sidecar
from mx8shards.shards.snapshots import INDEX, STATE, current_bytes, kept, kept_path, sidecar_path, snapshot_id

Pieces = Iterable[bytes | memoryview]


class Publication(Protocol):
    """A place that takes shards in any order and from any thread, and shows them all at once by one index."""

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Store a shard's file, durably, without showing it."""

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Show everything stored so far as one snapshot and return its id, if the current one still is `if_match`."""

    def close(self) -> None:
        """Forget what was not published."""


class LocalPublication:
    """A publication into a local directory; holds the dataset's lock from opening to `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STATE / "staging"
        self._names: list[str] = []
        self._lock = -1
        _make_root(root)
        publish.make_directories(root / STATE, below=root)
        self._lock = lock.acquire(root / STATE / "lock")
        try:
            recover(root)
            steps.make_directory(self._staging)
        except BaseException:
            self.close()
            raise

    def stage(self, name: str) -> Path:
        """A free path for the file that will be published as `name`; the caller writes it and makes it durable."""
        self._names.append(name)
        return self._staged(name)

    def _staged(self, name: str) -> Path:
        return self._staging / name.replace("/", "~")  # no basename holds a "~"

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """A durable file that will be `basename`."""
        publish.write_file(self.stage(basename), pieces)

    def put_file(self, name: str, source: Path, *, hard_link: bool) -> None:
        """A durable link to or copy of the file `source`, that will be published as `name`."""
        publish.copy_file(source, self.stage(name), hard_link=hard_link)

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Publish the finished file `staged`, which lies in `scratch`, as this side-car."""
        target = self.stage(sidecar_name(sidecar))
        if not target.exists():
            steps.rename(staged, target)

    def scratch(self, name: str) -> Path:
        """A free path on the same disk for something that has no name yet."""
        return self._staging / f"~{name}"

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish; DiskError where another index was put in place meanwhile, and then nothing has changed."""
        name = snapshot_id(data)
        now = current_bytes(self.root)
        found = now if now is None else snapshot_id(now)
        if found != if_match:
            raise DiskError(
                f"expected the current snapshot to be {if_match}, got {found}: nothing was published",
                subject=str(self.root / INDEX),
            )
        if now is not None and found is not None:
            self._keep(found, now)  # a foreign dataset's index stays readable under its id, too
        if found != name:
            self._publish(name, data)
        return name

    def _publish(self, name: str, data: bytes) -> None:
        new = sorted({file for file in self._names if not self._is_there(file)})
        publish.write_file(self._staging / "index.json", [data])
        _write_intent(self.root, name, new)
        parents = {(self.root / file).parent for file in new}
        for parent in sorted(parents):
            publish.make_directories(parent, below=self.root)
        for file in new:
            steps.rename(self._staged(file), self.root / file)
        for parent in sorted(parents):
            steps.sync_directory(parent)
        self._keep(name, data)
        steps.rename(self._staging / "index.json", self.root / INDEX)
        steps.sync_directory(self.root)

    def _is_there(self, name: str) -> bool:
        """Whether a side-car of this content is published already. A shard's name that is taken is an error."""
        target = self.root / name
        if not os.path.lexists(target):
            return False
        if target.parent == sidecar_path(self.root, "").parent:
            return True
        raise DatasetExistsError("a file of this name is here that no snapshot knows", subject=str(target))

    def _keep(self, name: str, data: bytes) -> None:
        target = kept_path(self.root, name)
        if not target.exists():
            publish.make_directories(target.parent, below=self.root)
            staged = self._staging / target.name
            publish.write_file(staged, [data])
            steps.rename(staged, target)
            steps.sync_directory(target.parent)

    def close(self) -> None:
        """Remove what was staged and free the lock. Published files are not touched."""
        if self._lock < 0:
            return
        try:
            recover(self.root)
        finally:
            descriptor, self._lock = self._lock, -1
            os.close(descriptor)


def sidecar_name(sidecar: Sidecar) -> str:
    """The path of a side-car below the dataset's root."""
    return f"{STATE}/sidecars/{sidecar.blake3}"


def files_of(index: Index) -> set[str]:
    """The names below the root of every file that a snapshot with this index needs."""
    stored = {index.zip.basenames[i] or index.raw.basenames[i] for i in range(index.shards)}
    return stored | {sidecar_name(sidecar) for sidecar in index.sidecars}


def recover(root: Path) -> None:
    """Finish or take back what an earlier publication or removal left behind. Needs the lock."""
    staging = root / STATE / "staging"
    if not staging.is_dir():
        return
    intent = _read_intent(root)
    if intent is not None:
        _take_back(root, *intent)
        steps.unlink(staging / "intent.json")  # first: without the files beside it, the intent means something else
        steps.sync_directory(staging)
    publish.remove_tree(staging)


def _take_back(root: Path, snapshot: str | None, names: list[str]) -> None:
    now = current_bytes(root)
    if now is not None and snapshot_id(now) == snapshot:
        return  # index.json was put in place: the publication is complete
    if snapshot is not None:
        steps.unlink(kept_path(root, snapshot))
    staged = {path.name for path in (root / STATE / "staging").iterdir()}
    used = _used(root)
    for name in names:
        # a staged copy means that the file of this name below the root is not the one we meant to put there
        if name not in used and name.replace("/", "~") not in staged:
            steps.unlink(root / name)


def _used(root: Path) -> set[str]:
    used: set[str] = set()
    indices = [kept_path(root, name).read_bytes() for name in kept(root)]
    for data in filter(None, [*indices, current_bytes(root)]):
        used |= files_of(parse_index(data))
    return used


def remove_files(root: Path, names: Iterable[str], snapshots: Iterable[str]) -> None:
    """Forget these snapshots, then remove those of the files `names` that no other snapshot uses. Needs the lock.

    A kill in between leaves an intent, and `recover` goes on from there.
    """
    publish.make_directories(root / STATE / "staging", below=root)
    _write_intent(root, None, sorted(names))
    for snapshot in snapshots:
        steps.unlink(kept_path(root, snapshot))
    recover(root)


def _write_intent(root: Path, snapshot: str | None, names: list[str]) -> None:
    target = root / STATE / "staging" / "intent.json"
    draft = target.with_name("intent.draft")
    publish.write_file(draft, [json.dumps({"snapshot": snapshot, "files": names}).encode()])
    steps.rename(draft, target)
    steps.sync_directory(target.parent)


def _read_intent(root: Path) -> tuple[str | None, list[str]] | None:
    try:
        intent = json.loads((root / STATE / "staging" / "intent.json").read_bytes())
        return intent["snapshot"], intent["files"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            "unreadable; move it away once you have looked at what lies beside it",
            subject=str(root / STATE / "staging" / "intent.json"),
        ) from error


def _make_root(root: Path) -> None:
    if root.is_dir():
        return
    existing = next(parent for parent in root.absolute().parents if parent.exists())
    publish.make_directories(root.absolute(), below=existing)
