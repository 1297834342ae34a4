"""Kill a process, or make the disk fail, at one of its system calls."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.scenes import Scene

ROOT = Path(__file__).parent.parent.parent
TRACED = "trace=%file,%desc"
# calls that an error can come from, in a way that Python passes on
FAILING = {
    *("openat", "mkdir", "rename", "link", "unlink", "rmdir", "fsync", "write", "pwrite64", "ftruncate", "flock"),
    *("read", "pread64", "getdents64", "newfstatat", "lseek", "close", "readlink"),
}


class NoTracerError(Exception):
    """This machine lets nobody trace a process."""


@dataclass(frozen=True)
class Point:
    """One system call of one thread: the `number`-th of its name."""

    where: str  # the "main" thread, or the first other "thread"
    call: str
    number: int


class Victims:
    """Processes that act out scenes and may die of it."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def close(self) -> None:
        """No more of them."""
        self._server.communicate(timeout=60)

    def _ask(self, scene: Scene, place: Path, where: str) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps({"scene": scene.name, "place": str(place), "where": where}) + "\n")
        return self._hear("pid")

    def _hear(self, *wanted: str) -> int:
        assert self._server.stdout is not None
        self.said: dict[str, int]
        while not any(word in self.said for word in wanted):
            word, value = self._server.stdout.readline().split()
            self.said[word] = int(value)
        return next(self.said[word] for word in wanted if word in self.said)

    def run(self, scene: Scene, place: Path) -> int:
        """Undisturbed; the exit status."""
        self.said = {}
        self._ask(scene, place, "")
        return self._hear("status")

    @contextlib.contextmanager
    def started(self, scene: Scene, place: Path) -> Iterator[int]:
        """One that runs while the block does, by its number; `status` is there afterwards."""
        self.said = {}
        yield self._ask(scene, place, "")
        self._hear("status")

    def kill(self, pid: int) -> None:
        """Kill the one that runs, unless it has ended; its server may be about to say so."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    @property
    def status(self) -> int:
        """How the last one ended."""
        return self.said["status"]

    def trace(self, scene: Scene, place: Path, where: str, log: Path, *options: str) -> int:
        """One with a tracer at one of its threads; the exit status, negative for a signal."""
        self.said = {}
        pid = self._ask(scene, place, where)
        thread = self._hear("thread", "status")
        if "thread" not in self.said:
            return self.said["status"]  # there was no such thread
        _wait_until_stopped(pid)
        command = ["strace", "-p", str(thread), "-o", str(log), "-e", TRACED, *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            os.kill(pid, signal.SIGCONT)
            status = self._hear("status")
            if "attached" not in said:
                raise NoTracerError(said)
        return status

    def points(self, scene: Scene, place: Path, where: str, log: Path) -> list[Point]:
        """Every system call on files that an undisturbed run makes in one thread."""
        log.write_text("")
        self.trace(scene, place, where, log)
        calls = Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))
        return [Point(where, call, i + 1) for call, count in sorted(calls.items()) for i in range(count)]


def _wait_until_stopped(pid: int) -> None:
    while not re.search(r"^State:\s+[tT]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
        os.sched_yield()


def kill(point: Point) -> str:
    """The option for a tracer that kills the process as it makes this call."""
    return f"inject={point.call}:signal=SIGKILL:when={point.number}"


def fail(point: Point, error: str) -> str:
    """The option for a tracer that lets this call fail."""
    return f"inject={point.call}:error={error}:when={point.number}"
