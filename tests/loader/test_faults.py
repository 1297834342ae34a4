"""Does every failure reach the consumer in order and with its reason, without leaking resources?"""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.views import Whole
from tests.loader.damage import BEFORE, LATER, cut_short, put_another
from tests.loader.faults import ChecksumDecoder, Fault, OnCommandError, raising
from tests.loader.filesystem import mirrored
from tests.loader.leak_checks import ViewOfWhole, digests, ids_of, no_leaks, shards, write

SAMPLES, BATCH = 120, 8
STEPS = SAMPLES // BATCH


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small samples in several shards."""
    return write(tmp_path_factory.mktemp("faults") / "data", SAMPLES)


@dataclass(frozen=True)
class FaultyView(ViewOfWhole):
    """A view of the whole dataset, with a fault."""

    fault: Fault

    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> Any:
        self.fault.trigger("view", np.asarray(position).ravel().tolist())
        return self.whole.resolve(position, epoch, seed)


@dataclass(frozen=True)
class FaultyOrder:
    """An order that fails at some positions."""

    inner: Any
    fault: Fault

    def __len__(self) -> int:
        return len(self.inner)

    def at(self, epoch: int, counts: Any) -> Any:
        self.fault.trigger("order", counts.tolist())
        return self.inner.at(epoch, counts)

    @property
    def description(self) -> str:
        return str(self.inner.description)


# where faults are injected: the stage of a decoder, the transform, and planning
PLACES = ["scratch", "narrow", "begin", "fill", "transform", "view", "order"]
ERRORS: dict[str, Callable[[], BaseException]] = {
    "OnCommandError": lambda: OnCommandError("on command"),
    "ValueError": lambda: ValueError("on command"),
    "KeyError": lambda: KeyError("on command"),
    "MemoryError": lambda: MemoryError("on command"),
    "OSError": lambda: OSError(5, "on command"),
    "StopIteration": lambda: StopIteration("on command"),
    "GeneratorExit": lambda: GeneratorExit("on command"),
    "SystemExit": lambda: SystemExit("on command"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("on command"),
    "AssertionError": AssertionError,
    "LoaderError": lambda: mx8.LoaderError("on command"),
    "DecodeError": lambda: mx8.DecodeError("on command"),
}


def loader_with(dataset: mx8.Dataset, fault: Fault, **options: Any) -> mx8.Loader:
    """A loader with this fault."""

    def transform(batch: Any) -> Any:
        fault.trigger("transform", batch.sample_ids.tolist())
        return batch

    if fault.where == "view":
        dataset._view = FaultyView(Whole(len(dataset)), fault)
    loader = mx8.Loader(
        dataset,
        **{"batch_size": BATCH, "decode": {"blob": ChecksumDecoder(fault)}, "transform": transform, "output": "numpy"}
        | options,
    )
    if fault.where == "order":
        plan = replace(loader._assembly.plan, order=FaultyOrder(loader._assembly.plan.order, fault))
        loader._assembly = replace(loader._assembly, plan=plan)
    return loader


def taken(batches: Iterator[Any]) -> tuple[list[list[int]], mx8.LoaderError | None]:
    """The sample_ids of all batches, whose values are checked, and the error that ends the iteration."""
    found = []
    try:
        for batch in batches:
            found.append(ids_of(batch))
            if "checksum" in batch:
                assert batch["checksum"].tolist() == digests(found[-1])
    except mx8.LoaderError as error:
        return found, error
    return found, None


def fail_once(data: Path, where: str, name: str, step: int, **options: Any) -> None:
    """Inject one fault in one step, and check the batches before, the error, and the batches after."""
    error = ERRORS[name]()
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        fault = Fault(where, raising(error), armed=False)
        loader = loader_with(dataset, fault, **options)
        with loader:
            expected = [loader.ids(epoch=0, step=k).tolist() for k in range(len(loader))]
            fault.armed, fault.samples = True, frozenset(expected[step][:1])
            if where == "order":  # an order handles positions, not sample_ids
                fault.samples = frozenset([step * BATCH])
            found, caught = taken(iter(loader))
            assert fault.happened
            assert caught is not None
            reason = caught if isinstance(error, mx8.LoaderError) else caught.__cause__
            if where in ("view", "order") and name == "StopIteration":  # in a generator it becomes a RuntimeError
                reason = reason.__cause__
            assert reason is error
            if where == "scratch":
                assert found == []
            elif where in ("view", "order") and not isinstance(error, Exception):  # several steps are planned together
                assert found == expected[: len(found)]
                assert len(found) <= step
            else:
                assert found == expected[:step]
            del caught, reason
            error.__traceback__ = error.__context__ = None  # its traceback keeps buffers alive
            assert loader.state_dict()["position"] == len(found) * BATCH
            fault.armed = False
            assert taken(iter(loader)) == (expected[len(found) :], None)  # continues at the failed step
            again = [loader.ids(epoch=1, step=k).tolist() for k in range(len(loader))]
            assert taken(iter(loader)) == (again, None)
            assert loader.stats()["bytes_reserved"] == 0
            assert loader.stats()["bytes_in_use"] == 0
        del loader
        dataset.close()
        del dataset, fault, error


IN_SUITE = [
    *((where, "OnCommandError") for where in PLACES),
    *(("transform", name) for name in ("StopIteration", "SystemExit", "KeyboardInterrupt", "LoaderError")),
    *((where, "GeneratorExit") for where in ("fill", "order")),
]


@pytest.mark.parametrize(("where", "name"), IN_SUITE)
def test_an_error_is_raised_at_its_batch_with_its_cause_and_the_next_for_continues(
    data: Path, where: str, name: str
) -> None:
    fail_once(data, where, name, step=5, threads=2)


@pytest.mark.hunt
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", ERRORS)
def test_any_error_at_any_place_and_step_is_raised_at_its_batch(data: Path, where: str, name: str) -> None:
    rng = random.Random(f"{where} {name}")
    for step in (0, rng.randrange(STEPS), STEPS - 1):
        options = {"threads": rng.choice([1, 2, 5]), "shuffle": rng.random() < 0.5, "io": rng.choice(["mmap", "pread"])}
        fail_once(data, where, name, step, **options)


# shards that are damaged


def expect_damage(data: Path, damaged: Path, first_bad: int, io: str, *, damage: Callable[[], None]) -> None:
    """Check that batches before the damaged shard come, then the error, and everything once the file is restored."""
    intact = damaged.read_bytes()
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        loader = mx8.Loader(dataset, batch_size=BATCH, threads=2, io=io, output="numpy")  # type: ignore[arg-type]
        with loader:
            damage()
            found, caught = taken(iter(loader))
            assert caught is not None
            assert isinstance(caught.__cause__, mx8.ShardsError)
            assert damaged.name in str(caught)
            assert found == [list(range(i, i + BATCH)) for i in range(0, first_bad // BATCH * BATCH, BATCH)]
            del caught
            if damaged.is_dir():
                damaged.rmdir()
            damaged.unlink(missing_ok=True)
            damaged.write_bytes(intact)
        del loader
        dataset.close()
        del dataset
        with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, output="numpy") as loader:
            assert len(taken(iter(loader))[0]) == STEPS
        del loader, dataset


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("damage", BEFORE)
def test_a_shard_damaged_before_it_is_opened_is_an_error_that_names_it(
    tmp_path: Path, io: str, damage: Callable[[Path], None]
) -> None:
    data = write(tmp_path / "data", SAMPLES)
    with mx8.Dataset(data) as dataset:
        first_bad = int(dataset.shards.starts[2])
    damaged = shards(data)[2]
    expect_damage(data, damaged, first_bad, io, damage=lambda: damage(damaged))


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("damage", LATER)
def test_a_shard_damaged_between_two_epochs_is_an_error_that_names_it(
    tmp_path: Path, io: str, damage: Callable[[Path], None]
) -> None:
    data = write(tmp_path / "data", SAMPLES)
    damaged = shards(data)[2]
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        first_bad = int(dataset.shards.starts[2])
        with mx8.Loader(dataset, batch_size=BATCH, threads=2, io=io, output="numpy") as loader:  # type: ignore[arg-type]
            assert taken(iter(loader))[1] is None
            damage(damaged)
            found, caught = taken(iter(loader))
        assert damaged.name in str(caught)
        assert len(found) == first_bad // BATCH
        dataset.close()
        del loader, dataset, caught


@pytest.mark.parametrize("change", [os.unlink, put_another])
def test_an_open_shard_that_is_deleted_or_replaced_stays_readable(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    data = write(tmp_path / "data", SAMPLES)
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with mx8.Loader(dataset, batch_size=BATCH, threads=2, output="numpy") as loader:
            assert len(taken(iter(loader))[0]) == STEPS
            for path in shards(data):
                change(path)
            assert len(taken(iter(loader))[0]) == STEPS
        dataset.close()
        del loader, dataset


def test_a_file_truncated_between_two_batches_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 12 * SAMPLES)  # more than is made ahead
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with mx8.Loader(dataset, batch_size=BATCH, threads=1, io="pread", output="numpy") as loader:
            batches = iter(loader)
            found = [ids_of(next(batches))]
            for path in shards(data):
                cut_short(path)
            more, caught = taken(batches)
        assert [i for ids in found + more for i in ids] == list(range(BATCH * (1 + len(more))))
        assert isinstance(caught.__cause__ if caught else None, mx8.FormatError)
        dataset.close()
        del loader, dataset, batches, caught


def test_a_disk_error_names_the_shard_and_later_batches_are_read(tmp_path: Path) -> None:
    """Uses pread only: pages that are removed between populating and copying would give a SIGBUS."""
    data = write(tmp_path / "data", 12 * SAMPLES)  # more than is made ahead
    with mirrored(data, tmp_path / "mount") as shown, no_leaks(shown.root):
        dataset = mx8.Dataset(shown.root)
        with mx8.Loader(dataset, batch_size=BATCH, threads=2, io="pread", output="numpy") as loader:
            batches = iter(loader)
            found = [ids_of(next(batches))]
            shown.reads("fail")
            shown.forget()
            more, caught = taken(batches)
            assert isinstance(caught.__cause__ if caught else None, OSError)
            assert [i for ids in found + more for i in ids] == list(range(BATCH * (1 + len(more))))
            shown.reads("ok")
            rest, _ = taken(iter(loader))  # from the failed step on
            assert len(found + more + rest) == len(loader)
            assert len(taken(iter(loader))[0]) == len(loader)
        dataset.close()
        del loader, batches, caught, dataset


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
def test_a_disk_error_between_two_epochs_names_the_shard(tmp_path: Path, io: str) -> None:
    data = write(tmp_path / "data", SAMPLES)
    with mirrored(data, tmp_path / "mount") as shown, no_leaks(shown.root):
        dataset = mx8.Dataset(shown.root)
        with mx8.Loader(dataset, batch_size=BATCH, threads=2, io=io, output="numpy") as loader:  # type: ignore[arg-type]
            assert len(taken(iter(loader))[0]) == STEPS
            shown.reads("fail")
            shown.forget()
            found, caught = taken(iter(loader))
            assert isinstance(caught.__cause__ if caught else None, OSError)
            assert found == []
            shown.reads("ok")
            assert len(taken(iter(loader))[0]) == STEPS
        dataset.close()
        del loader, caught, dataset


@pytest.mark.parametrize("size_bytes", [3 * mmap.PAGESIZE, 3 << 20])
def test_a_disk_error_within_a_sample_is_not_reported_as_truncation(tmp_path: Path, size_bytes: int) -> None:
    """A read that reaches a bad page returns a short count without an error; the next read gives the error."""
    with mx8.Writer(tmp_path / "data", columns={"blob": "bytes"}, hashes=()) as writer:
        writer.write({"blob": bytes(size_bytes)})
    with mirrored(tmp_path / "data", tmp_path / "mount") as shown, mx8.Dataset(shown.root) as dataset:
        assert len(dataset[0]["blob"]) == size_bytes
        shown.reads(f"fail {2 * mmap.PAGESIZE}")
        shown.forget()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            dataset[0]
        with mx8.Loader(dataset, batch_size=1, output="numpy") as loader, pytest.raises(mx8.LoaderError) as stopped:
            list(loader)
        assert isinstance(stopped.value.__cause__, OSError)


# results of transforms


@pytest.mark.parametrize("result", [7, [], ValueError("a value"), StopIteration(), object, {"a": [1]}], ids=repr)
def test_anything_that_a_transform_returns_is_delivered_except_none(data: Path, result: Any) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with mx8.Loader(dataset, batch_size=BATCH, transform=lambda batch: result, output="numpy", threads=2) as loader:
            assert [found is result for found in loader] == [True] * STEPS
            assert loader.stats()["samples"] == SAMPLES
        dataset.close()
        del loader, dataset


def test_a_transform_that_keeps_batches_until_memory_is_full_gets_an_error(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 4000)
    kept: list[Any] = []

    def keep(batch: Any) -> Any:
        kept.append(batch)
        return batch

    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with mx8.Loader(dataset, batch_size=200, transform=keep, memory="1mb", output="numpy") as loader:
            caught: mx8.LoaderError | None = None
            try:
                for batch in loader:
                    del batch
            except mx8.LoaderError as error:
                caught = error
        assert "still held" in str(caught)
        kept.clear()
        dataset.close()
        del loader, dataset, caught
