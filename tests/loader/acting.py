"""Run a scene in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Actor:
    """A process that forks for each scene."""

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
        assert self.hear() == "ready"

    def start(self, scene: str, **arguments: Any) -> None:
        """Have a scene acted out."""
        assert self._process.stdin is not None
        self._errors.truncate(0)
        self._process.stdin.write(json.dumps({"scene": scene, **arguments}) + "\n")
        self._process.stdin.flush()
        word, pid = self.hear().split()
        assert word == "pid"
        self.pid = int(pid)

    def hear(self) -> str:
        """The next thing it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors
        return line.strip()

    def rest(self) -> tuple[list[str], int]:
        """All that it says until the scene is over, and its exit status."""
        said = []
        while not (line := self.hear()).startswith("status"):
            said.append(line)
        return said, int(line.split()[1])

    @property
    def errors(self) -> str:
        """What is on its standard error."""
        self._errors.seek(0)
        return self._errors.read().strip("\0")

    def close(self) -> None:
        """There are no more scenes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._errors.close()
