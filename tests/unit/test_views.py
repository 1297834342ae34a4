"""Are views pure mappings from positions to samples?"""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.joining import ON_EXHAUSTED, mix, parts_of
from mx8shards.joining import _counts as counts_of
from mx8shards.joining import _default_length as default_length
from mx8shards.views import Join, Mix, Select, View, Whole, checked_positions

POSITIONS = st.lists(st.integers(-20, 19), max_size=12)


def ids_of(view: View) -> list[int]:
    """The sample_ids of single positions. Asserts that resolving all at once gives the same."""
    one_by_one = [int(view.resolve(np.array([i]))[0][0]) for i in range(len(view))]
    at_once, _ = view.resolve(np.arange(len(view)))
    assert at_once.dtype == np.int64
    assert at_once.tolist() == one_by_one
    return one_by_one


@given(POSITIONS, st.lists(st.integers(0, 11), max_size=5))
def test_a_selection_of_a_selection_is_one_selection(first: list[int], second: list[int]) -> None:
    chosen = Select(Whole(20), first)
    wanted = [range(20)[i] for i in first]
    assert ids_of(chosen) == wanted
    again = [i % len(first) for i in second] if first else []
    assert ids_of(Select(chosen, again)) == [wanted[i] for i in again]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_joined_views_follow_in_order(counts: list[int]) -> None:
    starts = [0, *itertools.accumulate(counts)]
    joined = Join([(Whole(count), start) for count, start in zip(counts, starts, strict=False)])
    assert ids_of(joined) == list(range(sum(counts)))
    backwards = Join([(Select(Whole(c), range(c)[::-1]), s) for c, s in zip(counts, starts, strict=False)])
    assert ids_of(backwards) == [s + i for c, s in zip(counts, starts, strict=False) for i in reversed(range(c))]


def test_views_do_not_depend_on_epoch_seed_or_earlier_calls() -> None:
    view = Join([(Select(Whole(9), [8, 1]), 0), (Whole(3), 9)])
    assert [
        view.resolve(np.array([i]), epoch, seed)[0][0] for i in (4, 0, 2) for epoch in (0, 5) for seed in (0, 9)
    ] == [
        *([11] * 4),
        *([8] * 4),
        *([9] * 4),
    ]
    assert ids_of(view) == ids_of(view) == ids_of(pickle.loads(pickle.dumps(view))) == [8, 1, 9, 10, 11]


VIEWS: dict[str, Callable[[], View]] = {
    "all": lambda: Whole(9),
    "fewer": lambda: Whole(8),
    "none": lambda: Whole(0),
    "all, selected": lambda: Select(Whole(9), range(9)),
    "some": lambda: Select(Whole(9), [1, 2]),
    "some of fewer": lambda: Select(Whole(8), [1, 2]),
    "some the other way round": lambda: Select(Whole(9), [2, 1]),
    "some twice": lambda: Select(Whole(9), [1, 2, 1, 2]),
    "none selected": lambda: Select(Whole(9), []),
    "joined": lambda: Join([(Whole(9), 0)]),
    "joined with none": lambda: Join([(Whole(9), 0), (Whole(0), 9)]),
    "joined with some": lambda: Join([(Whole(9), 0), (Select(Whole(9), [1, 2]), 9)]),
    "joined elsewhere": lambda: Join([(Whole(9), 0), (Select(Whole(9), [1, 2]), 10)]),
    "joined the other way round": lambda: Join([(Select(Whole(9), [1, 2]), 0), (Whole(9), 9)]),
    "of joined ones": lambda: Select(Join([(Whole(9), 0)]), [1, 2]),
}


def test_equal_views_have_equal_digests_and_different_ones_do_not() -> None:
    digests = {name: make().digest for name, make in VIEWS.items()}
    assert digests == {name: pickle.loads(pickle.dumps(make())).digest for name, make in VIEWS.items()}
    assert len(set(digests.values())) == len(digests)
    assert Select(Whole(9), [1, -1]).digest == Select(Whole(9), np.array([1, 8], np.int8)).digest


def test_digests_are_stable_between_versions() -> None:
    """States contain digests: if a digest changed, loaders would refuse all saved states."""
    found = {name: VIEWS[name]().digest[:16] for name in ("all", "some", "joined with some")}
    assert found == {"all": "cdad63faf541a847", "some": "93933399200adcc3", "joined with some": "41a99a3dfc8220e7"}


def test_a_selection_copies_its_positions() -> None:
    positions = np.array([3, 1])
    view = Select(Whole(5), positions)
    positions[:] = 0
    assert ids_of(view) == [3, 1]


@pytest.mark.parametrize(
    "positions", [[5], [-6], [0, 1 << 40], np.array([-1], np.int8) - 5, [np.uint64(1 << 63)]], ids=repr
)
def test_a_position_out_of_range_is_an_error_that_names_it(positions: Any) -> None:
    with pytest.raises(IndexError, match=rf"position {int(positions[-1])} of 5 samples"):
        checked_positions(positions, 5)


@pytest.mark.parametrize("position", [1.0, None])
def test_what_is_no_position_is_refused_by_its_type(position: Any) -> None:
    with pytest.raises(TypeError, match=f"expected a position or a list of them, got {type(position).__name__}"):
        checked_positions(position, 3)


def test_a_boolean_mask_is_refused_as_positions() -> None:
    with pytest.raises(TypeError, match=r"numpy\.flatnonzero\(mask\)"):
        checked_positions([True, False], 2)


# views of datasets ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("views") / "data"
    write(root, range(30))
    return root


def write(root: Path, numbers: Any, **columns: str) -> mx8.Dataset:
    with mx8.Writer(root, columns={"id": "int", "label": "uint8", "text": "str", **columns}, size_limit=700) as writer:
        for i in numbers:
            writer.write({"id": i, "label": i % 3, "text": "ab"[i % 2], **dict.fromkeys(columns, i)})
    return mx8.Dataset(root)


def ids(dataset: mx8.Dataset) -> list[int]:
    return [sample["id"] for sample in dataset]


def test_select_keeps_the_given_order(root: Path) -> None:
    view = mx8.Dataset(root).select([7, -1, 7, 0])
    assert ids(view) == [7, 29, 7, 0]
    assert ids(mx8.Dataset(root).select(positions=[7, -1])) == [7, 29]
    assert len(view) == 4
    assert view[-1]["id"] == 0
    assert ids(view.select(range(1, 3))) == [29, 7]
    assert bytes(view.payload(1, "id")) == (29).to_bytes(8, "little")
    assert [sample["id"] for sample in view[::-1]] == [0, 7, 29, 7]


def test_views_share_the_shards_of_their_dataset(root: Path) -> None:
    dataset = mx8.Dataset(root)
    view = dataset.select([3])
    assert np.shares_memory(np.frombuffer(dataset.payload(3, "id"), "u1"), np.frombuffer(view.payload(0, "id"), "u1"))


def test_a_view_outlives_its_dataset(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        view = dataset.select([3, 4])
    assert ids(view) == [3, 4]


def test_a_dataset_outlives_its_views(root: Path) -> None:
    dataset = mx8.Dataset(root)
    with dataset.select([3, 4]) as view:
        assert ids(view) == [3, 4]
    assert ids(dataset) == list(range(30))


@pytest.mark.parametrize("value", [2, np.uint8(2), 2.0])
def test_where_finds_equal_numbers(value: Any, root: Path) -> None:
    assert ids(mx8.Dataset(root).where("label", value)) == list(range(2, 30, 3))


def test_where_finds_equal_texts(root: Path) -> None:
    dataset = mx8.Dataset(root)
    assert ids(dataset.where("text", "b")) == list(range(1, 30, 2))
    assert ids(dataset.where("text", "b").where("label", 0)) == list(range(3, 30, 6))


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", 9), ("label", 2.5), ("label", Decimal(9)), ("label", 2**70), ("text", "c")],
)
def test_where_without_a_match_is_an_empty_view(column: str, value: Any, root: Path) -> None:
    view = mx8.Dataset(root).where(column, value)
    assert len(view) == 0
    assert list(view) == []


@pytest.mark.parametrize("value", ["2", b"2", None, np.str_("2")], ids=repr)
def test_where_with_text_on_a_numeric_column_is_an_error(value: Any, root: Path) -> None:
    with pytest.raises(mx8.SchemaError, match=f"^column 'label': expected a number, got {re.escape(repr(value))}$"):
        mx8.Dataset(root).where("label", value)


@pytest.mark.parametrize(
    ("value", "hint"), [(1, ""), (b"b", ""), (["b", "c"], "concat"), ({"b"}, "concat"), (None, "")], ids=repr
)
def test_where_with_another_value_on_a_column_of_texts_is_an_error(value: Any, hint: str, root: Path) -> None:
    with pytest.raises(mx8.SchemaError, match=f"^column 'text': expected a text, got {re.escape(repr(value))}.*{hint}"):
        mx8.Dataset(root).where("text", value)


@pytest.mark.parametrize("encoding", ["ndarray:uint8:2", "ndarray"])
def test_where_requires_a_column_of_one_value_per_sample(encoding: str, tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"a": encoding}) as writer:
        writer.write({"a": np.array([1, 2], "uint8")})
    with pytest.raises(mx8.SchemaError, match="column 'a': expected one value per sample, got an array"):
        mx8.Dataset(tmp_path / "data").where("a", 1)


@pytest.mark.parametrize("values", [range(30), [1, 2], np.array([2])], ids=["all", "some", "one"])
def test_where_refuses_several_values(values: Any, root: Path) -> None:
    with pytest.raises(mx8.SchemaError, match=r"column 'label': expected one value, got several \(select\("):
        mx8.Dataset(root).where("label", values)


def test_concat_joins_datasets_views_and_snapshots(root: Path, tmp_path: Path) -> None:
    first = mx8.Dataset(root)
    second = write(tmp_path / "second", range(100, 104))
    joined = mx8.concat([first.select([5, 4]), second, first])
    assert ids(joined) == [5, 4, *range(100, 104), *range(30)]
    assert joined.column("id").tolist() == ids(joined)
    assert ids(joined.where("label", 0)) == [i for i in ids(joined) if i % 3 == 0]
    assert ids(joined.select([-1, 2, 0])) == [29, 100, 5]
    assert joined.snapshot == f"{first.snapshot}+{second.snapshot}+{first.snapshot}"
    assert ids(mx8.concat([joined, joined.select([0])])) == [*ids(joined), 5]
    assert ids(joined) == [5, 4, *range(100, 104), *range(30)]
    first.close()
    assert joined[0]["id"] == 5


def test_concat_accepts_any_iterable(root: Path) -> None:
    assert ids(mx8.concat(mx8.Dataset(root).select([i]) for i in (7, 3))) == [7, 3]


def test_a_joined_dataset_is_sealed_if_all_parts_are(root: Path, tmp_path: Path) -> None:
    from tests import reference

    columns = {"id": "int", "label": "uint8", "text": "str"}
    foreign = reference.write_dataset(tmp_path / "d", columns, [[{"id": bytes(8), "label": b"\1", "text": b"a"}]])
    assert mx8.concat([mx8.Dataset(root), mx8.Dataset(root)]).sealed
    assert not mx8.concat([mx8.Dataset(root), mx8.Dataset(foreign)]).sealed


def test_concat_refuses_different_columns_and_an_empty_list(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [1], more="int")
    with pytest.raises(mx8.SchemaError, match="concat: expected the columns"):
        mx8.concat([mx8.Dataset(root), other])
    with pytest.raises(mx8.SchemaError, match="mix: expected the columns"):
        mx8.mix([mx8.Dataset(root), other], weights=[1, 1])
    picked = mx8.concat([mx8.Dataset(root, columns=["id"]), mx8.Dataset(tmp_path / "other", columns=["id"])])
    assert ids(picked) == [*range(30), 1]
    with pytest.raises(mx8.DatasetNotFoundError, match="expected at least one dataset"):
        mx8.concat([])


def test_datasets_without_samples_can_be_joined(tmp_path: Path, root: Path) -> None:
    with mx8.Writer(tmp_path / "empty", columns={"id": "int", "label": "uint8", "text": "str"}):
        pass
    empty = mx8.Dataset(tmp_path / "empty")
    assert len(mx8.concat([empty, empty])) == 0
    assert ids(mx8.concat([mx8.Dataset(root).select([]), mx8.Dataset(root)])) == list(range(30))


def test_an_empty_dataset_can_be_joined_to_any_other(tmp_path: Path, root: Path) -> None:
    """An index without shards has no columns."""
    with mx8.Writer(tmp_path / "empty", columns={"id": "int", "label": "uint8", "text": "str"}):
        pass
    for datasets in (
        [mx8.Dataset(tmp_path / "empty"), mx8.Dataset(root)],
        [mx8.Dataset(root), mx8.Dataset(tmp_path / "empty")],
    ):
        assert ids(mx8.concat(datasets)) == list(range(30))


# class lists ----------------------------------------------------------------------------------------------------------


def with_metadata(root: Path, metadata: dict[str, Any] | None) -> mx8.Dataset:
    with mx8.Writer(root, columns={"label": "int"}, metadata=metadata) as writer:
        writer.write({"label": 0})
    return mx8.Dataset(root)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (["cat", "dog"], ["dog", "cat"], 'label 0 is "dog", not "cat", label 1 is "cat", not "dog"'),
        (["cat", "dog"], ["cat", "dog", "eel"], "3 classes instead of 2"),
        (["cat", "dog"], None, "no class list instead of a list of 2 classes"),
        (None, ["cat"], "a list of 1 classes instead of no class list"),
        (list("abcdefgh"), list("hgfedcba"), 'label 2 is "f", not "c", 8 labels differ in all'),
    ],
    ids=["order", "more", "none", "only the other", "many"],
)
def test_datasets_with_different_class_lists_are_not_joined(
    ours: Any, theirs: Any, message: str, tmp_path: Path
) -> None:
    first = with_metadata(tmp_path / "a", ours and {"classes": ours})
    other = with_metadata(tmp_path / "b", theirs and {"classes": theirs})
    with pytest.raises(mx8.SchemaError) as caught:
        mx8.concat([first, first, other])
    assert str(caught.value).startswith(f"concat: metadata 'classes': expected the classes of {tmp_path}/a, got others")
    assert message in str(caught.value)
    assert "--classes FILE" in str(caught.value)


def test_datasets_with_equal_classes_are_joined_and_keep_only_shared_metadata(tmp_path: Path) -> None:
    first = with_metadata(tmp_path / "a", {"classes": ["x", "y"], "source": "web", "year": 1})
    other = with_metadata(tmp_path / "b", {"classes": ["x", "y"], "source": "book", "more": 2, "year": 1})
    assert mx8.concat([first, other]).metadata == {"classes": ["x", "y"], "year": 1}
    assert mx8.concat([first]).metadata == first.metadata
    assert mx8.concat([first, first]).metadata == first.metadata


def test_the_hint_for_a_missing_class_list_works(tmp_path: Path) -> None:
    first = with_metadata(tmp_path / "a", {"classes": ["x", "y"]})
    with_metadata(tmp_path / "b", None)
    with mx8.Writer(tmp_path / "b", columns={"label": "int"}, mode="append", metadata={"classes": ["x", "y"]}):
        pass
    joined = mx8.concat([first, mx8.Dataset(tmp_path / "b")])
    assert (len(joined), joined.metadata) == (2, {"classes": ["x", "y"]})


@pytest.mark.parametrize("wrong", ["a", ["a", "b"], Path("a"), 3, None], ids=repr)
def test_concat_refuses_anything_but_a_list_of_datasets(wrong: Any) -> None:
    with pytest.raises(mx8.SettingError, match=r"concat: expected a list of open datasets, got .*mx8shards\.Dataset"):
        mx8.concat(wrong)


# occurrences and extras -----------------------------------------------------------------------------------------------


def keys_of(view: View, epoch: int = 0, seed: int = 0) -> list[tuple[int, int]]:
    """The sample_id and occurrence of every position. Asserts that these pairs are unique."""
    found, extras = view.resolve(np.arange(len(view)), epoch, seed)
    occurrences = extras.get("occurrence", np.zeros(len(view), np.int64))
    keys = list(zip(found.tolist(), occurrences.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert all(0 <= occurrence < view.occurrences for _, occurrence in keys)
    return keys


@given(POSITIONS, st.lists(st.integers(0, 11), max_size=9), st.lists(st.integers(0, 8), max_size=9))
def test_sample_id_and_occurrence_identify_one_position(first: list[int], second: list[int], third: list[int]) -> None:
    chosen = Select(Whole(20), first)
    again = Select(chosen, [i % len(first) for i in second] if first else [])
    once_more = Select(again, [i % len(again) for i in third] if len(again) else [])
    for view in (chosen, again, once_more, Join([(once_more, 0), (Whole(3), 20), (chosen, 23)])):
        keys_of(view)
    seen: list[int] = []
    for sample_id, occurrence in keys_of(chosen):
        assert occurrence == seen.count(sample_id)
        seen.append(sample_id)


@given(POSITIONS, st.permutations(range(12)))
def test_a_selection_of_repeats_keeps_their_occurrences(first: list[int], picked: list[int]) -> None:
    chosen = Select(Whole(20), first)
    picked = [i for i in picked if i < len(first)]
    wanted = keys_of(chosen)
    assert keys_of(Select(chosen, picked)) == [wanted[i] for i in picked]


@given(POSITIONS.filter(bool), st.lists(st.integers(0, 11), min_size=1, max_size=9))
def test_the_result_for_a_position_does_not_depend_on_the_other_positions(first: list[int], asked: list[int]) -> None:
    view = Join([(Select(Whole(20), first), 0), (Mix(Whole(5), [2, 3], [5, 1]), 20)])
    asked = [i % len(view) for i in asked]
    found, extras = view.resolve(np.array(asked), 3, 1)
    keys = list(zip(found.tolist(), extras["occurrence"].tolist(), strict=True))
    assert keys == [keys_of(view, 3, 1)[i] for i in asked]


def test_a_view_without_repeats_has_no_extras() -> None:
    for view in (Whole(4), Select(Whole(4), [2, 0]), Join([(Whole(2), 0), (Select(Whole(2), [1]), 2)])):
        assert dict(view.resolve(np.arange(len(view)))[1]) == {}
        assert view.occurrences == 1


class TimedView:
    """A view with an extra: the start of each position."""

    digest = "timed"
    occurrences = 1
    moves = False

    def __len__(self) -> int:
        return 4

    def resolve(self, positions: Any, epoch: int = 0, seed: int = 0) -> Any:
        return positions // 2, {"start": positions * 0.5, "pair": np.stack([positions, positions + 1], 1)}


def test_extras_pass_through_selections_joins_and_mixes() -> None:
    _, extras = Select(TimedView(), [3, 1, 3]).resolve(np.array([2, 1]))
    assert {name: values.tolist() for name, values in extras.items()} == {
        "start": [1.5, 0.5],
        "pair": [[3, 4], [1, 2]],
        "occurrence": [1, 0],
    }
    joined = Join([(Whole(2), 0), (TimedView(), 2), (Select(Whole(1), [0, 0]), 4)])
    found, extras = joined.resolve(np.array([5, 0, 7, 3]))
    assert found.tolist() == [3, 0, 4, 2]
    assert {name: values.tolist() for name, values in extras.items()} == {
        "start": [1.5, 0, 0, 0.5],
        "pair": [[3, 4], [0, 0], [0, 0], [1, 2]],
        "occurrence": [0, 0, 1, 0],
    }
    assert sorted(joined.resolve(np.array([0]))[1]) == ["occurrence", "pair", "start"]  # in every batch
    assert Mix(TimedView(), [4], [4]).resolve(np.array([3]))[1]["start"].tolist() == [1.5]


# mixes ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 14)), min_size=1, max_size=4), st.integers(0, 2**70))
def test_a_mix_has_the_requested_counts_and_uses_samples_equally_often(parts: list[tuple[int, int]], seed: int) -> None:
    sizes, wanted = [size for size, _ in parts], [count for _, count in parts]
    view = Mix(Whole(sum(sizes)), sizes, wanted)
    assert len(view) == sum(wanted)
    starts = np.cumsum([0, *sizes])
    total = np.zeros(sum(sizes), np.int64)
    for epoch in range(7):
        keys = keys_of(view, epoch, seed)
        assert keys == keys_of(pickle.loads(pickle.dumps(view)), epoch, seed)
        found = np.array([sample_id for sample_id, _ in keys], np.int64)
        total += np.bincount(found, minlength=len(total))
        for k, (size, count) in enumerate(parts):
            mine = found[(found >= starts[k]) & (found < starts[k + 1])]
            assert len(mine) == count
            often = total[starts[k] : starts[k + 1]]
            assert often.max() - often.min() <= 1
            assert np.bincount(mine - starts[k], minlength=size).max() == -(-count // size)


def test_a_mix_draws_by_the_seed_unless_it_takes_all_samples_of_a_part() -> None:
    view = Mix(Whole(1_000), [600, 400], [200, 800])
    first, other = (view.resolve(np.arange(1_000), 0, seed)[0] for seed in (1, 2))
    assert not np.array_equal(first[:200], other[:200])
    assert (np.diff(first[:200]) < 0).any()
    assert first[200:].tolist() == other[200:].tolist() == [*range(600, 1_000)] * 2
    epochs = np.concatenate([view.resolve(np.arange(200), epoch, 1)[0] for epoch in range(3)])
    assert sorted(epochs.tolist()) == list(range(600))


@pytest.mark.parametrize(("sizes", "counts"), [([3], [1, 2]), ([3, 1], [1, 2]), ([5], [-1]), ([5, 0], [1, 1])], ids=str)
def test_a_mix_refuses_incompatible_parts(sizes: list[int], counts: list[int]) -> None:
    with pytest.raises(mx8.SettingError, match=r"^(sizes|counts): expected"):
        Mix(Whole(5), sizes, counts)


def test_datasets_are_mixed_by_weights(root: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small", range(100, 104))
    view = mix([mx8.Dataset(root), small], weights=[3, 1], length=40, on_exhausted="cycle")
    assert len(view) == 40
    assert sorted(ids(view)[:30]) == list(range(30))
    assert sorted(ids(view)[30:]) == sorted([*range(100, 104)] * 2 + [100 + i for i in third_occurrences(view)])
    again, other = (
        mix([mx8.Dataset(root), small], weights=weights, length=40, on_exhausted="cycle")
        for weights in ([3, 1], [1, 1])
    )
    assert view.view.digest == again.view.digest != other.view.digest
    with pytest.raises(
        mx8.SettingError, match=r"^where: expected a view that has the same samples .* before mixing them"
    ):
        view.where("id", 3)
    whole = mix([mx8.Dataset(root), small], weights=[60, 8], length=68, on_exhausted="cycle")
    assert ids(whole.where("id", 101)) == [101, 101]
    assert ids(whole.select([0, 30, 59, 67])) == [0, 0, 29, 103]


def third_occurrences(view: mx8.Dataset) -> list[int]:
    """The two samples of the small dataset that occur a third time."""
    found = [i - 100 for i in ids(view)[30:]]
    return [i for i in range(4) if found.count(i) == 3]


@given(st.integers(0, 1000), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
def test_a_length_is_divided_in_proportion_to_the_weights(length: int, weights: list[float]) -> None:
    found = parts_of(length, weights)
    assert sum(found) == length
    assert all(abs(part - length * weight / sum(weights)) < 1 for part, weight in zip(found, weights, strict=True))


@pytest.mark.parametrize(
    ("weights", "length"), [([1], 5), ([1, 0], 5), ([1, -1], 5), ([1, float("inf")], 5), ([1, "a"], 5), ([1, 1], -1)]
)
def test_mix_refuses_invalid_weights_and_lengths(weights: Any, length: Any, root: Path) -> None:
    with pytest.raises(mx8.SettingError, match=r"^(weights|length): expected"):
        mix([mx8.Dataset(root), mx8.Dataset(root)], weights=weights, length=length)


def test_a_mix_ends_where_its_first_dataset_has_no_more_samples(root: Path, tmp_path: Path) -> None:
    datasets = [mx8.Dataset(root), write(tmp_path / "small", range(100, 104))]
    found = ids(mx8.mix(datasets, weights=[0.75, 0.25]))
    assert len(found) == len(set(found)) == 16
    assert sorted(found)[12:] == [100, 101, 102, 103]
    told = r"^length: expected at most 16.*got 20, for which datasets\[1\] needs 5 samples, and has 4 .*cycle"
    with pytest.raises(mx8.SettingError, match=told):
        mx8.mix(datasets, weights=[0.75, 0.25], length=20)
    with pytest.raises(mx8.SettingError, match=r"^on_exhausted: expected"):
        mx8.mix(datasets, weights=[0.75, 0.25], on_exhausted="stop")  # type: ignore[arg-type]


def test_exhausted_datasets_of_a_mix_repeat_or_leave_their_part_to_others(root: Path, tmp_path: Path) -> None:
    datasets = [
        mx8.Dataset(root),
        write(tmp_path / "small", range(100, 104)),
        write(tmp_path / "more", range(200, 210)),
    ]
    cycled = ids(mx8.mix(datasets, weights=[2, 1, 1], on_exhausted="cycle"))
    whole = len(datasets[0])
    assert len(cycled) == 2 * whole
    assert sorted(cycled)[:whole] == list(range(whole))
    allowed = mx8.mix(datasets, weights=[2, 1, 1], on_exhausted="allow", length=20)
    assert [sum(low <= i < low + 100 for i in ids(allowed)) for low in (0, 100, 200)] == [11, 4, 5]
    every = ids(mx8.mix(datasets, weights=[2, 1, 1], on_exhausted="allow"))
    assert sorted(every) == [*range(whole), *range(100, 104), *range(200, 210)]
    with pytest.raises(mx8.SettingError, match=r"^length: expected at most \d+, all samples"):
        mx8.mix(datasets, weights=[2, 1, 1], on_exhausted="allow", length=len(every) + 1)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(1e-2, 1e2)), min_size=1, max_size=5))
def test_lengths_of_mixes_leave_no_dataset_short_or_unread(parts: list[tuple[int, float]]) -> None:
    sizes, weights = zip(*parts, strict=True)
    counts = {how: counts_of(default_length(sizes, weights, how), sizes, weights, how) for how in ON_EXHAUSTED}
    assert all(count <= size for count, size in zip(counts["error"], sizes, strict=True))
    assert any(count + 1 >= size for count, size in zip(counts["error"], sizes, strict=True))
    assert all(count >= size for count, size in zip(counts["cycle"], sizes, strict=True))
    assert tuple(counts["allow"]) == sizes


def test_mix_refuses_empty_datasets(root: Path) -> None:
    with pytest.raises(
        mx8.SettingError, match=r"^datasets: expected samples in each dataset, got none in datasets\[1\]"
    ):
        mix([mx8.Dataset(root), mx8.Dataset(root).select([])], weights=[1, 1], length=3)


# options of joined datasets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checked", [0, 1])
def test_joined_datasets_keep_the_verify_mode_of_each(checked: int, tmp_path: Path) -> None:
    modes: list[Any] = ["structure", "structure"]
    modes[checked] = "shard"
    for name in ("one", "two"):
        write(tmp_path / name, range(3))
        shard = tmp_path / name / "shard.00000.mds"
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")  # in a payload, where no structural check finds it
    datasets = [mx8.Dataset(tmp_path / name, verify=mode) for name, mode in zip(("one", "two"), modes, strict=True)]
    joined = mx8.concat(datasets)
    for found in (joined, pickle.loads(pickle.dumps(joined)), mx8.concat([joined]), joined.select(range(6))):
        with pytest.raises(mx8.IntegrityError, match=("one", "two")[checked]):
            found[3 * checked]
        assert found[3 * (1 - checked)]["id"] == 0


def test_joined_datasets_keep_the_cache_of_each(tmp_path: Path) -> None:
    datasets = []
    for name in ("one", "two"):
        with mx8.Writer(tmp_path / name, columns={"id": "int"}, compression="zstd") as writer:
            writer.write({"id": 1})
        datasets.append(mx8.Dataset(tmp_path / name, cache_dir=tmp_path / f"cache of {name}"))
    assert [sample["id"] for sample in mx8.concat(datasets)] == [1, 1]
    for name in ("one", "two"):
        assert len([path for path in (tmp_path / f"cache of {name}").rglob("*") if path.is_file()]) >= 1
