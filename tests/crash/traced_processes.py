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

from tests.crash.scenarios import Scenario

ROOT = Path(__file__).parent.parent.parent
TRACED = "trace=%file,%desc"
# calls whose errors Python raises
FAILING = {
    *("openat", "mkdir", "rename", "link", "unlink", "rmdir", "fsync", "write", "pwrite64", "ftruncate", "flock"),
    *("read", "pread64", "getdents64", "newfstatat", "lseek", "close", "readlink"),
}


class NoTracerError(Exception):
    """This machine does not allow tracing (strace)."""


@dataclass(frozen=True)
class Point:
    """One system call of one thread: the `number`-th of its name."""

    where: str  # the "main" thread, or the first other "thread"
    call: str
    number: int


class TracedProcesses:
    """A server that forks a process for each scenario, which tests trace, disturb and kill."""

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
        """End the server."""
        self._server.communicate(timeout=60)

    def _ask(self, scenario: Scenario, place: Path, where: str) -> int:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps({"scenario": scenario.name, "place": str(place), "where": where}) + "\n")
        return self._hear("pid")

    def _hear(self, *wanted: str) -> int:
        assert self._server.stdout is not None
        self.said: dict[str, int]
        while not any(word in self.said for word in wanted):
            word, value = self._server.stdout.readline().split()
            self.said[word] = int(value)
        return next(self.said[word] for word in wanted if word in self.said)

    def run(self, scenario: Scenario, place: Path) -> int:
        """Run a scenario undisturbed. Returns the exit status."""
        self.said = {}
        self._ask(scenario, place, "")
        return self._hear("status")

    @contextlib.contextmanager
    def started(self, scenario: Scenario, place: Path) -> Iterator[int]:
        """Run a scenario during the block, which gets its pid; `status` is set afterwards."""
        self.said = {}
        yield self._ask(scenario, place, "")
        self._hear("status")

    def kill(self, pid: int) -> None:
        """Kill the running process. It may have ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    @property
    def status(self) -> int:
        """The exit status of the last process."""
        return self.said["status"]

    def trace(self, scenario: Scenario, place: Path, where: str, log: Path, *options: str) -> int:
        """Run a scenario with strace attached to one thread. Returns the exit status, negative for a signal."""
        self.said = {}
        pid = self._ask(scenario, place, where)
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

    def points(self, scenario: Scenario, place: Path, where: str, log: Path) -> list[Point]:
        """All system calls on files that one thread makes in an undisturbed run."""
        log.write_text("")
        self.trace(scenario, place, where, log)
        calls = Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))
        return [Point(where, call, i + 1) for call, count in sorted(calls.items()) for i in range(count)]


def _wait_until_stopped(pid: int) -> None:
    while not re.search(r"^State:\s+[tT]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
        os.sched_yield()


def kill(point: Point) -> str:
    """The strace option that kills the process at this call."""
    return f"inject={point.call}:signal=SIGKILL:when={point.number}"


def fail(point: Point, error: str) -> str:
    """The strace option that makes this call fail."""
    return f"inject={point.call}:error={error}:when={point.number}"
