"""Ways to damage, truncate or remove a shard's file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cut_table(path: Path) -> None:
    """Make offsets decrease."""
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xff\xff\xff")


def break_sizes(path: Path) -> None:
    """Make all size headers inconsistent."""
    data = bytearray(path.read_bytes())
    count = int.from_bytes(data[:4], "little")
    for i in range(count):
        begin = int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "little")
        data[begin] ^= 0x55
    with open(path, "r+b") as file:  # in place, like bit rot
        file.write(data)


def cut_short(path: Path) -> None:
    """Truncate the file to half its size."""
    os.truncate(path, path.stat().st_size // 2)


def make_longer(path: Path) -> None:
    """Append bytes."""
    with open(path, "ab") as file:
        file.write(b"more")


def empty(path: Path) -> None:
    """Truncate the file to nothing."""
    os.truncate(path, 0)


def put_another(path: Path) -> None:
    """Replace the file by a copy, another inode."""
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def make_a_directory(path: Path) -> None:
    """Replace the file by a directory."""
    path.unlink()
    path.mkdir()


def make_a_link(path: Path) -> None:
    """Replace the file by a symlink that leads outside."""
    os.replace(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


BEFORE = [cut_table, break_sizes, cut_short, make_longer, empty, os.unlink, make_a_directory, make_a_link]
LATER = [cut_short, make_longer, empty]  # damage that is found in a shard that is open already
