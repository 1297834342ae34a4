"""Does a loader deliver every sample once, equal to the dataset's, in the predicted order?"""

from __future__ import annotations

import gc
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.loading.planning.shard_table import IOS
from mx8shards.order.steps import UNEVEN
from tests.batches import check_values, flat, ids_of, numbered, removed_afterwards, row_differs, write
from tests.example_counts import parametrize_count
from tests.strategies import (
    EVERY_COLUMN,
    EVERY_SAMPLE,
    NUMBERED,
    Sample,
    datasets,
    numbered_samples,
    same,
    samples_as_read,
)

SHUFFLES: tuple[Any, ...] = (False, True, mx8.BlockShuffle(shards=1), mx8.BlockShuffle(shards=3))
COUNT = 60

LAYOUTS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 9),
        "shuffle": st.sampled_from(SHUFFLES),
        "seed": st.integers(-3, 1 << 70),
        "uneven": st.sampled_from(UNEVEN),
    }
)


@pytest.fixture(scope="module")
def dataset(place: Path) -> mx8.Dataset:
    return numbered(place / "numbered", COUNT)


def world(dataset: mx8.Dataset, pool: mx8.Pool, size: int, **settings: Any) -> list[mx8.Loader]:
    return [mx8.Loader(dataset, rank=r, world_size=size, pool=pool, **settings) for r in range(size)]


def views(dataset: mx8.Dataset) -> st.SearchStrategy[mx8.Dataset]:
    """Views of a dataset: the whole, selections with repeats, `where`, and joined views."""
    positions = st.lists(st.integers(0, COUNT - 1), max_size=40)
    plain = st.just(dataset) | positions.map(dataset.select) | st.integers(0, 5).map(lambda x: dataset.where("x", x))
    return plain | st.lists(plain, min_size=1, max_size=3).map(mx8.concat)


# every sample once ----------------------------------------------------------------------------------------------------


@parametrize_count(50)
def test_all_ranks_together_give_every_sample_once(count: int, dataset: mx8.Dataset, pool: mx8.Pool) -> None:
    @settings(max_examples=count)
    @given(view=views(dataset), size=st.integers(1, 16), layout=LAYOUTS)
    def check(view: mx8.Dataset, size: int, layout: dict[str, Any]) -> None:
        loaders = world(view, pool, size, **layout)
        delivered: Counter[int] = Counter()
        lengths = set()
        for rank, loader in enumerate(loaders):
            batches = list(loader)
            assert len(batches) == len(loader)
            lengths.add(len(batches))
            for step, batch in enumerate(batches):
                assert len(batch.sample_ids) <= layout["batch_size"]
                assert len(batch.sample_ids) > 0
                replayed = loaders[0].ids(epoch=0, step=step, rank=rank, world_size=size)
                assert batch.sample_ids.tolist() == replayed.tolist()
                assert batch["id"].tolist() == [dataset_id(i) for i in batch.sample_ids.tolist()]
                delivered.update(batch.sample_ids[~batch.padding].tolist())
            loader.close()
        wanted = Counter(view.view.resolve(np.arange(len(view)))[0].tolist())
        left_out = len(view) % (size * layout["batch_size"]) if layout["uneven"] == "drop" else 0
        assert sum((wanted - delivered).values()) == left_out
        assert not delivered - wanted
        assert len(lengths) == 1 or layout["uneven"] == "exact"

    check()


def dataset_id(sample_id: int) -> int:
    """The sample of this sample_id in a joined dataset."""
    return sample_id % COUNT


@parametrize_count(30)
def test_a_global_step_is_equal_for_every_world_size_that_divides_it(count: int, dataset: mx8.Dataset) -> None:
    @settings(max_examples=count)
    @given(view=views(dataset), shuffle=st.sampled_from(SHUFFLES), epoch=st.integers(0, 3), seed=st.integers(0, 99))
    def check(view: mx8.Dataset, shuffle: Any, epoch: int, seed: int) -> None:
        options = {"shuffle": shuffle, "seed": seed, "rank": 0}
        alone = mx8.Loader(view, batch_size=12, world_size=1, **options)
        for size in (2, 3, 4, 6, 12):
            loader = mx8.Loader(view, batch_size=12 // size, world_size=size, **options)
            for step in range(len(alone)):
                ids = [loader.ids(epoch=epoch, step=step, rank=rank).tolist() for rank in range(size)]
                wanted = alone.ids(epoch=epoch, step=step).tolist()
                assert flat(ids)[: len(wanted)] == wanted or len(wanted) < size

    check()


# values of the dataset ------------------------------------------------------------------------------------------------


def _is_of(kind: type, value: Any) -> bool:
    """Whether the values of a column are of this kind. Arrays of several types have no common values."""
    try:
        return isinstance(getattr(value, "values", value), (kind, type(len)))
    except mx8.SchemaError:
        return len({row.dtype for row in value}) > 1


@parametrize_count(30)
def test_values_equal_those_of_the_dataset(count: int, place: Path) -> None:
    @settings(max_examples=count)
    @given(
        made=datasets(),
        layout=LAYOUTS,
        io=st.sampled_from(IOS),
        output=st.sampled_from(["numpy", "torch"]),
        picks=st.none() | st.sets(st.integers(0, 4)),
        limit=st.sampled_from([None, 50, 500]),
    )
    def check(
        made: tuple[dict[str, str], list[Sample]], layout: Any, io: Any, output: Any, picks: Any, limit: Any
    ) -> None:
        columns, samples = made
        picked = None if picks is None else [name for i, name in enumerate(sorted(columns)) if i in picks]
        with removed_afterwards(place / "values") as root:
            dataset = write(root, samples, columns, size_limit=limit)
            wanted = mx8.Dataset(root, columns=picked if samples else None, allow_pickle=True)
            picked = picked if samples else None
            kind = torch.Tensor if output == "torch" else np.ndarray
            with mx8.Loader(dataset, columns=picked, io=io, output=output, threads=1, **layout) as loader:
                for batch in loader:
                    assert list(batch) == sorted(columns if picked is None else picked)
                    assert isinstance(batch.sample_ids, kind)
                    assert all(_is_of(kind, value) for value in batch.values())
                    check_values(batch, wanted)

    check()


@pytest.mark.parametrize(("io", "output"), list(itertools.product(IOS, ["numpy", "torch"])))
def test_every_encoding_gives_the_values_of_the_dataset(io: Any, output: Any, place: Path) -> None:
    root = place / "every"
    dataset = mx8.Dataset(root, allow_pickle=True) if root.exists() else write(root, EVERY_SAMPLE, EVERY_COLUMN)
    with mx8.Loader(dataset, batch_size=2, shuffle=True, io=io, output=output) as loader:
        for batch in loader:
            check_values(batch, dataset)


@pytest.mark.parametrize("compression", ["zstd", "gz"])
def test_compressed_shards_give_equal_batches(compression: str, place: Path) -> None:
    dataset = numbered(place / compression, 30, compression=compression)
    with mx8.Loader(dataset, batch_size=7, shuffle=True) as loader:
        for batch in loader:
            check_values(batch, dataset)


def test_shards_with_different_extra_columns_load_as_one_dataset(place: Path) -> None:
    more = [{**sample, "aa": 0.5, "more": b"x" * i} for i, sample in enumerate(numbered_samples(20))]
    wanted = ["data", "id", "x"]
    write(place / "some", numbered_samples(20))
    write(place / "more", more, {**NUMBERED, "aa": "float32", "more": "bytes"})
    parts = [mx8.Dataset(place / name, columns=wanted) for name in ("some", "more")]
    joined = mx8.concat(parts)
    with mx8.Loader(joined, batch_size=8, shuffle=True) as loader:
        for batch in loader:
            check_values(batch, joined)


# replay ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", SHUFFLES, ids=str)
def test_equal_settings_give_equal_batches_and_different_ones_do_not(shuffle: Any, dataset: mx8.Dataset) -> None:
    def epochs(seed: int, threads: int = 2, data: mx8.Dataset = dataset) -> list[list[list[int]]]:
        with mx8.Loader(data, batch_size=7, shuffle=shuffle, seed=seed, threads=threads) as loader:
            return [ids_of(loader) for _ in range(3)]

    first = epochs(5)
    assert first == epochs(5) == epochs(5, threads=1)
    for epoch, batches in enumerate(first):
        assert sorted(flat(batches)) == list(range(COUNT))
        with mx8.Loader(dataset, batch_size=7, shuffle=shuffle, seed=5) as loader:
            assert batches == [loader.ids(epoch=epoch, step=step).tolist() for step in range(len(loader))]
    if shuffle is False:
        assert first[0] == first[1] == epochs(6)[0]
        return
    other_data = epochs(5, data=dataset.select(np.arange(COUNT)))
    everything = [tuple(flat(e)) for e in (*first, *epochs(6), *other_data)]
    assert len(set(everything)) == len(everything)


def test_loader_ids_reads_no_shard(place: Path) -> None:
    dataset = numbered(place / "gone", 30)
    with mx8.Loader(dataset, batch_size=4, shuffle=True) as loader:
        batches = ids_of(loader)
    for path in (place / "gone").glob("*.mds"):
        path.unlink()
    with mx8.Loader(mx8.Dataset(place / "gone"), batch_size=4, shuffle=True) as loader:
        assert [loader.ids(epoch=0, step=i).tolist() for i in range(8)] == batches
        with pytest.raises(IndexError, match="step 8 of 8"):
            loader.ids(epoch=0, step=8)
        with pytest.raises(ValueError, match="rank: expected an int from 0 to 1, got 2"):
            loader.ids(epoch=0, step=0, rank=2, world_size=2)


# epochs ---------------------------------------------------------------------------------------------------------------


def epoch_of(dataset: mx8.Dataset, epoch: int) -> list[list[int]]:
    with mx8.Loader(dataset, batch_size=7, shuffle=True) as loader:
        return [loader.ids(epoch=epoch, step=step).tolist() for step in range(len(loader))]


def test_each_for_loop_is_an_epoch_also_after_a_break(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, shuffle=True) as loader:
        for batch in loader:
            assert batch.sample_ids.tolist() == epoch_of(dataset, 0)[0]
            break
        assert ids_of(loader) == epoch_of(dataset, 1)
        assert next(iter(loader)).sample_ids.tolist() == epoch_of(dataset, 2)[0]
        iter(loader)  # no batch of it is taken, so it does not count
        assert ids_of(loader) == epoch_of(dataset, 3)


def test_an_epoch_is_over_once_its_last_batch_is_taken(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, shuffle=True) as loader:
        batches = iter(loader)
        for _ in range(len(loader)):
            next(batches)
        assert loader.state_dict()["epoch"] == 1
        assert ids_of(loader) == epoch_of(dataset, 1)


def test_using_an_iterator_after_a_newer_one_began_is_an_error(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7) as loader:
        one = iter(loader)
        next(one)
        other = iter(loader)
        with pytest.raises(mx8.LoaderError, match="this iteration has ended: a newer one has begun"):
            next(one)
        assert len(list(other)) == len(loader)
        assert list(other) == []


def test_set_epoch_sets_the_next_epoch_from_its_beginning(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, shuffle=True) as loader:
        loader.set_epoch(3)
        assert ids_of(loader) == epoch_of(dataset, 3)
        loader.set_epoch(3)
        assert ids_of(loader) == epoch_of(dataset, 3)
        next(iter(loader))  # of epoch 4
        loader.set_epoch(4)
        assert ids_of(loader) == epoch_of(dataset, 4)
        batches = iter(loader)
        next(batches)
        loader.set_epoch(9)
        with pytest.raises(mx8.LoaderError, match="this iteration has ended"):
            next(batches)
        assert ids_of(loader) == epoch_of(dataset, 9)
        assert ids_of(loader) == epoch_of(dataset, 10)


@pytest.mark.parametrize("epoch", [-1, 1.0, "1", None, True])
def test_an_invalid_epoch_is_refused(epoch: Any, dataset: mx8.Dataset) -> None:
    loader = mx8.Loader(dataset, batch_size=7)
    with pytest.raises(mx8.SettingError, match="epoch: expected an int from 0, got"):
        loader.set_epoch(epoch)


def test_using_a_closed_loader_is_an_error_and_its_batches_stay_valid(dataset: mx8.Dataset) -> None:
    loader = mx8.Loader(dataset, batch_size=7)
    batches = iter(loader)
    batch = next(batches)
    loader.close()
    loader.close()
    check_values(batch, dataset)
    with pytest.raises(mx8.LoaderError, match=r"this iteration has ended: .* or the loader was closed"):
        next(batches)
    with pytest.raises(mx8.LoaderError, match="the loader is closed"):
        iter(loader)


def test_a_loader_outlives_its_dataset(place: Path) -> None:
    root = place / "closed"
    with numbered(root, 20) as dataset:
        loader = mx8.Loader(dataset, batch_size=7)
    assert flat(ids_of(loader)) == list(range(20))
    loader.load_state_dict(loader.state_dict())
    for batch in loader:
        check_values(batch, mx8.Dataset(root))
    loader.close()
    with pytest.raises(ValueError, match="the dataset is closed"):
        mx8.Loader(dataset, batch_size=7)


# edge cases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", SHUFFLES, ids=str)
def test_an_empty_dataset_gives_no_batches(shuffle: Any, place: Path, dataset: mx8.Dataset) -> None:
    root = place / f"empty-{SHUFFLES.index(shuffle)}"
    for empty in (write(root, []), dataset.select([]), dataset.where("x", -1.0)):
        for uneven in UNEVEN:
            with mx8.Loader(empty, batch_size=4, shuffle=shuffle, uneven=uneven) as loader:
                assert len(loader) == 0
                assert list(loader) == list(loader) == []
                assert loader.state_dict()["epoch"] == 2
                loader.warm_up()
                loader.load_state_dict(loader.state_dict())
                assert list(loader) == []


@pytest.mark.parametrize("batch_size", [COUNT, COUNT + 1, 1 << 40])
def test_a_batch_may_be_larger_than_the_data(batch_size: int, dataset: mx8.Dataset) -> None:
    for uneven, wanted in {"split": 1, "exact": 1, "drop": batch_size == COUNT}.items():
        with mx8.Loader(dataset, batch_size=batch_size, shuffle=True, uneven=uneven) as loader:  # type: ignore[arg-type]
            batches = ids_of(loader)
            assert len(batches) == len(loader) == wanted
            assert sorted(flat(batches)) == list(range(COUNT)) * wanted


def test_padding_fills_batches_with_repeats_and_marks_them(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=100, uneven="pad") as loader:
        [batch] = loader
        assert batch.sample_ids.tolist() == [*range(COUNT), *range(40)]
        assert batch.padding.tolist() == [False] * COUNT + [True] * 40
        check_values(batch, dataset)


def test_without_columns_batches_have_only_sample_ids(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, columns=[], shuffle=True) as loader:
        batches = list(loader)
        assert [batch.sample_ids.tolist() for batch in batches] == epoch_of(dataset, 0)
        assert [len(batch) for batch in batches] == [0] * len(batches)


def test_empty_payloads_are_delivered_as_rows(place: Path) -> None:
    dataset = write(place / "nothing", [{"a": b"", "b": ""}] * 10, {"a": "bytes", "b": "str"})
    with mx8.Loader(dataset, batch_size=4) as loader:
        for batch in loader:
            assert list(batch["a"]) == [b""] * len(batch["a"])
            assert list(batch["b"]) == [""] * len(batch["a"])
            assert batch["a"].values.shape == (0,)


def test_one_large_sample_among_tiny_ones_is_delivered(place: Path) -> None:
    large = np.random.default_rng(0).bytes(50 << 20)
    samples = [{"data": large if i == 17 else bytes([i])} for i in range(40)]
    with removed_afterwards(place / "large") as root:
        dataset = write(root, samples, {"data": "bytes"}, size_limit=1 << 26, hashes=())
        for io in IOS:
            with mx8.Loader(dataset, batch_size=8, shuffle=True, io=io, memory="128mb") as loader:
                found = {}
                for batch in loader:
                    found.update(zip(batch.sample_ids.tolist(), batch["data"], strict=True))
                    assert loader.stats()["memory_high_water_bytes"] <= 128 << 20
                found = {i: bytes(data) for i, data in found.items()}
                assert found == {i: sample["data"] for i, sample in enumerate(samples)}


@pytest.mark.parametrize("mebibytes", [1, 3, 9])
def test_large_batches_hold_the_same_bytes_as_small_ones(mebibytes: int, place: Path) -> None:
    """In large batches large rows are copied past the CPU caches; with a transform, only in still larger batches."""
    rng = np.random.default_rng(3)
    sizes = [0, 1, 4095, 4096, 4097, 5000, 30_000, 70_001]
    columns = {"array": "ndarray:int16:2500", "data": "bytes", "label": "int"}
    samples = [
        {"array": rng.integers(0, 999, 2500, np.int16), "data": rng.bytes(sizes[i % len(sizes)]), "label": i}
        for i in range(mebibytes * 100)
    ]
    with removed_afterwards(place / "large batches") as root:
        dataset = write(root, samples, columns, size_limit=1 << 22, hashes=())
        for transform in (None, lambda batch: batch):
            with mx8.Loader(
                dataset, batch_size=len(samples) // 2, shuffle=True, threads=3, transform=transform
            ) as loader:
                for batch in loader:
                    check_values(batch, dataset)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"batch_size": True}, mx8.SettingError, "batch_size: expected an int from 1 to 1099511627776, got True"),
        ({"batch_size": 0}, mx8.SettingError, "batch_size: expected an int from 1 to 1099511627776, got 0"),
        ({"uneven": "even"}, mx8.SettingError, "uneven: expected one of 'split', 'pad', 'drop', 'exact', got 'even'"),
        (
            {"on_error": "ignore"},
            mx8.SettingError,
            "on_error: expected one of 'raise', 'skip', 'substitute', got 'ignore'",
        ),
        ({"io": "read"}, mx8.SettingError, "io: expected one of 'auto', 'mmap', 'pread', got 'read'"),
        ({"output": "jax"}, mx8.SettingError, "output: expected one of 'torch', 'numpy', got 'jax'"),
        ({"shuffle": 3}, mx8.SettingError, "shuffle: expected False, True or a BlockShuffle, got 3"),
        ({"seed": 1.5}, mx8.SettingError, "seed: expected an int, got 1.5"),
        ({"threads": 0}, mx8.SettingError, "threads: expected an int from 1 to 4096, got 0"),
        ({"memory": 0}, mx8.SettingError, "memory: expected a number of bytes from 1, or a text such as '2gb', got 0"),
        ({"columns": ["nope"]}, mx8.SettingError, "columns: expected one of 'data', 'id', 'name', 'x', got 'nope'"),
        ({"columns": "data"}, mx8.SettingError, "columns: expected a list of names, got 'data'"),
        ({"rank": 1}, mx8.SettingError, "rank and world_size: expected both, or neither, got rank=1, world_size=None"),
        ({"rank": 2, "world_size": 2}, mx8.SettingError, "rank: expected an int from 0 to 1, got 2"),
        ({"decode": {"nope": mx8.CenterCrop(8)}}, mx8.SettingError, "decode: expected a column .* got 'nope'"),
    ],
    ids=str,
)
def test_invalid_settings_are_errors_that_name_them(
    change: dict[str, Any], error: type[Exception], words: str, dataset: mx8.Dataset
) -> None:
    with pytest.raises(error, match=words):
        mx8.Loader(dataset, **{"batch_size": 4, **change})


# batches --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_a_batch_is_a_mapping_that_can_be_written_to_and_copied(output: Any, dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, output=output) as loader:
        batch = next(iter(loader))
        assert list(batch) == sorted(NUMBERED)
        assert [len(batch), "data" in batch, "nope" in batch] == [4, True, False]
        assert repr(batch) == "<Batch of 7: data, id, name, x>"
        copied = batch.copy()
        batch["id"][:] = 99
        batch["x"][0] = -1
        batch["data"].values[:] = 7
        assert copied["id"].tolist() == list(range(7))
        check_values(copied, dataset)
        assert set(b"".join(batch["data"])) == {7}
        assert type(copied["id"]) is type(batch["id"])


def test_ragged_rows_decode_to_the_values_of_the_dataset(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7) as loader:
        ragged = next(iter(loader))["name"]
        assert len(ragged) == 7
        assert [*ragged] == [f"#{i}" for i in range(7)]
        assert ragged[-1] == "#6"
        assert ragged[np.int64(2)] == "#2"
        assert repr(ragged) == "<Ragged: 7 rows, 14 bytes>"
        assert ragged.offsets.tolist() == list(range(0, 15, 2))
        for i in (7, -8):
            with pytest.raises(IndexError, match=f"row {i} of 7"):
                ragged[i]


def test_decoded_rows_keep_the_bank_alive(place: Path) -> None:
    """A ragged row decodes to an array that is a view of the bank."""
    samples = [{"a": np.full(3 + i, i, np.int32)} for i in range(30)]
    dataset = write(place / "arrays", samples, {"a": "ndarray"})
    with mx8.Loader(dataset, batch_size=1, memory="1mb", threads=1) as loader:
        held = []
        for _ in range(2):
            for batch in loader:
                if batch.sample_ids[0] % 15 == 3:
                    held.append((int(batch.sample_ids[0]), batch["a"][0]))
                del batch
        gc.collect()
        assert len(held) == 4
        for sample_id, array in held:
            assert same(array.copy(), samples[sample_id]["a"])


def test_a_transform_gets_every_batch_and_its_result_is_delivered(dataset: mx8.Dataset) -> None:
    def double(batch: Any) -> Any:
        return {"twice": batch["id"] * 2, "ids": batch.sample_ids}

    with mx8.Loader(dataset, batch_size=7, shuffle=True, transform=double) as loader:
        for step, made in enumerate(loader):
            assert made["ids"].tolist() == loader.ids(epoch=0, step=step).tolist()
            assert made["twice"].tolist() == [2 * i for i in made["ids"].tolist()]


# stats ----------------------------------------------------------------------------------------------------------------


def test_stats_count_delivered_batches(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=7, columns=["id", "data"], threads=1) as loader:
        assert loader.stats()["batches"] == 0
        payload_bytes = samples = 0
        for _ in range(2):
            for batch in loader:
                samples += len(batch.sample_ids)
                payload_bytes += batch["id"].nbytes + batch["data"].values.nbytes + batch["data"].offsets.nbytes
                assert loader.stats()["samples"] == samples
        del batch
        found = loader.stats()
    assert [found["batches"], found["samples"], found["lost"]] == [18, 120, 0]
    assert payload_bytes <= found["bytes"] <= payload_bytes + 18 * 3 * 64
    assert found["batch_bytes_p50"] <= found["batch_bytes_p95"] <= found["bytes"]
    assert found["banks_in_use"] == found["bytes_in_use"] == found["bytes_reserved"] == 0
    assert 0 < found["memory_high_water_bytes"] <= found["memory_limit_bytes"]


def test_stats_count_held_batches(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=20, threads=1) as loader:
        held = list(loader)
        assert loader.stats()["banks_in_use"] == 2  # one for the first batch, one for the two small batches after it
        del held[0]
        assert loader.stats()["banks_in_use"] == 1
        del held[0]
        assert loader.stats()["banks_in_use"] == 1
        held.clear()
        assert loader.stats()["bytes_in_use"] == 0


def test_the_bottleneck_is_nothing_yet_before_the_first_batch(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=20) as loader:
        assert loader.explain().bottleneck == "nothing yet"
        list(loader)
        assert str(loader.explain()).startswith("bottleneck: ")


# changes of the dataset -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("io", IOS)
def test_a_loader_keeps_its_snapshot_when_a_new_one_is_published(io: Any, mode: Any, place: Path) -> None:
    with removed_afterwards(place / "replaced") as root:
        before = samples_as_read(NUMBERED, numbered_samples(40))
        numbered(root, 40)
        with mx8.Loader(mx8.Dataset(root), batch_size=5, shuffle=True, io=io) as loader:
            batches = iter(loader)
            found = [next(batches)]
            write(root, [{"data": b"new", "id": -1, "name": "new", "x": 0}] * 30, mode=mode)
            found += batches
            mx8.gc(root, keep=1)  # of the old snapshot only the open files are left
            assert len(mx8.Dataset(root)) == {"append": 70, "overwrite": 30}[mode]
            for epoch in (found, list(loader)):
                assert sorted(flat(batch.sample_ids.tolist() for batch in epoch)) == list(range(40))
                for batch in epoch:
                    for row, sample_id in enumerate(batch.sample_ids.tolist()):
                        assert not row_differs(batch, row, before[sample_id])


def test_a_shard_removed_before_its_use_is_an_error_that_names_it(place: Path) -> None:
    with removed_afterwards(place / "collected") as root:
        numbered(root, 40)
        with mx8.Loader(mx8.Dataset(root), batch_size=5, threads=1) as loader:
            numbered(root, 5, mode="overwrite")
            mx8.gc(root, keep=1)
            with pytest.raises(mx8.LoaderError, match="gc removed this snapshot after it was opened") as caught:
                list(loader)
        assert isinstance(caught.value.__cause__, mx8.DatasetNotFoundError)
