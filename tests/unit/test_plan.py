"""Does the plan of a batch contain the requested rows, equally on all ranks, within the batch's memory?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.loading.budget.banks import Budget, bank_bytes
from mx8shards.loading.budget.batch_layout import lay_out, max_bytes
from mx8shards.loading.planning.assembly import assemble, order_of
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.settings import Settings
from mx8shards.order.steps import UNEVEN, Steps
from mx8shards.views import Whole
from tests.batches import flat, numbered, write
from tests.loader.leak_checks import ViewOfWhole

COUNT = 61


class AllLocal:
    """The plan of a dataset whose shards are all local."""

    fetch = None

    def are_here(self, numbers: Any) -> bool:
        return True

    def need(self, numbers: Any) -> dict[int, Exception]:
        return {}

    def at(self, begin: int, end: int) -> None:
        pass


HERE = AllLocal()


@pytest.fixture(scope="module")
def dataset(place: Path) -> mx8.Dataset:
    return numbered(place / "numbered", COUNT)


def plan_of(dataset: mx8.Dataset, rank: int = 0, size: int = 1, memory: Any = "64mb", **options: Any) -> Plan:
    """The plan of a loader with these settings."""
    chosen = Settings(memory=memory, **options)
    order = order_of(dataset, chosen)
    steps = Steps(length=len(order), batch_size=chosen.batch_size, world_size=size, uneven=chosen.uneven)
    pool = mx8.Pool(memory=memory, threads=1)
    plan = assemble(dataset, chosen, order, steps, rank, pool, Budget(pool.memory)).plan
    plan.shard_table.begin_epoch()
    return plan


@settings(max_examples=40)
@given(
    size=st.integers(1, 5),
    batch_size=st.integers(1, 9),
    uneven=st.sampled_from(UNEVEN),
    position=st.integers(0, COUNT),
    columns=st.lists(st.sampled_from(["data", "id", "name", "x"]), unique=True),
)
def test_a_plan_gives_the_samples_and_the_memory_of_each_step_of_a_rank(
    dataset: mx8.Dataset, size: int, batch_size: int, uneven: Any, position: int, columns: list[str]
) -> None:
    rank = size - 1
    options = {"batch_size": batch_size, "uneven": uneven, "shuffle": True, "columns": columns}
    plan = plan_of(dataset, rank, size, **options)
    found = [(group, step) for group in plan.batches(3, position, HERE) for step in group.steps]
    assert len(found) == plan.steps.batches(rank, position)
    for number, (group, step) in enumerate(found):
        begin = position + number * batch_size * size
        rows = slice(step.start, step.stop)
        share = plan.steps.slice_of(rank, begin)
        sample_ids = plan.samples_at(3, share.positions).sample_ids
        assert (group.epoch, step.position) == (3, begin)
        assert group.rows["sample_id"][rows].tolist() == sample_ids.tolist()
        assert group.padding[rows].tolist() == share.padding.tolist()
        samples = [dataset[int(i)] for i in group.rows["sample_id"]]
        sizes = {"data": sum(len(s["data"]) for s in samples), "name": sum(len(s["name"]) for s in samples)}
        assert group.reserve_bytes >= lay_out(plan.finder.outputs, len(samples), sizes).size_bytes


SIZES = [int(size) for size in np.random.default_rng(3).lognormal(np.log(20_000), 1.0, COUNT).clip(0, 400_000)]


@pytest.fixture(scope="module")
def uneven_sizes(place: Path) -> mx8.Dataset:
    """Samples of all sizes, in shards of several."""
    samples = ({"data": bytes(size), "id": i} for i, size in enumerate(SIZES))
    return write(place / "sizes", samples, {"data": "bytes", "id": "int"}, size_limit=500_000)


def test_a_rank_keeps_no_rows_of_other_ranks(uneven_sizes: mx8.Dataset) -> None:
    whole = plan_of(uneven_sizes, 3, 8, batch_size=2)
    plan = replace(whole, limit_bytes=lambda: 2 * max(SIZES))  # so little that sample sizes have to be read
    for planned in plan.batches(0, 0, HERE):
        rows = planned.rows
        assert rows.base is None or len(rows.base) == len(rows)


@settings(max_examples=60)
@given(
    size=st.integers(1, 5),
    batch_size=st.integers(1, 9),
    uneven=st.sampled_from(UNEVEN),
    shuffle=st.booleans(),
    limit=st.integers(1, 40).map(lambda n: n << 16),
    columns=st.sampled_from([["data", "id"], ["id"]]),
)
def test_all_ranks_stop_at_the_first_step_that_does_not_fit_beside_the_one_before(
    uneven_sizes: mx8.Dataset, size: int, batch_size: int, uneven: Any, shuffle: bool, limit: int, columns: list[str]
) -> None:
    options = {"batch_size": batch_size, "uneven": uneven, "shuffle": shuffle, "columns": columns}
    plans = [replace(plan_of(uneven_sizes, r, size, **options), limit_bytes=lambda: limit) for r in range(size)]
    steps, outputs = plans[0].steps, plans[0].finder.outputs
    stop, told, before = steps.left(), [], 0
    for step in range(steps.left()):
        shares = [plans[0].samples_at(0, steps.slice_of(r, steps.at(step)).positions).sample_ids for r in range(size)]
        needs = [max_bytes(outputs, len(ids), sum(SIZES[i] for i in ids) * ("data" in columns)) for ids in shares]
        most = max(map(bank_bytes, needs))
        if before + most > limit:
            place = f"epoch 0, position {steps.at(step)}"
            told = [f"{place}: expected", f", beside {before} of the one before, got one of up to {most} bytes"]
            stop = step
            break
        before = most
    for rank, plan in enumerate(plans):
        found, error = [], ""
        try:
            found.extend(planned.position for planned in plan.batches(0, 0, HERE))
        except mx8.LoaderError as caught:
            error = str(caught)
        assert found == [steps.at(k) for k in range(stop) if len(steps.slice_of(rank, steps.at(k)).positions)]
        assert bool(error) == bool(told)
        assert all(words in error for words in told)


def test_a_rank_without_rows_in_an_oversized_step_raises_the_same_error_as_all_ranks(place: Path) -> None:
    sizes = [10, 10, 10, 10, 200_000]
    samples = ({"data": bytes(size)} for size in sizes)
    dataset = write(place / "last", samples, {"data": "bytes"})
    for rank in range(2):
        plan = replace(plan_of(dataset, rank, 2, batch_size=2, uneven="exact"), limit_bytes=lambda: 160_000)
        with pytest.raises(mx8.LoaderError, match="epoch 0, position 4: expected a batch that fits into 160000 bytes"):
            list(plan.batches(0, 0, HERE))


def test_shards_of_other_ranks_are_not_opened_if_every_batch_fits(place: Path) -> None:
    root = place / "theirs"
    dataset = numbered(root, COUNT)
    mine = plan_of(dataset, 0, 2, batch_size=10)
    ids = [planned.rows["sample_id"] for planned in mine.batches(0, 0, HERE)]
    needed = set((np.searchsorted(dataset.shards.starts, np.concatenate(ids), side="right") - 1).tolist())
    theirs = [path for i, path in enumerate(sorted(root.glob("*.mds"))) if i not in needed]
    assert theirs
    for path in theirs:
        path.unlink()
    found = [
        planned.rows["sample_id"] for planned in plan_of(mx8.Dataset(root), 0, 2, batch_size=10).batches(0, 0, HERE)
    ]
    assert flat(found) == flat(ids)
    plan = replace(plan_of(mx8.Dataset(root), 0, 2, batch_size=10), limit_bytes=lambda: 1 << 16)
    with pytest.raises(mx8.DatasetNotFoundError):
        list(plan.batches(0, 0, HERE))


@dataclass(frozen=True)
class ReversedWithExtras(ViewOfWhole):
    """The samples in reverse order, with two extras."""

    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> Any:
        position = np.asarray(position)
        pairs = np.stack([position, position * 10], axis=-1)
        return COUNT - 1 - position, {"name": np.char.add("n", position.astype(str)), "pair": pairs}


def test_a_replanned_batch_has_memory_and_extras_for_its_new_samples(dataset: mx8.Dataset) -> None:
    plan = plan_of(dataset._derived(ReversedWithExtras(Whole(COUNT))), batch_size=4)
    first = next(iter(plan.batches(0, 0, HERE)))
    other = plan.replanned(first, np.array([2, 0]), np.array([7, 60]))
    assert other.rows["sample_id"].tolist() == [0, 59, 53, 57]
    assert other.extras["name"].tolist() == ["n60", "n1", "n7", "n3"]
    assert other.extras["pair"].tolist() == [[60, 600], [1, 10], [7, 70], [3, 30]]
    assert (other.epoch, other.position) == (0, 0)
    lengths = (other.rows["end"] - other.rows["begin"]).sum()
    assert other.reserve_bytes >= lengths - 4 * plan.finder.overhead
    assert first.rows["sample_id"].tolist() == [60, 59, 58, 57]
    assert first.extras["name"].tolist() == ["n0", "n1", "n2", "n3"]


def test_a_substitute_outside_the_dataset_is_refused(dataset: mx8.Dataset) -> None:
    plan = plan_of(dataset._derived(ReversedWithExtras(Whole(COUNT))), batch_size=4)
    first = next(iter(plan.batches(0, 0, HERE)))
    with pytest.raises(mx8.LoaderError, match="view: expected sample_ids from 0 to 60, got -1 to -1"):
        plan.replanned(first, np.array([1]), np.array([61]))


def test_steps_before_one_that_cannot_be_planned_are_delivered(place: Path) -> None:
    root = place / "broken"
    numbered(root, COUNT)
    last = max(root.glob("*.mds"))
    last.write_bytes(last.read_bytes()[:-1])
    found = []
    batches = plan_of(mx8.Dataset(root), batch_size=2).batches(0, 0, HERE)
    with pytest.raises(mx8.FormatError, match=last.name):
        found.extend(batch.rows["sample_id"].tolist() for batch in batches)
    whole = int(mx8.Dataset(root).shards.starts[-2])
    found = []
    for planned in plan_of(mx8.Dataset(root), batch_size=2).batches(0, 0, HERE):
        found += planned.rows["sample_id"].tolist()
        if len(found) >= whole - 1:
            break
    assert found == list(range(len(found)))
