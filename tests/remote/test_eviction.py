"""Does a cache with a limit keep what is needed next, stay within it, and fetch as little as possible?"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.shards.providers import NoRoomYetError
from tests.remote.conftest import S3Server
from tests.remote.mirrors import URL, bytes_of, residue, serve, shards_of, upload


def write(root: Path, shards: int, rows: int = 10, **options: Any) -> str:
    with mx8.Writer(root, columns={"x": "int", "text": "str"}, size_limit=10_000, **options) as writer:
        for i in range(shards * rows):
            writer.write({"x": i, "text": f"{i:<900}"})
    return str(writer.snapshot)


@pytest.mark.parametrize("part", [0.25, *(pytest.param(part, marks=pytest.mark.hunt) for part in (0.5, 0.75)), 0.9])
def test_later_epochs_fetch_only_what_has_no_room(
    bucket: str, tmp_path: Path, s3_server: S3Server, part: float
) -> None:
    write(tmp_path / "data", 100)
    upload(tmp_path / "data", bucket)
    total, cache = bytes_of(tmp_path / "data"), tmp_path / "cache"
    limit = int(part * total)
    fetched, most = [], 0
    with (
        mx8.Dataset(bucket, local=cache, cache_limit=limit) as dataset,
        mx8.Loader(dataset, batch_size=10, shuffle=mx8.BlockShuffle(shards=4), output="numpy", threads=1) as loader,
    ):
        count = dataset.shards.count
        for _ in range(3):
            before = s3_server.count("GET", ".mds")
            seen = []
            for batch in loader:
                seen += batch["x"].tolist()
                most = max(most, bytes_of(cache))
            assert sorted(seen) == list(range(len(dataset)))
            fetched.append((s3_server.count("GET", ".mds") - before) / count)
    assert most <= limit
    assert max(fetched[1:]) <= 1 - part + 0.02, fetched
    assert residue(cache) == []


def test_a_limit_below_the_dataset_is_refused_for_a_whole_shuffle_and_below_the_window(
    bucket: str, tmp_path: Path
) -> None:
    write(tmp_path / "data", 30)
    upload(tmp_path / "data", bucket)
    total = bytes_of(tmp_path / "data")

    def loader(limit: int, **options: Any) -> mx8.Loader:
        dataset = mx8.Dataset(bucket, local=tmp_path / "cache", cache_limit=limit)
        return mx8.Loader(dataset, batch_size=10, output="numpy", threads=1, **options)

    with pytest.raises(mx8.SettingError, match=rf"^cache_limit: expected {total} bytes.*BlockShuffle"):
        loader(total - 1, shuffle=True)
    loader(total, shuffle=True).close()
    with pytest.raises(mx8.SettingError, match=r"^cache_limit: expected at least \d+ bytes, for 9 shards") as caught:
        loader(total // 10, shuffle=mx8.BlockShuffle(shards=8))
    enough = int(re.findall(r"cache_limit=(\d+)", str(caught.value))[0])
    with pytest.raises(mx8.SettingError):
        loader(enough - 1, shuffle=mx8.BlockShuffle(shards=8))
    with loader(enough, shuffle=mx8.BlockShuffle(shards=8)) as least:
        for _ in range(2):
            assert sorted(x for batch in least for x in batch["x"].tolist()) == list(range(300))
    assert bytes_of(tmp_path / "cache") <= enough


def test_a_whole_shuffle_with_room_for_everything_keeps_no_intervals_for_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 20)
    serve(tmp_path / "data", monkeypatch)
    options: dict[str, Any] = {"batch_size": 10, "output": "numpy", "threads": 1}

    def interval_bytes(shuffle: Any) -> int:
        with mx8.Loader(dataset, shuffle=shuffle, **options) as loader:
            batches = iter(loader)
            next(batches)
            found = sum(path.stat().st_size for path in (tmp_path / "cache/.mx8shards/readers").glob("*"))
            assert len([*batches]) == len(loader) - 1
        return found

    total = bytes_of(tmp_path / "data")
    with mx8.Dataset(URL, local=tmp_path / "cache", cache_limit=total) as dataset:
        assert 0 < interval_bytes(mx8.BlockShuffle(shards=2)) < 2_000
        assert interval_bytes(True) < 2_000


def test_copies_of_kept_compressed_shards_are_within_the_limit_and_leave_before_what_must_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 24, compression="zstd")
    store = serve(tmp_path / "data", monkeypatch)
    packed = [path.stat().st_size for path in (tmp_path / "data").glob("*.zstd")]
    limit = sum(packed) + 5 * 10_000  # and the raw files of the window
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    options: dict[str, Any] = {"local": cache, "cache_limit": limit, "keep_zip": True, "cache_dir": elsewhere}
    with (
        mx8.Dataset(URL, **options) as dataset,
        mx8.Loader(dataset, batch_size=5, shuffle=mx8.BlockShuffle(shards=2), output="numpy", threads=1) as loader,
    ):
        for _ in range(3):
            seen = []
            for batch in loader:
                seen += batch["x"].tolist()
                assert bytes_of(cache, "*.mds*") <= limit
            assert sorted(seen) == list(range(240))
    assert sorted(key for key in store.asked if key.endswith("zstd")) == sorted(
        path.name for path in (tmp_path / "data").glob("*.zstd")
    )
    assert not elsewhere.exists()
    assert residue(cache) == []


@pytest.mark.parametrize("keep_zip", [False, True])
def test_a_compressed_shard_does_not_leave_to_make_room_for_its_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_zip: bool
) -> None:
    write(tmp_path / "data", 4, compression="zstd")
    serve(tmp_path / "data", monkeypatch)
    options: dict[str, Any] = {"local": tmp_path / "cache", "cache_dir": tmp_path / "elsewhere"}
    with mx8.Dataset(URL, keep_zip=True, **options) as dataset:
        assert len(list(dataset)) == 40
        index = dataset.shards.snapshots[0].index
    least = int((index.raw.size_bytes + index.zip.size_bytes).max())
    for number in range(4):
        with mx8.Dataset(URL, keep_zip=keep_zip, cache_limit=least, deadline_s=5, **options) as dataset:
            assert dataset[10 * number]["x"] == 10 * number


@pytest.mark.parametrize("fetched_before", [False, True])
def test_jobs_that_unpack_kept_shards_at_the_same_time_do_not_wait_for_each_other_s_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched_before: bool
) -> None:
    """Room for the compressed and the raw file is had at once, or not held while a job waits for the other one."""
    with mx8.Writer(tmp_path / "data", columns={"x": "bytes"}, size_limit=10_000, compression="zstd") as writer:
        for _ in range(40):
            writer.write({"x": np.random.default_rng(5).bytes(900)})
    store = serve(tmp_path / "data", monkeypatch)
    options: dict[str, Any] = {"local": tmp_path / "cache", "cache_dir": tmp_path / "elsewhere", "keep_zip": True}
    with mx8.Dataset(URL, **options) as dataset:
        index = dataset.shards.snapshots[0].index
        assert not fetched_before or len(list(dataset)) == 40
    limit = (
        int((index.raw.size_bytes + index.zip.size_bytes).max()) + 100
    )  # either two compressed files, or both of one
    assert limit > 2 * index.zip.size_bytes.max()
    both = threading.Barrier(2)

    def together(key: str, data: bytes) -> bytes:
        with suppress(threading.BrokenBarrierError):  # one waits for room, and is not there
            both.wait(0.5)
        return data

    store.fault = together
    with ThreadPoolExecutor(2) as threads, ExitStack() as opened:
        jobs = [opened.enter_context(mx8.Dataset(URL, cache_limit=limit, deadline_s=5, **options)) for _ in range(2)]
        found = threads.map(lambda job: [len(jobs[job][10 * (k + job) % 40]["x"]) for k in range(4)], range(2))
        assert list(found) == [[900] * 4] * 2
    assert residue(tmp_path / "cache") == []


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_limit_below_the_largest_shard_is_refused_when_the_dataset_is_opened(
    compression: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 3, compression=compression)
    serve(tmp_path / "data", monkeypatch)
    with pytest.raises(mx8.SettingError, match=r"^cache_limit: expected at least \d+ bytes, for the largest") as caught:
        mx8.Dataset(URL, local=tmp_path / "cache", cache_limit=2_000)
    enough = int(re.findall(r"at least (\d+)", str(caught.value))[0])
    for keep_zip in (False, True):
        options: dict[str, Any] = {"cache_limit": enough, "keep_zip": keep_zip, "deadline_s": 5}
        with mx8.Dataset(URL, local=tmp_path / f"{keep_zip}", **options) as dataset:
            assert [sample["x"] for sample in dataset] == list(range(30))


def test_any_order_is_followed(bucket: str, tmp_path: Path) -> None:
    """A sequential one, orders of selections and of joined datasets, and one that ends with repeats."""
    write(tmp_path / "data", 30)
    upload(tmp_path / "data", bucket)
    limit = bytes_of(tmp_path / "data") // 3
    dataset = mx8.Dataset(bucket, local=tmp_path / "cache", cache_limit=limit)
    picked = np.random.default_rng(5).permutation(300)[:200].tolist()
    views: list[tuple[mx8.Dataset, dict[str, Any], list[int]]] = [
        (dataset, {}, list(range(300))),
        (dataset.select(sorted(picked)), {}, sorted(picked)),
        (dataset.select(sorted(picked)), {"shuffle": mx8.BlockShuffle(shards=3)}, sorted(picked)),
        (mx8.concat([dataset, dataset.select(range(50))]), {"shuffle": mx8.BlockShuffle(shards=2)}, []),
        (dataset, {"uneven": "pad", "world_size": 2, "rank": 1, "batch_size": 19}, []),
    ]
    for view, options, expected in views:
        settings: dict[str, Any] = {"batch_size": 10, "output": "numpy", "threads": 2, **options}
        with mx8.Loader(view, **settings) as loader:
            for epoch in range(2):
                wanted = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                got = [batch.sample_ids.tolist() for batch in loader]
                assert got == wanted
                assert not expected or sorted(x for ids in got for x in ids) == expected
        assert bytes_of(tmp_path / "cache") <= limit
    assert residue(tmp_path / "cache") == []


@pytest.mark.parametrize("shuffle", [False, mx8.BlockShuffle(shards=2)], ids=["sequential", "blocks"])
def test_what_a_job_without_a_limit_needs_soon_is_not_evicted_by_one_with_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: Any
) -> None:
    write(tmp_path / "data", 60)
    serve(tmp_path / "data", monkeypatch)
    cache = tmp_path / "cache"
    limit = bytes_of(tmp_path / "data") // 3
    options: dict[str, Any] = {"output": "numpy", "threads": 1}
    with (
        mx8.Dataset(URL, local=cache) as whole,
        mx8.Dataset(URL, local=cache, cache_limit=limit) as part,
        mx8.Loader(whole, batch_size=5, shuffle=shuffle, **options) as loader,
        mx8.Loader(part, batch_size=10, shuffle=mx8.BlockShuffle(shards=2), seed=3, **options) as other,
    ):
        others = itertools.chain.from_iterable(itertools.repeat(other))
        seen = []
        for batch in loader:
            seen += batch["x"].tolist()
            next(others)
            next(others)
        assert sorted(seen) == list(range(600))
        assert part.shards.fetched.shards > whole.shards.count
        assert whole.shards.fetched.shards <= whole.shards.count
    assert residue(cache) == []


JOB = """
import sys, time
import mx8shards as mx8
url, cache, limit, seed, skip = sys.argv[1:]
limit = int(limit) or None
with (
    mx8.Dataset(url, local=cache, cache_limit=limit) as dataset,
    mx8.Loader(dataset, batch_size=10, shuffle=mx8.BlockShuffle(shards=4), seed=int(seed), output="numpy") as loader,
):
    sys.stdin.readline()
    fetched = []
    for epoch in range(3):
        before = dataset.shards.opened[0].provider.fetched.shards
        for k, batch in enumerate(loader):
            time.sleep(0.004)
            if epoch == 0 and k == int(skip):
                break
        fetched.append(dataset.shards.opened[0].provider.fetched.shards - before)
    print(*fetched)
"""


@pytest.mark.parametrize(
    "part", [0.5, *(pytest.param(part, marks=pytest.mark.hunt) for part in (0.25, 0.75, 0.9, 1.0, None))]
)
def test_four_jobs_at_different_phases_share_a_cache(
    bucket: str, tmp_path: Path, s3_server: S3Server, part: float | None
) -> None:
    write(tmp_path / "data", 60)
    upload(tmp_path / "data", bucket)
    count = len(shards_of(tmp_path / "data"))
    limit = 0 if part is None else int(bytes_of(tmp_path / "data") * part)
    command = [sys.executable, "-c", JOB, bucket, str(tmp_path / "cache"), str(limit)]
    pipe = subprocess.PIPE
    before = s3_server.count("GET", ".mds")
    jobs = [
        subprocess.Popen([*command, str(seed), str(15 * seed)], stdin=pipe, stdout=pipe, text=True) for seed in range(4)
    ]
    fetched = [list(map(int, job.communicate("\n", timeout=120)[0].split())) for job in jobs]
    assert s3_server.count("GET", ".mds") - before == sum(map(sum, fetched))
    if part in (None, 1.0):
        assert sum(map(sum, fetched)) == count
    if part is not None:
        assert max(max(later) for _, _, *later in fetched) <= 1.1 * (1 - part) * count
        assert bytes_of(tmp_path / "cache") <= limit
    assert residue(tmp_path / "cache") == []


def test_two_loaders_of_one_dataset_share_a_small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one provides ahead, where there may be no room for it, the other needs now."""
    write(tmp_path / "data", 24)
    serve(tmp_path / "data", monkeypatch)
    limit = bytes_of(tmp_path / "data") // 3
    options: dict[str, Any] = {"batch_size": 10, "output": "numpy", "threads": 1, "shuffle": mx8.BlockShuffle(shards=2)}
    with mx8.Dataset(URL, local=tmp_path / "cache", cache_limit=limit, deadline_s=20) as dataset:
        loaders = [mx8.Loader(dataset, seed=seed, **options) for seed in (1, 1, 2)]
        for _ in range(2):
            seen: list[list[int]] = [[] for _ in loaders]
            for batches in zip(*loaders, strict=True):
                for some, batch in zip(seen, batches, strict=True):
                    some += batch["x"].tolist()
            assert [sorted(some) for some in seen] == [list(range(240))] * len(loaders)
        for loader in loaders:
            loader.close()
    assert residue(tmp_path / "cache") == []


def test_a_shard_that_is_needed_is_provided_although_there_was_no_room_for_it_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 4)
    serve(tmp_path / "data", monkeypatch)
    limit = bytes_of(tmp_path / "data") // 2
    with mx8.Dataset(URL, local=tmp_path / "cache", cache_limit=limit) as dataset:
        shards = dataset.shards
        ((_, room),) = shards.limited
        run = room.follow(np.arange(3), np.array([0, 1, 2]), np.array([1, 2, 3]))
        for number in (0, 1):
            shards.provide(number)
        with pytest.raises(NoRoomYetError):
            shards.provide(2, ahead=True)
        refused, go = threading.Event(), threading.Event()
        real = room._make_room

        def make_room(rooms: Any, sizes: dict[str, int], *, ahead: bool) -> bool:
            if ahead:
                refused.set()
                go.wait(60)
            return bool(real(rooms, sizes, ahead=ahead))

        monkeypatch.setattr(room, "_make_room", make_room)

        def provide_ahead() -> None:
            with pytest.raises(NoRoomYetError):
                shards.provide(2, ahead=True)

        early = threading.Thread(target=provide_ahead)
        early.start()
        refused.wait(60)
        needed = threading.Thread(target=shards.provide, args=(2,))
        needed.start()
        go.set()
        early.join()
        needed.join()
        assert shards.awaits(2) is None
        assert run is not None
        run.close()
