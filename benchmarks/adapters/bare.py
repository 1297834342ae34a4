"""Lower bounds: plain Python that knows all offsets in advance and checks nothing."""

from __future__ import annotations

import itertools
import json
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: dict[str, object] = {"checks": "none"}
FILE_BYTES = 64 << 20


def write_bytes(out: Path, buffer: memoryview, size_bytes: int, threads: int) -> None:
    """Write `buffer` repeatedly into files of its size, each with one write and one fsync."""
    out.mkdir()
    sizes = [min(len(buffer), size_bytes - begin) for begin in range(0, size_bytes, len(buffer))]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda i: _write_file(out / f"{i}", buffer[: sizes[i]]), range(len(sizes))):
            pass


def _write_file(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)
    os.close(descriptor)


def _spans(root: Path, before: int, after: int) -> list[tuple[Path, int, int]]:
    """File, begin and end of every sample, without `head` bytes before and `tail` bytes after the payload."""
    found = []
    for entry in json.loads((root / "index.json").read_bytes())["shards"]:
        path = root / entry["raw_data"]["basename"]
        offsets = np.fromfile(path, "<u4", entry["samples"] + 1, offset=4).tolist()
        found += [(path, a + before, b - after) for a, b in itertools.pairwise(offsets)]
    return found


def mmap_reader(root: Path, before: int, after: int) -> Callable[[int], Any]:
    """Read with `bytes(map[a:b])`. A truncated file kills the process with SIGBUS."""
    spans = _spans(root, before, after)
    maps = {}
    for path in {path for path, _, _ in spans}:
        with path.open("rb") as file:
            maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    known = [(maps[path], a, b) for path, a, b in spans]

    def read(position: int) -> bytes:
        mapped, a, b = known[position]
        return bytes(mapped[a:b])

    return read


def pread_reader(root: Path, before: int, after: int) -> Callable[[int], Any]:
    """Read with `os.pread`, which returns fewer bytes from a truncated file."""
    spans = _spans(root, before, after)
    descriptors = {path: os.open(path, os.O_RDONLY) for path in {path for path, _, _ in spans}}
    known = [(descriptors[path], b - a, a) for path, a, b in spans]
    pread = os.pread

    def read(position: int) -> bytes:
        return pread(*known[position])

    return read


def load_index(root: Path) -> Any:
    """Parse index.json to Python objects, unchecked."""
    return json.loads((root / "index.json").read_bytes())
