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
from tests.waiting import wait_until


@dataclass(frozen=True)
class ViewOfWhole:
    """Base of test views that override `resolve`. It is not a Whole, because a Whole is not asked to resolve."""

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
    def videos(self) -> None:
        """None: whole samples."""
        return None

    @property
    def varies_by_epoch(self) -> bool:
        return False


COLUMNS = {"blob": "bytes", "number": "int"}
SECONDS = 60  # ten times what any test needs


def payload(number: int, most: int = 600) -> bytes:
    """The blob of a sample: deterministic, with a length that depends on the number."""
    length = (number * 7919 + 13) % most
    return bytes((number * 31 + i * 7) % 256 for i in range(length))


def write(root: Path, samples: int = 120, **options: Any) -> Path:
    """Write a dataset of several shards."""
    with mx8.Writer(root, columns=COLUMNS, **{"size_limit": 8_000, "threads": 1, **options}) as writer:
        for number in range(samples):
            writer.write({"blob": payload(number), "number": number})
    return root


def shards(root: Path) -> list[Path]:
    """The shard files of a dataset."""
    return sorted(root.rglob("*.mds"))


def ids_of(batch: Any) -> list[int]:
    """The sample_ids of a batch. Checks that its values are those of these samples."""
    ids = np.asarray(batch.sample_ids).tolist()
    assert np.asarray(batch["number"]).tolist() == ids
    if "blob" in batch:
        assert [bytes(blob) for blob in batch["blob"]] == [payload(i) for i in ids]
    return list(map(int, ids))


def digests(numbers: list[int]) -> list[list[int]]:
    """The output of ChecksumDecoder for these samples."""
    return [[len(payload(i)), zlib.crc32(payload(i))] for i in numbers]


def threads() -> list[str]:
    """The running threads of loaders."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mx8shards")]


def descriptors() -> dict[str, str]:
    """The open file descriptors."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of listdir itself
            continue
    return found


def mapped(root: Path) -> list[str]:
    """The mapped files below a directory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(root) in line]


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Interrupt the block, and fail, if it hangs."""

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
def no_leaks(root: Path) -> Iterator[None]:
    """Check that the block does not hang, and leaves no thread, descriptor, bank or map of a shard."""
    gc.collect()
    gc.freeze()  # objects that exist need not be searched again; `_unfreeze` undoes it when the module's tests have run
    before = descriptors()
    with time_limit():
        yield
    for _ in range(3):  # finalizers may release objects that only the next collection finds
        gc.collect()
    wait_until(lambda: threads() == [])  # one whose read stalled ends once it is scheduled
    assert {name: path for name, path in descriptors().items() if before.get(name) != path} == {}
    assert [found for found in gc.get_objects() if type(found) is Bank] == []
    assert mapped(root) == []
