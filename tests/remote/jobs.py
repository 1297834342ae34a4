"""Four training jobs on one mirror, killed at random times and started again.

`python -m tests.remote.jobs PRACTICE URL LOCAL LIMIT CYCLES SEED` writes what it found to stdout, as JSON. The jobs are
forks of this process, which has imported everything and compiled the kernels, but never connects to the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import mx8shards as mx8
from tests.forked import forked

JOBS = 4
COLUMNS = {"x": "int", "blob": "bytes"}
PATIENCE_S = 60.0


def blob(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def write(root: Path, samples: int, size: int, **options: Any) -> None:
    """A dataset of 25 samples in each shard."""
    with mx8.Writer(root, columns=COLUMNS, size_limit=25 * (size + 16) + 500, **options) as writer:
        for number in range(samples):
            writer.write({"x": number, "blob": blob(number, size)})


def train(link: str, local: str | None, limit: int | None, seed: int, epochs: int) -> None:
    """Epochs of a job, each sample of which is compared with what was written."""
    remote = {} if local is None else {"local": local, "cache_limit": limit, "deadline_s": PATIENCE_S / 2}
    order = {"shuffle": mx8.BlockShuffle(shards=2), "seed": seed}
    with (
        mx8.Dataset(link, **remote) as dataset,
        mx8.Loader(dataset, batch_size=4, output="numpy", threads=1, memory="32mb", **order) as loader,
    ):
        for _ in range(epochs):
            seen = []
            for batch in loader:
                for number, found in zip(batch["x"].tolist(), batch["blob"], strict=True):
                    assert found == blob(number, len(found)), f"sample {number} is wrong"
                    seen.append(number)
            assert sorted(seen) == list(range(len(dataset)))


def started(link: str, local: str, limit: int | None, seed: int, epochs: int) -> int:
    """The process of a job."""
    return forked(partial(train, link, local, limit, seed, epochs))


def thread_states(pid: int) -> list[str]:
    """The state of each thread of a process, as in /proc: T for a stopped one, Z for one that has ended."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            found.append(path.read_text().rpartition(")")[2].split()[0])
    return found


def shard_bytes(local: Path, running: list[int]) -> int:
    """The bytes of all shards that have their final names at one moment, for which the running jobs are stopped."""
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    for pid in running:
        while not set(thread_states(pid)) <= set("TtZX"):
            time.sleep(0.001)
    total = 0
    for path in local.glob("*.mds*"):
        with suppress(FileNotFoundError):  # removed by a killed job that has not ended yet
            total += path.stat().st_size
    for pid in running:
        os.kill(pid, signal.SIGCONT)
    return total


def damaged(local: Path) -> list[str]:
    """The shards that are not what the index says."""
    entries = json.loads((local / "index.json").read_bytes())["shards"] if (local / "index.json").exists() else []
    hashes = {entry["raw_data"]["basename"]: entry["raw_data"]["hashes"]["sha256"] for entry in entries}
    found = []
    for path in local.glob("*.mds"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        if hashlib.sha256(data).hexdigest() != hashes[path.name]:
            found.append(path.name)
    return found


def residue(local: Path) -> list[str]:
    """What killed jobs have left."""
    folders = [local / ".mx8shards" / name for name in ("claims", "fetching", "readers")]
    return [str(path.relative_to(local)) for folder in folders for path in folder.glob("*")]


def main(url: str, local: str, limit: int | None, cycles: int, seed: int) -> dict[str, Any]:
    """Cycles of starting and killing; then all jobs end by themselves, and an open dataset finds nothing to remove."""
    draws = random.Random(seed)
    most_bytes, wrong, failed = 0, set(), 0
    root = Path(local)
    for _ in range(cycles):
        jobs = [started(url, local, limit, draws.randrange(1 << 30), 1000) for _ in range(JOBS)]
        running = draws.sample(jobs, len(jobs))
        while running:
            end = time.monotonic() + draws.choice((0.02, 0.1, 0.4, 0.8)) * draws.random()
            while time.monotonic() < end:
                most_bytes = max(most_bytes, shard_bytes(root, running))
                time.sleep(0.03)
            os.kill(running.pop(), signal.SIGKILL)
        failed += sum(os.waitpid(pid, 0)[1] != signal.SIGKILL for pid in jobs)
        most_bytes = max(most_bytes, shard_bytes(root, []))
        wrong.update(damaged(root))
    jobs = [started(url, local, limit, draws.randrange(1 << 30), 2) for _ in range(JOBS)]
    statuses = ended(jobs)
    mx8.Dataset(url, local=local, cache_limit=limit).close()
    return {
        "statuses": statuses,
        "failed": failed,
        "most_bytes": max(most_bytes, shard_bytes(root, [])),
        "wrong": sorted(wrong.union(damaged(root))),
        "residue": residue(root),
    }


def ended(jobs: list[int]) -> list[int | str]:
    """The exit statuses of jobs; "hangs" for one that had to be killed."""
    end = time.monotonic() + PATIENCE_S
    found: list[int | str] = []
    for pid in jobs:
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)
        found.append(os.waitstatus_to_exitcode(done[1]) if done[0] else "hangs")
    return found


if __name__ == "__main__":
    practice, *settings = sys.argv[1:]
    write(Path(practice), 20, 100)
    train(practice, None, None, 1, 1)  # compiles
    given = settings[0], settings[1], int(settings[2]) or None, int(settings[3]), int(settings[4])
    print(json.dumps(main(*given)))
