"""How is an interrupted publication or removal rolled back or completed?

An *intent* is written before the first file is renamed. The next holder of the lock removes the files that it lists and
no kept snapshot uses; if index.json is already the intended one, the publication is complete. Nothing else is removed.
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
from mx8shards.format.entries import FileInfo
from mx8shards.format.index import MAX_INDEX_BYTES, Index, parse_index
from mx8shards.format.jsontext import SNAPSHOT_ID, short
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import INDEX, STATE, current_bytes, kept, kept_path, load, snapshot_id

_SIDECARS = f"{STATE}/sidecars/"
_DRAFT = "intent.draft"
_MAX_NAME_CHARS = 255  # the limit of a path component on all common file systems
SIDECAR = re.compile(re.escape(_SIDECARS) + "[0-9a-f]{64}")
# The shard names of Writers, and any file in a directory made by an overwrite (g0001) or a merge (p0001).
_SHARD = re.compile(r"(?:[^/]+/)*(?:[gp][0-9]{4,}/.+|[^/]+\.mds(?:\.(?:br|bz2|gz|snappy|zstd))?)")


def sidecar_name(sidecar: Sidecar) -> str:
    """The path of a side-car below the dataset's root."""
    return f"{_SIDECARS}{sidecar.blake3}"


def sidecar_file(sidecar: Sidecar) -> FileInfo:
    """The file of a side-car: its name, its size and its hash."""
    return FileInfo(sidecar_name(sidecar), sidecar.size_bytes, {"blake3": sidecar.blake3})


def staged_name(name: str) -> str:
    """The name in the staging directory of a file to be published as `name`. Basenames contain no "~"."""
    flat = name.replace("/", "~")
    return flat if len(flat) <= _MAX_NAME_CHARS else f"~{hashlib.sha256(name.encode()).hexdigest()}"


def files_of(index: Index) -> set[str]:
    """The names, relative to the root, of all files that belong to a snapshot with this index.

    They include the raw files of compressed shards, which Streaming may have unpacked there; gc treats them alike.
    """
    names = (*index.raw.basenames, *filter(None, index.zip.basenames))
    return {*names, *map(sidecar_name, index.sidecars)}


@dataclass(frozen=True)
class Intent:
    """The planned changes of a publication or a removal, which a later process may roll back or complete."""

    snapshot: str | None  # the id of the index.json to be published; None for a removal of files
    files: tuple[str, ...]
    keeps: tuple[str, ...] = ()  # the snapshots whose index is stored by this publication
    # A directory and a snapshot: once that directory has published it, this dataset, which is a part of it, is removed.
    # The path is relative to this dataset, so that both can be moved together.
    moved: tuple[str, str] | None = None
    whole: bool = False  # the removal of the whole dataset has begun and must be completed


def is_unfinished(root: Path) -> bool:
    """Whether a publication or removal is running or was interrupted, so that kept snapshots may be rolled back."""
    return (root / STATE / "staging").exists()


def recover(root: Path) -> None:
    """Complete or roll back an interrupted publication or removal. The caller must hold the lock."""
    staging = root / STATE / "staging"
    if staging.is_symlink():  # not made by us: its target must not be read or removed
        operations.unlink(staging)
    if not staging.is_dir():
        return
    intent = _read_intent(root)
    if intent is not None:
        operations.sync_directory(root)  # index.json must be durable before decisions depend on it
        if intent.whole or _was_moved(root, intent):
            _remove_whole(root, intent)
        elif intent.moved is None:
            _roll_back(root, intent)
        operations.unlink(staging / "intent.json")  # first, because a rollback depends on which staged files exist
        operations.sync_directory(staging)
    publish.remove_tree(staging)


def _roll_back(root: Path, intent: Intent) -> None:
    now = current_bytes(root)
    if now is not None and snapshot_id(now) == intent.snapshot:
        return  # index.json was replaced: the publication is complete
    _remove_kept_indices(root, reversed(intent.keeps))
    staging = root / STATE / "staging"
    staged = {path.name for path in staging.iterdir()} if staging.is_dir() else set()
    used = _referenced_files(root)
    # a file that is still staged was not renamed: the file with its final name is another one and must stay
    unused = [name for name in intent.files if name not in used and staged_name(name) not in staged]
    for name in unused:
        operations.unlink(root / name)
    _remove_empty_directories(root, intent.files)
    for parent in sorted({(root / name).parent for name in unused}):
        if parent.is_dir():
            operations.sync_directory(parent)


def _remove_kept_indices(root: Path, snapshots: Iterable[str]) -> None:
    """Remove the stored indices of these snapshots durably, before their files are removed."""
    publish.require_no_link(root / STATE / "snapshots")
    paths = [path for path in (kept_path(root, snapshot) for snapshot in snapshots) if path.exists()]
    for path in paths:
        operations.unlink(path)
    for parent in {path.parent for path in paths}:
        operations.sync_directory(parent)


def _remove_empty_directories(root: Path, names: Iterable[str]) -> None:
    """Remove the directories of these files that are empty now, so that the next generation reuses their names."""
    own = {parent for name in names for parent in Path(name).parents} - {Path()}
    for directory in sorted(own - {Path(STATE), Path(STATE, "sidecars")}, reverse=True):
        path = root / directory
        if path.is_dir() and not any(path.iterdir()):
            operations.remove_directory(path)
            operations.sync_directory(path.parent)


def _referenced_files(root: Path) -> set[str]:
    known = kept(root)
    used: set[str] = set()
    for name in known:
        used |= files_of(load(Link(root, name)).index)
    now = current_bytes(root)
    return used if now is None or snapshot_id(now) in known else used | files_of(parse_index(now))


def remove_files(root: Path, names: Iterable[str], snapshots: Iterable[str]) -> None:
    """Remove these snapshots, then those of the files `names` that no other snapshot uses. Needs the lock.

    After a kill, `recover` continues from the intent. A full disk may have no room for an intent: then a kill leaves
    unreferenced files, but the removal can still free space.
    """
    intent = Intent(None, tuple(sorted(names)))
    with operations.disk_errors("remove files", root):
        _require_removable(root, intent.files)
        try:
            publish.make_directories(root / STATE / "staging", below=root)
            write_intent(root, intent)
        except DiskError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        _remove_kept_indices(root, snapshots)
        if _read_intent(root) is None:
            _roll_back(root, intent)
        recover(root)


# the removal of a whole dataset -----------------------------------------------------------------------------------


def removal_of(root: Path) -> Intent:
    """The intent that removes the dataset in `root` with its history."""
    now = current_bytes(root)
    if now is None:
        raise DatasetNotFoundError("no dataset here: there is no index.json", subject=str(root))
    files = files_of(parse_index(now)) | _referenced_files(root)
    return Intent(snapshot_id(now), tuple(sorted(files)), tuple(kept(root)), whole=True)


def moved_to(root: Path) -> tuple[Path, str] | None:
    """The directory and snapshot that the dataset in `root` was or is being moved to; None if no intent says so."""
    staging = root / STATE / "staging"
    intent = None if staging.is_symlink() else _read_intent(root)
    return None if intent is None or intent.moved is None else (root.resolve() / intent.moved[0], intent.moved[1])


def _was_moved(root: Path, intent: Intent) -> bool:
    """Whether the target has published the snapshot that this dataset is a part of, and this dataset is unchanged.

    The snapshot counts as published if it is current, or if it is kept and no intent of the target may roll it back.
    """
    if intent.moved is None:
        return False
    target, snapshot = root.resolve() / intent.moved[0], intent.moved[1]
    now = current_bytes(root)
    if now is None or snapshot_id(now) != intent.snapshot or not kept_path(target, snapshot).exists():
        return False
    operations.sync_directory(target)  # so that a power failure cannot undo the publication after the removal
    theirs = None if (target / STATE / "staging").is_symlink() else _read_intent(target)
    there = current_bytes(target)
    if there is not None and snapshot_id(there) == snapshot:
        return True
    return (theirs is None or snapshot not in theirs.keeps) and kept_path(target, snapshot).exists()


def _remove_whole(root: Path, intent: Intent) -> None:
    """Remove a dataset's files and no others. index.json is removed first, so readers never see a partial dataset."""
    if not intent.whole:
        operations.unlink(root / STATE / "staging" / _DRAFT)  # left by a process that was killed here
        write_intent(root, replace(intent, whole=True))
    operations.unlink(root / INDEX)
    operations.sync_directory(root)
    _roll_back(root, replace(intent, snapshot=None))
    publish.remove_tree(root / STATE / "cache")
    for name in ("sidecars", "snapshots"):
        directory = root / STATE / name
        if directory.is_dir() and not any(directory.iterdir()):
            operations.remove_directory(directory)


# reading and writing intents --------------------------------------------------------------------------------------


def write_intent(root: Path, intent: Intent) -> None:
    """Write the intent durably; FormatError if `recover` would refuse it."""
    _require_removable(root, intent.files)
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
        _require_removable(root, intent.files)
        for name in intent.keeps:
            if not SNAPSHOT_ID.fullmatch(name):
                raise FormatError(expected="sha256:<64 hex digits>", found=short(name))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "inspect the other files in its directory, then move it away"
        raise FormatError(f"not a valid intent: {error}", subject=str(path), hint=hint) from error
    return intent


def _checked_move(directory: object, snapshot: object) -> tuple[str, str]:
    if not isinstance(directory, str) or not isinstance(snapshot, str) or not SNAPSHOT_ID.fullmatch(snapshot):
        raise FormatError(expected="a directory and sha256:<64 hex digits>", found=short([directory, snapshot]))
    return directory, snapshot


def is_removable(name: str) -> bool:
    """Whether a publication may have created a file of this name: only such files are ever removed."""
    return bool((is_basename(name) and _SHARD.fullmatch(name)) or SIDECAR.fullmatch(name))


def _require_removable(root: Path, names: Iterable[object]) -> None:
    """FormatError for a name that no publication creates, which must not be removed.

    An intent or an index in a downloaded dataset is untrusted, and must not cause the removal of the user's own files.
    """
    parents = set()
    for name in names:
        if not isinstance(name, str) or not is_removable(name):
            raise FormatError(
                subject=str(root),
                expected="the name of a shard (….mds, or with the suffix of its compression) or of a side-car",
                found=short(name),
                hint="only such files are ever removed",
            )
        parents.add(Path(name).parent)
    for parent in parents:
        if (root / parent).resolve() != root.resolve() / parent:
            raise FormatError(expected=f"{parent} to be a directory below {root}", found="a symlink")
