"""Does a loader stay within its memory budget, and name the budget it needs if that is too small?"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.loading.planning.shard_table import IOS
from tests.batches import check_values, flat, ids_of, removed_afterwards, write

BLOBS = {"blob": "bytes", "id": "int"}
KIB = 1 << 10


def blobs(root: Path, sizes: Any) -> mx8.Dataset:
    """Samples of these sizes, in shards of several."""
    samples = ({"blob": bytes([i % 251]) * int(size), "id": i} for i, size in enumerate(sizes))
    return write(root, samples, BLOBS, size_limit=4 << 20, hashes=())


def named_memory(error: mx8.LoaderError) -> int:
    """The memory= that the message suggests."""
    [found] = re.findall(r"\(memory=(\d+) or a smaller batch_size\)", str(error))
    return int(found)


# amount of memory -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log_normal(place: Path) -> mx8.Dataset:
    sizes = np.random.default_rng(1).lognormal(np.log(20 * KIB), 1.5, 200).clip(100, 2_000 * KIB)
    return blobs(place / "log-normal", sizes)


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("memory", ["6mb", "20mb", "200mb"])
def test_memory_keeps_to_the_limit_for_any_sample_sizes(memory: str, io: Any, log_normal: mx8.Dataset) -> None:
    limit = int(memory[:-2]) << 20
    with mx8.Loader(log_normal, batch_size=8, shuffle=True, memory=memory, threads=3, io=io) as loader:
        for _ in range(2):
            seen = []
            for batch in loader:
                found = loader.stats()
                assert found["memory_high_water_bytes"] <= found["memory_limit_bytes"] <= limit
                assert found["bytes_in_use"] + found["bytes_reserved"] <= found["memory_limit_bytes"]
                assert found["bytes_in_use"] + found["bytes_free_in_banks"] <= limit
                for sample_id, data in zip(batch.sample_ids.tolist(), batch["blob"], strict=True):
                    assert data == bytes([sample_id % 251]) * len(data)
                    seen.append(sample_id)
            assert sorted(seen) == list(range(200))
        del batch, data
        gc.collect()
        assert loader.stats()["bytes_in_use"] == 0


@settings(max_examples=25)
@given(
    held=st.lists(st.booleans(), min_size=30, max_size=30),
    batch_size=st.integers(1, 12),
    threads=st.integers(1, 3),
)
def test_memory_keeps_to_the_limit_for_any_pattern_of_held_batches(
    log_normal: mx8.Dataset, held: list[bool], batch_size: int, threads: int
) -> None:
    """Held batches keep their values, and a batch that does not fit beside them is an error."""
    with mx8.Loader(log_normal, batch_size=batch_size, memory="12mb", threads=threads) as loader:
        kept: list[Any] = []
        refused = ""
        try:
            for hold, batch in zip(held, loader, strict=False):
                if hold:
                    kept.append(batch)
                elif kept:
                    kept.pop(0)
                assert loader.stats()["memory_high_water_bytes"] <= 12 << 20
        except mx8.LoaderError as error:
            refused = str(error)
        assert not refused or ("batches that are still held" in refused and kept)
        for batch in kept:
            for sample_id, data in zip(batch.sample_ids.tolist(), batch["blob"], strict=True):
                assert data == bytes([sample_id % 251]) * len(data)


_GROWTH = """
import sys
import mx8shards as mx8
from tests.anonymous_memory import anonymous_bytes

most = 0
link, memory, io = sys.argv[1:]
with mx8.Loader(mx8.Dataset(link), batch_size=4, shuffle=True, memory=memory, io=io, output="numpy") as loader:
    loader.warm_up()
    before = anonymous_bytes()
    for epoch in range(2):
        for batch in loader:
            most = max(most, anonymous_bytes() - before)
print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody tells how much memory is used here")
@pytest.mark.parametrize("io", ["pread", pytest.param("mmap", marks=pytest.mark.hunt)])
def test_anonymous_memory_grows_at_most_by_the_budget(io: str, place: Path, repository: Path) -> None:
    """Measured as RssAnon, with sizes from 1 KiB to 50 MB mixed."""
    root = place / "to-50-mb"
    if not root.exists():
        sizes = np.random.default_rng(7).lognormal(np.log(100 * KIB), 2.0, 120).clip(KIB, 50_000_000)
        sizes[60] = 50_000_000
        samples = ({"blob": bytes([i % 251]) * int(size), "id": i} for i, size in enumerate(sizes))
        write(root, samples, BLOBS, size_limit=1 << 26, hashes=())
    run = [sys.executable, "-c", _GROWTH, str(root), "160mb", io]
    done = subprocess.run(run, cwd=repository, check=True, capture_output=True, text=True)
    assert 50_000_000 < int(done.stdout) <= (160 << 20) + (64 << 20)


# too little memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 40])
def test_three_mean_batches_must_fit_and_the_suggested_memory_is_enough(count: int, place: Path) -> None:
    with removed_afterwards(place / "mean") as root:
        dataset = blobs(root, [300 * KIB] * count)
        for batch_size in (1, 5):
            with pytest.raises(mx8.SettingError, match="memory: expected room for three batches") as caught:
                mx8.Loader(dataset, batch_size=batch_size, memory="300kb", threads=2)
            named = named_memory(caught.value)
            with pytest.raises(mx8.SettingError, match="room for three batches"):
                mx8.Loader(dataset, batch_size=batch_size, memory=named - 1, threads=2)
            with mx8.Loader(dataset, batch_size=batch_size, memory=named, threads=2) as loader:
                assert flat(ids_of(loader)) == list(range(count))


@pytest.mark.parametrize("kib", [1, 2, 8])
def test_the_suggested_memory_is_enough_for_tables_that_grow_with_it(kib: int, place: Path) -> None:
    with removed_afterwards(place / "tables") as root:
        dataset = blobs(root, [kib * KIB] * 200)
        with pytest.raises(mx8.SettingError, match="room for three batches") as caught:
            mx8.Loader(dataset, batch_size=64, memory="64kb", threads=2)
        with mx8.Loader(dataset, batch_size=64, memory=named_memory(caught.value), threads=2) as loader:
            assert flat(ids_of(loader)) == list(range(200))


@pytest.fixture(scope="module")
def with_giants(place: Path) -> mx8.Dataset:
    """Small samples, and two consecutive large ones."""
    return blobs(place / "giants", [3_000 * KIB if i in (40, 41) else 10 * KIB for i in range(80)])


@pytest.mark.parametrize(("batch_size", "step"), [(1, 41), (8, 5)])
def test_a_later_batch_that_cannot_fit_is_an_error_and_the_suggested_memory_is_enough(
    batch_size: int, step: int, with_giants: mx8.Dataset
) -> None:
    """Two consecutive large batches must fit together: one is held while the other is filled."""
    with mx8.Loader(with_giants, batch_size=batch_size, memory="5mb", threads=2) as loader:
        with pytest.raises(mx8.LoaderError, match="expected a batch that fits into") as caught:
            ids_of(loader)
        assert loader.stats()["batches"] == step
        assert f"epoch 0, position {step * batch_size}" in str(caught.value)
        assert loader.state_dict()["position"] == step * batch_size
        assert loader.stats()["bytes_reserved"] == 0
    named = named_memory(caught.value)
    with mx8.Loader(with_giants, batch_size=batch_size, memory=named, threads=2) as loader:
        assert flat(ids_of(loader)) == list(range(80))
    loader = mx8.Loader(with_giants, batch_size=batch_size, memory=named - (1 << 20), threads=2)
    with pytest.raises(mx8.LoaderError, match="expected a batch that fits into"):
        ids_of(loader)


@pytest.mark.parametrize("uneven", ["split", "exact", "pad", "drop"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_all_ranks_raise_the_memory_error_at_the_same_step(
    shuffle: bool, uneven: Any, with_giants: mx8.Dataset
) -> None:
    """All ranks fail if one rank's batch does not fit; otherwise they would hang in the next collective operation."""
    ends = []
    for rank in range(4):
        options = {"memory": "3mb", "threads": 2, "seed": 5, "rank": rank, "world_size": 4}
        with mx8.Loader(with_giants, batch_size=4, shuffle=shuffle, uneven=uneven, **options) as loader:
            steps = 0
            try:
                for _ in loader:
                    steps += 1
            except mx8.LoaderError as error:
                ends.append((steps, str(error)))
            else:
                ends.append((steps, ""))
            assert loader.state_dict()["position"] == (steps * 16 if ends[-1][1] else 0)
    assert len(set(ends)) == 1
    assert "expected a batch that fits" in ends[0][1]


def test_a_loader_can_be_used_after_a_batch_that_did_not_fit(with_giants: mx8.Dataset) -> None:
    with mx8.Loader(with_giants, batch_size=8, memory="5mb", threads=2) as loader:
        for _ in range(2):
            loader.set_epoch(0)
            with pytest.raises(mx8.LoaderError, match="epoch 0, position 40: expected a batch that fits into"):
                ids_of(loader)
        with mx8.Loader(with_giants, batch_size=1, memory="20mb") as other:
            other.load_state_dict(loader.state_dict())
            assert flat(ids_of(other)) == list(range(40, 80))


# held batches ---------------------------------------------------------------------------------------------------------


def test_holding_batches_until_memory_is_full_is_an_error(log_normal: mx8.Dataset) -> None:
    with mx8.Loader(log_normal, batch_size=8, memory="6mb", threads=2) as loader:
        held = []
        words = r"(\d+) in use by (\d+) batches that are still held \(batch\.copy\(\)"
        with pytest.raises(mx8.LoaderError, match=words) as caught:
            held.extend(loader)
        used, count = map(int, re.search(words, str(caught.value)).groups())  # type: ignore[union-attr]
        assert count == loader.stats()["banks_in_use"] > 0
        assert used == loader.stats()["bytes_in_use"] <= 6 << 20


def test_copies_of_batches_do_not_count(log_normal: mx8.Dataset) -> None:
    with mx8.Loader(log_normal, batch_size=8, memory="6mb", threads=2) as loader:
        held = [batch.copy() for batch in loader]
        assert loader.stats()["banks_in_use"] == 0
    assert flat(batch.sample_ids.tolist() for batch in held) == list(range(200))
    check_values(held[3], log_normal)


def test_batches_in_unreachable_cycles_do_not_block_the_loader(log_normal: mx8.Dataset) -> None:
    gc.disable()  # so that the loader has to collect
    try:
        with mx8.Loader(log_normal, batch_size=8, memory="6mb", threads=2) as loader:
            for batch in loader:
                cycle: list[Any] = [batch]
                cycle.append(cycle)
    finally:
        gc.enable()


def test_batches_outlive_their_loader(log_normal: mx8.Dataset) -> None:
    loader = mx8.Loader(log_normal, batch_size=8, memory="6mb")
    batch = next(iter(loader))
    blob = batch["blob"]
    del loader, batch
    gc.collect()
    assert [bytes(data) for data in blob] == [log_normal[i]["blob"] for i in range(8)]


# several loaders ------------------------------------------------------------------------------------------------------


def test_two_loaders_share_threads_and_memory_in_equal_parts(log_normal: mx8.Dataset) -> None:
    pool = mx8.Pool(memory="30mb", threads=2)
    one = mx8.Loader(log_normal, batch_size=8, shuffle=True, pool=pool)
    other = mx8.Loader(log_normal, batch_size=5, pool=pool)
    try:
        assert one.stats()["memory_limit_bytes"] <= 15 << 20
        seen: tuple[list[int], list[int]] = ([], [])
        first, second = iter(one), iter(other)
        for step in range(40):
            for batches, ids in zip((first, second) if step % 3 else (first,), seen, strict=False):
                batch = next(batches, None)
                ids.extend([] if batch is None else batch.sample_ids.tolist())
                assert pool.memory.held_bytes <= 30 << 20
        del batch
        seen[1].extend(flat(batch.sample_ids.tolist() for batch in second))
        assert sorted(seen[0]) == seen[1] == list(range(200))
        for loader in (one, other):
            found = loader.stats()
            assert found["memory_high_water_bytes"] <= 15 << 20
    finally:
        one.close()
        other.close()
        pool.close()


def test_memory_of_a_closed_loader_goes_to_the_others(log_normal: mx8.Dataset) -> None:
    pool = mx8.Pool(memory="30mb", threads=2)
    one, other = (mx8.Loader(log_normal, batch_size=8, pool=pool) for _ in range(2))
    assert one.stats()["memory_limit_bytes"] < 15 << 20
    other.close()
    assert one.stats()["memory_limit_bytes"] > 25 << 20
    assert flat(ids_of(one)) == list(range(200))
    with pytest.raises(mx8.LoaderError, match="the loader is closed"):
        iter(other)
    one.close()
    pool.close()


def test_the_error_suggests_the_memory_of_the_whole_pool(with_giants: mx8.Dataset) -> None:
    with mx8.Loader(with_giants, batch_size=8, pool=mx8.Pool(memory="12mb", threads=1)) as alone:
        assert flat(ids_of(alone)) == list(range(80))
    pool = mx8.Pool(memory="12mb", threads=1)
    loaders = [mx8.Loader(with_giants, batch_size=8, pool=pool) for _ in range(3)]
    with pytest.raises(mx8.LoaderError, match="expected a batch that fits into") as caught:
        ids_of(loaders[1])
    pool = mx8.Pool(memory=named_memory(caught.value), threads=1)
    loaders = [mx8.Loader(with_giants, batch_size=8, pool=pool) for _ in range(3)]
    assert flat(ids_of(loaders[1])) == list(range(80))


def test_a_pool_brings_its_own_memory_and_threads(log_normal: mx8.Dataset) -> None:
    pool = mx8.Pool(memory="30mb", threads=2)
    for own in ({"memory": "1mb"}, {"threads": 1}):
        with pytest.raises(mx8.SettingError, match="pool= brings its own memory and threads"):
            mx8.Loader(log_normal, batch_size=8, pool=pool, **own)  # type: ignore[arg-type]
    pool.close()
    loader = mx8.Loader(log_normal, batch_size=8, pool=pool)
    with pytest.raises(mx8.LoaderError, match="the pool is closed"):
        next(iter(loader))


def test_a_loader_cannot_join_a_pool_during_an_iteration(log_normal: mx8.Dataset) -> None:
    """All shares would shrink below the memory of prefetched batches. Loaders made earlier can iterate at any time."""
    pool = mx8.Pool(memory="8mb", threads=2)
    early, other = (mx8.Loader(log_normal, batch_size=4, shuffle=True, pool=pool) for _ in range(2))
    batches = iter(early)
    found = [next(batches).sample_ids.tolist() for _ in range(7)]
    for _ in range(2):
        with pytest.raises(mx8.SettingError, match=r"pool: .* \(make all loaders of a pool"):
            mx8.Loader(log_normal, batch_size=2, pool=pool)
    assert ids_of(other) == [other.ids(epoch=0, step=step).tolist() for step in range(50)]
    found += [batch.sample_ids.tolist() for batch in batches]
    assert found == [early.ids(epoch=0, step=step).tolist() for step in range(50)]
    with mx8.Loader(log_normal, batch_size=2, pool=pool) as late:
        assert flat(ids_of(late)) == list(range(200))
        assert pool.memory.held_bytes <= 8 << 20
    next(iter(early))
    early.close()
    with mx8.Loader(log_normal, batch_size=2, pool=pool) as late:
        assert flat(ids_of(late)) == list(range(200))
    other.close()
    pool.close()


def test_loaders_can_be_made_and_closed_in_other_threads_while_none_iterates(log_normal: mx8.Dataset) -> None:
    pool = mx8.Pool(memory="8mb", threads=2)
    early = mx8.Loader(log_normal, batch_size=4, shuffle=True, pool=pool)
    ended = threading.Event()

    def come_and_go() -> tuple[int, int]:
        came, refused = 0, 0
        while not ended.is_set():
            try:
                with mx8.Loader(log_normal, batch_size=1, pool=pool):
                    came += 1
            except mx8.SettingError:
                refused += 1
                time.sleep(0.0005)
        return came, refused

    with ThreadPoolExecutor(1) as other:
        coming = other.submit(come_and_go)
        for epoch in range(12):
            assert ids_of(early) == [early.ids(epoch=epoch, step=step).tolist() for step in range(50)]
            time.sleep(0.01)
        ended.set()
        came, refused = coming.result()
    assert min(came, refused) > 0
    early.close()
    pool.close()


def test_a_late_loader_without_room_gets_an_error_that_names_the_memory_others_use(log_normal: mx8.Dataset) -> None:
    """Shares are equal, but leased memory is not revoked when another loader joins."""
    sizes = [len(sample["blob"]) for sample in log_normal]
    large = log_normal.select([int(np.argmax(sizes))])
    pool = mx8.Pool(memory="6mb", threads=1)
    early = mx8.Loader(log_normal, batch_size=1, pool=pool)
    held: list[Any] = []
    with pytest.raises(mx8.LoaderError, match="batches that are still held"):
        held.extend(early)
    del held[-2:]  # a little room for tables
    late = mx8.Loader(large, batch_size=1, pool=pool)
    with pytest.raises(
        mx8.LoaderError,
        match=r"other loaders of the pool use more than their part, .* \(make all loaders of a",
    ):
        next(iter(late))
    held.clear()
    late.set_epoch(0)
    check_values(next(iter(late)), log_normal)
    late.close()
    early.close()
    pool.close()


def test_bookkeeping_of_many_tiny_rows_fits_the_budget(place: Path) -> None:
    """Prefetching is limited so that records of rows do not take most of the memory from payloads."""
    with removed_afterwards(place / "tiny") as root:
        dataset = write(root, ({"id": i} for i in range(20_000)), {"id": "int"}, size_limit=1 << 20)
        with mx8.Loader(dataset, batch_size=10_000, memory="32mb", threads=1) as loader:
            assert loader.stats()["memory_limit_bytes"] > 16 << 20
            assert flat(ids_of(loader)) == list(range(20_000))


def test_dropping_many_iterations_leaves_no_thread_waiting(log_normal: mx8.Dataset) -> None:
    """The planner of a dropped iteration ends while the next one starts, and must not take its memory."""
    with mx8.Loader(log_normal, batch_size=8, memory="6mb", threads=2) as loader:
        for _ in range(150):
            for step, _ in enumerate(loader):
                if step == 3:
                    break
        assert loader.state_dict()["epoch"] == 149
        assert flat(ids_of(loader)) == list(range(200))
