"""Does a sample that repeats within an epoch get different random crops and flips each time?"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mx8shards as mx8
from mx8shards.joining import mix
from tests.custom_orders import Listed, Weighted

COUNT = 6
RANDOM = mx8.RandomResizedCrop(6)
Key = tuple[int, int]


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


def loader_of(dataset: mx8.Dataset, **options: Any) -> mx8.Loader:
    return mx8.Loader(dataset, **{"batch_size": 4, "decode": {"image": RANDOM}, "threads": 2, **options})


def crops(loader: mx8.Loader) -> dict[Key, bytes]:
    """The crops of an epoch, by sample and occurrence, without padding."""
    found: dict[Key, bytes] = {}
    for batch in loader:
        occurrences = batch.extras.get("occurrence", torch.zeros(len(batch.sample_ids), dtype=torch.int64))
        for row, key in enumerate(zip(batch.sample_ids.tolist(), occurrences.tolist(), strict=True)):
            if not batch.padding[row]:
                assert key not in found
                found[key] = batch["image"][row].numpy().tobytes()
    return found


def test_repeats_get_different_crops_and_the_first_occurrence_stays_as_without_repeats(
    dataset: mx8.Dataset,
) -> None:
    with loader_of(dataset) as loader:
        alone = crops(loader)
    with loader_of(dataset.select([3, 3, 1, 3, 5, 1])) as loader:
        found = crops(loader)
        assert set(found) == {(3, 0), (3, 1), (3, 2), (1, 0), (1, 1), (5, 0)}
        assert len(set(found.values())) == len(found)
        assert all(found[key] == alone[key] for key in found if key[1] == 0)
        assert not set(crops(loader).values()) & set(found.values())


@pytest.mark.parametrize("shuffle", [False, True, mx8.BlockShuffle(shards=1)], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_crops_of_repeats_do_not_depend_on_order_ranks_or_a_resume(
    dataset: mx8.Dataset, shuffle: Any, size: int
) -> None:
    view = dataset.select([0, 2, 2, 4, 4, 4, 1, 0])
    with loader_of(view) as loader:
        wanted = crops(loader)
    found: dict[Key, bytes] = {}
    for rank in range(size):
        options = {"shuffle": shuffle, "rank": rank, "world_size": size, "batch_size": 1}
        with loader_of(view, **options) as loader, loader_of(view, **options) as resumed:
            next(iter(loader))
            resumed.load_state_dict(loader.state_dict())
            found |= crops(resumed)
            loader.set_epoch(0)
            found |= crops(loader)
    assert found == wanted


def test_flips_and_colour_changes_of_repeats_differ(dataset: mx8.Dataset) -> None:
    view = dataset.select([2] * 64)
    flip = mx8.transforms.RandomHorizontalFlip()
    with loader_of(view, decode={"image": mx8.CenterCrop(20)}, transform=flip, batch_size=64) as loader:
        (batch,) = loader
    picture = Image.open(io.BytesIO(dataset.payload(2, "image")))
    plain = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    mirrored = [torch.equal(image, plain.flip(-1)) for image in batch["image"]]
    assert 16 < sum(mirrored) < 48
    assert sum(torch.equal(image, plain) for image in batch["image"]) == 64 - sum(mirrored)
    jitter = mx8.transforms.ColorJitter(brightness=0.5)
    with loader_of(view, decode={"image": mx8.CenterCrop(20)}, transform=jitter, batch_size=64) as loader:
        (batch,) = loader
    assert len({image.numpy().tobytes() for image in batch["image"]}) > 32


@pytest.mark.parametrize("size", [1, 2])
def test_repeats_of_an_order_differ_and_are_equal_on_any_number_of_ranks(dataset: mx8.Dataset, size: int) -> None:
    order = Weighted([1, 5, 1, 1, 9, 1], 24, seed=1)
    with loader_of(dataset, order=order) as loader:
        wanted = crops(loader)
        assert len(wanted) == len(order) == len(set(wanted.values()))
    found: dict[Key, bytes] = {}
    for rank in range(size):
        with loader_of(dataset, order=order, rank=rank, world_size=size, batch_size=5, uneven="pad") as loader:
            found |= crops(loader)
    assert found == wanted


def test_an_order_may_repeat_positions_of_a_view_with_repeats(dataset: mx8.Dataset) -> None:
    with loader_of(dataset.select([3, 3, 1]), order=Listed([0, 1, 2, 1, -1, 0, 1])) as loader:
        found = crops(loader)
    assert [key[0] for key in found] == [3, 3, 1, 3, 3, 3]
    assert len(set(found.values())) == len(found)


def test_the_substitute_of_a_repeat_depends_on_its_occurrence(tmp_path: Any, dataset: mx8.Dataset) -> None:
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        writer.write({"image": b"no picture"})
        for i in range(COUNT):
            writer.write({"image": bytes(dataset.payload(i, "image"))})
    view = mx8.Dataset(tmp_path / "data").select([0] * 16 + list(range(1, COUNT + 1)) * 20)
    with loader_of(view, batch_size=16, on_error="substitute", shuffle=False) as loader:
        first = next(iter(loader)).sample_ids.tolist()
        assert 0 not in first
        assert len(set(first)) > 2
        loader.set_epoch(0)
        assert next(iter(loader)).sample_ids.tolist() == first


def test_copies_and_moves_of_a_batch_keep_its_extras(dataset: mx8.Dataset) -> None:
    view = dataset.select([1, 1, 0, 1])
    with loader_of(view) as loader:
        batch = next(iter(loader))
        for other in (batch.copy(), pickle.loads(pickle.dumps(batch)), batch.replace({}), batch.map(lambda x: x)):
            assert other.extras["occurrence"].tolist() == [0, 1, 0, 2]
        loader.set_epoch(0)
        (there,) = torch.utils.data.DataLoader(loader.as_iterable_dataset(), batch_size=None, num_workers=1)
        assert there.extras["occurrence"].tolist() == [0, 1, 0, 2]
        assert torch.equal(there["image"], batch["image"])
    with loader_of(dataset, output="numpy") as loader:
        assert next(iter(loader)).extras == {}
    with loader_of(view, output="numpy") as loader:
        assert type(next(iter(loader)).extras["occurrence"]) is np.ndarray


# views of several datasets --------------------------------------------------------------------------------------------


def test_joined_selections_keep_their_occurrences(dataset: mx8.Dataset) -> None:
    joined = mx8.concat([dataset, dataset.select([2, 2]), dataset.select([5])])
    with loader_of(joined, batch_size=20) as loader:
        (batch,) = loader
        assert batch.sample_ids.tolist() == [0, 1, 2, 3, 4, 5, 8, 8, 17]
        assert batch.extras["occurrence"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
        assert len({image.numpy().tobytes() for image in batch["image"]}) == 9
    with loader_of(joined, batch_size=2) as loader:  # also if the batch has no repeats
        assert all("occurrence" in batch.extras for batch in loader)


def test_repeats_in_a_mix_get_different_crops(dataset: mx8.Dataset) -> None:
    view = mix([dataset.select([0, 1]), dataset], weights=[5, 4], length=9, on_exhausted="cycle")
    with loader_of(view, shuffle=True) as loader:
        found = crops(loader)
    first = [key for key in found if key[0] < COUNT]
    assert len(first) == 5
    assert len(set(found.values())) == 9
    assert {key[0] for key in first} == {0, 1}
