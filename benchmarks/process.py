"""What happens in the process that a contender has to itself? (python -m benchmarks.process, run by the harness)"""

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
    """Takes the time, the processor's time and the peak of memory of the block it manages, as far as the block adds."""

    seconds = 0.0
    numbers: Numbers

    def __enter__(self) -> Self:
        gc.collect()
        _forget_peak()
        self._before = _memory()
        self._start = time.perf_counter(), _processor_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start[0]
        processor_s = _processor_s() - self._start[1]
        after = _memory()
        self.numbers = {
            "processor_s": processor_s,
            "peak_mb": after["VmHWM"],
            "peak_growth_mb": after["VmHWM"] - self._before["VmRSS"],
            "anonymous_growth_mb": after["RssAnon"] - self._before["RssAnon"],
        }


def _processor_s() -> float:
    """Of this process, and of its children as they are waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _forget_peak() -> None:
    """Let the kernel count the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory() -> Numbers:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) * 1024 / MB for line in lines if line[0] in ("VmHWM:", "VmRSS:", "RssAnon:")}


def main() -> None:
    """Read a job from standard input, do it, write its numbers to standard output. Whatever it prints goes aside."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job: dict[str, Any] = json.load(sys.stdin)
    module, _, name = job["run"].partition(":")
    numbers = getattr(importlib.import_module(module), name)(**job["arguments"])
    json.dump(numbers, answers)
    answers.flush()
    os._exit(0)  # threads of the peers need not be waited for


if __name__ == "__main__":
    main()
