"""How does the process of one job measure time and memory? (python -m benchmarks.process, started by the harness)"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Numbers = dict[str, float]

MB = 1e6


class Measured:
    """A context manager that measures a block: time, processor time, and peak and growth of memory."""

    seconds = 0.0
    numbers: Numbers

    def __enter__(self) -> Self:
        gc.collect()
        _forget_peak()
        self._before = _memory()
        self._start = time.perf_counter(), _processor_s()
        return self

    def elapsed_s(self) -> float:
        """The time since the block was entered."""
        return time.perf_counter() - self._start[0]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.seconds = self.elapsed_s()
        processor_s = _processor_s() - self._start[1]
        after = _memory()
        self.numbers = {
            "processor_s": processor_s,
            "peak_mb": after["VmHWM"],
            "peak_growth_mb": after["VmHWM"] - self._before["VmRSS"],
            "anonymous_growth_mb": after["RssAnon"] - self._before["RssAnon"],
        }


def _processor_s() -> float:
    """Processor time of this process and of the children that have been waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _forget_peak() -> None:
    """Reset the kernel's peak of resident memory (VmHWM)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory() -> Numbers:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) * 1024 / MB for line in lines if line[0] in ("VmHWM:", "VmRSS:", "RssAnon:")}


def main() -> None:
    """Read a job from stdin, run it, and write its numbers to stdout. Anything it prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job: dict[str, Any] = json.load(sys.stdin)
    module, _, name = job["run"].partition(":")
    numbers = getattr(importlib.import_module(module), name)(**job["arguments"])
    json.dump(numbers, answers)
    answers.flush()
    os._exit(0)  # without waiting for peers' threads


if __name__ == "__main__":
    main()
