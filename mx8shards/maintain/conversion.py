"""Where does a conversion keep its parts and its record of published splits, and when are the parts removed?

    OUT/.mx8shards/parts/<32 hex digits>    a dataset for each part, named by a hash of its inputs (convert/part_names)
    OUT/.mx8shards/conversion.lock          locked with flock while a conversion runs, so a kill leaves no stale lock
    OUT/.mx8shards/converted.json           the names of the parts that a split was made of, and its rejects

If a conversion is killed, running the same command again reuses its finished parts. Once OUT holds a dataset, the
parts are no longer needed: the conversion removes them, and `gc` removes those left by a kill. `converted.json` stays:
if a conversion is killed after it has published some splits, the file shows whether the source has changed since.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.errors import DiskError
from mx8shards.shards.snapshots import INDEX, STATE

_PART = re.compile("[0-9a-f]{32}")
_CONVERTED = "converted.json"


def part_path(out: Path, name: str) -> Path:
    """The directory of the part called `name`."""
    return out / STATE / "parts" / name


def is_part(path: Path) -> bool:
    """Whether a path is named like the directory of a conversion's part."""
    return _PART.fullmatch(path.name) is not None and path.parent.name == "parts" and path.parent.parent.name == STATE


@contextlib.contextmanager
def only_conversion(out: Path) -> Iterator[None]:
    """Hold the lock for converting into `out`. DiskError if another process holds it."""
    with operations.disk_errors("open", out):
        publish.make_root(out)
        publish.make_directories(out / STATE, below=out)
    with only_holder(out / STATE / "conversion.lock"):
        yield


@contextlib.contextmanager
def only_holder(path: Path) -> Iterator[None]:
    """Hold a lock, whose file is removed afterwards. DiskError if another process holds it."""
    descriptor = lock.acquire(path)
    try:
        yield
    finally:
        try:
            with contextlib.suppress(DiskError):  # the disk is full or gone: an empty file is left
                operations.unlink(path)
        finally:  # also after Ctrl-C, because this process may convert again
            lock.release(descriptor)


def keep_converted(out: Path, parts: Sequence[str], rejects: Sequence[tuple[str, str]]) -> None:
    """Record, before a split is published in `out`, the names of its parts, and each reject with its reason."""
    path = out / STATE / _CONVERTED
    with operations.disk_errors("write", path):
        operations.unlink(path)  # left by a conversion that was killed before it published
        publish.write_file(path, [json.dumps({"parts": parts, "rejects": rejects}).encode()])
        operations.sync_directory(path.parent)


def converted(out: Path) -> tuple[list[str], list[tuple[str, str]]] | None:
    """The parts and rejects that `keep_converted` recorded, or None if there is no record."""
    path = out / STATE / _CONVERTED
    if not path.exists():
        return None
    with operations.disk_errors("read", path), open(open_regular(path, follow=False), "rb") as file:
        data = file.read()
    try:
        found = json.loads(data)
        return list(found["parts"]), [(str(item), str(reason)) for item, reason in found["rejects"]]
    except (ValueError, TypeError, KeyError):  # another program wrote it
        return None


def unused_parts(root: Path) -> list[Path]:
    """The parts in a dataset's directory that no conversion will use; empty until a dataset is published there."""
    directory = root / STATE / "parts"
    real = Path(os.path.realpath(root), STATE, "parts")
    if not (root / INDEX).exists() or os.path.realpath(directory) != str(real):
        return []  # never follow a symlink out of the dataset's directory
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path for path in found if is_part(path) and path.is_dir() and not path.is_symlink()]


@contextlib.contextmanager
def removable_parts(root: Path) -> Iterator[list[Path]]:
    """The unused parts, with the conversion lock held. Empty if a conversion is running."""
    found = unused_parts(root)
    with contextlib.ExitStack() as held:
        try:
            if found:
                held.enter_context(only_conversion(root))
        except DiskError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            found = []
        yield found


def remove_part(path: Path) -> bool:
    """Remove an unused part. False if a process holds its lock."""
    descriptor = -1
    state = path / STATE
    if state.is_dir() and not state.is_symlink():  # we never take a lock through a symlink
        try:
            descriptor = lock.acquire(state / "lock")
        except DiskError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            return False
    try:
        with operations.disk_errors("remove", path):
            publish.remove_tree(path)
    finally:
        if descriptor >= 0:
            lock.release(descriptor)
    with contextlib.suppress(DiskError):  # other parts remain
        operations.remove_directory(path.parent)
    return True
