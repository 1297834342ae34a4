"""Do batches record the layout of their pictures, and do transforms respect it?"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mx8shards as mx8
from mx8shards.transforms import ColorJitter, Compose, CutMix, Mixup, Normalize, RandomGrayscale, RandomHorizontalFlip

COUNT = 12
TRANSFORMS = [
    RandomHorizontalFlip(),
    RandomGrayscale(0.5),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    Normalize([0.5] * 3, [0.25] * 3),
    Mixup(classes=5),
    CutMix(classes=5),
    Compose([RandomHorizontalFlip(), ColorJitter(0.4), CutMix(classes=5), Normalize([0.5] * 3, [0.25] * 3)]),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    root = tmp_path_factory.mktemp("layouts") / "data"
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 12, 3), dtype=np.uint8)
    with mx8.Writer(root, columns={"image": "png", "label": "int", "raw": "ndarray:uint8:3,5,3"}) as writer:
        for i, picture in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            writer.write({"image": file.getvalue(), "label": i % 5, "raw": picture[:3, :5]})
    with mx8.Dataset(root) as dataset:
        yield dataset


def image_of(dataset: mx8.Dataset, layout: Any, size: Any, transform: Any) -> torch.Tensor:
    """The pictures of a batch of three, as `[B, C, H, W]`."""
    decode = {"image": mx8.CenterCrop(size, layout=layout)}
    with mx8.Loader(dataset, batch_size=3, seed=17, decode=decode, transform=transform) as loader:
        images = [batch["image"] for batch in loader]
    found = torch.cat(images)
    return found if layout == "CHW" else found.permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [12, (5, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda each: type(each).__name__)
def test_a_transform_gives_equal_pictures_in_both_layouts(dataset: mx8.Dataset, transform: Any, size: Any) -> None:
    assert torch.equal(image_of(dataset, "HWC", size, transform), image_of(dataset, "CHW", size, transform))


def test_a_batch_records_layouts_only_of_crops(dataset: mx8.Dataset) -> None:
    crops = mx8.MultiCrop({"image": mx8.ResizeCrop(8), "small": mx8.ResizeCrop(4, layout="HWC")})
    with mx8.Loader(dataset, batch_size=4, decode={"image": crops}) as loader:
        batch = next(iter(loader))
    for same in (batch, batch.copy(), batch.map(torch.clone), batch.replace({"label": batch["label"] + 1})):
        assert same.layouts == {"image": "CHW", "small": "HWC"}


def test_pictures_reshaped_by_a_transform_have_no_declared_layout(dataset: mx8.Dataset) -> None:
    def turn(batch: Any) -> Any:
        return batch.replace({"image": batch["image"].permute(0, 3, 1, 2)})

    decode = {"image": mx8.CenterCrop((5, 8), layout="HWC")}
    mean = Compose([turn, Normalize([0.5] * 3, [0.25] * 3), RandomHorizontalFlip(1)])
    with mx8.Loader(dataset, batch_size=4, decode=decode, transform=mean) as loader:
        batch = next(iter(loader))
    assert batch["image"].shape == (4, 3, 5, 8)
    assert batch.layouts == {}


def test_arrays_of_ambiguous_layout_need_a_layout(dataset: mx8.Dataset) -> None:
    with (
        mx8.Loader(dataset, batch_size=4, transform=RandomHorizontalFlip(1, image="raw")) as loader,
        pytest.raises(mx8.LoaderError, match="set layout='CHW' or layout='HWC'"),
    ):
        next(iter(loader))
    flip = RandomHorizontalFlip(1, image="raw", layout="HWC")
    with mx8.Loader(dataset, batch_size=4, transform=flip) as loader, mx8.Loader(dataset, batch_size=4) as plain:
        assert torch.equal(next(iter(loader))["raw"], next(iter(plain))["raw"].flip(2))


def test_random_crops_are_not_mirrored_by_default(dataset: mx8.Dataset) -> None:
    assert mx8.RandomResizedCrop(4).flip == 0.0
    assert mx8.RandomResizedCrop(4) == mx8.RandomResizedCrop(4, flip=0)

    def crops(flip: float) -> torch.Tensor:
        decode = {"image": mx8.RandomResizedCrop(8, flip=flip)}
        with mx8.Loader(dataset, batch_size=COUNT, seed=17, decode=decode) as loader:
            return next(iter(loader))["image"]

    plain = crops(0)
    assert torch.equal(crops(1), plain.flip(-1))
    some = crops(0.5)
    assert {torch.equal(a, b) for a, b in zip(some, plain, strict=True)} == {True, False}
