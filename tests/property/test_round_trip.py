"""Is every sample that can be written read back unchanged?"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.format.encodings import get_encoding
from mx8shards.format.hashing import HASHES
from tests import reference
from tests.example_counts import parametrize_count
from tests.strategies import COMPRESSIONS, ENCODINGS, VALUES, Sample, as_read, datasets, same, samples_as_read

OPTIONS = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(COMPRESSIONS),
        "hashes": st.lists(st.sampled_from(HASHES), max_size=3, unique=True),
        "size_limit": st.none() | st.integers(1, 3000),
        "threads": st.integers(1, 3),
        "match_streaming": st.booleans(),
    }
)
CUTS = st.lists(st.integers(0, 6), max_size=3)


@parametrize_count(25, rounds=12)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_of_every_encoding_round_trip(encoding: str, count: int) -> None:
    coder = get_encoding(encoding)

    @settings(max_examples=count)
    @given(VALUES[encoding])
    def check(value: Any) -> None:
        payload = coder.encode(value)
        assert same(coder.decode(payload), as_read(encoding, value))
        assert same(coder.decode(memoryview(payload)), as_read(encoding, value))
        assert coder.encode(payload) == payload
        assert coder.size_bytes in (None, len(payload))

    check()


@parametrize_count(40, rounds=12)
def test_datasets_round_trip(count: int, place: Path) -> None:
    @settings(max_examples=count)
    @given(made=datasets(), options=OPTIONS)
    def check(made: Any, options: dict[str, Any]) -> None:
        columns, samples = made
        with removed_afterwards(place / "data") as root:
            with mx8.Writer(root, columns=columns, allow_pickle=True, **options) as writer:
                for sample in samples:
                    writer.write(sample)
            with mx8.Dataset(root, allow_pickle=True, verify="shard") as dataset:
                assert dataset.columns == (columns if samples or not options["match_streaming"] else {})
                assert dataset.snapshot == writer.snapshot
                assert dataset.sealed
                compare(dataset, samples_as_read(columns, samples), reference.read_dataset(root))
            assert mx8.verify(root, data=True).ok

    check()


def compare(dataset: mx8.Dataset, wanted: list[Sample], stored: list[reference.Payloads]) -> None:
    assert same(list(dataset), wanted)
    for name in dataset.columns:
        assert [bytes(dataset.payload(i, name)) for i in range(len(dataset))] == [s[name] for s in stored]
        values = dataset.column(name)
        found = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)
        assert same(found, [sample[name] for sample in wanted])


@parametrize_count(20, rounds=12)
def test_samples_do_not_depend_on_how_they_are_divided_into_appends(count: int, place: Path) -> None:
    @settings(max_examples=count)
    @given(made=datasets(), cuts=CUTS, options=OPTIONS)
    def check(made: Any, cuts: list[int], options: dict[str, Any]) -> None:
        columns, samples = made
        with removed_afterwards(place / "appended") as root:
            for begin, end in pairwise([0, *sorted(cuts), len(samples)]):
                with mx8.Writer(root, columns=columns, allow_pickle=True, mode="append", **options) as writer:
                    for sample in samples[begin:end]:
                        writer.write(sample)
            with mx8.Dataset(root, allow_pickle=True) as dataset:
                compare(dataset, samples_as_read(columns, samples), reference.read_dataset(root))
            assert mx8.verify(root, data=True).ok

    check()


@parametrize_count(25, rounds=12)
def test_datasets_of_the_reference_writer_are_read(count: int, place: Path) -> None:
    @settings(max_examples=count)
    @given(made=datasets(), compression=st.sampled_from(COMPRESSIONS), cuts=CUTS)
    def check(made: Any, compression: str | None, cuts: list[int]) -> None:
        columns, samples = made
        encoded = [{name: get_encoding(columns[name]).encode(value) for name, value in s.items()} for s in samples]
        shards = [encoded[begin:end] for begin, end in pairwise([0, *sorted(cuts), len(samples)])]
        with removed_afterwards(place / "foreign") as root:
            reference.write_dataset(root, columns, shards, compression=compression)
            with mx8.Dataset(root, allow_pickle=True) as dataset:
                compare(dataset, samples_as_read(columns, samples), encoded)
                assert not dataset.sealed

    check()


@contextlib.contextmanager
def removed_afterwards(root: Path) -> Iterator[Path]:
    """A directory per example: Hypothesis runs many examples in one test, which would share `tmp_path`."""
    try:
        yield root
    finally:
        shutil.rmtree(root)
