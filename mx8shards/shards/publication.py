"""How does a new snapshot become visible whole, or not at all?

`Publication` is the port: what the Writer needs of a place to publish to. `LocalPublication` is the local disk:

1. Shards and side-cars are written to `.mx8shards/staging/`, each durable before the next step needs it.
2. `staging/intent.json` names them all and the snapshot they belong to.
3. They are renamed to their final names, the index is kept under its id, and index.json is replaced last.

Whoever takes the lock next finds an unfinished staging directory and, unless index.json already is the intended one,
takes back exactly what the intent names and no kept snapshot uses. Nothing else is ever removed. A name that depends on
another is made after the other one is durable, and taken away before: no order in which a file system writes its
directories to the disk can tear a snapshot.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from mx8shards.disk import lock, publish, steps
from mx8shards.errors import DatasetExistsError, DiskError, FormatError, ShardsError
from mx8shards.format.basename import is_basename
from mx8shards.format.index import Index, parse_index
from mx8shards.format.jsontext import SNAPSHOT_ID, short
from mx8shards.format.sidecars import Sidecar
from mx8shards.shards.snapshots import INDEX, STATE, current_bytes, kept, kept_path, snapshot_id

Pieces = Iterable[bytes | memoryview]

_logger = logging.getLogger("mx8shards")

_SIDECARS = f"{STATE}/sidecars/"
_SIDECAR = re.compile(re.escape(_SIDECARS) + "[0-9a-f]{64}")


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

    _lock = -1

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STATE / "staging"
        self._staging_made = False
        self._names: list[str] = []
        self._process = os.getpid()
        with steps.refusals("open", root):
            _make_root(root)
            publish.make_directories(root / STATE, below=root)
            self._lock = lock.acquire(root / STATE / "lock")
            try:
                recover(root)
            except BaseException:
                self._release()
                raise

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
            steps.make_directory(self._staging)
            steps.sync_directory(self._staging.parent)  # also what a killed process made there and could not sync
            self._staging_made = True

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
        with steps.refusals("publish", self.root):
            target = self.stage(sidecar_name(sidecar))
            if not target.exists():
                steps.rename(staged, target)

    def scratch(self, name: str) -> Path:
        """A free path on the same disk for something that has no name yet."""
        self._make_staging()
        return self._staging / f"~{name}"

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish; DiskError where another index was put in place meanwhile, and then nothing has changed."""
        self._make_staging()
        name = snapshot_id(data)
        now = current_bytes(self.root)
        found = None if now is None else snapshot_id(now)
        if found != if_match:
            raise DiskError(
                f"expected the current snapshot to be {if_match}, got {found}: nothing was published",
                subject=str(self.root / INDEX),
            )
        if found != name:
            # a foreign dataset's index stays readable under its id, too
            with steps.refusals("publish", self.root):
                self._publish(name, data, {found: now, name: data} if found and now else {name: data})
        return name

    def _publish(self, name: str, data: bytes, keep: Mapping[str, bytes]) -> None:
        new = sorted(set(self._names))
        for file in new:
            self._require_free(file)
        publish.write_file(self._staging / "index.json", [data])
        keep = {name: data for name, data in keep.items() if not kept_path(self.root, name).exists()}
        _write_intent(self.root, _Intent(name, tuple(new), tuple(keep)))
        parents = {(self.root / file).parent for file in new}
        for parent in sorted(parents):
            publish.make_directories(parent, below=self.root)
        for file in new:
            steps.rename(self._staged(file), self.root / file)
        for parent in sorted(parents):
            steps.sync_directory(parent)
        for kept_name, kept_data in keep.items():
            self._keep(kept_name, kept_data)
        steps.rename(self._staging / "index.json", self.root / INDEX)
        try:
            steps.sync_directory(self.root)
        except DiskError as error:
            error.hint = f"the snapshot {name} is in place already, but may not outlive a power cut"
            raise

    def _require_free(self, name: str) -> None:
        """A shard's name that is taken is an error. A side-car has its content's name, and takes the other one's place.

        It may well be the better one: nobody has looked at the bytes that lie there.
        """
        target = self.root / name
        if os.path.lexists(target) and not _SIDECAR.fullmatch(name):
            raise DatasetExistsError("a file of this name is here that the snapshot does not know", subject=str(target))

    def _keep(self, name: str, data: bytes) -> None:
        target = kept_path(self.root, name)
        publish.make_directories(target.parent, below=self.root)
        staged = self._staging / target.name
        publish.write_file(staged, [data])
        steps.rename(staged, target)
        steps.sync_directory(target.parent)

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
            with steps.refusals("clean up", self.root):
                recover(self.root)
        except ShardsError as error:
            _logger.warning("left to the next publication to clean up: %s", error)
        finally:
            self._release()

    def _release(self) -> None:
        descriptor, self._lock = self._lock, -1
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
                message = f"{self.root}: never closed, so nothing was published"
                warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


def sidecar_name(sidecar: Sidecar) -> str:
    """The path of a side-car below the dataset's root."""
    return f"{_SIDECARS}{sidecar.blake3}"


def files_of(index: Index) -> set[str]:
    """The names below the root of every file that a snapshot with this index needs."""
    stored = {index.zip.basenames[i] or index.raw.basenames[i] for i in range(index.shards)}
    return stored | {sidecar_name(sidecar) for sidecar in index.sidecars}


@dataclass(frozen=True)
class _Intent:
    """What a publication or a removal is about to do; all that a later process may take back."""

    snapshot: str | None  # the id of the index.json that is to be; None: files are to be removed, and no more
    files: tuple[str, ...]
    keeps: tuple[str, ...] = ()  # the snapshots that are kept because of it


def is_unfinished(root: Path) -> bool:
    """Whether a publication or a removal is going on here, or was interrupted: what is kept may yet be taken back."""
    return (root / STATE / "staging").exists()


def recover(root: Path) -> None:
    """Finish or take back what an earlier publication or removal left behind. Needs the lock."""
    staging = root / STATE / "staging"
    if not staging.is_dir():
        return
    intent = _read_intent(root)
    if intent is not None:
        steps.sync_directory(root)  # which index.json is there must be certain before anything hangs on it
        _take_back(root, intent)
        steps.unlink(staging / "intent.json")  # first: without the files beside it, the intent means something else
        steps.sync_directory(staging)
    publish.remove_tree(staging)


def _take_back(root: Path, intent: _Intent) -> None:
    now = current_bytes(root)
    if now is not None and snapshot_id(now) == intent.snapshot:
        return  # index.json was put in place: the publication is complete
    _forget(root, reversed(intent.keeps))
    staging = root / STATE / "staging"
    staged = {path.name for path in staging.iterdir()} if staging.is_dir() else set()
    used = _used(root)
    # a staged copy means that the file of this name below the root is not the one we meant to put there
    doomed = [name for name in intent.files if name not in used and name.replace("/", "~") not in staged]
    for name in doomed:
        steps.unlink(root / name)
    _remove_empty_directories(root, intent.files)
    for parent in sorted({(root / name).parent for name in doomed}):
        if parent.is_dir():
            steps.sync_directory(parent)


def _forget(root: Path, snapshots: Iterable[str]) -> None:
    """Take away the kept indices, durably, so that their files may go."""
    paths = [path for path in (kept_path(root, snapshot) for snapshot in snapshots) if path.exists()]
    for path in paths:
        steps.unlink(path)
    for parent in {path.parent for path in paths}:
        steps.sync_directory(parent)


def _remove_empty_directories(root: Path, names: Iterable[str]) -> None:
    """Where the last file of a generation went, its directory goes; the next one gets the same name in its place."""
    own = {parent for name in names for parent in Path(name).parents} - {Path()}
    for directory in sorted(own - {Path(STATE), Path(STATE, "sidecars")}, reverse=True):
        path = root / directory
        if path.is_dir() and not any(path.iterdir()):
            steps.remove_directory(path)
            steps.sync_directory(path.parent)


def _used(root: Path) -> set[str]:
    used: set[str] = set()
    indices = [kept_path(root, name).read_bytes() for name in kept(root)]
    for data in filter(None, [*indices, current_bytes(root)]):
        used |= files_of(parse_index(data))
    return used


def remove_files(root: Path, names: Iterable[str], snapshots: Iterable[str]) -> None:
    """Forget these snapshots, then remove those of the files `names` that no other snapshot uses. Needs the lock.

    A kill in between leaves an intent, and `recover` goes on from there. A full disk may have no room for one: there a
    kill leaves files that no snapshot knows, but space can be freed.
    """
    intent = _Intent(None, tuple(sorted(names)))
    with steps.refusals("remove files", root):
        _require_ours(root, intent.files)
        try:
            publish.make_directories(root / STATE / "staging", below=root)
            _write_intent(root, intent)
        except DiskError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        _forget(root, snapshots)
        if _read_intent(root) is None:
            _take_back(root, intent)
        recover(root)


def _write_intent(root: Path, intent: _Intent) -> None:
    target = root / STATE / "staging" / "intent.json"
    draft = target.with_name("intent.draft")
    publish.write_file(draft, [json.dumps(asdict(intent)).encode()])
    steps.rename(draft, target)
    steps.sync_directory(target.parent)


def _read_intent(root: Path) -> _Intent | None:
    path = root / STATE / "staging" / "intent.json"
    try:
        values = json.loads(path.read_bytes())
        intent = _Intent(values["snapshot"], tuple(values["files"]), tuple(values["keeps"]))
        _require_ours(root, intent.files)
        for name in intent.keeps:
            if not SNAPSHOT_ID.fullmatch(name):
                raise FormatError(expected="sha256:<64 hex digits>", found=short(name))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = "look at what lies beside it, then move it away"
        raise FormatError(f"not an intent of ours: {error}", subject=str(path), hint=hint) from error
    return intent


def _require_ours(root: Path, names: Iterable[object]) -> None:
    """FormatError for a name that no publication can have put there. What asks for a removal is a claim, too."""
    parents = set()
    for name in names:
        if not isinstance(name, str) or name == INDEX or not (is_basename(name) or _SIDECAR.fullmatch(name)):
            raise FormatError(expected="the name of a shard or a side-car", found=short(name))
        parents.add(Path(name).parent)
    for parent in parents:
        if (root / parent).resolve() != root.resolve() / parent:
            raise FormatError(expected=f"{parent} to be a directory below {root}", found="a symlink")


def _make_root(root: Path) -> None:
    if root.is_dir():
        return
    existing = next(parent for parent in root.parents if parent.exists())
    publish.make_directories(root, below=existing)
