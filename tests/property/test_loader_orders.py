"""Does a loader follow any custom order, including repeats and padding, on any number of ranks?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.order.steps import UNEVEN
from tests.batches import numbered, row_differs, write
from tests.custom_orders import Listed, OfNodes, Weighted
from tests.example_counts import parametrize_count

COUNT = 29


@pytest.fixture(scope="module")
def dataset(place: Path) -> mx8.Dataset:
    return numbered(place / "numbered", COUNT)


def delivered(batch: Any, dataset: mx8.Dataset) -> list[tuple[int, int]]:
    """The samples of a batch without padding, with their occurrences, which make random draws differ.

    Asserts that rows equal the dataset's, and that padding is empty.
    """
    ids, padding = batch.sample_ids.tolist(), batch.padding.tolist()
    nothing = {"data": b"", "id": 0, "name": "", "x": 0.0}
    for row, sample_id in enumerate(ids):
        assert not row_differs(batch, row, nothing if sample_id < 0 else dataset[sample_id]), sample_id
        assert sample_id >= 0 or padding[row]
    occurrences = batch.extras["occurrence"].tolist()
    rows = zip(ids, occurrences, padding, strict=True)
    return [(i, occurrence) for i, occurrence, filled in rows if not filled]


POSITIONS = st.lists(st.integers(-1, COUNT - 1), max_size=40)
PICKED = st.none() | st.lists(st.integers(0, COUNT - 1), min_size=COUNT, max_size=COUNT)  # a view with repeats
ORDERS = (
    POSITIONS.map(Listed)
    | st.builds(Weighted, st.just(range(1, COUNT + 1)), st.integers(0, 50), st.integers(0, 9))
    | st.builds(OfNodes, st.just(COUNT), st.integers(1, 5))
)
WORLDS = st.fixed_dictionaries(
    {"size": st.integers(1, 5), "batch_size": st.integers(1, 8), "uneven": st.sampled_from(UNEVEN)}
)


@parametrize_count(60)
def test_any_order_is_delivered_by_ranks_that_stop_and_resume_as_other_numbers_of_ranks(
    count: int, dataset: mx8.Dataset, pool: mx8.Pool
) -> None:
    @settings(max_examples=count)
    @given(order=ORDERS, picked=PICKED, before=WORLDS, after=WORLDS, epoch=st.integers(0, 2), data=st.data())
    def check(
        order: Any, picked: Any, before: dict[str, Any], after: dict[str, Any], epoch: int, data: st.DataObject
    ) -> None:
        view = dataset if picked is None else dataset.select(picked)

        def loaders(world: dict[str, Any]) -> list[mx8.Loader]:
            options = {"batch_size": world["batch_size"], "uneven": world["uneven"], "order": order, "pool": pool}
            return [mx8.Loader(view, rank=rank, world_size=world["size"], **options) for rank in range(world["size"])]

        found: Counter[tuple[int, int]] = Counter()
        first = loaders(before)
        steps = data.draw(st.integers(0, len(first[-1])))
        states = []
        for rank, loader in enumerate(first):
            loader.set_epoch(epoch)
            batches = iter(loader)
            for step in range(steps):
                batch = next(batches)
                assert batch.sample_ids.tolist() == loader.ids(epoch=epoch, step=step, rank=rank).tolist()
                found.update(delivered(batch, dataset))
            states.append(json.loads(json.dumps(loader.state_dict())))
            loader.close()
        assert all(state == states[0] for state in states)
        length, reached = len(order), states[0]["position"]
        if states[0]["epoch"] == epoch:
            for loader in loaders(after):
                loader.load_state_dict(states[0])
                for batch in loader:
                    found.update(delivered(batch, dataset))
                loader.close()
            last = after
        else:
            reached, last = 0, before
        left_out = (length - reached) % (last["size"] * last["batch_size"]) if last["uneven"] == "drop" else 0
        positions = np.asarray(order.ids(epoch, 0, length - left_out))
        counted = np.flatnonzero(positions >= 0)
        sample_ids, extras = view.view.resolve(positions[counted])
        occurrences = extras.get("occurrence", 0) + counted * view.view.occurrences
        assert found == Counter(zip(sample_ids.tolist(), occurrences.tolist(), strict=True))
        assert set(found.values()) <= {1}  # no two rows of an epoch get the same random draws

    check()


def test_padding_opens_no_shard_and_does_not_count_as_lost(tmp_path: Path) -> None:
    """Shard 0 is removed: reading padding as position 0 would fail."""
    dataset = numbered(tmp_path / "data", COUNT)
    first = int(dataset.shards.starts[1])
    (tmp_path / "data" / "shard.00000.mds").unlink()
    for on_error in ("raise", "skip", "substitute"):
        order = Listed([-1, first, -1, -1, -1, -1, first + 1])
        with mx8.Loader(dataset, batch_size=3, order=order, on_error=on_error) as loader:  # type: ignore[arg-type]
            assert [batch.sample_ids.tolist() for batch in loader] == [[-1, first, -1], [-1, -1, -1], [first + 1]]
            assert loader.stats()["lost"] == 0


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_lost_samples_beside_padding_are_skipped_or_replaced_and_rows_keep_their_extras(
    on_error: Any, tmp_path: Path
) -> None:
    dataset = numbered(tmp_path / "data", COUNT)
    starts = dataset.shards.starts.tolist()
    (tmp_path / "data" / "shard.00001.mds").unlink()
    bad, last = starts[1], starts[-2]
    order = Listed([0, bad, -1, last, bad, -1, 0, last])
    with mx8.Loader(dataset, batch_size=8, order=order, on_error=on_error, seed=3) as loader:
        (batch,) = loader
        assert loader.stats()["lost"] >= 2
    ids, occurrences = batch.sample_ids.tolist(), batch.extras["occurrence"].tolist()
    if on_error == "skip":
        assert ids == [0, -1, last, -1, 0, last]
        assert occurrences == [0, 2, 3, 5, 6, 7]
    else:
        assert [i for i, lost in zip(ids, (0, 1, 0, 0, 1, 0, 0, 0), strict=True) if not lost] == [
            0,
            -1,
            last,
            -1,
            0,
            last,
        ]
        assert not {ids[1], ids[4]} & set(range(starts[1], starts[2]))
        assert [occurrences[i] for i in (0, 2, 3, 5, 6, 7)] == [0, 2, 3, 5, 6, 7]
    delivered(batch, mx8.Dataset(tmp_path / "data", allow_pickle=True))


def test_ragged_rows_of_padding_are_empty(tmp_path: Path) -> None:
    columns = {"tokens": "ndarray:uint16", "any": "ndarray", "fixed": "ndarray:int32:2"}
    samples = [
        {"tokens": np.arange(i + 1, dtype="uint16"), "any": np.arange(3, dtype="int8"), "fixed": np.full(2, i, "int32")}
        for i in range(5)
    ]
    dataset = write(tmp_path / "data", samples, columns)
    for output in ("torch", "numpy"):
        with mx8.Loader(dataset, batch_size=5, order=Listed([-1, 4, -1, 0, -1]), output=output) as loader:  # type: ignore[arg-type]
            (batch,) = loader
        assert batch["tokens"].lengths.tolist() == [0, 5, 0, 1, 0]
        assert batch["tokens"].padded(9).tolist() == [[9] * 5, [0, 1, 2, 3, 4], [9] * 5, [0, 9, 9, 9, 9], [9] * 5]
        assert batch["any"].lengths.tolist() == [0, 3, 0, 3, 0]
        assert batch["fixed"].tolist() == [[0, 0], [4, 4], [0, 0], [0, 0], [0, 0]]
        assert [row.tolist() for row in batch["tokens"]] == [[], [0, 1, 2, 3, 4], [], [0], []]


def test_workers_of_a_data_loader_use_a_custom_order(dataset: mx8.Dataset) -> None:
    from torch.utils.data import DataLoader

    order = Weighted(range(1, COUNT + 1), 31, seed=2)
    with mx8.Loader(dataset, batch_size=4, order=order) as loader:
        wanted = [batch.sample_ids.tolist() for batch in loader]
        loader.set_epoch(0)
        found = DataLoader(loader.as_iterable_dataset(), batch_size=None, num_workers=2)
        assert [batch.sample_ids.tolist() for batch in found] == wanted


# states ---------------------------------------------------------------------------------------------------------------


def test_an_order_made_for_a_number_of_nodes_resumes_on_any_number_of_ranks(dataset: mx8.Dataset) -> None:
    order = OfNodes(COUNT, nodes=2)
    with mx8.Loader(dataset, batch_size=4, order=order, rank=0, world_size=2) as loader:
        next(iter(loader))
        state = json.loads(json.dumps(loader.state_dict()))
    assert state["order"] == {"name": "of nodes", "nodes": 2, "count": COUNT}
    found: list[int] = []
    for rank in range(3):
        again = OfNodes(COUNT, nodes=state["order"]["nodes"])
        with mx8.Loader(dataset, batch_size=2, order=again, rank=rank, world_size=3) as loader:
            loader.load_state_dict(state)
            found += [i for batch in loader for i in batch.sample_ids[~batch.padding].tolist()]
    rest = order.ids(0, 8, len(order))
    assert sorted(found) == sorted(rest[rest >= 0].tolist())


@pytest.mark.parametrize(
    "other", [OfNodes(COUNT, nodes=3), Listed(range(COUNT)), None], ids=["other nodes", "another order", "none"]
)
def test_a_state_of_another_order_is_an_error_that_names_the_difference(other: Any, dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=4, order=OfNodes(COUNT, nodes=2)) as loader:
        state = loader.state_dict()
    with mx8.Loader(dataset, batch_size=4, order=other) as loader:
        wanted = r"state: at \$\.order: expected .*got \{'name': 'of nodes', 'nodes': 2, .*any other number of nodes"
        with pytest.raises(mx8.LoaderError, match=wanted):
            loader.load_state_dict(state)


# invalid orders -------------------------------------------------------------------------------------------------------


class FixedResultOrder(Listed):
    """An order that always returns this result."""

    def __init__(self, answer: Any) -> None:
        super().__init__([0, 1, 2])
        self.answer = answer

    def at(self, epoch: int, counts: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([0, 1, COUNT], f"order: epoch 0, count 2: expected a position from 0 to {COUNT - 1}, or -1 .* got {COUNT}"),
        ([0, -2, 1], "order: epoch 0, count 1: expected a position .* got -2"),
        (np.array([0, 1, 1 << 63], np.uint64), "order: epoch 0, count 2: expected a position"),
        ([0, 1], r"expected integers of the shape \(3,\), one for each count, got int64 of the shape \(2,\)"),
        ([0.0, 1.0, 2.0], "expected integers .* got float64"),
        ([True, False, True], "expected integers .* got bool"),
        (None, "expected integers .* got object"),
    ],
    ids=str,
)
def test_an_order_that_returns_invalid_positions_is_an_error(answer: Any, told: str, dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=3, order=FixedResultOrder(answer)) as loader:
        with pytest.raises(mx8.LoaderError, match=told):
            next(iter(loader))
        with pytest.raises(mx8.LoaderError, match=told):
            loader.ids(epoch=0, step=0)


def test_an_order_may_return_lists_and_small_integer_dtypes(dataset: mx8.Dataset) -> None:
    for answer in ([2, 0, 1], np.array([2, 0, 1], np.uint8)):
        with mx8.Loader(dataset, batch_size=3, order=FixedResultOrder(answer)) as loader:
            assert next(iter(loader)).sample_ids.tolist() == [2, 0, 1]


class DescribedOrder(Listed):
    """An order with this description."""

    def __init__(self, description: Any) -> None:
        super().__init__([0])
        self.told = description

    @property
    def description(self) -> Any:
        return self.told


@pytest.mark.parametrize(
    "order",
    [
        *([0, 1], "shuffle", True, Listed, np.arange(3), lambda: None),
        *map(DescribedOrder, (None, "listed", {}, {"name": 3}, {"name": "shuffle"}, {"name": "x", "a": {1}})),
        DescribedOrder({"name": "x", "a": float("nan")}),
    ],
    ids=lambda order: repr(getattr(order, "told", order))[:30],
)
def test_objects_that_are_not_orders_are_refused(order: Any, dataset: mx8.Dataset) -> None:
    with pytest.raises(
        mx8.SettingError, match=r"^order: expected (an order: an object with len|a description as JSON)"
    ):
        mx8.Loader(dataset, batch_size=2, order=order)


def test_order_and_shuffle_are_mutually_exclusive(dataset: mx8.Dataset) -> None:
    with pytest.raises(mx8.SettingError, match=r"^shuffle: expected False beside order=.* got True"):
        mx8.Loader(dataset, batch_size=2, order=Listed([0]), shuffle=True)


def test_a_description_is_compared_after_a_json_round_trip(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=1, order=DescribedOrder({"name": "x", "sides": (1, 2)})) as loader:
        state = loader.state_dict()
        assert state["order"] == {"name": "x", "sides": [1, 2]}
        loader.load_state_dict(json.loads(json.dumps(state)))


def test_an_order_over_no_samples_has_no_positions(dataset: mx8.Dataset) -> None:
    empty = dataset.select([])
    with mx8.Loader(empty, batch_size=2, order=Listed([])) as loader:
        assert list(loader) == []
    with pytest.raises(mx8.SettingError, match=r"order: expected an order without positions, .* got 1"):
        mx8.Loader(empty, batch_size=2, order=Listed([-1]))
