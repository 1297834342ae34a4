"""How much time and memory does opening a dataset of 100,000 shards and 100 million samples take?"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 200_000_000
NOTES = """\
- The shard files do not exist, because opening does not touch them. Memory is that of the whole process, with imports.
- json.load: parses index.json to plain Python objects, unchecked.
"""
COLUMNS = (
    Column(title="open, s", number="open_s", digits=2),
    Column(title="time, × mx8shards", number="open_s", digits=1, ratio=True),
    Column(title="processor, s", number="processor_s", digits=2),
    Column(title="peak memory, MB", number="peak_mb", digits=0),
    Column(title="import, s", number="import_s", digits=2, spread=False),
)
OURS, LOCAL, STREAMING, PLAIN = "mx8shards Dataset", "streaming LocalDataset", "streaming StreamingDataset", "json.load"
SEALED, FOREIGN = "with blake3 and xxh128", "without hashes, as Streaming writes by default"


def prepare(directory: Path, *, quick: bool) -> None:
    """Write both index files."""
    for name, hashes in (("sealed", ("blake3", "xxh128")), ("foreign", ())):
        entries = ", ".join(_entries(2_000 if quick else 100_000, hashes))
        (directory / name).mkdir()
        (directory / name / "index.json").write_text(f'{{"shards": [{entries}], "version": 2}}')


def _entries(count: int, hashes: tuple[str, ...]) -> Iterator[str]:
    for i in range(count):
        digest = hashlib.sha256(b"%d" % i).hexdigest()
        raw = {"basename": f"shard.{i:05}.mds", "bytes": 60_000_000 + i}
        raw["hashes"] = {name: digest[: 64 if name == "blake3" else 32] for name in hashes}
        entry = {
            "column_encodings": ["bytes", "int"],
            "column_names": ["image", "label"],
            "column_sizes": [None, 8],
            "compression": None,
            "format": "mds",
            "hashes": list(hashes),
            "raw_data": raw,
            "samples": 1_000,
            "size_limit": 1 << 26,
            "version": 2,
            "zip_data": None,
        }
        yield json.dumps(entry, sort_keys=True)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders, the slow ones in fewer rounds."""
    found = []
    for group, name in ((SEALED, "sealed"), (FOREIGN, "foreign"))[: 1 if quick else 2]:
        for contender, adapter, opener, rounds in (
            (OURS, "ours", "open_dataset", None),
            (LOCAL, "mosaicml", "open_dataset", 3),
            (STREAMING, "mosaicml", "open_streaming_dataset", 1),
            (PLAIN, "bare", "load_index", None),
        ):
            arguments = {"adapter": adapter, "opener": opener, "root": str(directory / name)}
            found.append(Job(group=group, contender=contender, run=measure, arguments=arguments, rounds=rounds))
    return found


def targets() -> list[Target]:
    """At most 1.5 s and 250 MB."""
    found = []
    for group in (SEALED, FOREIGN):
        seconds = Wanted(group=group, contender=OURS, number="open_s", most=1.5)
        found.append(Target(f"{group}: opened within 1.5 s", (seconds,)))
        peak = Wanted(group=group, contender=OURS, number="peak_mb", most=250)
        found.append(Target(f"{group}: within 250 MB", (peak,)))
    return found


# in a process of its own ------------------------------------------------------------------------------------------


def measure(adapter: str, opener: str, root: str) -> Numbers:
    """Import and open."""
    start = time.perf_counter()
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    opens = getattr(module, opener)
    imported = time.perf_counter() - start
    with Measured() as taken:
        dataset = opens(Path(root))
    size_mb = (Path(root) / "index.json").stat().st_size / MB
    numbers = {"open_s": taken.seconds, "import_s": imported, "index_mb": size_mb, "length": float(len(dataset))}
    return {**numbers, **taken.numbers}
