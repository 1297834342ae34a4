"""Is it said that a sample which a view repeats gets the same random crop each time?"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mx8shards as mx8

COUNT = 6
RANDOM = mx8.RandomResizedCrop(6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    root = tmp_path_factory.mktemp("repeats") / "data"
    with mx8.Writer(root, columns={"image": "png"}) as writer:
        for pixels in np.random.default_rng(0).integers(0, 256, (COUNT, 20, 20, 3), dtype=np.uint8):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            writer.write({"image": file.getvalue()})
    with mx8.Dataset(root) as dataset:
        yield dataset


def warnings_of(dataset: mx8.Dataset, decode: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, "mx8shards"):
        mx8.Loader(dataset, batch_size=2, decode={"image": decode}).close()
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("positions", [[1, 1, 2], list(range(COUNT)) * 2], ids=["some", "more than there are"])
@pytest.mark.parametrize("decode", [RANDOM, mx8.CenterCrop(6, flip=0.5), mx8.MultiCrop({"a": RANDOM})], ids=repr)
def test_repeats_with_random_crops_are_logged_once(
    dataset: mx8.Dataset, positions: list[int], decode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    [told] = warnings_of(dataset.select(positions), decode, caplog)
    assert "the same random crop" in told


def test_loaders_of_an_iterable_dataset_do_not_log_it_again(
    dataset: mx8.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "mx8shards"),
        mx8.Loader(dataset.select([1, 1]), batch_size=2, decode={"image": RANDOM}) as loader,
    ):
        assert len(list(loader.as_iterable_dataset())) == 1
    assert len([record for record in caplog.records if "the same random crop" in record.getMessage()]) == 1


@pytest.mark.parametrize("positions", [[2, 1], range(COUNT)], ids=str)
def test_views_without_repeats_are_not(dataset: mx8.Dataset, positions: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(dataset.select(positions), RANDOM, caplog) == []
    assert warnings_of(dataset, RANDOM, caplog) == []
    assert warnings_of(mx8.concat([dataset, dataset]), RANDOM, caplog) == []


def test_repeats_without_random_crops_are_not(dataset: mx8.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of(dataset.select([1, 1]), mx8.CenterCrop(6), caplog) == []


def test_what_is_logged_is_so(dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset.select([3, 3]), batch_size=2, decode={"image": RANDOM}) as loader:
        first, second = (next(iter(loader))["image"].clone() for _ in range(2))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])
