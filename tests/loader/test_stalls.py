"""What becomes of a loader whose file system does not answer? It is one in earnest, whose server was stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.loader.filesystem import Mounted, shown_again
from tests.loader.parts import ids_of, in_time, nothing_left, threads, write

SAMPLES, BATCH = 1200, 8  # more than is made ahead
STALLED = r"file system does not answer|no thread has become free"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small samples. They were read before: a kernel that is compiled would be taken for a read that stalls."""
    root = write(tmp_path_factory.mktemp("stalls") / "data", SAMPLES)
    for io in ("mmap", "pread"):
        with mx8.Dataset(root) as dataset, mx8.Loader(dataset, batch_size=BATCH, io=io, output="numpy") as loader:  # type: ignore[arg-type]
            all_of(loader)
    return root


@pytest.fixture
def shown(data: Path, tmp_path: Path) -> Iterator[Mounted]:
    """The same data on a file system that can be stopped."""
    with shown_again(data, tmp_path / "mount") as found:
        yield found


def all_of(loader: mx8.Loader) -> list[int]:
    return [i for batch in loader for i in ids_of(batch)]


def slow_loader(dataset: mx8.Dataset, **options: Any) -> mx8.Loader:
    """A loader that holds few batches ahead, so that there is something left to stall."""
    return mx8.Loader(
        dataset, **{"batch_size": BATCH, "threads": 2, "read_timeout_s": 0.6, "output": "numpy"} | options
    )


@pytest.mark.parametrize("what", ["everything", "reads"])
@pytest.mark.parametrize("io", ["auto", "mmap"])
def test_a_stalled_read_is_an_error_and_all_goes_on_when_the_server_is_back(shown: Mounted, io: str, what: str) -> None:
    with nothing_left(shown.root):
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
            for _ in range(2):  # as long as it lasts, each attempt ends like the first
                with pytest.raises(mx8.LoaderError, match=STALLED):
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


def test_closing_while_a_read_stalls_ends_and_the_threads_end_with_the_stall(shown: Mounted) -> None:
    with nothing_left(shown.root):
        dataset = mx8.Dataset(shown.root)
        loader = slow_loader(dataset)
        batches = iter(loader)
        next(batches)
        shown.forget()
        shown.reads("hold")
        loader.close()
        with pytest.raises(mx8.LoaderError, match="was left"):
            list(batches)
        shown.reads("ok")
        while threads():
            time.sleep(0.01)
        dataset.close()
        del loader, dataset, batches


def test_two_loaders_share_a_pool_and_the_stall_of_one_is_told_to_both(shown: Mounted, data: Path) -> None:
    with nothing_left(shown.root):
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


SCRIPT = """
import sys
import mx8shards as mx8
from tests.loader.parts import ids_of
loader = mx8.Loader(mx8.Dataset(sys.argv[1]), batch_size=8, threads=2, read_timeout_s=0.6, output="numpy")
print("here", flush=True)
sys.stdin.readline()
try:
    for batch in loader:
        ids_of(batch)
except mx8.LoaderError as error:
    print(error, flush=True)
"""


def test_a_process_can_exit_while_its_reads_stall(shown: Mounted, repository: Path) -> None:
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
    with in_time():
        out, err = child.communicate("go\n")
    assert "does not answer" in out
    assert child.returncode == 0, err
