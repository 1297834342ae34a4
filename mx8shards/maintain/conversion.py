"""Where do the parts of a conversion lie, who may write them, and when do they go?

    OUT/.mx8shards/parts/<32 hex digits>    a dataset for each part, named by a hash of all that it is made of
    OUT/.mx8shards/conversion.lock          locked while a conversion is at work in OUT (by flock: never stale)

The parts of a conversion that was killed are what the same command goes on with. As soon as OUT has a dataset none of
them is needed any more: the conversion removes them then, and `gc` removes those that a kill has left after that.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk import lock, operations, publish
from mx8shards.errors import DiskError
from mx8shards.shards.snapshots import INDEX, STATE

_PART = re.compile("[0-9a-f]{32}")


def part_path(out: Path, name: str) -> Path:
    """Where the part of this name lies."""
    return out / STATE / "parts" / name


def is_part(path: Path) -> bool:
    """Whether this is the directory of a conversion's part, going by its name."""
    return _PART.fullmatch(path.name) is not None and path.parent.name == "parts" and path.parent.parent.name == STATE


@contextlib.contextmanager
def only_conversion(out: Path) -> Iterator[None]:
    """Holds the right to convert into `out`; DiskError where another process has it."""
    with operations.refusals("open", out):
        existing = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
        publish.make_directories(out / STATE, below=existing)
    path = out / STATE / "conversion.lock"
    descriptor = lock.acquire(path)
    try:
        yield
    finally:
        try:
            with contextlib.suppress(DiskError):  # a full disk or one that is gone: an empty file is left
                operations.unlink(path)
        finally:  # Ctrl-C may come in between, and this process may convert again
            lock.release(descriptor)


def unused_parts(root: Path) -> list[Path]:
    """The parts in a dataset's directory that no conversion is going to use. None while there is no dataset yet."""
    directory = root / STATE / "parts"
    real = Path(os.path.realpath(root), STATE, "parts")
    if not (root / INDEX).exists() or os.path.realpath(directory) != str(real):
        return []  # a symlink that leads elsewhere is none of ours
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path for path in found if is_part(path) and path.is_dir() and not path.is_symlink()]


@contextlib.contextmanager
def removable_parts(root: Path) -> Iterator[list[Path]]:
    """The unused parts, and no conversion begins here meanwhile; none if one is at work."""
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
    """Remove a part that is not used; False where a process is at work in it."""
    descriptor = -1
    state = path / STATE
    if state.is_dir() and not state.is_symlink():  # no process of ours works beyond a symlink
        try:
            descriptor = lock.acquire(state / "lock")
        except DiskError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            return False
    try:
        with operations.refusals("remove", path):
            publish.remove_tree(path)
    finally:
        if descriptor >= 0:
            lock.release(descriptor)
    with contextlib.suppress(DiskError):  # other parts are there
        operations.remove_directory(path.parent)
    return True
