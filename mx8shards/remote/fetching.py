"""How does one file come from the store into a mirror: claimed by one job, checked, then renamed into place?

    .mx8shards/claims/NAME     locked (flock) by the job that fetches the file; the kernel frees it if the job is killed
    .mx8shards/fetching/NAME/  the private directory of the holder of that claim

Only files that were checked and are durable get their final name, so no crash and no second job leaves a torn file
there. What a killed job leaves is removed by the next claim of the name, or when a mirror is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from mx8shards.disk import lock, operations, publish
from mx8shards.disk.files import open_regular
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DiskError, FormatError, IntegrityError, RemoteError, ShardsError
from mx8shards.format.entries import FileInfo, MdsEntry
from mx8shards.remote.retries import PROGRESS
from mx8shards.remote.stamps import Stamp, safe_name, stamp_of
from mx8shards.remote.store import Store
from mx8shards.shards.cache import raw_pieces
from mx8shards.shards.local_files import best_hash, check_hash, check_size, require_hash
from mx8shards.shards.snapshots import STATE

_ATTEMPTS = 2  # an object that is damaged or missing, although the index names it, is fetched once more …
_PAUSE_S = 0.2  # … after this pause

IN_CACHE = "cache_limit=… bounds the copies of shards, local=… puts them elsewhere"  # the hint for a full disk


class Claim(NamedTuple):
    """The right to make one file of a mirror. Files are made in `private`, and get `mode` as the umask decides."""

    root: Path
    private: Path
    mode: int

    @property
    def name(self) -> str:
        """The name of the claim."""
        return self.private.name

    def draft(self) -> Path:
        """A new path in the private directory. A killed job's child may still write to other paths there."""
        return self.private / uuid.uuid4().hex


@contextmanager
def claimed(
    root: Path, basename: str, timeout_s: float, give_up: Callable[[], bool] = lambda: False
) -> Iterator[Claim]:
    """Claim a file of the mirror. BlockingIOError if another job holds its claim and makes no progress for the timeout.

    A job on a slow connection makes progress as long as each timeout brings a MiB, as in `retries`.
    """
    name = safe_name(basename)
    claims, fetching = root / STATE / "claims", root / STATE / "fetching"
    _make_shared(root)
    for directory in (claims, fetching):
        publish.make_directories(directory, below=root)
    private = fetching / name
    with lock.claimed(claims / name, timeout_s, give_up, _progress_in(private)) as descriptor:
        with suppress(ShardsError, OSError):
            publish.remove_tree(private)
        operations.make_directory(private)
        process = os.getpid()
        try:
            yield Claim(root, private, stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o666)
        finally:
            if process == os.getpid():  # not in a forked child that leaves this block
                with suppress(ShardsError, OSError):
                    publish.remove_tree(private)


def _progress_in(private: Path) -> Callable[[], bool]:
    """A function that tells whether the holder of a claim has written or removed a MiB since the last call."""
    seen = _bytes_in(private)

    def goes_on() -> bool:
        nonlocal seen
        before, seen = seen, _bytes_in(private)
        return abs(seen - before) >= PROGRESS

    return goes_on


def _bytes_in(directory: Path) -> int:
    """The bytes that the files of a directory take on the disk: a file whose parts come in any order has holes."""
    size = 0
    with suppress(OSError):  # the holder may remove it at any moment
        for path in _children(directory):
            size += 512 * path.lstat().st_blocks
    return size


def _make_shared(root: Path) -> None:
    """Make a mirror's directories unless they exist. What is made in them belongs to the group of its parent.

    The setgid bit ensures that: without it, other members of the group could not write into the mirror.
    """
    for directory in (root, root / STATE):
        if not directory.exists():
            parent = next(path for path in directory.parents if path.exists()).stat()
            publish.make_root(directory)
            made = directory.stat()
            if made.st_gid != parent.st_gid:
                operations.set_mode(directory, stat.S_IMODE(made.st_mode) | stat.S_ISGID, parent.st_gid)


def held_claims(root: Path) -> set[str]:
    """The names of the claims that living jobs hold."""
    held = set()
    for path in _children(root / STATE / "claims"):
        with suppress(OSError):
            descriptor = open_regular(path, follow=False)
            try:
                if lock.is_held(descriptor):
                    held.add(path.name)
            finally:
                os.close(descriptor)
    return held


def sweep(root: Path) -> None:
    """Remove what killed jobs have left: claims that nobody holds, and their private directories."""
    with suppress(OSError, ShardsError):  # another user's files; what stays does no harm
        names = {path.name for folder in ("claims", "fetching") for path in _children(root / STATE / folder)}
        for name in names:
            with suppress(OSError, ShardsError), claimed(root, name, 0.0):
                pass


def _children(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() and not directory.is_symlink() else []


def fetch(
    store: Store, source: FileInfo, claim: Claim, name: str, *, if_full: str = IN_CACHE, in_ranges: bool = False
) -> Path:
    """Fetch an object into the private directory and check its size and hash. `in_ranges`: see Store.fetch.

    `if_full` is the hint of the error for a full disk.

    IntegrityError if the hash is wrong twice; RemoteError if the store does not answer, or if the object is missing or
    was replaced; DiskError if the disk is full.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        path = claim.draft()
        try:
            if hash_hex := _fetch(store, source, claim, path, if_full, in_ranges=in_ranges):
                require_hash(hash_hex, source, name)
            else:
                check_file(path, source, name)
        except (IntegrityError, RemoteError) as error:
            if attempt == _ATTEMPTS or (isinstance(error, RemoteError) and error.reason not in ("missing", "changed")):
                raise
            operations.unlink(path)
            time.sleep(_PAUSE_S)
        else:
            return path
    raise AssertionError


def _fetch(store: Store, source: FileInfo, claim: Claim, path: Path, if_full: str, *, in_ranges: bool) -> str:
    """Fetch an object and check its size. Returns its strongest hash, or "" if that was not computed on the way."""
    algorithm = best_hash(source) or ""
    try:
        found = store.fetch(source.basename, path, source.size_bytes, in_ranges=in_ranges, algorithm=algorithm)
        if path.stat().st_size != source.size_bytes:
            raise RemoteError(expected=f"{source.size_bytes} bytes", found="others", reason="changed")
        return found
    except RemoteError as error:
        if error.reason == "changed":
            raise RemoteError(
                "the object was replaced: it is not the one that the index names",
                subject=f"{store.url}/{source.basename}",
                reason="changed",
            ) from error
        raise _full(claim.root, source.size_bytes, error, if_full) from error
    except OSError as error:
        raise _full(claim.root, source.size_bytes, error, if_full) from error


def _full(root: Path, size_bytes: int, error: OSError, hint: str) -> Exception:
    """A DiskError that names the directory if its disk is full, else the error itself."""
    disk = os.statvfs(root)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) and disk.f_bavail * disk.f_frsize >= size_bytes:
        return error if isinstance(error, ShardsError) else operations.disk_error(error, "write", (root,))
    found = DiskError(f"the disk is full: a file of {size_bytes} bytes does not fit", subject=str(root), hint=hint)
    found.errno = errno.ENOSPC
    return found


def check_file(path: Path, info: FileInfo, name: str) -> Stamp:
    """FormatError or IntegrityError unless the file has this size and strongest hash. Returns its earlier stamp."""
    file = ReadFile(path)
    before = stamp_of(os.fstat(file.descriptor))
    check_size(file, info, name)
    check_hash(file, info, name)
    return before


def unpack(entry: MdsEntry, stored: Path, claim: Claim, name: str) -> Path:
    """Decompress a checked shard into the private directory, and check the raw file."""
    target = claim.draft()
    with operations.disk_errors("unpack", claim.root), publish.NewFile(target) as file:
        try:
            for piece in raw_pieces(entry, ReadFile(stored)):
                file.write(piece)
            file.finish()
        except FormatError as error:
            raise error.at(subject=name) from error.__cause__
    check_file(target, entry.raw, name)
    return target


def place(path: Path, basename: str, claim: Claim) -> Stamp:
    """Make a file of the private directory durable, and give it its final name in the mirror; its stamp there."""
    target = claim.root / basename
    operations.set_mode(path, claim.mode, claim.root.stat().st_gid)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        operations.sync(descriptor, path)
        publish.make_directories(target.parent, below=claim.root)
        operations.rename(path, target)
        found = stamp_of(os.fstat(descriptor))  # renaming changes ctime
    finally:
        os.close(descriptor)
    operations.sync_directory(target.parent)
    return found


def place_bytes(data: bytes, basename: str, claim: Claim) -> None:
    """Store small bytes durably under their final name in the mirror."""
    path = claim.draft()
    publish.write_file(path, [data])
    place(path, basename, claim)


def write_note(draft: Path, target: Path, text: str) -> None:
    """Replace a small file that other jobs read; it may be lost."""
    publish.write_quickly(draft, text.encode())
    operations.rename(draft, target)
