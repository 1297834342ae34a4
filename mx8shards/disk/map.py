"""How are a file's bytes reached: as memory, or by reading?

`map_file` keeps no descriptor, so thousands of shards stay mapped under any `ulimit -n` (Python's own mmap keeps a
duplicate before 3.13). Memory that is mapped raises SIGBUS where the file has shrunk since; reading through a
`ReadFile` gives a short count instead, and never a signal.
"""

from __future__ import annotations

import ctypes
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
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """The owner of one mapping; arrays that view it keep it alive, and it goes with the last of them."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._address: int | None = None
        address = _mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise operations.refusal(OSError(number, os.strerror(number)), "map")
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


class ReadFile:
    """An open regular file, no symlink, that is read by position; safe from many threads.

    It closes with its last reference.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, path: Path | str) -> None:
        self.descriptor = -1
        self.path = path
        self.descriptor = open_regular(path, follow=False)

    @property
    def size_bytes(self) -> int:
        """How long the file is now."""
        return os.fstat(self.descriptor).st_size

    def read(self, begin: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` bytes from `begin`; fewer only where the file ends."""
        data = os.pread(self.descriptor, size_bytes, begin)
        while len(data) < size_bytes and (more := os.pread(self.descriptor, size_bytes - len(data), begin + len(data))):
            data += more
        return data

    def expect(self, begin: int, size_bytes: int) -> None:
        """Have the kernel fetch these bytes meanwhile, and nothing around them, where it can be told."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, begin, size_bytes, os.POSIX_FADV_WILLNEED)

    def __del__(self, close: Any = os.close, suppress: Any = suppress) -> None:
        if self.descriptor >= 0:
            with suppress(OSError):  # it is closed all the same, and nothing that was read is the worse for it
                close(self.descriptor)
