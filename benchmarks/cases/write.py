"""How fast is writing shards, compared with MDSWriter and with the bare disk?"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 1_100_000_000
NOTES = """\
- Both writers get equal samples, hashes, compression and size limit (64 MiB). mx8shards also computes blake3 of every
  shard for the index, and of its blocks of 1 MiB for the side-car.
- Durable: the time until every file is synced. mx8shards syncs before it publishes. MDSWriter does not sync, so its
  files are synced afterwards and that time is added. Closed: the time until the writer is closed, without syncing.
- Bare: an equal number of bytes in files of 64 MiB, each with one write and one fsync.
- 100 KB blobs: 512 MB of photos cut to 100,000 bytes, 300 different ones repeated. 4 KiB arrays: 256 MB, 1,024 int32
  each.
- Peak memory: of the process, without the samples, which are generated before.
"""
COLUMNS = (
    Column(title="durable, MB/s", number="durable_mb_per_s", digits=0),
    Column(title="durable, time", number="durable_s", digits=2, ratio=True),
    Column(title="processor, s", number="processor_s", digits=2, spread=False),
    Column(title="closed, time", number="closed_s", digits=2, ratio=True),
    Column(title="peak memory, MB", number="peak_growth_mb", digits=0, spread=False),
)

BLOBS, ARRAYS = "100 KB blobs", "4 KiB arrays + int"
COLUMNS_OF = {BLOBS: {"image": "bytes"}, ARRAYS: {"signal": "ndarray:int32:1024", "label": "int"}}
SAMPLE_BYTES = {BLOBS: data.BLOB_BYTES, ARRAYS: 4 * data.ARRAY_ITEMS + 8}
HASHES_AND_COMPRESSIONS: tuple[tuple[list[str], str | None], ...] = (
    ([], None),
    (["xxh128"], None),
    (["sha1"], None),
    (["xxh128"], "zstd:3"),
)
OURS, PEER = "mx8shards", "MDSWriter"
BARE = {1: "bare write + fsync, 1 thread", 2: "bare write + fsync, 2 threads"}


def prepare(directory: Path, *, quick: bool) -> None:
    """Save the blobs. Arrays are generated in the measuring process."""
    data.keep(directory / "blobs.npz", data.blobs(8 if quick else 300))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Both writers with every kind of sample and every option, and the bare disk."""
    out = str(directory / "out")
    found = []
    # of 64 MiB at most, this makes eight shards of blobs and four of arrays
    for kind, whole in ((BLOBS, 512_000_000), (ARRAYS, 256_000_000)):
        total = 2_000_000 if quick else whole
        for hashes, compression in HASHES_AND_COMPRESSIONS[2 if quick else 0 :]:
            group = _group(kind, hashes, compression)
            settings: dict[str, object] = {"hashes": hashes, "compression": compression, "size_limit": "64mb"}
            for contender, adapter in ((OURS, "ours"), (PEER, "mosaicml")):
                arguments = {"adapter": adapter, "kind": kind, "count": total // SAMPLE_BYTES[kind], "out": out}
                arguments |= {"hashes": hashes, "compression": compression, "blobs": str(directory / "blobs.npz")}
                job = Job(group=group, contender=contender, run=write, arguments=arguments, settings=settings)
                found.append(job)
            for threads in BARE if compression is None else ():
                arguments = {"out": out, "size_bytes": total, "threads": threads}
                found.append(Job(group=group, contender=BARE[threads], run=write_bare, arguments=arguments))
    return found


def _group(kind: str, hashes: list[str], compression: str | None) -> str:
    return ", ".join([kind, *(hashes or ["no hashes"]), *([compression] if compression else [])])


def targets() -> list[Target]:
    """Twice as fast as MDSWriter, or 85 % of the bare disk, whichever is less."""
    found = []
    for kind in COLUMNS_OF:
        for hashes, compression in HASHES_AND_COMPRESSIONS:
            group = _group(kind, hashes, compression)
            wanted = [Wanted(group=group, contender=PEER, against=OURS, number="durable_s", least=2)]
            bare = BARE.values() if compression is None else ()
            wanted += [
                Wanted(group=group, contender=name, against=OURS, number="durable_s", least=0.85) for name in bare
            ]
            found.append(Target(f"{group}: twice as fast as MDSWriter, or 85 % of a bare write", tuple(wanted)))
    return found


# in a process of its own ------------------------------------------------------------------------------------------


def write(
    adapter: str, kind: str, count: int, hashes: list[str], compression: str | None, blobs: str, out: str
) -> Numbers:
    """Write one dataset with one writer."""
    writer: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    samples = _samples(kind, count, Path(blobs))
    target = Path(out)
    writer.write(target, COLUMNS_OF[kind], samples[:10], hashes, compression)  # triggers the lazy imports
    remove(target)
    with Measured() as closed:
        writer.write(target, COLUMNS_OF[kind], samples, hashes, compression)
    with Measured() as synced:
        sync_files(target)
    stored = sum(path.stat().st_size for path in target.rglob("*.mds*") if path.is_file())
    remove(target)
    durable_s = closed.seconds + synced.seconds
    return {
        "durable_mb_per_s": count * SAMPLE_BYTES[kind] / durable_s / MB,
        "durable_s": durable_s,
        "closed_s": closed.seconds,
        "stored_mb": stored / MB,
        **closed.numbers,
    }


def write_bare(out: str, size_bytes: int, threads: int) -> Numbers:
    """Write an equal number of bytes without any writer."""
    from benchmarks.adapters import bare

    buffer = memoryview(os.urandom(1 << 20) * (bare.FILE_BYTES >> 20))
    os.sync()
    with Measured() as taken:
        bare.write_bytes(Path(out), buffer, size_bytes, threads)
    remove(Path(out))
    durable_mb_per_s = size_bytes / taken.seconds / MB
    return {
        "durable_mb_per_s": durable_mb_per_s,
        "durable_s": taken.seconds,
        "closed_s": taken.seconds,
        **taken.numbers,
    }


def _samples(kind: str, count: int, blobs: Path) -> list[dict[str, Any]]:
    if kind == BLOBS:
        images = data.load(blobs)
        return [{"image": images[i % len(images)]} for i in range(count)]
    signals = data.arrays(min(count, 20_000))
    return [{"signal": signals[i % len(signals)], "label": i} for i in range(count)]


def sync_files(root: Path) -> None:
    """Sync every file to disk."""
    for path in (root, *root.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def remove(root: Path) -> None:
    """Remove the files and sync, so that no write-back disturbs the next measurement."""
    shutil.rmtree(root)
    os.sync()
