"""How much processor time and memory do this process and all its descendants use?"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.process import MB

_TICKS = os.sysconf("SC_CLK_TCK")


def process_ids() -> list[int]:
    """The pids of this process and all its descendants."""
    found = [os.getpid()]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, _read(path).split())
    return found


def processor_s() -> float:
    """The processor time of all living processes, and of children that have been waited for."""
    total = 0
    for pid in process_ids():
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(") ")[2].split()
        total += sum(map(int, fields[11:15] if pid == os.getpid() else fields[11:13]))
    return total / _TICKS


def anonymous_mb() -> float:
    """Anonymous memory of all processes: private and shared pages that belong to no file, each counted once."""
    pids = process_ids()
    if len(pids) == 1:
        return _sum_kb(Path("/proc/self/status"), ("RssAnon:", "RssShmem:"))
    return sum(_sum_kb(Path(f"/proc/{pid}/smaps_rollup"), ("Pss_Anon:", "Pss_Shmem:")) for pid in pids)


def _sum_kb(path: Path, names: tuple[str, ...]) -> float:
    lines = (line.split() for line in _read(path).splitlines())
    return sum(int(line[1]) for line in lines if line[0] in names) * 1024 / MB


def _read(path: Path) -> str:
    """The text of a file in /proc, or "" if the process has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Peak:
    """A context manager that samples the anonymous memory of all processes and keeps the maximum.

    Attributes:
        mb: The maximum.
        cpu_s: The processor time that sampling took, in this process. It grows with the number of threads.
    """

    def __init__(self, every_s: float = 0.005) -> None:
        self._every_s = every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mb = 0.0
        self.cpu_s = 0.0

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self.mb = max(self.mb, anonymous_mb())
        self.cpu_s = time.thread_time()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self.mb = max(self.mb, anonymous_mb())
