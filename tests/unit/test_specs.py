"""Do crop specs validate their arguments, and do they compare and pickle as values?"""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.media.specs import Crop

CROPS = (mx8.CenterCrop, mx8.ResizeCrop, mx8.RandomResizedCrop)
FLOATS = {"dtype": "float32", "mean": (0.5, 0.5, 0.5), "std": (1, 2, 3)}

# the name of the invalid argument → the arguments
BAD: list[tuple[str, dict[str, Any]]] = [
    *(("size", {"size": size}) for size in (0, -1, 2.0, True, "224", None, (1, 2, 3), (1,), (0, 5), [3], 1 << 20)),
    *(("size", {"size": (5, bad)}) for bad in (0, 1.5, True, None)),
    *(("layout", {"layout": layout}) for layout in ("chw", "NCHW", None, ["CHW"])),
    *(("dtype", {"dtype": dtype}) for dtype in ("float64", "bfloat16", float, None, ["uint8"])),
    *(("flip", {"flip": flip}) for flip in (-0.1, 1.5, math.nan, "0.5", None, [0.5])),
    *(("seed", {"seed": seed}) for seed in (1.0, "1", True)),
    *(("exact", {"exact": exact}) for exact in (1, None, "no")),
    *(("upright", {"upright": upright}) for upright in (1, None, "no")),
    ("mean and std", {"dtype": "float32", "mean": (0, 0, 0)}),
    ("mean and std", {"dtype": "float32", "std": (1, 1, 1)}),
    ("mean", {**FLOATS, "dtype": "uint8"}),
    *(
        ("mean", {**FLOATS, "mean": mean})
        for mean in ((1, 2), (0, math.nan, 0), 0.5, (0, 0, "x"), "abc", {1, 2, 3}, (123.7, 116.3, 103.5))
    ),
    *(("std", {**FLOATS, "std": std}) for std in ((1, 0, 1), (1, -1, 1), (1, 1, math.inf), (1, 1, 1, 1), 1.0)),
]
RANDOM_BAD: list[tuple[str, dict[str, Any]]] = [
    *(("scale", {"scale": s}) for s in ((0, 1), (0.5, 0.1), (0.1, 1.5), (0.1,), 0.5, None, (-1, 1), (0.1, math.nan))),
    *(("scale", {"scale": s}) for s in (("0.1", "1"), [0.1], (True, True))),
    *(("ratio", {"ratio": r}) for r in ((0, 1), (2, 1), (1,), 1, None, (0.5, math.inf), (math.nan, 1), ("1", "2"))),
]
CENTER_BAD = [("resize", {"resize": resize}) for resize in (0, 223, 256.0, True, "256", 1 << 20)]


def message_of(kind: Any, **given: Any) -> str:
    """The message for invalid arguments."""
    with pytest.raises(ValueError, match=r".") as caught:
        kind(**{"size": 224, **given})
    return str(caught.value)


@pytest.mark.parametrize("kind", CROPS)
@pytest.mark.parametrize(("name", "given"), BAD, ids=str)
def test_an_invalid_argument_is_an_error_with_name_and_value(kind: Any, name: str, given: dict[str, Any]) -> None:
    message = message_of(kind, **given)
    assert message.startswith(f"{kind.__name__}: {name}: expected ")
    if name != "mean and std":
        assert repr(given[name]) in message or repr(given["dtype"]) in message


@pytest.mark.parametrize(("name", "given"), RANDOM_BAD, ids=str)
def test_an_invalid_range_is_an_error_with_name_and_value(name: str, given: dict[str, Any]) -> None:
    message = message_of(mx8.RandomResizedCrop, **given)
    assert message.startswith(f"RandomResizedCrop: {name}: expected two numbers")
    assert message.endswith(f"got {given[name]!r}")


@pytest.mark.parametrize(("name", "given"), CENTER_BAD, ids=str)
def test_a_resize_smaller_than_the_crop_is_an_error(name: str, given: dict[str, Any]) -> None:
    message = message_of(mx8.CenterCrop, **given)
    assert message.startswith("CenterCrop: resize: expected pixels from the size")
    assert message.endswith(f"got {given[name]!r}")


@pytest.mark.parametrize(
    "each", [{}, None, 5, [mx8.ResizeCrop(5)], {"a": 5}, {1: mx8.ResizeCrop(5)}, {"a": mx8.MultiCrop}], ids=str
)
def test_a_multi_crop_requires_crops_by_name(each: Any) -> None:
    with pytest.raises(ValueError, match=r"^MultiCrop: each: expected crops by name, got "):
        mx8.MultiCrop(each)


def test_a_picture_is_decoded_once_for_all_crops() -> None:
    with pytest.raises(ValueError, match=r"^MultiCrop: each: expected crops that agree on exact"):
        mx8.MultiCrop({"a": mx8.ResizeCrop(5), "b": mx8.ResizeCrop(5, exact=True)})


SPECS: list[Any] = [
    mx8.CenterCrop(224),
    mx8.CenterCrop(224, resize=256),
    mx8.CenterCrop((3, 4), layout="HWC"),
    mx8.ResizeCrop(224),
    mx8.ResizeCrop(224, exact=True),
    mx8.ResizeCrop(224, dtype="float16", mean=(0, 0, 0), std=(1, 1, 1)),
    mx8.RandomResizedCrop(224),
    mx8.RandomResizedCrop(224, seed=3),
    mx8.RandomResizedCrop(224, scale=(0.3, 1), flip=0),
    mx8.MultiCrop({"a": mx8.ResizeCrop(224)}),
    mx8.MultiCrop({"b": mx8.ResizeCrop(224)}),
    mx8.MultiCrop({"a": mx8.ResizeCrop(224), "b": mx8.ResizeCrop(96)}),
]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_specs_can_be_copied_pickled_compared_and_hashed(spec: Any) -> None:
    for other in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert other == spec
        assert hash(other) == hash(spec)
        assert repr(other) == repr(spec)
    assert eval(repr(spec), {name: getattr(mx8, name) for name in NAMES}) == spec
    assert [other for other in SPECS if other == spec] == [spec]
    assert len({*SPECS, spec}) == len(SPECS)


NAMES = ("CenterCrop", "ResizeCrop", "RandomResizedCrop", "MultiCrop")


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_specs_are_immutable(spec: Any) -> None:
    name = "each" if isinstance(spec, mx8.MultiCrop) else "size"
    with pytest.raises(FrozenInstanceError):
        setattr(spec, name, getattr(spec, name))


def test_a_multi_crop_does_not_change_with_its_argument() -> None:
    given = {"a": mx8.ResizeCrop(5)}
    spec = mx8.MultiCrop(given)
    given["b"] = mx8.ResizeCrop(6)
    assert spec == mx8.MultiCrop({"a": mx8.ResizeCrop(5)})
    one, other = mx8.MultiCrop(given), mx8.MultiCrop(dict(reversed(given.items())))
    assert one == other
    assert hash(one) == hash(other)


def test_numbers_given_as_lists_or_arrays_become_tuples() -> None:
    numpy = pytest.importorskip("numpy")
    spec = mx8.ResizeCrop(5, dtype="float32", mean=[0, 0.5, 1], std=numpy.array([1, 2, 3]))
    assert spec == mx8.ResizeCrop(5, dtype="float32", mean=(0, 0.5, 1), std=(1, 2, 3))
    assert hash(spec) == hash(pickle.loads(pickle.dumps(spec)))
    assert "array" not in repr(spec)


@pytest.mark.parametrize(("size", "height", "width"), [(5, 5, 5), ((3, 4), 3, 4)])
def test_a_size_is_one_number_or_height_and_width(size: Any, height: int, width: int) -> None:
    for kind in CROPS:
        crop: Crop = kind(size)
        assert crop.sides == (height, width)
        assert crop.crops("image") == {"image": crop}


def test_lists_and_numpy_numbers_are_treated_like_tuples_and_ints() -> None:
    spec = mx8.RandomResizedCrop([224, 224], scale=[0.1, 1], ratio=[1, 1])  # type: ignore[arg-type]
    assert spec == mx8.RandomResizedCrop(np.int64(224), scale=(0.1, 1.0), ratio=(1.0, 1.0))
    assert hash(spec) == hash(mx8.RandomResizedCrop(224, scale=(0.1, 1.0), ratio=(1.0, 1.0)))


@pytest.mark.parametrize("name", ["sample_ids", "padding"])
def test_a_crop_cannot_be_named_like_an_attribute_of_a_batch(name: str) -> None:
    with pytest.raises(ValueError, match=f"under '{name}'"):
        mx8.MultiCrop({name: mx8.ResizeCrop(8)})
