"""Ways to damage, truncate or remove a shard's file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cut_table(path: Path) -> None:
    """Its offsets decrease."""
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xff\xff\xff")


def break_sizes(path: Path) -> None:
    """No sample's size header adds up."""
    data = bytearray(path.read_bytes())
    count = int.from_bytes(data[:4], "little")
    for i in range(count):
        begin = int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "little")
        data[begin] ^= 0x55
    with open(path, "r+b") as file:  # in place, as rot does it
        file.write(data)


def cut_short(path: Path) -> None:
    """Its last bytes are gone."""
    os.truncate(path, path.stat().st_size // 2)


def make_longer(path: Path) -> None:
    """There are more bytes than before."""
    with open(path, "ab") as file:
        file.write(b"more")


def empty(path: Path) -> None:
    """It has no bytes."""
    os.truncate(path, 0)


def put_another(path: Path) -> None:
    """Another file has its name."""
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def make_a_directory(path: Path) -> None:
    """It is no file."""
    path.unlink()
    path.mkdir()


def make_a_link(path: Path) -> None:
    """It leads elsewhere."""
    os.replace(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


BEFORE = [cut_table, break_sizes, cut_short, make_longer, empty, os.unlink, make_a_directory, make_a_link]
LATER = [cut_short, make_longer, empty]  # what an open shard cannot overlook
