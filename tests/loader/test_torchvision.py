"""Do torchvision's v2 transforms, in a loader or called on its batches, change only the pictures?"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mx8shards as mx8

COUNT = 6


def _declare_operators(package: str) -> None:
    """Declare torchvision's operators, because its library does not load with a torch of another build."""
    source = (Path(package).parent / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in re.findall(r'@(?:register_meta|torch\.library\.register_fake)\("(?:torchvision::)?(\w+)"\)', source):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor rows) -> Tensor")
    _KEPT.append(library)  # garbage collection would remove the operators


_KEPT: list[Any] = []


@pytest.fixture(scope="module")
def v2() -> Any:
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision.transforms.v2
    except RuntimeError:  # operator torchvision::nms does not exist
        _declare_operators(found.origin)
        import torchvision.transforms.v2
    return torchvision.transforms.v2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    root = tmp_path_factory.mktemp("torchvision") / "data"
    columns = {"image": "png", "label": "int", "first": "int", "text": "str", "raw": "ndarray:uint8:3,5,7"}
    with mx8.Writer(root, columns=columns) as writer:
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (COUNT, 12, 14, 3), dtype=np.uint8)):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            raw = pixels[:5, :7].transpose(2, 0, 1)
            writer.write({"image": file.getvalue(), "label": i % 5, "first": i, "text": "x" * i, "raw": raw})
    with mx8.Dataset(root) as dataset:
        yield dataset


def batch_of(dataset: mx8.Dataset, transform: Any = None, layout: Any = "CHW", **decode: Any) -> Any:
    crops = decode or {"image": mx8.CenterCrop((9, 10), layout=layout)}
    with mx8.Loader(dataset, batch_size=COUNT, decode=crops, transform=transform) as loader:
        return next(iter(loader)).copy()


def test_a_torchvision_transform_changes_only_the_pictures(v2: Any, dataset: mx8.Dataset) -> None:
    plain = batch_of(dataset)
    steps = [v2.RandomHorizontalFlip(1), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    transform = v2.Compose(steps)
    for found in (batch_of(dataset, transform), transform(plain)):
        assert type(found) is type(plain)
        assert type(found["image"]) is torch.Tensor
        assert torch.equal(found["image"], transform(plain["image"]))
        for name in ("label", "first", "raw"):
            assert torch.equal(found[name], plain[name])
        assert list(found["text"]) == list(plain["text"])
        assert torch.equal(found.sample_ids, plain.sample_ids)
        assert (found.epoch, found.seed, found.layouts) == (0, 0, {"image": "CHW"})


def test_torchvision_sees_channels_last_pictures_channels_first(v2: Any, dataset: mx8.Dataset) -> None:
    plain, flip = batch_of(dataset, layout="HWC"), v2.RandomHorizontalFlip(1)
    for found in (batch_of(dataset, flip, "HWC"), flip(plain)):
        assert torch.equal(found["image"], plain["image"].flip(2))
        assert found["image"].is_contiguous()
        assert found.layouts == {"image": "HWC"}
    assert batch_of(dataset, v2.Resize(5), "HWC")["image"].shape == (COUNT, 5, 5, 3)


def test_all_crops_of_a_picture_are_changed(v2: Any, dataset: mx8.Dataset) -> None:
    crops = {"image": mx8.MultiCrop({"a": mx8.CenterCrop(8), "b": mx8.ResizeCrop(4, layout="HWC")})}
    plain, found = batch_of(dataset, **crops), batch_of(dataset, v2.RandomHorizontalFlip(1), **crops)
    assert torch.equal(found["a"], plain["a"].flip(3))
    assert torch.equal(found["b"], plain["b"].flip(2))


def test_cutmix_finds_the_labels(v2: Any, dataset: mx8.Dataset) -> None:
    plain = batch_of(dataset)
    torch.manual_seed(3)
    images, labels = v2.CutMix(num_classes=5)(plain["image"], plain["label"])
    torch.manual_seed(3)
    found = v2.CutMix(num_classes=5)(plain)
    assert torch.equal(found["image"], images)
    assert torch.equal(found["label"], labels)
    assert found["label"].shape == (COUNT, 5)
    assert torch.equal(found["first"], plain["first"])


def test_without_decoded_pictures_the_first_multidimensional_array_is_the_image(v2: Any, dataset: mx8.Dataset) -> None:
    with mx8.Loader(dataset, batch_size=COUNT, columns=["first", "label", "raw"]) as loader:
        plain = next(iter(loader)).copy()
    found = v2.RandomHorizontalFlip(1)(plain)
    assert torch.equal(found["raw"], plain["raw"].flip(3))
    assert torch.equal(found["first"], plain["first"])
    assert torch.equal(found["label"], plain["label"])


def test_a_pytree_round_trip_keeps_the_attributes_of_a_batch(v2: Any, dataset: mx8.Dataset) -> None:
    from torch.utils import _pytree

    for layout in ("CHW", "HWC"):
        plain = batch_of(dataset, layout=layout)
        found = _pytree.tree_map(lambda leaf: leaf, plain)
        assert type(found["image"]) is torch.Tensor
        assert torch.equal(found["image"], plain["image"])
        assert found.layouts == plain.layouts
