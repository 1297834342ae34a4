"""Are batches delivered as soon as their shards are available, if a provider delays, fails or never answers?"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.errors import DiskError
from mx8shards.format.entries import Entry
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.loading.execution import watchdog
from mx8shards.loading.execution.crew import Lane, Task
from mx8shards.loading.execution.following import Following
from mx8shards.loading.execution.provisions import Provisions
from mx8shards.loading.execution.thread_resources import ThreadResources
from mx8shards.shards.open_shard import Shards
from mx8shards.shards.providers import CAUSES, Cause, Fetches, LocalFiles, Provider
from tests.loader.leak_checks import ids_of, no_leaks, time_limit, write
from tests.waiting import wait_until

SAMPLES, BATCH = 120, 10
Act = Callable[[int], object]  # called before shard i is available


@dataclass
class OnCommand:
    """A provider of local shards, each of which becomes available when the test allows it."""

    inner: Provider
    act: Act
    limit: int | None = 4
    begun: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    @property
    def all_here(self) -> bool:
        return False

    @property
    def parallel(self) -> int | None:
        return self.limit

    def is_copy(self, entry: Entry) -> bool:
        return False

    def awaits(self, entry: Entry) -> Cause | None:
        return None if number(entry) in self.done else "network"

    @property
    def fetched(self) -> Fetches:
        return Fetches()

    @property
    def eviction(self) -> None:
        return None

    def provide_sidecar(self, sidecar: Sidecar) -> None:
        self.inner.provide_sidecar(sidecar)

    def close(self) -> None:
        pass

    def provide(self, entry: Entry, *, ahead: bool = False) -> Path:
        if number(entry) not in self.done:
            self.begun.append(number(entry))
            self.act(number(entry))
            self.done.add(number(entry))
        return self.inner.provide(entry)


def number(entry: Entry) -> int:
    return int(entry.stored.basename.split(".")[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("providers") / "data", SAMPLES, size_limit=1_500)


@contextmanager
def provided(data: Path, act: Act, limit: int | None = 4, **options: Any) -> Iterator[tuple[mx8.Loader, OnCommand]]:
    settings: dict[str, Any] = {"batch_size": BATCH, "threads": 2, "output": "numpy", **options}
    with mx8.Dataset(data) as dataset:
        (opened,) = dataset.shards.opened
        provider = OnCommand(opened.provider, act, limit)
        dataset._shards = Shards.of((opened._replace(provider=provider),))
        with mx8.Loader(dataset, **settings) as loader:
            yield loader, provider


def last_shard_of(data: Path, batch: int) -> int:
    """The last shard that batch number `batch` needs in sequential order."""
    with mx8.Dataset(data) as dataset:
        return dataset.shards.locate(batch * BATCH + BATCH - 1)[0]


@pytest.mark.parametrize("limit", [None, 1, 4], ids=["in the pool", "one thread", "four threads"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_slow_shards_do_not_change_batches_and_each_is_provided_once(
    data: Path, limit: int | None, shuffle: bool
) -> None:
    with no_leaks(data), time_limit():
        with provided(data, lambda i: time.sleep(0.002 * (i % 5)), limit, shuffle=shuffle) as (loader, provider):
            for epoch in range(2):
                wanted = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                assert [ids_of(batch) for batch in loader] == wanted
        assert sorted(provider.begun) == list(range(len(provider.begun)))
        del loader, provider


def test_batches_of_local_shards_are_delivered_while_another_shard_is_delayed(data: Path) -> None:
    stuck = last_shard_of(data, 5)
    come = threading.Event()
    with time_limit(), provided(data, lambda i: i == stuck and come.wait(30)) as (loader, provider):
        batches = iter(loader)
        got = [ids_of(next(batches)) for _ in range(5)]
        assert got == [list(range(k * BATCH, (k + 1) * BATCH)) for k in range(5)]
        wait_until(lambda: stuck in provider.begun)
        assert stuck not in provider.done
        come.set()
        assert [i for batch in batches for i in ids_of(batch)] == list(range(5 * BATCH, SAMPLES))


def test_the_first_batch_waits_only_for_its_own_shards(data: Path) -> None:
    last = last_shard_of(data, 0)
    come = threading.Event()
    with time_limit(), provided(data, lambda i: i > last and come.wait(30)) as (loader, provider):
        assert ids_of(next(iter(loader))) == list(range(BATCH))
        assert max(provider.done) <= last
        come.set()


def test_shards_are_provided_ahead_in_the_order_of_need_with_bounded_parallelism(data: Path) -> None:
    held = threading.Event()
    with (
        time_limit(),
        provided(data, lambda i: None, shuffle=False, transform=lambda batch: held.wait(30) and batch) as (
            loader,
            provider,
        ),
    ):
        batches = iter(loader)
        wait_until(lambda: len(provider.done) >= 8)
        time.sleep(0.2)  # time for further shards, if there were any
        total = len(list(data.glob("*.mds")))
        assert 8 <= len(provider.done) < total
        assert max(provider.done) == len(provider.done) - 1
        held.set()
        assert [i for batch in batches for i in ids_of(batch)] == list(range(SAMPLES))


def test_provided_shards_make_room_for_the_next_ones(data: Path) -> None:
    with provided(data, lambda i: None) as (loader, provider):
        shards = loader._dataset.shards

        def at_once(_: int, task: Task, lane: Lane) -> None:
            task(ThreadResources().of)

        following = Following(loader._assembly.plan, 0, 0, list)
        waited_s: dict[Cause, float] = dict.fromkeys(CAUSES, 0.0)
        provisions = Provisions(shards, at_once, lambda: False, range(shards.count), waited_s, following)
        for i in range(shards.count):
            assert not provisions.need([i])
            assert len(provider.done) == min(i + 1 + 8, shards.count)


def test_queued_shards_are_not_provided_after_their_iteration_ended(data: Path) -> None:
    frozen, come = threading.Event(), threading.Event()
    act: Act = lambda i: frozen.is_set() and come.wait(30)  # noqa: E731
    with time_limit(), provided(data, act, 1, memory="320kb") as (loader, provider):
        batches = iter(loader)
        held = next(batches)
        time.sleep(0.5)  # so that shards are provided ahead
        frozen.set()
        del held
        held = next(batches)
        while len(provider.begun) - len(provider.done) != 1:  # until one shard is stuck and others are queued behind it
            time.sleep(0.3)
            held = next(batches) if len(provider.begun) == len(provider.done) else held
        stuck = len(provider.begun)
        loader.set_epoch(7)  # ends the iteration
        come.set()
        loader.close()  # ends the threads
        assert len(provider.begun) == stuck
        del held, batches


def test_a_substitute_whose_shard_is_delayed_does_not_block_other_shards(data: Path) -> None:
    come = threading.Event()
    with time_limit(), provided(data, lambda i: i == 5 and come.wait(30)) as (loader, provider):
        table = loader._assembly.plan.shard_table
        table.begin_epoch()
        first = int(loader._dataset.shards.starts[5])
        substitute = threading.Thread(target=table.find, args=(np.array([first]),))
        substitute.start()
        while 5 not in provider.begun:
            time.sleep(0.01)
        others: list[Any] = []
        thread = threading.Thread(target=lambda: others.append(table.find(np.array([0, first - 1]))))
        thread.start()
        thread.join(10)
        came_meanwhile = len(others)
        come.set()
        substitute.join()
        thread.join()
        assert came_meanwhile == 1


def test_a_full_disk_is_an_error_and_does_not_skip_a_substitute(data: Path) -> None:
    def act(i: int) -> None:
        if i == 5:
            raise DiskError("no space is left", subject=f"shard {i}")

    with time_limit(), provided(data, act, on_error="substitute") as (loader, _):
        table = loader._assembly.plan.shard_table
        table.begin_epoch()
        with pytest.raises(DiskError, match="no space is left"):
            table.find(loader._dataset.shards.starts[5:6])  # as a pool thread does for a substitute


@pytest.mark.parametrize("error", [DiskError("the disk is full"), mx8.RemoteError("no network")], ids=["disk", "net"])
def test_the_hint_of_an_error_that_on_error_never_skips_does_not_advise_it(data: Path, error: Exception) -> None:
    def act(i: int) -> None:
        if i == 3:
            raise error

    with time_limit(), provided(data, act) as (loader, _), pytest.raises(mx8.LoaderError) as caught:
        list(loader)
    assert "the next `for` tries this step again" in str(caught.value)
    assert "on_error" not in str(caught.value)


@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
@pytest.mark.parametrize("limit", [None, 4], ids=["in the pool", "threads"])
def test_an_outage_is_never_a_lost_sample(data: Path, on_error: str, limit: int | None) -> None:
    away = True

    def act(i: int) -> None:
        if away and i == 3:
            raise mx8.RemoteError("the network was away", subject=f"shard {i}")

    with time_limit(), provided(data, act, limit, on_error=on_error) as (loader, _):
        for _ in range(2):
            with pytest.raises(mx8.LoaderError, match="the network was away"):
                list(loader)
        away = False
        for _ in loader:
            pass
        assert loader.stats()["lost"] == 0
        assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize(("on_error", "lost"), [("skip", True), ("substitute", True), ("raise", False)])
def test_on_error_applies_to_a_shard_that_the_provider_finds_damaged(data: Path, on_error: str, lost: bool) -> None:
    def act(i: int) -> None:
        if i == 3:
            raise mx8.IntegrityError("another hash", subject=f"shard {i}")

    with time_limit(), provided(data, act, on_error=on_error) as (loader, _):
        if not lost:
            with pytest.raises(mx8.LoaderError, match="another hash"):
                list(loader)
            return
        starts = loader._dataset.shards.starts
        gone = set(range(int(starts[3]), int(starts[4])))
        delivered = [i for batch in loader for i in ids_of(batch)]
        assert not gone & set(delivered)
        assert loader.stats()["lost"] >= len(gone)
        assert "another hash" in loader.stats()["lost_last"][0]["reason"]


def test_a_provider_that_does_not_answer_is_an_error_that_names_it(data: Path) -> None:
    stuck = last_shard_of(data, 5)
    come = threading.Event()
    with time_limit(), provided(data, lambda i: i == stuck and come.wait(30), read_timeout_s=1) as (loader, _):
        with pytest.raises(mx8.LoaderError, match=rf"shard\.{stuck:05d}\.mds has not arrived .* waits for the network"):
            list(loader)
        come.set()
        assert [i for batch in loader for i in ids_of(batch)] == list(range(5 * BATCH, SAMPLES))


def test_a_long_wait_is_logged_once(
    data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "mx8shards")
    monkeypatch.setattr(watchdog, "_REPORT_S", 0.5)
    with time_limit(), provided(data, lambda i: time.sleep(1.5 if i in (2, 9) else 0), 1) as (loader, _):
        list(loader)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("a batch has waited for the network for ")
    assert told.endswith("shard.00002.mds")


def test_a_break_while_the_planner_waits_for_a_shard_ends_the_iteration_at_once(data: Path) -> None:
    come = threading.Event()
    with time_limit(), provided(data, lambda i: i > 2 and come.wait(30)) as (loader, _):
        for epoch in range(3):
            batches = iter(loader)
            assert ids_of(next(batches)) == list(range(BATCH))
            assert loader.state_dict()["epoch"] == epoch
            begun = time.monotonic()
            del batches
            loader.set_epoch(epoch + 1)
            assert time.monotonic() - begun < 20  # far less than the thirty seconds
        come.set()


def test_explain_names_the_cause_of_waiting_for_shards(data: Path) -> None:
    with time_limit(), provided(data, lambda i: time.sleep(0.03), limit=1) as (loader, _):
        list(loader)
        assert loader.stats()["network_s"] > 0
        assert loader.explain().bottleneck == "network"


def test_zstd_shards_are_unpacked_ahead_in_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "zstd", SAMPLES, size_limit=4_000, compression="zstd")
    real = LocalFiles.provide
    threads: list[str] = []

    def provide(self: LocalFiles, entry: Entry, *, ahead: bool = False) -> Path:
        threads.append(threading.current_thread().name)
        return real(self, entry)

    monkeypatch.setattr(LocalFiles, "provide", provide)
    with time_limit(), mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, threads=2) as loader:
        assert [i for batch in loader for i in ids_of(batch)] == list(range(SAMPLES))
        assert len(threads) == dataset.shards.count
        assert {name.rpartition("-")[0] for name in threads} == {"mx8shards"}  # the planner has ended
        assert "mx8shards-planner" not in threads
        assert loader.stats()["unpack_s"] > 0


@pytest.mark.parametrize("shuffle", [False, True, mx8.BlockShuffle(shards=4)], ids=["in order", "shuffled", "blocks"])
@pytest.mark.parametrize("world_size", [3, 8])
def test_a_rank_has_its_own_shards_provided_ahead(data: Path, shuffle: Any, world_size: int) -> None:
    options = {"rank": world_size - 1, "world_size": world_size, "batch_size": 3, "shuffle": shuffle}
    with time_limit(), provided(data, lambda i: None, 1, **options) as (loader, provider):
        lanes: list[str] = []
        submit = loader._assembly.provider_threads.submit

        def noted(i: int, task: Any, lane: Any) -> None:
            lanes.append(lane)
            submit(i, task, lane)

        loader._assembly.provider_threads.submit = noted  # type: ignore[method-assign]
        batches = [loader.ids(epoch=0, step=k) for k in range(len(loader))]
        needed = {loader._dataset.shards.locate(i)[0] for ids in batches for i in ids.tolist()}
        list(loader)
        assert set(provider.begun) == needed
        assert lanes.count("later") >= min(len(needed) // 2, 8)


def test_a_shard_that_arrives_while_others_are_started_is_not_waited_for(data: Path) -> None:
    with time_limit(), provided(data, lambda i: None, 1, batch_size=2) as (loader, _):
        list(loader)
        assert loader.stats()["network_s"] < 0.05 * len(loader)  # far less than one polling interval per batch


def test_concurrent_runs_and_loaders_provide_each_shard_once(data: Path) -> None:
    with time_limit(), provided(data, lambda i: time.sleep(0.02), 8) as (loader, provider):
        with mx8.Loader(loader._dataset, batch_size=BATCH, threads=2, output="numpy", shuffle=True) as other:
            for _ in range(3):
                next(iter(loader))
                next(iter(other))
            assert sum(map(len, map(ids_of, loader))) == sum(map(len, map(ids_of, other))) == SAMPLES
        assert sorted(provider.begun) == sorted(set(provider.begun))


def test_a_disk_error_while_an_evicted_copy_is_restored_loses_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "zstd", SAMPLES, size_limit=1_500, compression="zstd")
    with mx8.Dataset(data, cache_dir=tmp_path / "cache") as dataset:
        dataset.shards._files.most = 2
        with mx8.Loader(dataset, batch_size=BATCH, threads=1, on_error="skip", io="pread", output="numpy") as loader:
            assert sum(len(ids_of(batch)) for batch in loader) == SAMPLES
            for copy in (tmp_path / "cache").glob("*.mds"):
                copy.unlink()

            def full(*_: Any) -> Path:
                raise mx8.DiskError("no room", subject="cache")

            monkeypatch.setattr("mx8shards.shards.cache.unpack", full)
            with time_limit(), pytest.raises(mx8.LoaderError, match="no room"):
                list(loader)
            assert loader.stats()["lost"] == 0
            monkeypatch.undo()
            assert sum(len(ids_of(batch)) for batch in loader) == SAMPLES


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_system_error_while_a_file_is_opened_loses_no_sample(
    data: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, on_error="skip", threads=1) as loader:
        monkeypatch.setattr("mx8shards.shards.shard.ReadFile", refuse)
        with time_limit(), pytest.raises(mx8.LoaderError, match=os.strerror(number)):
            list(loader)
        monkeypatch.undo()
        assert sum(len(batch.sample_ids) for batch in loader) == SAMPLES
        assert loader.stats()["lost"] == 0


def test_a_dataset_whose_directory_was_emptied_is_an_error_and_loses_no_sample(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    with mx8.Dataset(root) as dataset, mx8.Loader(dataset, batch_size=BATCH, on_error="skip", threads=1) as loader:
        root.rename(tmp_path / "unmounted")
        root.mkdir()
        with time_limit(), pytest.raises(mx8.LoaderError, match="there is no such file"):
            list(loader)
        assert loader.stats()["lost"] == 0


def test_a_substitute_whose_shard_is_not_local_is_waited_for_by_the_planner(data: Path) -> None:
    """Then the provider's threads fetch it, and the watchdog observes the wait."""
    threads: dict[int, str] = {}
    come = threading.Event()

    def act(i: int) -> None:
        threads[i] = threading.current_thread().name
        if i == 0:
            raise mx8.IntegrityError("another hash", subject=f"shard {i}")
        if i > 3:
            come.wait(30)

    options = {"on_error": "substitute", "read_timeout_s": 2, "batch_size": 4}
    with time_limit(), provided(data, act, 4, **options) as (loader, _):
        with pytest.raises(mx8.LoaderError, match="waits for the network"):
            list(loader)
        come.set()
        assert all("provider" in name for name in threads.values())
        assert sum(len(ids_of(batch)) for batch in loader) == SAMPLES


def test_looking_at_upcoming_shards_takes_bounded_work() -> None:
    """If all shards are local, the first batch must not wait until each of them was checked."""

    class Local:
        """Local shards whose state is unknown before it is checked."""

        all_here = False
        limited = ()
        evictions = ()

        def __init__(self) -> None:
            self.looked: list[int] = []

        def awaits(self, i: int) -> None:
            self.looked.append(i)

    shards = Local()
    following = Following(SimpleNamespace(shards=shards), 0, 0, list)  # type: ignore[arg-type]
    upcoming = iter(range(1, 100_000))
    provisions = Provisions(shards, pytest.fail, lambda: False, upcoming, {}, following)  # type: ignore[arg-type]
    assert provisions.need([0]) == {}
    assert len(shards.looked) < 200
