"""Run a scenario of `child.py` in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class ChildProcess:
    """A server process that forks a child for each scenario."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.loader.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        self.pid = 0
        assert self.read_line() == "ready"

    def start(self, scenario: str, **arguments: Any) -> None:
        """Start a scenario in a forked child."""
        assert self._process.stdin is not None
        self._errors.truncate(0)
        self._process.stdin.write(json.dumps({"scenario": scenario, **arguments}) + "\n")
        self._process.stdin.flush()
        word, pid = self.read_line().split()
        assert word == "pid"
        self.pid = int(pid)

    def read_line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors
        return line.strip()

    def read_rest(self) -> tuple[list[str], int]:
        """The remaining lines of the scenario, and the exit status."""
        said = []
        while not (line := self.read_line()).startswith("status"):
            said.append(line)
        return said, int(line.split()[1])

    @property
    def errors(self) -> str:
        """Its standard error."""
        self._errors.seek(0)
        return self._errors.read().strip("\0")

    def close(self) -> None:
        """End the server process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._errors.close()
