"""Does a SIGKILL at any step leave a mirror that the next job uses: nothing torn, nothing left, within the limit?"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.disk import operations
from mx8shards.remote.eviction import Room
from tests.remote.mirrors import URL, bytes_of, numbers, residue, serve, upload, write

_MOST_STEPS = 400
_CYCLES = 10


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Whether a forked child was killed before step number `step` of those that change the disk."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        left = step

        def count(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        operations.before = count
        try:
            act()
        except BaseException:  # noqa: BLE001
            os._exit(3)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def hashes(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.mds")}


@pytest.mark.parametrize("part", [None, 0.6])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_kill_before_any_step_leaves_nothing_torn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: float | None,
    compression: str | None,
) -> None:
    write(tmp_path / "source", 60, compression=compression)
    serve(tmp_path / "source", monkeypatch)
    numbers(mx8.Dataset(URL, local=tmp_path / "clean"))
    right = hashes(tmp_path / "clean")
    sizes = bytes_of(tmp_path / "clean")
    limit = None if part is None else int(part * sizes) + 2_000

    root = tmp_path / "cache"  # the same one for all kills: it must stay usable

    def read() -> list[int]:
        with mx8.Dataset(URL, local=root, cache_limit=limit) as dataset:
            return numbers(dataset)

    for step in range(_MOST_STEPS):
        if step % 7 == 0 and root.exists():
            mx8.Dataset(URL, local=root)
            for path in root.glob("*.mds"):
                path.unlink()
        killed = killed_at(step, read)
        here = hashes(root) if root.exists() else {}
        assert here == {name: right[name] for name in here}
        if limit is not None:
            assert bytes_of(root) <= limit
        if not killed and step % 7 == 1:
            break
    assert read() == list(range(60))
    assert hashes(root).items() <= right.items()
    assert residue(root) == []


def provide(dataset: mx8.Dataset, number: int) -> None:
    """Make a shard local, as a Loader does."""
    (opened,) = dataset.shards.opened
    opened.provider.provide(opened.snapshot.index.entry(number))


def counted_bytes(dataset: mx8.Dataset) -> int:
    """The bytes in a mirror as one of the jobs on it counts them."""
    room = dataset.shards.opened[0].provider.eviction
    assert isinstance(room, Room)
    with room._ledger.locked(1.0):
        return room._ledger.total


@pytest.mark.parametrize(("compression", "has_limit"), [(None, False), ("zstd", True)])
def test_a_job_keeps_to_the_limit_and_never_waits_after_another_was_killed_before_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None, has_limit: bool
) -> None:
    write(tmp_path / "source", 600, compression=compression)
    serve(tmp_path / "source", monkeypatch)
    root = tmp_path / "cache"
    index = mx8.Dataset(URL, local=root).shards.opened[0].snapshot.index
    limit = 4 * int(index.raw.size_bytes.max())
    draws = random.Random(5)

    def missing(count: int) -> list[int]:
        here = hashes(root)
        return draws.sample([i for i, name in enumerate(index.raw.basenames) if name not in here], count)

    def act() -> None:
        with mx8.Dataset(URL, local=root, cache_limit=limit if has_limit else None) as other:
            for number in numbers:
                provide(other, number)

    with mx8.Dataset(URL, local=root, cache_limit=limit, deadline_s=1.0) as living:
        provide(living, 0)
        for step in range(_MOST_STEPS):
            numbers = missing(1)
            killed = killed_at(step, act)
            provide(living, *missing(1))
            assert bytes_of(root) <= limit  # a job without a limit exceeds it until another job fetches
            if not killed:
                break
        assert not killed
        assert step > 12
        assert counted_bytes(living) == bytes_of(root)


def test_a_job_does_not_wait_for_room_that_a_killed_job_had_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", 400)
    store = serve(tmp_path / "source", monkeypatch)
    root = tmp_path / "cache"
    limit = 3 * int(mx8.Dataset(URL, local=root).shards.opened[0].snapshot.index.raw.size_bytes.max())
    with mx8.Dataset(URL, local=root, cache_limit=limit, deadline_s=1.0) as living:
        provide(living, 0)
        child = os.fork()
        if not child:
            all_have_entered = threading.Barrier(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
            store.fault = lambda key, data: data * all_have_entered.wait(60)
            with mx8.Dataset(URL, local=root, cache_limit=limit) as other, ThreadPoolExecutor(3) as threads:
                list(threads.map(partial(provide, other), (1, 2, 3)))
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        for number in (4, 5, 6):
            provide(living, number)
        assert sorted(hashes(root)) == [f"shard.0000{number}.mds" for number in (4, 5, 6)]


def test_a_file_whose_fetch_fails_after_it_got_its_name_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", 400)
    serve(tmp_path / "source", monkeypatch)
    root = tmp_path / "cache"
    with mx8.Dataset(URL, local=root, cache_limit=1 << 20) as dataset:
        provide(dataset, 1)

        def fail(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "sync_directory":
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(operations, "before", fail)
            with pytest.raises(mx8.DiskError):
                provide(dataset, 0)
        assert sorted(hashes(root)) == ["shard.00000.mds", "shard.00001.mds"]
        assert counted_bytes(dataset) == bytes_of(root)


def test_a_damaged_file_that_is_fetched_again_is_counted_although_the_cache_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", 400)
    store = serve(tmp_path / "source", monkeypatch)
    root = tmp_path / "cache"
    open_dataset = partial(mx8.Dataset, URL, local=root)
    limit = 2 * int(open_dataset().shards.opened[0].snapshot.index.raw.size_bytes.max())
    with open_dataset(cache_limit=limit) as ours, open_dataset(cache_limit=limit) as other:
        provide(ours, 0)
        provide(other, 1)
        (root / "shard.00000.mds").write_bytes(b"damaged")

        def meanwhile(key: str, data: bytes) -> bytes:
            store.fault = lambda key, data: data
            provide(other, 2)
            return data

        store.fault = meanwhile
        provide(ours, 0)
        assert counted_bytes(ours) == counted_bytes(other) == bytes_of(root) <= limit
        assert (root / "shard.00000.mds").read_bytes() == (store.root / "shard.00000.mds").read_bytes()


def test_a_file_that_somebody_copied_into_the_mirror_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", 400)
    serve(tmp_path / "source", monkeypatch)
    root = tmp_path / "cache"
    with mx8.Dataset(URL, local=root, cache_limit=1 << 20) as dataset:
        provide(dataset, 0)
        shutil.copy(tmp_path / "source/shard.00001.mds", root)
        provide(dataset, 1)
        assert counted_bytes(dataset) == bytes_of(root)


JOB = """
import sys
import mx8shards as mx8
url, cache, limit, keep_zip, seed = sys.argv[1:]
with (
    mx8.Dataset(url, local=cache, cache_limit=int(limit), keep_zip=keep_zip == "True") as dataset,
    mx8.Loader(dataset, batch_size=10, shuffle=mx8.BlockShuffle(shards=3), seed=int(seed), output="numpy") as loader,
):
    for epoch in range(2):
        print(sorted(x for batch in loader for x in batch["x"].tolist()) == list(range(len(dataset))), flush=True)
"""


def stored_hashes(root: Path) -> dict[str, str]:
    """Also those of compressed shards."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.mds*")}


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("keep_zip", [False, True])
def test_jobs_that_are_killed_at_random_moments_leave_a_mirror_to_the_others(
    keep_zip: bool, seed: int, bucket: str, tmp_path: Path
) -> None:
    write(tmp_path / "large", 1_500, compression="zstd" if keep_zip else None)
    upload(tmp_path / "large", bucket)
    numbers(mx8.Dataset(bucket, local=tmp_path / "clean", cache_limit="1gb", keep_zip=keep_zip))
    right = stored_hashes(tmp_path / "clean")
    root = tmp_path / "cache"
    limit = stored_bytes(tmp_path / "clean") * 6 // 10
    rng = random.Random(seed)

    def begin(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", JOB, bucket, str(root), str(limit), str(keep_zip), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    for _ in range(_CYCLES):
        jobs = [begin(seed) for seed in range(4)]
        time.sleep(rng.uniform(1.5, 4))
        for job in jobs[:3]:
            job.kill()
            job.communicate()
        assert jobs[3].communicate(timeout=120)[0].split() == ["True", "True"]
        here = stored_hashes(root)
        assert here == {name: right[name] for name in here}
        assert stored_bytes(root) <= limit
    assert begin(9).communicate(timeout=120)[0].split() == ["True", "True"]
    assert residue(root) == []
    assert stored_bytes(root) <= limit


def stored_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*.mds*"))
