"""How are shards dropped from the page cache, and how many of their bytes are in it?"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path


def drop(root: Path) -> None:
    """Drop the shards from the page cache."""
    for path in root.rglob("*.mds"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def resident_bytes(root: Path) -> int:
    """The number of bytes of shards in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = 0
    for path in root.rglob("*.mds"):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            found = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
            view = ctypes.c_char.from_buffer(mapped)
            address, size = ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(len(mapped))
            assert libc.mincore(address, size, found) == 0
            pages += sum(page & 1 for page in found)
            del view
    return pages * mmap.PAGESIZE
