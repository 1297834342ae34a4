"""Does `where` select samples by one column, without reading other columns?"""

from __future__ import annotations

import mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.kernels import memory
from mx8shards.shards import column_values
from tests.maintenance import make_foreign
from tests.page_cache import drop, resident_bytes

SAMPLES, PAYLOAD = 48, 128 << 10
IMAGE = b"\7" * PAYLOAD
WORDS = st.sampled_from(["", "a", "b", "ab", "ä", "a\0", "x" * 90])


def found(view: mx8.Dataset) -> list[int]:
    return view.column("number").tolist()


def write(root: Path) -> Path:
    kinds = {"image": "bytes", "label": "int", "name": "str", "number": "int"}
    with mx8.Writer(root, columns=kinds, size_limit=8 * PAYLOAD, threads=1) as writer:
        for i in range(SAMPLES):
            writer.write({"image": IMAGE, "label": i % 7, "name": f"n{i % 7}", "number": i})
    return root


def test_where_finds_labels_by_side_cars_without_any_shard(tmp_path: Path) -> None:
    dataset = mx8.Dataset(write(tmp_path))
    for shard in tmp_path.glob("shard.*"):
        shard.unlink()
    assert found(dataset.where("label", 3)) == list(range(3, SAMPLES, 7))


@pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")
@pytest.mark.parametrize(("column", "value"), [("label", 3), ("name", "n3")])
def test_where_without_side_cars_does_not_read_images(tmp_path: Path, column: str, value: Any) -> None:
    make_foreign(write(tmp_path))
    drop(tmp_path)
    if resident_bytes(tmp_path) > SAMPLES * mmap.PAGESIZE:
        pytest.skip("this file system forgets nothing")
    with mx8.Dataset(tmp_path) as dataset:
        assert found(dataset.where(column, value)) == list(range(3, SAMPLES, 7))
    assert resident_bytes(tmp_path) < SAMPLES * PAYLOAD // 4


def test_where_finds_texts_beside_damaged_images(tmp_path: Path) -> None:
    write(tmp_path)
    for shard in tmp_path.glob("shard.*"):
        shard.write_bytes(shard.read_bytes().replace(IMAGE, b"?" * PAYLOAD))
    assert found(mx8.Dataset(tmp_path).where("name", "n5")) == list(range(5, SAMPLES, 7))


@pytest.mark.parametrize("encoding", ["str", "bytes"])
@settings(max_examples=25)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=25), WORDS, st.lists(st.integers(0, 24), max_size=30), st.booleans())
def test_where_finds_exactly_the_samples_whose_decoded_value_is_equal(
    place: Path, encoding: str, samples: list[tuple[str, str]], wanted: str, picked: list[int], before: bool
) -> None:
    as_value = str if encoding == "str" else str.encode
    names = ("key", "other") if before else ("other", "key")  # columns are stored in the order of their names
    kinds = {names[0]: encoding, "number": "int", names[1] + "z": "str"}
    key = names[0]
    with TemporaryDirectory(dir=place) as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_values, "_INDEX_ITEMS", 7)
        patch.setattr("mx8shards.dataset._RUN", 10)
        with mx8.Writer(root, columns=kinds, size_limit=400, hashes=()) as writer:
            for i, (word, other) in enumerate(samples):
                writer.write({key: as_value(word), "number": i, names[1] + "z": other})
        with mx8.Dataset(root) as dataset:
            equal = [i for i, (word, _) in enumerate(samples) if word == wanted]
            assert found(dataset.where(key, as_value(wanted))) == equal
            view = dataset.select([i for i in picked if i < len(samples)])
            assert found(view.where(key, as_value(wanted))) == [i for i in picked if i in equal]


@pytest.mark.parametrize("value", ["\ud800", np.str_("\udfff")])
def test_where_with_an_impossible_text_is_empty(tmp_path: Path, value: str) -> None:
    assert len(mx8.Dataset(write(tmp_path)).where("name", value)) == 0


@pytest.mark.parametrize(("column", "value"), [("name", np.str_("n3")), ("label", np.int32(3)), ("label", 3.0)])
def test_where_treats_numpy_values_like_python_values(tmp_path: Path, column: str, value: Any) -> None:
    assert found(mx8.Dataset(write(tmp_path)).where(column, value)) == list(range(3, SAMPLES, 7))


def test_a_truncated_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = mx8.Dataset(write(tmp_path))
    shard = sorted(tmp_path.glob("shard.*"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(mx8.FormatError, match=shard.name):
        dataset.where("name", "n3")
