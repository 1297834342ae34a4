"""What do this process and its workers take together?"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.process import MB

_TICKS = os.sysconf("SC_CLK_TCK")


def members() -> list[int]:
    """This process, its children and theirs."""
    found = [os.getpid()]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, _read(path).split())
    return found


def processor_s() -> float:
    """The processor's time of all who live, and of children who were waited for."""
    total = 0
    for pid in members():
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(") ")[2].split()
        total += sum(map(int, fields[11:15] if pid == os.getpid() else fields[11:13]))
    return total / _TICKS


def anonymous_mb() -> float:
    """Memory that is not the files': private and shared pages, each counted once."""
    pids = members()
    if len(pids) == 1:
        return _sum_kb(Path("/proc/self/status"), ("RssAnon:", "RssShmem:"))
    return sum(_sum_kb(Path(f"/proc/{pid}/smaps_rollup"), ("Pss_Anon:", "Pss_Shmem:")) for pid in pids)


def _sum_kb(path: Path, names: tuple[str, ...]) -> float:
    lines = (line.split() for line in _read(path).splitlines())
    return sum(int(line[1]) for line in lines if line[0] in names) * 1024 / MB


def _read(path: Path) -> str:
    """The text, or none of a process that has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Peak:
    """Looks at the memory of all again and again, and keeps the highest reading of the block it manages."""

    def __init__(self, every_s: float = 0.005) -> None:
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mb = 0.0

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self.mb = max(self.mb, anonymous_mb())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self.mb = max(self.mb, anonymous_mb())
