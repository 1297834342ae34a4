"""Is libturbojpeg found or replaced by simplejpeg, independent of previously cached kernels?"""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.kernels import turbo
from tests.pictures import difference, file_of, jpeg, reference_crop, write
from tests.pixels import picture

_DECODE = """
import sys
import mx8shards as mx8
from mx8shards.kernels import turbo

spec = mx8.RandomResizedCrop(8, exact=True)
with mx8.Loader(mx8.Dataset(sys.argv[1]), batch_size=2, decode={"image": spec}, threads=1, output="numpy") as loader:
    for batch in loader:
        print(turbo.library is not None, batch["image"].tobytes().hex())
"""


def decoded(data: Path, repository: Path, **environment: str) -> tuple[str, ...]:
    run = [sys.executable, "-c", _DECODE, str(data)]
    settings = {**os.environ, **environment}
    done = subprocess.run(run, cwd=repository, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return tuple(done.stdout.split())


@pytest.mark.skipif(turbo.library is None, reason="there is no libturbojpeg here")
@pytest.mark.parametrize("cache", ["used", pytest.param("empty", marks=pytest.mark.hunt)])
def test_processes_with_and_without_the_library_share_one_kernel_cache(
    tmp_path: Path, repository: Path, cache: str
) -> None:
    """A cached kernel that calls a missing library would crash, and one compiled without it would not use it."""
    write(tmp_path / "data", [jpeg(picture(20, 20, i, True)) for i in range(2)])
    shared = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if cache == "empty" else {}
    without, with_it = (decoded(tmp_path / "data", repository, **shared, **more) for more in ({turbo.VARIABLE: ""}, {}))
    again = decoded(tmp_path / "data", repository, **shared, **{turbo.VARIABLE: ""})
    assert (without[0], with_it[0], again[0]) == ("False", "True", "False")
    assert without[1] == with_it[1] == again[1]


@pytest.mark.parametrize("name", ["nothing.so", "libc.so.6", "libm.so.6"])
def test_an_invalid_library_in_the_environment_variable_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turbo.VARIABLE, name)
    with pytest.raises((OSError, ImportError), match=re.escape(name)):
        turbo.find_library()


def test_an_empty_environment_variable_turns_the_library_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turbo.VARIABLE, "")
    assert turbo.find_library() is None
    monkeypatch.delenv(turbo.VARIABLE)
    assert (turbo.find_library() is None) == (turbo.library is None)


@pytest.mark.skipif(turbo.library is None, reason="there is no libturbojpeg here")
def test_find_error_reports_damaged_jpegs() -> None:
    whole = jpeg(picture(30, 50, 0, True))
    for size in (len(whole), len(whole) // 2, 300, 10):
        handle = turbo.Handle()
        complaint = handle.find_error(whole[:size], 50, 30)
        handle.close()
        handle.close()
        assert (complaint == "") == (size == len(whole)), complaint


# which library -------------------------------------------------------------------------------------------------------

_WHICH = """
import os, sys
from mx8shards.kernels import turbo
print(os.path.basename(turbo.library._name) if turbo.library else "none", "pylibjxl" in sys.modules)
"""


def found(repository: Path, **environment: str) -> list[str]:
    settings = {name: value for name, value in os.environ.items() if name != turbo.VARIABLE}
    command = [sys.executable, "-c", _WHICH]
    done = subprocess.run(
        command, cwd=repository, env=settings | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def elf_with(directory: Path, *names: str) -> str:
    """Build a shared library that exports empty functions of these names."""
    source = directory / "stub.c"
    source.write_text("".join(f"int {name}(void) {{ return -1; }}\n" for name in names))
    library = directory / "libturbojpeg.so.0"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(directory)


@pytest.mark.skipif(find_spec("pylibjxl") is None, reason="the wheel with a libturbojpeg 3.x is not installed")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    ("exports", "chosen"),
    [
        (turbo._NEEDED + turbo._OF_REGIONS, "libturbojpeg.so.0"),  # the system's 3.x comes first
        (turbo._NEEDED, "_pylibjxl"),  # then that of the wheel
        (turbo._OF_REGIONS, "_pylibjxl"),  # a library without a needed symbol is skipped
    ],
)
def test_the_systems_3x_is_preferred_to_the_wheel_and_the_wheel_to_the_systems_2x(
    tmp_path: Path, repository: Path, exports: tuple[str, ...], chosen: str
) -> None:
    name, imported = found(repository, LD_LIBRARY_PATH=elf_with(tmp_path, *exports))
    assert name.startswith(chosen)
    assert imported == "False"


@pytest.mark.skipif(ctypes.util.find_library("turbojpeg") is None, reason="the system has no libturbojpeg")
def test_without_the_wheel_the_library_of_the_system_is_used(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "pylibjxl").mkdir()  # a package of this name without a library
    (tmp_path / "pylibjxl" / "__init__.py").touch()
    assert found(repository, PYTHONPATH=f"{tmp_path}:{repository}") == ["libturbojpeg.so.0", "False"]


# newer libraries ------------------------------------------------------------------------------------------------------


def newer_library() -> str | None:
    """The path of a libturbojpeg 3.x, perhaps from a package."""
    try:
        files = metadata.files("turbojpeg") or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name.startswith("libturbojpeg")), None)


_CROPS = """
import sys
import numpy as np
import mx8shards as mx8
from mx8shards.kernels import turbo

small = mx8.RandomResizedCrop(48, scale=(0.02, 0.2), layout="HWC", flip=0.5)
specs = {"small": small, "large": mx8.RandomResizedCrop(48, layout="HWC"), "middle": mx8.CenterCrop(40, layout="HWC")}
assert turbo.HAS_REGIONS
for name, spec in specs.items():
    options = {"batch_size": 100, "decode": {"image": spec}, "threads": 2, "output": "numpy", "on_error": "skip"}
    with mx8.Loader(mx8.Dataset(sys.argv[1]), **options) as loader:
        [batch] = list(loader)
        assert loader.stats()["pixels"] == {"image": "planes and regions"}
        np.savez(f"{sys.argv[2]}/{name}.npz", ids=batch.sample_ids, image=batch["image"])
"""


@pytest.mark.skipif(newer_library() is None, reason="no package with a libturbojpeg 3.x is installed")
def test_regions_are_decoded_correctly_and_damaged_ones_refused(tmp_path: Path, repository: Path) -> None:
    """Decoding a region stops early, so damage below it is not seen; its pixels equal those of the whole picture."""
    samplings = ("444", "422", "420", "440", "411", "Gray")
    good = [jpeg(picture(*size, i, True), samplings[i % 6]) for i, size in enumerate([(300, 400), (511, 333)] * 6)]
    good += [file_of(picture(300, 400, 1, True), progressive=True), jpeg(picture(9, 7, 1, True))]
    bad = [good[0][:2_000], good[4][: len(good[4]) // 30], b"", good[1][: good[1].index(b"\xff\xda")]]
    write(tmp_path / "data", good + bad)
    environment = {**os.environ, turbo.VARIABLE: str(newer_library())}
    run = [sys.executable, "-c", _CROPS, str(tmp_path / "data"), str(tmp_path)]
    done = subprocess.run(run, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small = mx8.RandomResizedCrop(48, scale=(0.02, 0.2), flip=0.5)
    specs = {"small": small, "large": mx8.RandomResizedCrop(48)}
    for name, spec in (specs | {"middle": mx8.CenterCrop(40)}).items():
        found = np.load(tmp_path / f"{name}.npz")
        assert found["ids"].tolist() == list(range(len(good)))
        for i, crop in zip(found["ids"].tolist(), found["image"], strict=True):
            mean, most = difference(crop, reference_crop(good[i], spec, "image", i))
            assert mean <= (30 if i == len(good) - 1 else 10 if samplings[i % 6] == "411" else 5), (name, i, mean, most)
