"""Does a child process work that was forked while threads compile, import or load?"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mx8shards as mx8
from tests.loader.leak_checks import write
from tests.pictures import file_of, jpeg
from tests.pixels import picture

SAMPLES = 60

_WHILE_COMPILING = """
import os, signal, sys, time
import mx8shards as mx8
from mx8shards.kernels import compiling
from tests.loader.leak_checks import ids_of

def ids(batches):
    return sorted(i for batch in batches for i in ids_of(batch))

link, count = sys.argv[1], int(sys.argv[2])
loader = mx8.Loader(mx8.Dataset(link), batch_size=8, threads=2, shuffle=True, output="numpy")
batches = iter(loader)
while compiling.current() is None:
    time.sleep(0.001)
pid = os.fork()
if not pid:
    signal.alarm(100)
    os._exit(0 if ids(loader) == list(range(count)) else 3)
print("parent", ids(batches) == list(range(count)))
print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def run(script: str, repository: Path, *arguments: object, **environment: str) -> str:
    """The output of a script, run in a new process."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=repository, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_forked_while_a_kernel_compiles_loads_everything(tmp_path: Path, repository: Path) -> None:
    """With an empty kernel cache, so that the fork happens while the first kernel compiles."""
    data = write(tmp_path / "data", SAMPLES)
    said = run(_WHILE_COMPILING, repository, data, SAMPLES, NUMBA_CACHE_DIR=str(tmp_path / "compiled"))
    assert said.splitlines() == ["parent True", "child 0"]


_IMPORTS = """
import json, os, sys, threading
from tests.forked import forked

class ImportRecorder:
    def find_spec(self, name, path=None, target=None):
        thread = threading.current_thread().name
        if thread.startswith("mx8shards"):
            compiler = sys.modules.get("numba.core.compiler_lock")
            if compiler is None or not compiler.global_compiler_lock.is_locked():  # forks wait for what holds it
                print(name, "by", thread)

def write(root):
    import mx8shards as mx8
    sys.meta_path.insert(0, ImportRecorder())
    options = {"compression": "zstd", "hashes": ["blake3", "xxh128"]}
    with mx8.Writer(root, columns={"x": "int"}, **options) as writer:
        writer.write({"x": 3})

def load(link, options, environment):
    os.environ.update(environment)
    import mx8shards as mx8
    options = eval(options)
    loader = mx8.Loader(mx8.Dataset(link), batch_size=2, threads=2, on_error="skip", **options)
    sys.meta_path.insert(0, ImportRecorder())
    for batch in loader:
        pass
    print(loader.stats()["samples"], "samples")

def run(name, arguments):
    {"write": write, "load": load}[name](*arguments)
    sys.stdout.flush()

for number, case in enumerate(json.loads(sys.argv[1])):
    if number == 1:
        import numba, torch  # the first loader imported them itself; they take longer than everything else
    print(*case, flush=True)
    assert not os.waitpid(forked(lambda: run(case[0], case[1:])), 0)[1]
"""


def imports_of_threads(cases: Sequence[Sequence[Any]], repository: Path) -> dict[str, list[str]]:
    """What each case prints: modules that a thread of ours imports. Each runs in a fork of a process without ours."""
    found: dict[str, list[str]] = {}
    names = [" ".join(map(str, case)) for case in cases]
    for line in run(_IMPORTS, repository, json.dumps(cases)).splitlines():
        if line in names:
            lines = found.setdefault(line, [])
        else:
            lines.append(line)
    assert list(found) == names
    return found


def test_no_thread_of_a_loader_imports_a_module(tmp_path: Path, repository: Path) -> None:
    """A forked child would inherit a half-imported module and wait forever for its import lock."""
    cases = []
    for io, compression in zip(itertools.cycle(["mmap", "pread"]), (None, None, "zstd", "br", "snappy", "gz", "bz2")):
        data = write(tmp_path / f"{io}-{compression}", 20, compression=compression, hashes=("sha1", "xxh64"))
        cases.append(("load", str(data), repr({"io": io, "shuffle": True}), {}))
    for case, lines in imports_of_threads(cases, repository).items():
        assert lines == ["20 samples"], case


def test_no_thread_of_a_loader_that_decodes_pictures_imports_a_module(tmp_path: Path, repository: Path) -> None:
    image = picture(40, 50, 1, True)
    files = [jpeg(image), *(file_of(image, kind) for kind in ("PNG", "WEBP", "AVIF", "TIFF", "BMP")), b"none"]
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for file in files:
            writer.write({"image": file})
    cases = [
        ("load", str(tmp_path / "data"), f"{{'decode': {{'image': mx8.{decode}}}}}", environment)
        for environment in ({}, {"MX8SHARDS_TURBOJPEG": ""})  # libturbojpeg, simplejpeg
        for decode in ("CenterCrop(32)", "Decode()", "CenterCrop(32, exact=True)")
    ]
    for case, lines in imports_of_threads(cases, repository).items():
        assert lines == ["6 samples"], case


def test_no_thread_of_a_writer_imports_a_module(tmp_path: Path, repository: Path) -> None:
    cases = [("write", str(tmp_path / "data"))]
    assert imports_of_threads(cases, repository) == {" ".join(cases[0]): []}
