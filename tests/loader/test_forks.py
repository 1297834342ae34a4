"""Does a child process work that was forked while threads compile, import or load?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
import sys, threading
from importlib import import_module

class ImportRecorder:
    def find_spec(self, name, path=None, target=None):
        thread = threading.current_thread().name
        if thread.startswith("mx8shards"):
            compiler = sys.modules.get("numba.core.compiler_lock")
            if compiler is None or not compiler.global_compiler_lock.is_locked():  # forks wait for what holds it
                print(name, "by", thread)

import mx8shards as mx8
if sys.argv[1] == "write":
    sys.meta_path.insert(0, ImportRecorder())
    options = {"compression": "zstd", "hashes": ["blake3", "xxh128"]}
    with mx8.Writer(sys.argv[2], columns={"x": "int"}, **options) as writer:
        writer.write({"x": 3})
else:
    options = eval(sys.argv[3])
    loader = mx8.Loader(mx8.Dataset(sys.argv[2]), batch_size=2, threads=2, on_error="skip", **options)
    sys.meta_path.insert(0, ImportRecorder())
    for batch in loader:
        pass
    print(loader.stats()["samples"], "samples")
"""


@pytest.mark.parametrize("compression", [None, "zstd", "br", "snappy", "gz", "bz2"])
def test_no_thread_of_a_loader_imports_a_module(compression: str | None, tmp_path: Path, repository: Path) -> None:
    """A forked child would inherit a half-imported module and wait forever for its import lock."""
    data = write(tmp_path / "data", 20, compression=compression, hashes=("sha1", "xxh64"))
    for io in ("mmap", "pread"):
        assert run(_IMPORTS, repository, "load", data, {"io": io, "shuffle": True}) == "20 samples\n"


@pytest.mark.parametrize("decode", ["CenterCrop(32)", "Decode()", "CenterCrop(32, exact=True)"])
@pytest.mark.parametrize("turbo", [None, ""], ids=["libturbojpeg", "simplejpeg"])
def test_no_thread_of_a_loader_that_decodes_pictures_imports_a_module(
    turbo: str | None, decode: str, tmp_path: Path, repository: Path
) -> None:
    image = picture(40, 50, 1, True)
    files = [jpeg(image), *(file_of(image, kind) for kind in ("PNG", "WEBP", "AVIF", "TIFF", "BMP")), b"none"]
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for file in files:
            writer.write({"image": file})
    environment = {} if turbo is None else {"MX8SHARDS_TURBOJPEG": turbo}
    options = f"{{'decode': {{'image': mx8.{decode}}}}}"
    assert run(_IMPORTS, repository, "load", tmp_path / "data", options, **environment) == "6 samples\n"


def test_no_thread_of_a_writer_imports_a_module(tmp_path: Path, repository: Path) -> None:
    assert run(_IMPORTS, repository, "write", tmp_path / "data") == ""
