"""Does a loader report a file system that hangs? Tested with a real FUSE mount whose server is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.loader.faults import ChecksumDecoder
from tests.loader.filesystem import Mirror, mirrored
from tests.loader.leak_checks import ids_of, no_leaks, threads, time_limit, write

SAMPLES, BATCH = 1200, 8  # more than is made ahead
STALLED = r"file system does not answer|no thread has become free"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small samples."""
    return write(tmp_path_factory.mktemp("stalls") / "data", SAMPLES)


@pytest.fixture
def shown(data: Path, tmp_path: Path) -> Iterator[Mirror]:
    """The same data on a file system that can be stopped."""
    with mirrored(data, tmp_path / "mount") as found:
        yield found


def all_of(loader: mx8.Loader) -> list[int]:
    return [i for batch in loader for i in ids_of(batch)]


def slow_loader(dataset: mx8.Dataset, **options: Any) -> mx8.Loader:
    """A loader that prefetches few batches, so that reads remain to be stalled."""
    return mx8.Loader(
        dataset, **{"batch_size": BATCH, "threads": 2, "read_timeout_s": 0.6, "output": "numpy"} | options
    )


@pytest.mark.parametrize("what", ["everything", "reads"])
@pytest.mark.parametrize("io", ["auto", "mmap"])
def test_a_stalled_read_is_an_error_and_loading_continues_when_the_server_is_back(
    shown: Mirror, io: str, what: str
) -> None:
    with no_leaks(shown.root):
        dataset = mx8.Dataset(shown.root)
        loader = slow_loader(dataset, io=io)
        try:
            batches = iter(loader)
            found = ids_of(next(batches))
            if what == "everything":
                shown.stall()
            else:
                shown.reads("hold")
            with pytest.raises(mx8.LoaderError, match=STALLED):
                found.extend(i for batch in batches for i in ids_of(batch))
            with pytest.raises(mx8.LoaderError, match=STALLED):  # during the stall, each attempt ends like the first
                all_of(loader)
        finally:
            shown.go_on()
            shown.reads("ok")
        assert found == list(range(len(found)))
        loader.set_epoch(3)
        assert all_of(loader) == list(range(SAMPLES))
        loader.close()
        dataset.close()
        del loader, dataset, batches


def test_closing_returns_during_a_stalled_read_and_threads_end_with_the_stall(
    shown: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mx8shards.loading.execution.run.JOIN_S", 0.5)
    monkeypatch.setattr("mx8shards.loading.execution.threads.JOIN_S", 0.5)
    with no_leaks(shown.root):
        dataset = mx8.Dataset(shown.root)
        loader = slow_loader(dataset)
        batches = iter(loader)
        next(batches)
        shown.forget()
        shown.reads("hold")
        loader.close()
        with pytest.raises(mx8.LoaderError, match="has ended"):
            list(batches)
        shown.reads("ok")
        while threads():
            time.sleep(0.01)
        dataset.close()
        del loader, dataset, batches


def test_a_stall_in_a_shared_pool_is_reported_to_both_loaders(shown: Mirror, data: Path) -> None:
    with no_leaks(shown.root):
        stalled, fine = mx8.Dataset(shown.root), mx8.Dataset(data)
        pool = mx8.Pool(memory="64mb", threads=2)
        one = mx8.Loader(stalled, batch_size=BATCH, pool=pool, read_timeout_s=0.6, output="numpy")
        two = mx8.Loader(fine, batch_size=BATCH, pool=pool, read_timeout_s=0.6, output="numpy")
        assert all_of(one) == all_of(two) == list(range(SAMPLES))
        shown.forget()
        shown.reads("hold")
        with pytest.raises(mx8.LoaderError, match="file system does not answer"):
            all_of(one)
        with pytest.raises(mx8.LoaderError, match="no thread has become free"):
            all_of(two)
        shown.reads("ok")
        two.set_epoch(5)
        assert all_of(two) == list(range(SAMPLES))
        one.set_epoch(5)
        assert all_of(one) == list(range(SAMPLES))
        for loader in (one, two):
            loader.close()
        pool.close()
        stalled.close()
        fine.close()
        del one, two, loader, stalled, fine, pool


# slow work that is not a stall ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
def test_many_slow_reads_that_exceed_the_limit_together_are_no_stall(shown: Mirror, io: str) -> None:
    with mx8.Dataset(shown.root) as dataset, slow_loader(dataset, io=io, batch_size=SAMPLES, threads=1) as loader:
        shown.forget()
        shown.reads("delay 0.05")  # for each of dozens of shards
        try:
            begun = time.monotonic()
            assert all_of(loader) == list(range(SAMPLES))
            assert time.monotonic() - begun > 0.6  # otherwise the test proves nothing
        finally:
            shown.reads("ok")


@pytest.mark.parametrize("what", ["decode", "transform"])
def test_decoding_and_transforms_may_take_longer_than_the_limit(shown: Mirror, what: str) -> None:
    """Also with pread, and while another loader of the pool uses all threads."""

    def transform(batch: Any) -> Any:
        time.sleep(0.8)
        return batch

    options: Any = (
        {"transform": transform} if what == "transform" else {"decode": {"blob": ChecksumDecoder(takes_s=0.002)}}
    )
    shown.forget()
    with mx8.Dataset(shown.root) as dataset:
        pool = mx8.Pool(memory="64mb", threads=1)
        slow, fine = (
            mx8.Loader(dataset, batch_size=400, pool=pool, read_timeout_s=0.6, output="numpy", io="pread", **each)
            for each in (options, {})
        )
        with time_limit(), slow, fine:
            first, second = iter(slow), iter(fine)
            assert ids_of(next(second)) == list(range(400))
            assert [i for batch in first for i in batch.sample_ids.tolist()] == list(range(SAMPLES))
            assert [i for batch in second for i in ids_of(batch)] == list(range(400, SAMPLES))
        pool.close()


def test_compiling_may_take_longer_than_the_limit(data: Path, tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("0.6", "0.2"), str(data)],
        cwd=repository,
        env=environment,
        input="go\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stdout + done.stderr
    assert "of them to compile" in done.stderr


SCRIPT = """
import sys
import mx8shards as mx8
from mx8shards.loading.execution import run, threads
from tests.loader.leak_checks import ids_of
run.JOIN_S = threads.JOIN_S = 0.5
loader = mx8.Loader(mx8.Dataset(sys.argv[1]), batch_size=8, threads=2, read_timeout_s=0.6, output="numpy")
print("here", flush=True)
sys.stdin.readline()
try:
    for batch in loader:
        ids_of(batch)
except mx8.LoaderError as error:
    print(error, flush=True)
"""


def test_a_process_can_exit_while_its_reads_stall(shown: Mirror, repository: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, shown.root],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    shown.stall()
    with time_limit():
        out, err = child.communicate("go\n")
    assert "does not answer" in out
    assert child.returncode == 0, err
