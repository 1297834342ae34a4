"""Writers and syncs that kill themselves at a given operation of their store.

`python -m tests.remote.killed_writer` reads requests from its standard input, one JSON line each, and runs each in a
fork of its own, because starting Python takes longer. A request's `kill_at` is the number of the operation, counted
from 0: an even number is before an operation, an odd number after it. The answer is the exit status.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from typing import Any, Self

import mx8shards as mx8
from mx8shards.remote.object_store import ObjectStore
from tests.strategies import NUMBERED, numbered_samples

OPERATIONS = ("read", "read_spans", "head", "fetch", "put", "list", "delete")


def kill_at(number: int) -> None:
    counter = itertools.count()

    def count() -> None:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def killing(work: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            count()
            found = work(*args, **options)
            count()
            return found

        return run

    for name in OPERATIONS:
        setattr(ObjectStore, name, killing(getattr(ObjectStore, name)))


def write(url: str, mode: Any, samples: int) -> None:
    with mx8.Writer(url, columns=NUMBERED, size_limit=700, mode=mode, threads=1) as writer:
        for sample in numbered_samples(samples):
            writer.write(sample)


def run(request: dict[str, Any]) -> None:
    status = 1
    try:
        os.environ.update(request["environment"])
        if request["kill_at"] is not None:
            kill_at(request["kill_at"])
        if request["source"] is None:
            write(request["url"], request["mode"], request["samples"])
        else:
            mx8.sync(request["source"], request["url"])
        status = 0
    except BaseException:  # noqa: BLE001 - the exit status tells
        traceback.print_exc()
    finally:
        os._exit(status)


class KilledWriters:
    """The process that forks these writers."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.remote.killed_writer"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def write(self, url: str, mode: str, samples: int, kill_at: int | None) -> int:
        """Run a writer to its end, and return its exit status: -9 if it was killed."""
        return self._run(url=url, mode=mode, samples=samples, kill_at=kill_at, source=None)

    def sync(self, source: str, target: str, kill_at: int | None) -> int:
        """Run a sync to its end, and return its exit status: -9 if it was killed."""
        return self._run(source=source, url=target, kill_at=kill_at)

    def _run(self, **request: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "S3_"))}
        self._process.stdin.write(json.dumps({**request, "environment": environment}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
