"""What did a publication or a removal that never ended leave behind, and what becomes of it?

An *intent* is written before the first name changes. Whoever takes the lock next takes back what it names and no kept
snapshot uses, or, where index.json already is the intended one, lets it stand. Nothing else is ever removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mx8shards.disk import operations, publish
from mx8shards.disk.files import read_bounded
from mx8shards.errors import DatasetNotFoundError, DiskError, FormatError
from mx8shards.format.basename import is_basename
from mx8shards.format.index import MAX_INDEX_BYTES, Index, parse_index
from mx8shards.format.jsontext import SNAPSHOT_ID, short
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import INDEX, STATE, current_bytes, kept, kept_path, load, snapshot_id

_SIDECARS = f"{STATE}/sidecars/"
_DRAFT = "intent.draft"
_MAX_NAME_CHARS = 255  # of one component, on every file system of note
SIDECAR = re.compile(re.escape(_SIDECARS) + "[0-9a-f]{64}")
# What Writers call shards, and whatever lies in a directory that an overwrite or a merge made.
_SHARD = re.compile(r"(?:[^/]+/)*(?:[gp][0-9]{4,}/.+|[^/]+\.mds(?:\.(?:br|bz2|gz|snappy|zstd))?)")


def sidecar_name(sidecar: Sidecar) -> str:
    """The path of a side-car below the dataset's root."""
    return f"{_SIDECARS}{sidecar.blake3}"


def staged_name(name: str) -> str:
    """What a file that will be published as `name` is called in staging: no basename holds a "~"."""
    flat = name.replace("/", "~")
    return flat if len(flat) <= _MAX_NAME_CHARS else f"~{hashlib.sha256(name.encode()).hexdigest()}"


def files_of(index: Index) -> set[str]:
    """The names below the root of every file that a snapshot with this index needs, or may have.

    Beside a compressed shard the raw one may lie, as in a cache of Streaming. It goes and stays with the shard.
    """
    names = (*index.raw.basenames, *filter(None, index.zip.basenames))
    return {*names, *map(sidecar_name, index.sidecars)}


@dataclass(frozen=True)
class Intent:
    """What a publication or a removal is about to do; all that a later process may take back."""

    snapshot: str | None  # the id of the index.json that is to be; None: files are to be removed, and no more
    files: tuple[str, ...]
    keeps: tuple[str, ...] = ()  # the snapshots that are kept because of it
    # The whole dataset `snapshot` is removed once this directory has published this snapshot, of which it is a part.
    # The path is relative to the dataset, so that both may lie elsewhere by then.
    moved: tuple[str, str] | None = None
    whole: bool = False  # the whole dataset is removed, whatever else there is: this is decided


def is_unfinished(root: Path) -> bool:
    """Whether a publication or a removal is going on here, or was interrupted: what is kept may yet be taken back."""
    return (root / STATE / "staging").exists()


def recover(root: Path) -> None:
    """Finish or take back what an earlier publication or removal left behind. Needs the lock."""
    staging = root / STATE / "staging"
    if staging.is_symlink():  # never made by us: what lies beyond it is not ours to read or to remove
        operations.unlink(staging)
    if not staging.is_dir():
        return
    intent = _read_intent(root)
    if intent is not None:
        operations.sync_directory(root)  # which index.json is there must be certain before anything hangs on it
        if intent.whole or _was_moved(root, intent):
            _remove_whole(root, intent)
        elif intent.moved is None:
            _take_back(root, intent)
        operations.unlink(staging / "intent.json")  # first: without the files beside it, the intent is another one
        operations.sync_directory(staging)
    publish.remove_tree(staging)


def _take_back(root: Path, intent: Intent) -> None:
    now = current_bytes(root)
    if now is not None and snapshot_id(now) == intent.snapshot:
        return  # index.json was put in place: the publication is complete
    _forget(root, reversed(intent.keeps))
    staging = root / STATE / "staging"
    staged = {path.name for path in staging.iterdir()} if staging.is_dir() else set()
    used = _used(root)
    # a staged copy means that the file of this name below the root is not the one we meant to put there
    doomed = [name for name in intent.files if name not in used and staged_name(name) not in staged]
    for name in doomed:
        operations.unlink(root / name)
    _remove_empty_directories(root, intent.files)
    for parent in sorted({(root / name).parent for name in doomed}):
        if parent.is_dir():
            operations.sync_directory(parent)


def _forget(root: Path, snapshots: Iterable[str]) -> None:
    """Take away the kept indices, durably, so that their files may go."""
    publish.require_no_link(root / STATE / "snapshots")
    paths = [path for path in (kept_path(root, snapshot) for snapshot in snapshots) if path.exists()]
    for path in paths:
        operations.unlink(path)
    for parent in {path.parent for path in paths}:
        operations.sync_directory(parent)


def _remove_empty_directories(root: Path, names: Iterable[str]) -> None:
    """Where the last file of a generation went, its directory goes; the next one gets the same name in its place."""
    own = {parent for name in names for parent in Path(name).parents} - {Path()}
    for directory in sorted(own - {Path(STATE), Path(STATE, "sidecars")}, reverse=True):
        path = root / directory
        if path.is_dir() and not any(path.iterdir()):
            operations.remove_directory(path)
            operations.sync_directory(path.parent)


def _used(root: Path) -> set[str]:
    known = kept(root)
    used: set[str] = set()
    for name in known:
        used |= files_of(load(Link(root, name)).index)
    now = current_bytes(root)
    return used if now is None or snapshot_id(now) in known else used | files_of(parse_index(now))


def remove_files(root: Path, names: Iterable[str], snapshots: Iterable[str]) -> None:
    """Forget these snapshots, then remove those of the files `names` that no other snapshot uses. Needs the lock.

    A kill in between leaves an intent, and `recover` goes on from there. A full disk may have no room for one: there a
    kill leaves files that no snapshot knows, but space can be freed.
    """
    intent = Intent(None, tuple(sorted(names)))
    with operations.refusals("remove files", root):
        _require_ours(root, intent.files)
        try:
            publish.make_directories(root / STATE / "staging", below=root)
            write_intent(root, intent)
        except DiskError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        _forget(root, snapshots)
        if _read_intent(root) is None:
            _take_back(root, intent)
        recover(root)


# the removal of a whole dataset -----------------------------------------------------------------------------------


def removal_of(root: Path) -> Intent:
    """The intent to remove the dataset in `root` with its history."""
    now = current_bytes(root)
    if now is None:
        raise DatasetNotFoundError("no dataset here: there is no index.json", subject=str(root))
    files = files_of(parse_index(now)) | _used(root)
    return Intent(snapshot_id(now), tuple(sorted(files)), tuple(kept(root)), whole=True)


def moved_to(root: Path) -> tuple[Path, str] | None:
    """The directory and the snapshot that the dataset in `root` was or is being moved into, if it was not removed."""
    staging = root / STATE / "staging"
    intent = None if staging.is_symlink() else _read_intent(root)
    return None if intent is None or intent.moved is None else (root.resolve() / intent.moved[0], intent.moved[1])


def _was_moved(root: Path, intent: Intent) -> bool:
    """Whether the snapshot that this dataset was to become part of stands, and nothing was published here since.

    It stands where it is current, and where it is kept and no intent says that this may yet be taken back.
    """
    if intent.moved is None:
        return False
    target, snapshot = root.resolve() / intent.moved[0], intent.moved[1]
    now = current_bytes(root)
    if now is None or snapshot_id(now) != intent.snapshot or not kept_path(target, snapshot).exists():
        return False
    operations.sync_directory(target)  # nothing may be removed here that a power cut could make needed again
    theirs = None if (target / STATE / "staging").is_symlink() else _read_intent(target)
    there = current_bytes(target)
    if there is not None and snapshot_id(there) == snapshot:
        return True
    return (theirs is None or snapshot not in theirs.keeps) and kept_path(target, snapshot).exists()


def _remove_whole(root: Path, intent: Intent) -> None:
    """Remove a dataset's files, and none of others. Readers see all of it or none: its index.json goes first."""
    if not intent.whole:
        operations.unlink(root / STATE / "staging" / _DRAFT)  # of a process that was killed here
        write_intent(root, replace(intent, whole=True))
    operations.unlink(root / INDEX)
    operations.sync_directory(root)
    _take_back(root, replace(intent, snapshot=None))
    publish.remove_tree(root / STATE / "cache")
    for name in ("sidecars", "snapshots"):
        directory = root / STATE / name
        if directory.is_dir() and not any(directory.iterdir()):
            operations.remove_directory(directory)


# reading and writing intents --------------------------------------------------------------------------------------


def write_intent(root: Path, intent: Intent) -> None:
    """Write it durably; FormatError for one that nobody could read and recover from."""
    _require_ours(root, intent.files)
    target = root / STATE / "staging" / "intent.json"
    draft = target.with_name(_DRAFT)
    publish.write_file(draft, [json.dumps(asdict(intent)).encode()])
    operations.rename(draft, target)
    operations.sync_directory(target.parent)


def _read_intent(root: Path) -> Intent | None:
    path = root / STATE / "staging" / "intent.json"
    try:
        values = json.loads(read_bounded(path, MAX_INDEX_BYTES, follow=False))
        moved = values.get("moved")
        intent = Intent(
            values["snapshot"],
            tuple(values["files"]),
            tuple(values["keeps"]),
            None if moved is None else _checked_move(*moved),
            values.get("whole") is True,
        )
        _require_ours(root, intent.files)
        for name in intent.keeps:
            if not SNAPSHOT_ID.fullmatch(name):
                raise FormatError(expected="sha256:<64 hex digits>", found=short(name))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "look at what lies beside it, then move it away"
        raise FormatError(f"not an intent of ours: {error}", subject=str(path), hint=hint) from error
    return intent


def _checked_move(directory: object, snapshot: object) -> tuple[str, str]:
    if not isinstance(directory, str) or not isinstance(snapshot, str) or not SNAPSHOT_ID.fullmatch(snapshot):
        raise FormatError(expected="a directory and sha256:<64 hex digits>", found=short([directory, snapshot]))
    return directory, snapshot


def _require_ours(root: Path, names: Iterable[object]) -> None:
    """FormatError for a name that no publication can have put there. What asks for a removal is a claim, too.

    Datasets come from elsewhere with all that lies in them: an intent or an index in one must not have the user's own
    files removed.
    """
    parents = set()
    for name in names:
        if not isinstance(name, str) or not ((is_basename(name) and _SHARD.fullmatch(name)) or SIDECAR.fullmatch(name)):
            raise FormatError(
                subject=str(root),
                expected="the name of a shard (….mds, or with the ending of its compression) or of a side-car",
                found=short(name),
                hint="only such files are ever removed",
            )
        parents.add(Path(name).parent)
    for parent in parents:
        if (root / parent).resolve() != root.resolve() / parent:
            raise FormatError(expected=f"{parent} to be a directory below {root}", found="a symlink")
