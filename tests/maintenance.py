"""Helpers for tests of maintenance: our and foreign datasets, and ways to damage them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mx8shards import Writer

STATE = ".mx8shards"
COLUMNS = {"blob": "bytes", "label": "int", "score": "float32", "text": "str"}


def sample(number: int, size: int = 40) -> dict[str, Any]:
    """The sample of this number (deterministic)."""
    noise = np.random.Generator(np.random.Philox(number)).bytes(size)
    return {"blob": noise, "label": number % 10, "score": number / 4, "text": f"text {number}"}


def write(root: Path, numbers: range, *, size: int = 40, **options: Any) -> str:
    """Write a dataset of these samples, or append them. Returns the id of the snapshot."""
    with Writer(root, columns=COLUMNS, **{"size_limit": 2000, "threads": 1, **options}) as writer:
        for number in numbers:
            writer.write(sample(number, size))
    assert writer.snapshot is not None
    return writer.snapshot


def make_foreign(root: Path, *, hashes: tuple[str, ...] = ()) -> None:
    """Turn a dataset into a foreign one: without our keys and files, and with only these hashes."""

    def edit(index: dict[str, Any]) -> None:
        del index["mx8shards"]
        for entry in index["shards"]:
            entry["hashes"] = sorted(hashes)
            for which in ("raw_data", "zip_data"):
                if entry[which]:
                    known = entry[which]["hashes"]
                    entry[which]["hashes"] = {name: known[name] for name in hashes}

    shutil.rmtree(root / STATE)
    edit_index(root, edit)


def edit_index(root: Path, edit: Callable[[dict[str, Any]], None], *, keep: bool = False) -> str:
    """Change index.json; with `keep` also the kept copy, as if it had been published. Returns its new id."""
    index = json.loads((root / "index.json").read_bytes())
    edit(index)
    data = json.dumps(index, sort_keys=True).encode()
    (root / "index.json").write_bytes(data)
    name = hashlib.sha256(data).hexdigest()
    if keep:
        (root / STATE / "snapshots" / f"{name}.json").write_bytes(data)
    return f"sha256:{name}"


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def cut(path: Path) -> None:
    """Remove the last byte of a file."""
    os.truncate(path, path.stat().st_size - 1)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a directory with its bytes, except the lock."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def offsets(path: Path) -> list[int]:
    """The offset table of a raw shard."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data)
    return list(struct.unpack_from(f"<{count + 1}I", data, 4))


def ids(ranges: Any) -> set[int]:
    """The ids of half-open ranges."""
    return {i for start, stop in ranges for i in range(start, stop)}


def plain(value: Any) -> Any:
    """A sample with NumPy scalars converted to Python's, so that == works."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value
