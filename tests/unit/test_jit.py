"""Are kernels compiled once, at first use, and are compilation failures reported?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# Two kernels call a third one, which has a helper. The last kernel does not compile.
KERNELS = """
from mx8shards.kernels.jit import BYTES, INT, array, helper, kernel

@helper
def plus_one(number):
    return number + 1

@kernel(INT, BYTES, INT)
def count(data, limit):
    total = 0
    for i in range(limit):
        total += plus_one(data[i])
    return total

@kernel(INT, BYTES)
def all_of(data):
    return count(data, len(data))

@kernel(INT, BYTES)
def half_of(data):
    return count(data, len(data) // 2)

@kernel(INT, BYTES)
def beyond(data):
    return count(data, 2 * len(data))

@kernel(INT, INT)
def uncompilable(number):
    return number.nothing

@kernel(INT, INT)
def calls_uncompilable(number):
    return uncompilable(number) if number > 1 else number
"""

START = """
import numpy as np
import numba.core.event as event
import some_kernels as k
from mx8shards.kernels.jit import KERNELS

class Compiled(event.Listener):
    def __init__(self):
        self.names = []
    def on_start(self, happening):
        self.names.append(happening.data["dispatcher"].py_func.__name__)
    def on_end(self, happening):
        pass

compiled = Compiled()
event.register("numba:compile", compiled)
data = np.frombuffer(bytes(range(10)), np.uint8)
"""


# Runs scripts in forks of a process that has imported numba, which takes longer than everything else.
SERVER = """
import atexit, json, os, sys
import numba.core.event
import mx8shards.kernels.jit
from tests.forked import forked

def run(script, folder):
    for number, name in (1, "out"), (2, "err"):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["NUMBA_CACHE_DIR"] = f"{folder}/cache"
    numba.config.reload_config()
    sys.path.insert(0, folder)
    try:
        exec(script, {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()

for line in sys.stdin:
    os.waitpid(forked(lambda: run(*json.loads(line))), 0)
    print("done", flush=True)
"""


class Output(NamedTuple):
    stdout: str
    stderr: str


Run = Callable[..., Output]


@pytest.fixture(scope="module")
def in_a_fork(repository: Path) -> Iterator[Callable[[str, Path], Output]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    command, pipe = [sys.executable, "-c", SERVER], subprocess.PIPE
    with subprocess.Popen(command, cwd=repository, env=environment, stdin=pipe, stdout=pipe, text=True) as server:
        scripts, answers = server.stdin, server.stdout
        assert scripts is not None
        assert answers is not None

        def run(script: str, folder: Path) -> Output:
            print(json.dumps([script, str(folder)]), file=scripts, flush=True)
            assert answers.readline() == "done\n"
            return Output((folder / "out").read_text(), (folder / "err").read_text())

        yield run


@pytest.fixture
def run(tmp_path: Path, repository: Path, in_a_fork: Callable[[str, Path], Output]) -> Run:
    """Runs a script with these kernels and a separate cache; with variables of its own in a new process."""
    (tmp_path / "some_kernels.py").write_text(KERNELS)

    def run(script: str, **environment: str) -> Output:
        if not environment:
            return in_a_fork(START + script, tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", START + script],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")},
                "PYTHONPATH": os.pathsep.join((str(tmp_path), str(repository))),
                "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return Output(done.stdout, done.stderr)

    return run


def test_a_kernel_is_compiled_once_for_all_callers_and_cached_on_disk(run: Run) -> None:
    script = "print(k.all_of(data), k.half_of(data), k.count(data, 3)); print(sorted(compiled.names))"
    first, second = run(script), run(script)
    assert first.stdout.splitlines() == ["55 15 6", "['all_of', 'count', 'half_of', 'plus_one']"], first.stderr
    assert second.stdout.splitlines() == ["55 15 6", "[]"]


def test_a_kernel_that_is_not_called_is_not_compiled(run: Run) -> None:
    done = run("print(k.calls_uncompilable(1)); print(compiled.names)")
    assert done.stdout.splitlines() == ["1", "['calls_uncompilable']"], done.stderr


def test_calling_a_kernel_that_does_not_compile_is_an_error_with_the_reason(run: Run) -> None:
    done = run("k.calls_uncompilable(2)")
    assert "RuntimeError: some_kernels.uncompilable could not be compiled" in done.stderr
    assert "Unknown attribute 'nothing' of type int64" in done.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_a_callee_compiles_is_raised_once_after_the_caller_returns(run: Run, times: int) -> None:
    script = f"""
import signal

class Interrupter(event.Listener):
    left = {times}
    def on_start(self, happening):
        if self.left and compiled.names[-1] == "count":
            self.left -= 1
            signal.raise_signal(signal.SIGINT)
    def on_end(self, happening):
        pass

event.register("numba:run_pass", Interrupter())
try:
    print(k.all_of(data))
except KeyboardInterrupt:
    print("interrupted", compiled.names.count("count"))
print(k.all_of(data), k.half_of(data))
"""
    done = run(script)
    assert done.stdout.splitlines() == [f"interrupted {times + 1}", "55 15"], done.stderr
    assert done.stderr == ""


def test_arguments_are_converted_or_refused(run: Run) -> None:
    script = """
print(k.count(np.arange(4, dtype=np.uint8), np.int32(2)), k.count(data, True))
for wrong in (data.astype(np.int64), data[::2], [1, 2], None):
    try:
        k.count(wrong, 1)
    except TypeError as error:
        print("refused")
print(len(compiled.names))
"""
    done = run(script)
    assert done.stdout.splitlines() == ["3 1", *["refused"] * 4, "2"], done.stderr


def test_several_threads_may_make_the_first_call(run: Run) -> None:
    script = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(lambda _: k.all_of(data), range(40))), sorted(compiled.names))
"""
    done = run(script)
    assert done.stdout.strip() == "{55} ['all_of', 'count', 'plus_one']", done.stderr


def test_a_bounds_check_error_propagates_through_all_callers(run: Run) -> None:
    done = run("k.beyond(data)", NUMBA_BOUNDSCHECK="1")
    assert "IndexError" in done.stderr


def test_with_the_compiler_disabled_kernels_run_as_python(run: Run) -> None:
    done = run("print(k.all_of(data), len(KERNELS)); k.beyond(data)", NUMBA_DISABLE_JIT="1")
    assert done.stdout.strip() == "55 0"
    assert "IndexError: index 10 is out of bounds" in done.stderr


# messages ------------------------------------------------------------------------------------------------------------

SLOW = "from mx8shards.kernels import notice\nnotice._LEAST_S = 1e-9\n"


def test_long_compilation_is_announced_on_stderr_with_kernel_cache_and_duration(run: Run, tmp_path: Path) -> None:
    done = run(SLOW + "k.all_of(data)")
    one, two = done.stderr.splitlines()
    assert one.startswith(f"mx8shards: compiling kernels for pictures (once per machine, kept in {tmp_path / 'cache'}")
    assert two.startswith("mx8shards: compiled kernels for pictures: ")
    assert two.endswith(" s")


def test_loading_kernels_from_the_disk_cache_prints_nothing(run: Run) -> None:
    run("k.all_of(data)")
    assert run(SLOW + "k.all_of(data)").stderr == ""


def test_a_configured_logger_gets_the_message_instead(run: Run) -> None:
    done = run(SLOW + "import logging\nlogging.basicConfig(level=logging.INFO)\nk.all_of(data)")
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith("INFO:mx8shards:compiling kernels for pictures")


def test_without_a_writable_cache_kernels_work_and_the_message_names_the_variable(run: Run) -> None:
    done = run(SLOW + "print(k.all_of(data))", NUMBA_CACHE_DIR="/proc/nowhere", HOME="/proc/nowhere")
    assert done.stdout.strip() == "55", done.stderr


# warming up ----------------------------------------------------------------------------------------------------------


def test_warm_up_compiles_kernels_that_are_not_cached_and_names_the_cache(tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", "mx8shards", "warm-up", "shuffling"]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = ([line.split("\t") for line in done.stdout.splitlines()] for done in runs)
    assert first[0][0] == second[0][0] == "shuffling"
    assert first[0][1].endswith(" s, 1 of 1 kernels were compiled")
    assert second[0][1] == "0.0 s, 0 of 1 kernels were compiled"
    assert first[1][0] == "kept in"
    assert Path(first[1][1]).parent == tmp_path
    assert any(Path(first[1][1]).iterdir())


def test_warm_up_refuses_unknown_names(repository: Path) -> None:
    command = [sys.executable, "-m", "mx8shards", "warm-up", "engines"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "gathering, shuffling, pictures, videos, tiling" in done.stderr


def test_warm_up_compiles_all_kernels() -> None:
    from mx8shards.cli.warm_up import _TOPICS
    from mx8shards.kernels import warming
    from mx8shards.kernels.jit import KERNELS

    list(warming.warm_up([]))
    assert tuple(warming.TOPICS) == tuple(_TOPICS)
    kernels = [kernel for kernel in KERNELS.values() if kernel.__module__.startswith("mx8shards.")]
    assert {warming.topic(kernel.__module__) for kernel in kernels} == set(_TOPICS)
    assert len({kernel.name for kernel in kernels}) == len(kernels)
    texts = {path.stem: path.read_text() for path in Path(warming.__file__).parent.glob("*.py")}
    modules = {name for name, text in texts.items() if "@kernel(" in text or "@inner_kernel(" in text}
    assert {kernel.__module__.rpartition(".")[2] for kernel in kernels} == modules
