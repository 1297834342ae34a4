"""Helpers for failure tests: small datasets, comparing batches, and finding leaked threads, files and memory."""

from __future__ import annotations

import gc
import os
import signal
import threading
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from mx8shards.loading.budget.banks import Bank
from mx8shards.views import Whole


@dataclass(frozen=True)
class Around:
    """What views of the whole have in common that resolve in their own way; none is a Whole, which is not asked."""

    whole: Whole

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def digest(self) -> str:
        return self.whole.digest

    @property
    def occurrences(self) -> int:
        return 1

    @property
    def moves(self) -> bool:
        return False


COLUMNS = {"blob": "bytes", "number": "int"}
SECONDS = 60  # no case takes a tenth of that


def payload(number: int, most: int = 600) -> bytes:
    """The blob of this sample: the same each time, of its own length."""
    length = (number * 7919 + 13) % most
    return bytes((number * 31 + i * 7) % 256 for i in range(length))


def write(root: Path, samples: int = 120, **options: Any) -> Path:
    """A dataset of so many samples in several shards."""
    with mx8.Writer(root, columns=COLUMNS, **{"size_limit": 8_000, "threads": 1, **options}) as writer:
        for number in range(samples):
            writer.write({"blob": payload(number), "number": number})
    return root


def shards(root: Path) -> list[Path]:
    """Its shards' files."""
    return sorted(root.rglob("*.mds"))


def ids_of(batch: Any) -> list[int]:
    """The samples in a batch, which must be what the dataset has under these ids."""
    ids = np.asarray(batch.sample_ids).tolist()
    assert np.asarray(batch["number"]).tolist() == ids
    if "blob" in batch:
        assert [bytes(blob) for blob in batch["blob"]] == [payload(i) for i in ids]
    return list(map(int, ids))


def digests(numbers: list[int]) -> list[list[int]]:
    """What a decoder that weighs blobs makes of these samples."""
    return [[len(payload(i)), zlib.crc32(payload(i))] for i in numbers]


def threads() -> list[str]:
    """The loader's threads that run now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mx8shards")]


def descriptors() -> dict[str, str]:
    """What is open now."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


def mapped(root: Path) -> list[str]:
    """Which files below a directory are mapped now."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(root) in line]


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """What hangs within is interrupted, and fails."""

    def ring(number: int, frame: types.FrameType | None) -> None:
        raise TimeoutError(f"this hangs: {threads()}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def nothing_left(root: Path) -> Iterator[None]:
    """No thread, descriptor, bank or map of a shard is left after the block; nor does it hang."""
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again
    try:
        before = descriptors()
        with in_time():
            yield
        for _ in range(3):  # what a finalizer lets go of is garbage for the next time
            gc.collect()
        assert threads() == []
        assert {name: path for name, path in descriptors().items() if before.get(name) != path} == {}
        assert [found for found in gc.get_objects() if type(found) is Bank] == []
        assert mapped(root) == []
    finally:
        gc.unfreeze()
