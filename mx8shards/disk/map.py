"""How are a file's bytes accessed: mapped (mmap), or read (pread)?

`map_file` keeps no descriptor, so thousands of shards stay mapped under any `ulimit -n` (before Python 3.13, its mmap
keeps a duplicate descriptor). Accessing mapped memory raises SIGBUS if the file was truncated; a read through a
`ReadFile` returns fewer bytes instead.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.disk import operations
from mx8shards.disk.files import open_regular

Bytes = npt.NDArray[np.uint8]

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_munmap = _libc.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux only
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """Owns one mapping. Arrays over it hold a reference, and the last one to go unmaps it."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._address: int | None = None
        address = _mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise operations.disk_error(OSError(number, os.strerror(number)), "map")
        self._address = address
        self._size_bytes = size_bytes
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (size_bytes,),
            "typestr": "|u1",
            "data": (address, True),
        }

    def __del__(self, munmap: Any = _munmap) -> None:
        if self._address is not None:
            munmap(self._address, self._size_bytes)


def map_file(descriptor: int, size_bytes: int) -> Bytes:
    """The first `size_bytes` (at least one) of an open file as a read-only array, valid after the descriptor closes."""
    return np.asarray(_Mapping(descriptor, size_bytes))


def map_path(path: Path) -> bytes | Bytes:
    """The bytes of a file, mapped; those of an empty one cannot be."""
    with operations.disk_errors("read", path):
        file = ReadFile(path)
        return map_file(file.descriptor, file.size_bytes) if file.size_bytes else b""


class ReadFile:
    """An open regular file (not a symlink), read at offsets (pread). Thread-safe; the garbage collector closes it."""

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path | str) -> None:
        self.descriptor = -1
        self.path = path
        self.descriptor = open_regular(path, follow=False)

    @property
    def size_bytes(self) -> int:
        """The current size of the file."""
        return os.fstat(self.descriptor).st_size

    def is_at(self, path: Path) -> bool:
        """Whether this path leads to the open file, and not to one that has replaced it. A symlink leads nowhere."""
        with suppress(FileNotFoundError):
            return os.path.samestat(path.lstat(), os.fstat(self.descriptor))
        return False

    def read(self, begin: int, size_bytes: int) -> bytes:
        """Read `size_bytes` bytes from offset `begin`; fewer only at the end of the file."""
        data = os.pread(self.descriptor, size_bytes, begin)
        while len(data) < size_bytes and (more := os.pread(self.descriptor, size_bytes - len(data), begin + len(data))):
            data += more
        return data

    def is_cached(self, at: int) -> bool:
        """Whether the byte at this offset can be read without waiting for the disk, as far as the system tells."""
        if not _NOWAIT:
            return True
        try:
            os.preadv(self.descriptor, [bytearray(1)], at, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:  # the file system keeps all in memory (tmpfs), or cannot tell
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        return True

    def prefetch(self, begin: int, size_bytes: int) -> None:
        """Start reading these bytes, and no others, into the page cache, if the system has posix_fadvise."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, begin, size_bytes, os.POSIX_FADV_WILLNEED)

    def __del__(self, close: Any = os.close, suppress: Any = suppress) -> None:
        if self.descriptor >= 0:
            with suppress(OSError):  # the descriptor is released anyway, and a failed close loses no data that was read
                close(self.descriptor)
