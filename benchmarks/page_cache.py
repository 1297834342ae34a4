"""How are files loaded into the page cache or dropped from it, and which share of them is in it?"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)


def fill(root: Path) -> None:
    """Read all files, so that they are in the page cache."""
    buffer = bytearray(1 << 24)
    for path in files(root):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(root: Path) -> None:
    """Drop all files from the page cache. Pages that a process has mapped stay."""
    for path in files(root):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # dirty pages cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def resident_share(root: Path) -> float:
    """The fraction of the files' bytes in the page cache."""
    found = [_resident_pages(path) for path in files(root)]
    return sum(held for held, _ in found) / max(1, sum(pages for _, pages in found))


def _resident_pages(path: Path) -> tuple[int, int]:
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    if not pages:
        return 0, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        vector = np.zeros(pages, np.uint8)
        failed = _libc.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), vector.ctypes.data_as(ctypes.c_void_p)
        )
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return int((vector & 1).sum()), pages


def files(root: Path) -> Iterator[Path]:
    """All files under a directory."""
    return (path for path in sorted(root.rglob("*")) if path.is_file())
