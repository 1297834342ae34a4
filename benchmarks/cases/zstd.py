"""How much time does zstd cost, and how much space does it save?"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.cases.getitem import one_pass, touch
from benchmarks.cases.write import remove
from benchmarks.harness import Column, Job, Target
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 400_000_000
NOTES = """\
- Shards of 16 MiB, written with one thread per core. The first access to a compressed shard unpacks it into the cache
  beside the dataset; after that it is read like any other shard.
- Pays below: if disk or network is slower than this, reading and unpacking the smaller files is faster than reading the
  larger ones.
- JPEGs: 640 × 480 pixels with an embedded profile. Texts: documents of about 3 KB. Arrays: 1,024 int32, waves and
  noise of six bits. Level 19 was measured once.
"""
COLUMNS = (
    Column(title="stored, % of raw", number="stored_percent", digits=1, spread=False),
    Column(title="write, MB/s", number="write_mb_per_s", digits=0),
    Column(title="first access, MB/s", number="unpack_mb_per_s", digits=0),
    Column(title="pays below, MB/s", number="pays_below_mb_per_s", digits=0, spread=False),
    Column(title="µs per sample after that", number="microseconds", digits=1, spread=False),
    Column(title="peak memory, MB", number="peak_growth_mb", digits=0, spread=False),
)
KINDS = ("JPEGs", "texts", "arrays")
SIZE_LIMIT = "16mb"
LEVELS = ("none", "zstd:1", "zstd:3", "zstd:9", "zstd:19")


def prepare(directory: Path, *, quick: bool) -> None:
    """Save the payloads of each kind."""
    share = 50 if quick else 1
    data.keep(directory / "JPEGs.npz", data.photos(400 // share))
    data.keep(directory / "texts.npz", [text.encode() for text in data.texts(15_000 // share)])
    data.keep(directory / "arrays.npz", [array.tobytes() for array in data.arrays(12_000 // share)])


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Every kind at every level."""
    found = []
    for kind in KINDS:
        for level in LEVELS[:: 2 if quick else 1]:
            arguments = {"level": level, "payloads": str(directory / f"{kind}.npz"), "out": str(directory / "out")}
            rounds = 1 if level == "zstd:19" else None
            found.append(Job(group=kind, contender=level, run=measure, arguments=arguments, rounds=rounds))
    return found


def targets() -> list[Target]:
    """None: this case shows when compression pays off."""
    return []


# in a process of its own ------------------------------------------------------------------------------------------


def measure(level: str, payloads: str, out: str) -> Numbers:
    """Write at one level, open every shard, and read all samples in random order."""
    from benchmarks.adapters import ours

    root = Path(out)
    samples = [{"x": payload} for payload in data.load(Path(payloads))]
    raw_bytes = sum(len(sample["x"]) for sample in samples)
    compression = None if level == "none" else level
    ours.write(root, {"x": "bytes"}, samples[:4], compression=compression)  # triggers the lazy imports
    remove(root)
    with Measured() as written:
        ours.write(root, {"x": "bytes"}, samples, compression=compression, size_limit=SIZE_LIMIT)
    stored = [path.stat().st_size for path in root.glob("shard.*")]
    dataset = ours.open_dataset(root)
    with Measured() as unpacked:
        for position in range(0, len(dataset), max(1, len(dataset) // (4 * len(stored)))):
            touch(dataset[position]["x"])
    order = np.random.default_rng(17).permutation(len(dataset))[:5_000].tolist()
    numbers = {
        "stored_percent": 100 * sum(stored) / raw_bytes,
        "write_mb_per_s": raw_bytes / written.seconds / MB,
        "microseconds": statistics.median(one_pass(dataset.__getitem__, "x", order) for _ in range(3)),
        **written.numbers,
    }
    remove(root)
    if compression is None:
        return numbers
    saved = max(0, raw_bytes - sum(stored))
    unpacking = {
        "unpack_mb_per_s": raw_bytes / unpacked.seconds / MB,
        "pays_below_mb_per_s": saved / unpacked.seconds / MB,
    }
    return numbers | unpacking
