"""What would a program do that knows beforehand where everything lies, and checks nothing?"""

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
    """As many bytes of `buffer`, over and over, in files of its size; each file is one write and one fsync."""
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
    """Where every sample lies, without its first and its last bytes."""
    found = []
    for entry in json.loads((root / "index.json").read_bytes())["shards"]:
        path = root / entry["raw_data"]["basename"]
        offsets = np.fromfile(path, "<u4", entry["samples"] + 1, offset=4).tolist()
        found += [(path, a + before, b - after) for a, b in itertools.pairwise(offsets)]
    return found


def mmap_reader(root: Path, before: int, after: int) -> Callable[[int], Any]:
    """`bytes(map[a:b])`. A file cut short ends the process by SIGBUS."""
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
    """`os.pread`: the same bytes by a system call, which a file cut short only gives fewer bytes."""
    spans = _spans(root, before, after)
    descriptors = {path: os.open(path, os.O_RDONLY) for path in {path for path, _, _ in spans}}
    known = [(descriptors[path], b - a, a) for path, a, b in spans]
    pread = os.pread

    def read(position: int) -> bytes:
        return pread(*known[position])

    return read


def load_index(root: Path) -> Any:
    """index.json as Python objects, unchecked."""
    return json.loads((root / "index.json").read_bytes())
