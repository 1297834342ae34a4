"""Run cases of the benchmarks with tiny sizes, in forks of a process that has imported the packages that they need.

`python -m tests.integration.quick_benchmarks DIRECTORY RESULTS` reads cases from its standard input, one per line. It
writes the results of each, and what it printed, to RESULTS/CASE.json, and then says its exit status. In new processes
each of the ninety jobs would take two seconds to import packages.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import litdata  # noqa: F401
import simplejpeg  # noqa: F401
import torch._dynamo  # noqa: F401 - optimizers import it

import mx8shards.streaming  # noqa: F401
from benchmarks import __main__ as command
from benchmarks import data, harness
from benchmarks.adapters.streaming_stub import import_streaming
from benchmarks.process import Numbers
from mx8shards.cli import main as mx8shards_command
from mx8shards.kernels.warming import TOPICS, warm_up
from tests.waiting import wait_until

FORKS = multiprocessing.get_context("fork")


def run_cases(directory: Path, results: Path) -> None:
    """Run each case in a fork, and its jobs in forks of that."""
    statuses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare()
    for case in map(str.strip, sys.stdin):
        process = FORKS.Process(target=run_case, args=(case, directory, results / f"{case}.json"))
        process.start()
        process.join()
        print(process.exitcode, file=statuses, flush=True)


def prepare() -> None:
    """Do what several forks would do, without starting a thread, which forks would lack."""
    import_streaming()
    list(warm_up(list(TOPICS)))
    data.blobs = functools.cache(data.blobs)
    data.blobs(300)
    gc.freeze()  # collections in forks would copy the memory of all these objects


def run_case(case: str, directory: Path, out: Path) -> None:
    harness.in_a_process = in_a_fork  # before the modules that import this function are imported
    pictures: Any = importlib.import_module("benchmarks.picture_contenders")
    pictures.convert = convert_in_a_fork
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main([case, "--quick", "--json", str(out), "--directory", str(directory)])
    out.write_text(json.dumps({**json.loads(out.read_text()), "printed": printed.getvalue()}))


def in_a_fork(job: harness.Job, directory: Path) -> Numbers:
    """As `harness.in_a_process`."""
    wait_until(lambda: len(os.listdir("/proc/self/task")) == 1)  # a fork would lack the threads that prepared the case
    answers, answer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_answer, args=(job, directory, answer))
    process.start()
    answer.close()
    try:
        numbers: Numbers = answers.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{job.group}, {job.contender}: ended with {process.exitcode}") from None
    process.join()
    return numbers


def _answer(job: harness.Job, directory: Path, answer: Connection) -> None:
    os.environ |= {"HOME": str(directory), "TMPDIR": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}
    answer.send({key: float(f"{value:.6g}") for key, value in job.run(**job.arguments).items()})
    os._exit(0)  # as benchmarks.process does: peers' threads are not waited for


def convert_in_a_fork(src: Path, out: Path, *options: str) -> None:
    """As `picture_contenders.convert`, but with one worker, which needs no further process."""
    command = ["convert", "imagefolder", str(src), str(out), "--workers", "1", *options]
    process = FORKS.Process(target=lambda: sys.exit(mx8shards_command(command)))
    process.start()
    process.join()
    assert process.exitcode == 0


if __name__ == "__main__":
    run_cases(Path(sys.argv[1]), Path(sys.argv[2]))
