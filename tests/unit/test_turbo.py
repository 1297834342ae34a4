"""Is libturbojpeg found, or done without, whatever was compiled before?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mx8shards.kernels import turbo
from tests.pictures import jpeg, write
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
def test_a_cache_of_kernels_is_shared_by_processes_with_and_without_the_library(
    tmp_path: Path, repository: Path, cache: str
) -> None:
    """A kernel that calls what is not there would crash, and one that was compiled without is no use with it."""
    write(tmp_path / "data", [jpeg(picture(20, 20, i, True)) for i in range(2)])
    shared = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if cache == "empty" else {}
    without, with_it = (decoded(tmp_path / "data", repository, **shared, **more) for more in ({turbo.VARIABLE: ""}, {}))
    again = decoded(tmp_path / "data", repository, **shared, **{turbo.VARIABLE: ""})
    assert (without[0], with_it[0], again[0]) == ("False", "True", "False")
    assert without[1] == with_it[1] == again[1]


@pytest.mark.parametrize("name", ["nothing.so", "libc.so.6", "libm.so.6"])
def test_a_library_that_is_none_or_lacks_something_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turbo.VARIABLE, name)
    assert turbo.find_library() is None


def test_an_empty_name_means_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turbo.VARIABLE, "")
    assert turbo.find_library() is None
    monkeypatch.delenv(turbo.VARIABLE)
    assert (turbo.find_library() is None) == (turbo.library is None)


@pytest.mark.skipif(turbo.library is None, reason="there is no libturbojpeg here")
def test_it_says_what_is_wrong() -> None:
    whole = jpeg(picture(30, 50, 0, True))
    for size in (len(whole), len(whole) // 2, 300, 10):
        handle = turbo.Handle()
        complaint = handle.complaint(whole[:size], 50, 30)
        handle.close()
        handle.close()
        assert (complaint == "") == (size == len(whole)), complaint
