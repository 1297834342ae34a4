"""How long does random access to one sample take, from the page cache?"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 1_400_000_000
NOTES = """\
- One process, one thread, a warm page cache. The result is the fastest of many passes over a list of random positions,
  without the first pass. One byte per page of every value is touched. Each library decodes the columns in its own way.
- dataset[i] and pread use system calls, which return fewer bytes if a file is truncated; a memory map raises SIGBUS.
- Bare: file, begin and end of the first column are in a list. Nothing is looked up, checked or decoded.
- litdata reads only compressed MDS, which it unpacks first, and by default reads the whole shard again for every
  sample. Here it reads one shard through a memory map, which was enabled by hand. It has no arrays of fixed shape, so
  it gets them as bytes.
"""
COLUMNS = (
    Column(title="µs per sample", number="microseconds", digits=2),
    Column(title="time, × dataset[i]", number="microseconds", digits=2, ratio=True),
    Column(title="peak memory, MB", number="peak_growth_mb", digits=0, spread=False),
)

ARRAYS, BLOBS, LABELLED = "4 KiB array + int", "100 KB blob", "100 KB blob + int"
OURS, PAYLOAD, LOCAL, LIT = (
    "mx8shards dataset[i]",
    "mx8shards payload(i)",
    "streaming LocalDataset[i]",
    "litdata dataset[i]",
)
MMAP, PREAD = "bare mmap slice", "bare pread"

# columns, the touched column, and the number of bytes before and after its payload in every sample
KINDS: dict[str, tuple[dict[str, str], str, int, int]] = {
    ARRAYS: ({"array": "ndarray:int32:1024", "label": "int"}, "array", 0, 8),
    BLOBS: ({"image": "bytes"}, "image", 4, 0),
    LABELLED: ({"image": "bytes", "label": "int"}, "image", 4, 8),
}
FOLDERS = {ARRAYS: "arrays", BLOBS: "blobs", LABELLED: "labelled"}


def prepare(directory: Path, *, quick: bool) -> None:
    """Write every kind of dataset, and compressed copies with one shard for litdata."""
    from benchmarks.adapters import ours

    total = 2_000_000 if quick else 160_000_000
    blobs = data.blobs(8 if quick else 300)
    arrays = data.arrays(500 if quick else 10_000)
    for kind in _kinds(quick):
        columns, name, _, _ = KINDS[kind]
        size, values = (4096, arrays) if kind == ARRAYS else (data.BLOB_BYTES, blobs)
        samples = [{name: values[i % len(values)], "label": i} for i in range(total // size)]
        ours.write(directory / FOLDERS[kind], columns, samples)
        packed = [sample | {name: bytes(sample[name])} for sample in samples]
        ours.write(_packed(directory, kind), columns | {name: "bytes"}, packed, compression="zstd", size_limit="1gb")


def _kinds(quick: bool) -> list[str]:
    return list(KINDS)[: 2 if quick else 3]


def _packed(directory: Path, kind: str) -> Path:
    return directory / f"{FOLDERS[kind]}-zstd"


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Every reader on every kind of dataset."""
    from benchmarks.adapters import ours

    found = []
    for kind in _kinds(quick):
        _, column, before, after = KINDS[kind]
        root = directory / FOLDERS[kind]
        shared = {"count": len(ours.open_dataset(root)), "quick": quick}
        readers: tuple[tuple[str, str, str, dict[str, Any], str | None], ...] = (
            (OURS, "ours", "reader", {}, column),
            (PAYLOAD, "ours", "payload_reader", {"column": column}, None),
            (LOCAL, "mosaicml", "reader", {}, column),
            (LIT, "lightning", "reader", {}, column),
            (MMAP, "bare", "mmap_reader", {"before": before, "after": after}, None),
            (PREAD, "bare", "pread_reader", {"before": before, "after": after}, None),
        )
        for contender, adapter, reader, options, key in readers:
            of = {"root": str(_packed(directory, kind) if contender == LIT else root)}
            arguments = {"adapter": adapter, "reader": reader, "options": options, "key": key, **of, **shared}
            found.append(Job(group=kind, contender=contender, run=read, arguments=arguments))
    return found


def targets() -> list[Target]:
    """Ratios to Streaming and to bare reading."""

    def times(group: str, contender: str, against: str, least: float) -> Target:
        claim = f"{group}: {against} at least {least:.3g} × as fast as {contender}"
        wanted = Wanted(group=group, contender=contender, against=against, number="microseconds", least=least)
        return Target(claim, (wanted,))

    within = Wanted(group=BLOBS, contender=OURS, against=MMAP, number="microseconds", most=1.3)
    return [
        times(ARRAYS, LOCAL, OURS, 5),
        times(BLOBS, LOCAL, OURS, 2.5),
        times(LABELLED, LOCAL, OURS, 2.5),
        Target(f"{BLOBS}: {OURS} within 1.3 × of a {MMAP}", (within,)),
        times(ARRAYS, LOCAL, PAYLOAD, 15),
        times(BLOBS, LOCAL, PAYLOAD, 15),
    ]


# in a process of its own ------------------------------------------------------------------------------------------


def read(
    adapter: str, reader: str, options: dict[str, Any], key: str | None, root: str, count: int, quick: bool
) -> Numbers:
    """The fastest of several passes over a list of random positions, which other processes disturbed least."""
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    order = np.random.default_rng(17).permutation(count)[: 200 if quick else 10_000].tolist()
    with Measured() as whole:
        get = getattr(module, reader)(Path(root), **options)
        first = one_pass(get, key, order)
        end = time.monotonic() + (0.01 if quick else 1.5)
        taken = [one_pass(get, key, order) for _ in range(2)]
        while time.monotonic() < end:
            taken.append(one_pass(get, key, order))
    return {
        "microseconds": min(taken),
        "middle_microseconds": statistics.median(taken),
        "first_microseconds": first,
        **whole.numbers,
    }


def one_pass(get: Callable[[int], Any], key: str | None, order: Sequence[int]) -> float:
    """Microseconds per sample, including touching its value."""
    start = time.perf_counter()
    if key is None:
        for position in order:
            touch(get(position))
    else:
        for position in order:
            touch(get(position)[key])
    return (time.perf_counter() - start) / len(order) * MB


def touch(value: Any) -> bytes:
    """Touch one item per page of a value (bytes, a view or an array)."""
    return bytes(value[:: 4096 // getattr(value, "itemsize", 1)])
