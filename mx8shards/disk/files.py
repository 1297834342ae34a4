"""How are untrusted files opened safely (FIFOs, devices, sparse files)?

Opening a FIFO blocks, reading a symlink to /dev/zero never ends, and a sparse file can claim terabytes. Therefore every
file of a dataset or of a source is opened here: without blocking, only if it is a regular file, and read up to a limit.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from mx8shards.errors import FormatError

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_PIECE_BYTES = 1 << 16  # read size for a file that grows, or whose file system reports no size

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


def open_regular(path: Path | str, *, follow: bool = True, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open the regular file `path` without blocking and return its descriptor; OSError for any other type of file.

    `follow=False` refuses a symlink as the last component. `flags` and `mode` are passed to `os.open`.
    """
    descriptor = _open(path, flags | _FLAGS | (0 if follow else os.O_NOFOLLOW), mode)
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise _not_regular(path, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path | str, flags: int, mode: int) -> int:
    try:
        return os.open(path, flags, mode)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, a FIFO opened for writing, or a missing device
            with suppress(FileNotFoundError):
                raise _not_regular(path, stat.S_IFMT(os.stat(path).st_mode)) from None
        raise


def _not_regular(path: Path | str, kind: int) -> OSError:
    number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
    return OSError(number, f"expected a regular file, got {_KINDS.get(kind, 'something else')}", os.fspath(path))


def read_bounded(path: Path | str, most: int, *, follow: bool = True) -> bytes:
    """Read the regular file `path`. If it has more than `most` bytes, FormatError before memory is allocated for it."""
    with open(open_regular(path, follow=follow), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise FormatError(subject=str(path), expected=f"at most {most} bytes", found=f"{size}")
        pieces = []
        left = most + 1
        while left and (piece := file.read(min(left, max(size + 1, _PIECE_BYTES)))):
            pieces.append(piece)
            left -= len(piece)
            size -= len(piece)
    if not left:
        raise FormatError(subject=str(path), expected=f"at most {most} bytes", found="more")
    return b"".join(pieces)


def read_json(path: Path | str, most: int, **types: type) -> dict[str, Any]:
    """The values of a small JSON object in a file, by name: each must be there, and of exactly its type.

    Any damage is one FormatError: no JSON, nested too deeply, too many bytes, another type.
    """
    data = read_bounded(path, most, follow=False)
    try:
        found = json.loads(data)
        return {name: _of_type(found[name], kind) for name, kind in types.items()}
    except (ValueError, TypeError, LookupError, RecursionError):  # of ints with too many digits: ValueError
        raise FormatError("this file is damaged", subject=str(path)) from None


def _of_type(value: object, kind: type) -> object:
    if type(value) is not kind:
        raise TypeError(kind)
    return value
