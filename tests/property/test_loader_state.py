"""Does a loader resume exactly where another one stopped, and refuse a state of other data?"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.order.steps import UNEVEN
from mx8shards.views import Whole
from tests import reference
from tests.batches import check_values, flat, ids_of, numbered, write
from tests.example_counts import parametrize_count
from tests.strategies import numbered_samples

COUNT = 37
SHUFFLES: tuple[Any, ...] = (False, True, mx8.BlockShuffle(shards=3))


@pytest.fixture(scope="module")
def dataset(place: Path) -> mx8.Dataset:
    return numbered(place / "numbered", COUNT)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(state)
    assert len(text) < 500
    return json.loads(text)  # type: ignore[no-any-return]


# resuming -------------------------------------------------------------------------------------------------------------

WORLDS = st.fixed_dictionaries({"size": st.integers(1, 6), "batch_size": st.integers(1, 8)})


@parametrize_count(40)
def test_any_world_and_batch_size_resume_with_exactly_the_remaining_samples(
    count: int, dataset: mx8.Dataset, pool: mx8.Pool
) -> None:
    @settings(max_examples=count)
    @given(
        before=WORLDS,
        after=WORLDS,
        uneven=st.tuples(st.sampled_from(UNEVEN), st.sampled_from(UNEVEN)),
        shuffle=st.sampled_from(SHUFFLES),
        epoch=st.integers(0, 2),
        data=st.data(),
    )
    def check(before: Any, after: Any, uneven: Any, shuffle: Any, epoch: int, data: st.DataObject) -> None:
        def loaders(size: int, uneven: Any, batch_size: int) -> list[mx8.Loader]:
            options = {"batch_size": batch_size, "shuffle": shuffle, "seed": 3, "pool": pool}
            return [mx8.Loader(dataset, rank=r, world_size=size, uneven=uneven, **options) for r in range(size)]

        first = loaders(before["size"], uneven[0], before["batch_size"])
        steps = data.draw(st.integers(0, len(first[-1])))
        delivered: Counter[int] = Counter()
        states = []
        for loader in first:
            loader.set_epoch(epoch)
            batches = iter(loader)
            for _ in range(steps):
                batch = next(batches)
                delivered.update(batch.sample_ids[~batch.padding].tolist())
            states.append(through_json(loader.state_dict()))
            loader.close()
        assert all(state == states[0] for state in states)

        second = loaders(after["size"], uneven[1], after["batch_size"])
        goes_on = states[0]["epoch"] == epoch
        position = states[0]["position"]
        for loader in second:
            loader.load_state_dict(states[0])
            assert loader.state_dict() == states[0]
            if goes_on:
                for batch in loader:
                    assert batch["id"].tolist() == batch.sample_ids.tolist()
                    delivered.update(batch.sample_ids[~batch.padding].tolist())
                assert loader.state_dict()["epoch"] == epoch + 1
                assert loader.state_dict()["position"] == 0
            loader.close()
        rest = COUNT - position if goes_on else COUNT % (before["size"] * before["batch_size"])
        step = after["size"] * after["batch_size"]
        left_out = (rest % step if uneven[1] == "drop" else 0) if goes_on else rest * (uneven[0] == "drop")
        wanted = Counter(range(COUNT))
        assert not delivered - wanted
        assert sum((wanted - delivered).values()) == left_out

    check()


@pytest.mark.parametrize("shuffle", SHUFFLES, ids=str)
def test_a_resumed_loader_gives_the_batches_that_the_first_would_have_given(shuffle: Any, dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=5, shuffle=shuffle, threads=1) as loader:
        states, batches = [loader.state_dict()], []
        for _ in range(2):
            for batch in loader:
                batches.append(batch.sample_ids.tolist())
                states.append(through_json(loader.state_dict()))
    for done, state in enumerate(states):
        with mx8.Loader(dataset, batch_size=5, shuffle=shuffle, threads=1) as loader:
            loader.load_state_dict(state)
            loader.set_epoch(state["epoch"])  # as training loops do; the position is kept
            found = flat([ids_of(loader) for _ in range(2 - state["epoch"])])
        assert found == batches[done:]


def test_a_state_has_the_position_of_the_consumer_and_not_of_prefetching(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=5) as loader:
        loader.warm_up()
        assert loader.state_dict()["position"] == 0
        for step, _ in enumerate(loader, 1):
            assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (
                (0, step * 5) if step < 8 else (1, 0)
            )


def test_loading_a_state_ends_the_running_epoch(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=5, shuffle=True) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        second = next(batches).sample_ids.tolist()
        next(batches)
        loader.load_state_dict(state)
        assert next(iter(loader)).sample_ids.tolist() == second
        loader.load_state_dict(state)
        loader.set_epoch(0)
        assert next(iter(loader)).sample_ids.tolist() == second
        loader.load_state_dict(state)
        loader.set_epoch(1)
        assert loader.state_dict()["position"] == 0


class Counting:
    """A view of all samples that counts how often it is asked."""

    def __init__(self, count: int) -> None:
        self._whole = Whole(count)
        self.digest = self._whole.digest
        self.occurrences = 1
        self.varies_by_epoch = False
        self.videos = None
        self.asked = 0

    def __len__(self) -> int:
        return len(self._whole)

    def resolve(self, position: Any, epoch: int = 0, seed: int = 0) -> tuple[Any, Any]:
        self.asked += np.size(position)
        return self._whole.resolve(position, epoch, seed)


@pytest.mark.parametrize("position", [0, 5, 3000, 9_995])
def test_resuming_takes_no_more_work_at_later_positions(position: int, place: Path) -> None:
    """Neither ids nor shards before the position are read."""
    root = place / "long"
    dataset = mx8.Dataset(root) if root.exists() else numbered(root, 10_000, size_limit=4_000)
    with mx8.Loader(dataset, batch_size=5) as loader:
        state = loader.state_dict() | {"position": position}
    view = Counting(10_000)
    with mx8.Loader(dataset._derived(view), batch_size=5, threads=1) as loader:
        loader.load_state_dict(state)
        assert view.asked == 0
        [batch] = [next(iter(loader))]
        assert batch.sample_ids.tolist() == list(range(position, position + 5))
    assert view.asked < 5_000


# other data -----------------------------------------------------------------------------------------------------------


def state_of(dataset: mx8.Dataset, **options: Any) -> dict[str, Any]:
    with mx8.Loader(dataset, **{"batch_size": 4, "shuffle": True, **options}) as loader:
        next(iter(loader))
        return through_json(loader.state_dict())


def republish(root: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Publish the same shards as another snapshot, as another tool could do."""
    index = json.loads((root / "index.json").read_bytes())
    index["shards"] = change(index["shards"])
    index["mx8shards"]["sidecars"] = []
    data = json.dumps(index, sort_keys=True).encode()
    (root / ".mx8shards" / "snapshots" / f"{hashlib.sha256(data).hexdigest()}.json").write_bytes(data)
    (root / "index.json").write_bytes(data)


def swap(root: Path) -> None:
    """Change the bytes of a shard, but not its name, size and number of samples."""
    other = root.parent / f"{root.name}-other"
    write(other, [{**sample, "id": sample["id"] + 1000} for sample in numbered_samples(40)])
    entry = json.loads((other / "index.json").read_bytes())["shards"][1]
    shutil.copy(other / "shard.00001.mds", root / "shard.00001.mds")
    republish(root, lambda shards: [shards[0], entry, *shards[2:]])


MUTATIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "appended": (lambda root: numbered(root, 5, mode="append"), r"data was appended to: 1 shards and 5 samples more"),
    "swapped": (swap, r"data has 1 new shards, and lacks 1 old ones"),
    "removed": (
        lambda root: republish(root, lambda shards: shards[:1] + shards[2:]),
        r"data has 0 new shards, and lacks 1 old ones",
    ),
    "reordered": (
        lambda root: republish(root, lambda shards: shards[::-1]),
        r"data has the same shards in another order",
    ),
    "overwritten": (
        lambda root: numbered(root, 40, mode="overwrite", size_limit=900),
        r"data has \d+ new shards, and lacks \d+ old ones",
    ),
    "with other facts": (
        lambda root: write(root, [], mode="append", metadata={"a": 1}),
        r"data has the same shards but another index",
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_state_of_changed_data_is_an_error_that_names_the_difference(mutation: str, tmp_path: Path) -> None:
    change, words = MUTATIONS[mutation]
    state = state_of(numbered(tmp_path / "data", 40))
    change(tmp_path / "data")
    dataset = mx8.Dataset(tmp_path / "data")
    with mx8.Loader(dataset, batch_size=4, shuffle=True) as loader:
        before = loader.state_dict()
        with pytest.raises(mx8.IntegrityError, match=rf"state: at \$\.snapshot: expected sha256:.*{words}"):
            loader.load_state_dict(state)
        assert loader.state_dict() == before
        assert sum(map(len, ids_of(loader))) == len(dataset)
    with mx8.Loader(mx8.Dataset(f"{tmp_path / 'data'}@{state['snapshot']}"), batch_size=4, shuffle=True) as loader:
        loader.load_state_dict(state)  # the old snapshot is still there


def test_a_foreign_dataset_that_was_sealed_is_another_snapshot_of_the_same_shards(tmp_path: Path) -> None:
    payloads = [{"id": i.to_bytes(8, "little")} for i in range(12)]
    root = reference.write_dataset(tmp_path / "data", {"id": "int"}, [payloads[:5], payloads[5:]])
    state = state_of(mx8.Dataset(root))
    mx8.verify(root, data=True, seal=True)
    loader = mx8.Loader(mx8.Dataset(root), batch_size=4, shuffle=True)
    with pytest.raises(mx8.IntegrityError, match=r"data has the same shards but another index: perhaps it was sealed"):
        loader.load_state_dict(state)


def test_without_the_old_index_the_error_names_the_snapshot_ids(tmp_path: Path) -> None:
    payloads = [{"id": i.to_bytes(8, "little")} for i in range(12)]
    root = reference.write_dataset(tmp_path / "data", {"id": "int"}, [payloads])
    state = state_of(mx8.Dataset(root))
    shutil.rmtree(root)
    reference.write_dataset(root, {"id": "int"}, [payloads[1:]])
    dataset = mx8.Dataset(root)
    words = (
        rf"at \$\.snapshot: expected {dataset.snapshot} \(this loader's\), got {state['snapshot']} \(a state can only"
    )
    with mx8.Loader(dataset, batch_size=4, shuffle=True) as loader, pytest.raises(mx8.IntegrityError, match=words):
        loader.load_state_dict(state)


def test_the_error_names_the_joined_dataset_that_changed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        numbered(tmp_path / name, 20)
    joined = mx8.concat([mx8.Dataset(tmp_path / name) for name in ("one", "two")])
    state = state_of(joined)
    numbered(tmp_path / "two", 3, mode="append")
    changed = mx8.concat([mx8.Dataset(tmp_path / name) for name in ("one", "two")])
    loader = mx8.Loader(changed, batch_size=4, shuffle=True)
    with pytest.raises(mx8.IntegrityError, match=r"\(two was appended to: 1 shards and 3 samples more\)"):
        loader.load_state_dict(state)
    loader = mx8.Loader(mx8.Dataset(tmp_path / "one"), batch_size=4, shuffle=True)
    with pytest.raises(mx8.IntegrityError, match="the state is of 2 datasets, the loader of 1"):
        loader.load_state_dict(state)


def test_a_state_of_another_view_is_refused(dataset: mx8.Dataset) -> None:
    state = state_of(dataset.select(range(30)))
    for view in (dataset, dataset.select(range(29)), dataset.select([*range(28), 29, 28]), dataset.where("x", 1.0)):
        loader = mx8.Loader(view, batch_size=4, shuffle=True)
        with pytest.raises(mx8.IntegrityError, match=r"state: at \$\.view: expected \w{64} \(this loader's\).*clips"):
            loader.load_state_dict(state)
    with mx8.Loader(dataset.select(list(range(30))), batch_size=4, shuffle=True) as loader:
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("other", "place_in_it"),
    [
        ({"seed": 1}, "seed"),
        ({"shuffle": False}, "order"),
        ({"shuffle": mx8.BlockShuffle(shards=3)}, "order"),
    ],
    ids=str,
)
def test_a_state_of_another_order_is_refused(other: Any, place_in_it: str, dataset: mx8.Dataset) -> None:
    state = state_of(dataset)
    loader = mx8.Loader(dataset, **{"batch_size": 4, "shuffle": True, **other})
    with pytest.raises(mx8.LoaderError, match=rf"state: at \$\.{place_in_it}: expected .* \(this loader's\)"):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    "change", [{"position": COUNT + 1}, {"position": -1}, {"epoch": "0"}, {"lost": {}}, {"more": 1}], ids=str
)
def test_an_invalid_state_is_refused_and_changes_nothing(change: dict[str, Any], dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=4, shuffle=True) as loader:
        before = loader.state_dict()
        with pytest.raises(mx8.ShardsError, match=re.escape("state: at $")):
            loader.load_state_dict(before | change)
        assert loader.state_dict() == before


def test_the_state_does_not_depend_on_ranks_threads_and_memory(dataset: mx8.Dataset) -> None:
    """Threads, io, columns and world size may change between runs."""
    others = ({}, {"threads": 1}, {"io": "pread"}, {"columns": ["id"]}, {"output": "numpy"}, {"memory": "8mb"})
    states = [state_of(dataset, **options) for options in others]
    assert all(state == states[0] for state in states)
    with mx8.Loader(dataset, batch_size=3, shuffle=True, columns=["name"]) as loader:
        loader.load_state_dict(states[0])
        check_values(next(iter(loader)), mx8.Dataset(dataset.shards.snapshots[0].root, columns=["name"]))
