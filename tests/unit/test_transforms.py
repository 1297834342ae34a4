"""Do transforms change each picture like a reference implementation does, reproducibly?"""

from __future__ import annotations

import colorsys
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

import mx8shards as mx8
from mx8shards import transforms
from mx8shards.errors import SchemaError
from mx8shards.format.randomness import uniforms
from mx8shards.transforms import (
    ColorJitter,
    Compose,
    CutMix,
    Mixup,
    Normalize,
    RandomGrayscale,
    RandomHorizontalFlip,
)
from mx8shards.transforms.colour_changes import brightness, contrast, grey, hue, jittered, saturation
from mx8shards.transforms.draws import betas
from mx8shards.transforms.flip import flipped
from mx8shards.transforms.mix import boxes, partners
from mx8shards.transforms.normalize import normalized

IDENTITY = [0, 1, 2, 3]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
KINDS = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Rows(dict[str, Any]):
    """A minimal batch for transforms."""

    def __init__(self, values: Mapping[str, Any], sample_ids: Any, epoch: int = 0, seed: int = 17) -> None:
        super().__init__(values)
        self.sample_ids, self.epoch, self.seed = sample_ids, epoch, seed

    def replace(self, values: Mapping[str, Any]) -> Rows:
        return Rows({**self, **values}, self.sample_ids, self.epoch, self.seed)


def levels(count: int, height: int = 13, width: int = 11) -> torch.Tensor:
    """Random pictures that include grey, black, white and pure colours."""
    found = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    found[:, :, 0, :6] = [[0, 255, 255, 0, 77, 255], [0, 255, 0, 0, 77, 255], [0, 255, 0, 255, 77, 0]]
    return torch.from_numpy(found)


def pictures(count: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return levels(count) if dtype == torch.uint8 else (levels(count) / 255).to(dtype)


def batch(ids: Any, epoch: int = 0, seed: int = 17, dtype: torch.dtype = torch.uint8, classes: int = 5) -> Rows:
    """A batch whose rows depend only on their sample_id."""
    ids = np.asarray(list(ids), np.int64)
    every = pictures(50, dtype)
    values = {"image": every[ids], "label": torch.from_numpy(ids % classes)}
    return Rows(values, torch.from_numpy(ids), epoch, seed)


EVERY = [
    RandomHorizontalFlip(),
    RandomGrayscale(0.5),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)),
    Compose(
        [RandomHorizontalFlip(), ColorJitter(0.8, 0.8, 0.8, 0.2), RandomGrayscale(0.2), Normalize([0.5] * 3, [0.2] * 3)]
    ),
]
MIXES = [Mixup(classes=5, alpha=0.4), CutMix(classes=5)]
EACH = pytest.mark.parametrize("transform", EVERY, ids=lambda each: type(each).__name__)
EACH_MIX = pytest.mark.parametrize("mix", MIXES, ids=lambda each: type(each).__name__)


def same(a: Rows, b: Rows) -> bool:
    return a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


# reference implementations: torchvision's formulas, one picture at a time, in float64 ---------------------------------


def luma(picture: np.ndarray) -> np.ndarray:
    return 0.2989 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]


def blend(picture: np.ndarray, other: Any, factor: float) -> np.ndarray:
    return np.clip(factor * picture + (1 - factor) * other, 0, 1)


def turned(picture: np.ndarray, turn: float) -> np.ndarray:
    out = np.empty_like(picture)
    for y, x in np.ndindex(picture.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*picture[:, y, x].tolist())
        out[:, y, x] = colorsys.hsv_to_rgb((h + turn) % 1, s, v)
    return out


TWINS = {
    brightness: lambda picture, factor: blend(picture, 0, factor),
    contrast: lambda picture, factor: blend(picture, luma(picture).mean(), factor),
    saturation: lambda picture, factor: blend(picture, luma(picture), factor),
    hue: turned,
}
STEPS = [brightness, contrast, saturation, hue]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("adjust", STEPS, ids=lambda each: each.__name__)
def test_each_colour_step_equals_the_reference_with_a_factor_per_picture(adjust: Any, device: str) -> None:
    images = pictures(6, torch.float64)
    amounts = [0, 0.25, 1, 1.5, 3, 0.7] if adjust is not hue else [0, 0.5, -0.5, 0.1, -0.03, 1 / 3]
    found = adjust(images.to(device), torch.tensor(amounts, dtype=torch.float64, device=device)[:, None, None, None])
    wanted = [TWINS[adjust](picture, amount) for picture, amount in zip(images.numpy(), amounts, strict=True)]
    assert np.abs(found.cpu().numpy() - np.stack(wanted)).max() < 1e-12


ENHANCERS = {brightness: ImageEnhance.Brightness, contrast: ImageEnhance.Contrast, saturation: ImageEnhance.Color}


@pytest.mark.parametrize("adjust", ENHANCERS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("factor", [0.3, 0.9, 1.7])
def test_levels_equal_Pillows_up_to_its_rounding(adjust: Any, factor: float) -> None:
    images = levels(1, 40, 30)
    changes, order = np.ones((1, 4)), np.array([IDENTITY])
    changes[0, 3], changes[0, STEPS.index(adjust)] = 0, factor
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    wanted = np.asarray(ENHANCERS[adjust](picture).enhance(factor)).astype(int)
    found = jittered(images, changes, order)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() <= 1 + factor / 2  # Pillow rounds luma before it is scaled


@pytest.mark.parametrize("dtype", KINDS)
def test_jitter_applies_to_each_picture_its_own_steps_in_its_own_order(dtype: torch.dtype) -> None:
    images = pictures(24, dtype)
    rng = np.random.default_rng(0)
    changes = np.concatenate([rng.uniform(0.4, 1.6, (24, 3)), rng.uniform(-0.5, 0.5, (24, 1))], axis=1)
    changes[0], changes[1, 1] = (1, 1, 1, 0), 1
    order = rng.permuted(np.tile(IDENTITY, (24, 1)), axis=1)
    found = jittered(images, changes, order)
    assert found.dtype == dtype
    assert torch.equal(found[0], images[0])
    scale = 255 if dtype == torch.uint8 else 1
    for picture, change, steps, got in zip(images.double().numpy() / scale, changes, order, found, strict=True):
        for step in steps:
            picture = TWINS[STEPS[step]](picture, change[step])
        tolerance = {torch.uint8: 0.501, torch.float16: 6e-4, torch.bfloat16: 5e-3, torch.float32: 2e-5}.get(
            dtype, 1e-9
        )
        # the hue of near-grey pixels depends on rounding, so not all pixels are equal
        differs = np.abs(got.double().numpy() - picture * scale) > tolerance
        assert differs.mean() < (0.01 if dtype != torch.float64 else 1e-9)


def test_jitter_computed_in_pieces_gives_equal_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ColorJitter(0.4, 0.4, 0.4, 0.1)(batch(range(20)))
    monkeypatch.setattr("mx8shards.transforms.colour_changes._PIECE_BYTES", 7 * 4 * 3 * 13 * 11)
    assert same(ColorJitter(0.4, 0.4, 0.4, 0.1)(batch(range(20))), whole)


@pytest.mark.parametrize("dtype", KINDS)
def test_grey_pictures_have_the_luma_in_every_channel_and_others_are_unchanged(dtype: torch.dtype) -> None:
    images = pictures(4, dtype)
    found = grey(images, np.array([1, 3]))
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    wanted = luma(np.moveaxis(images.double().numpy(), 1, 0))
    tolerance = {torch.uint8: 0.5001, torch.float16: 5e-4, torch.bfloat16: 4e-3}.get(dtype, 1e-6)
    for channel in range(3):
        assert np.abs(found[[1, 3], channel].double().numpy() - wanted[[1, 3]]).max() <= tolerance


def test_grey_differs_from_Pillows_by_at_most_one_level() -> None:
    images = levels(1, 40, 30)
    wanted = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert np.abs(grey(images, np.array([0]))[0, 0].numpy() - wanted).max() <= 1


def test_flipped_pictures_are_mirrored_and_others_are_unchanged() -> None:
    images = levels(3)
    found = flipped(images, np.array([0, 2]))
    assert np.array_equal(found[0].numpy(), images[0].numpy()[:, :, ::-1])
    assert torch.equal(found[1], images[1])
    assert torch.equal(flipped(found, np.array([0, 2])), images)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalized_pictures_equal_the_reference(kind: torch.dtype, dtype: torch.dtype) -> None:
    images, mean, std = pictures(3, kind), np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    plain = images.double().numpy() / (255 if kind == torch.uint8 else 1)
    wanted = (plain - mean[:, None, None]) / std[:, None, None]
    found = normalized(images, mean.tolist(), std.tolist(), dtype)
    assert found.dtype == dtype
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6}.get(dtype, 1e-12)
    assert np.abs(found.double().numpy() - wanted).max() <= tolerance * np.abs(wanted).max()


def test_normalize_takes_any_number_of_channels() -> None:
    grey_ones = Rows({"image": levels(2)[:, :1]}, torch.arange(2))
    assert Normalize([0.5], [0.5])(grey_ones)["image"].shape == (2, 1, 13, 11)


# mixing ---------------------------------------------------------------------------------------------------------------


def reference_mix(mix: Mixup | CutMix, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The reference result, row by row, from the draws of the purposes in the registry."""
    ids = rows.sample_ids.numpy()
    name = type(mix).__name__.lower()
    drawn = uniforms(rows.seed, rows.epoch, ids, f"{name}:image", 5)
    images, labels = rows["image"].double().numpy(), np.eye(mix.classes)[rows["label"].numpy()]
    labels = labels * (1 - mix.label_smoothing) + mix.label_smoothing / mix.classes
    order = sorted(range(len(ids)), key=lambda row: drawn[row, 2])
    out, soft = images.copy(), labels.copy()
    height, width = images.shape[2:]
    for place, row in enumerate(order):
        partner = order[(place + 1) % len(order)]
        share = float(betas(drawn[row : row + 1, 1], mix.alpha)[0]) if drawn[row, 0] < mix.p else 1.0
        if name == "mixup":
            out[row] = share * images[row] + (1 - share) * images[partner]
        else:
            x, y, half = int(drawn[row, 3] * width), int(drawn[row, 4] * height), 0.5 * (1 - share) ** 0.5
            right, down = int(half * width), int(half * height)
            box = np.s_[:, max(y - down, 0) : min(y + down, height), max(x - right, 0) : min(x + right, width)]
            out[row][box] = images[partner][box]
            share = 1 - images[row][0][box[1:]].size / (height * width)
        soft[row] = share * labels[row] + (1 - share) * labels[partner]
    return out, soft


@pytest.mark.parametrize("count", [1, 2, 3, 8, 31])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    "mix",
    [
        *MIXES,
        Mixup(classes=5, alpha=8, p=0.5, label_smoothing=0.1),
        CutMix(classes=7, alpha=0.2, p=0.5, label_smoothing=0.1),
    ],
)
def test_a_mixed_batch_equals_the_reference(mix: Mixup | CutMix, dtype: torch.dtype, count: int) -> None:
    rows = batch(range(count), dtype=dtype)
    found = mix(rows)
    images, labels = reference_mix(mix, rows)
    assert found["image"].dtype == dtype
    assert np.abs(found["image"].double().numpy() - images).max() < (0.501 if dtype == torch.uint8 else 1e-6)
    assert found["label"].dtype == torch.float32
    assert np.abs(found["label"].double().numpy() - labels).max() < 1e-6
    assert torch.allclose(found["label"].sum(1), torch.ones(count))


@EACH_MIX
def test_a_batch_of_one_is_unchanged_and_its_label_becomes_one_hot(mix: Mixup | CutMix) -> None:
    rows = batch([3])
    found = mix(rows)
    assert torch.equal(found["image"], rows["image"])
    assert torch.allclose(found["label"], torch.eye(5)[[3]])


@EACH_MIX
def test_mixing_an_empty_batch_gives_an_empty_batch(mix: Mixup | CutMix) -> None:
    rows = batch([])
    assert mix(rows)["image"].shape == rows["image"].shape
    assert mix(rows)["label"].shape == (0, 5)


@EACH
def test_transforms_accept_an_empty_batch(transform: Any) -> None:
    assert transform(batch([]))["image"].shape == batch([])["image"].shape


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_each_row_is_mixed_with_one_other_row(count: int, seed: int) -> None:
    found = partners(np.random.default_rng(seed).random(count))
    assert sorted(found.tolist()) == list(range(count))
    assert count == 1 or (found != np.arange(count)).all()


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
@settings(max_examples=50)
def test_boxes_are_inside_the_picture(share: float, x: float, y: float) -> None:
    ((top, bottom, left, right),) = boxes(np.array([share]), np.array([[x, y]]), 31, 17).tolist()
    assert 0 <= top <= bottom <= 31
    assert 0 <= left <= right <= 17
    assert (bottom - top) * (right - left) <= (1 - share) * 31 * 17 + 1e-9


@EACH_MIX
def test_the_result_of_mixing_does_not_depend_on_the_order_of_rows(mix: Mixup | CutMix) -> None:
    ids = np.random.default_rng(1).permutation(20)
    found, again = mix(batch(range(20))), mix(batch(ids))
    assert torch.equal(again["image"], found["image"][ids])
    assert torch.equal(again["label"], found["label"][ids])


def test_mixes_can_be_composed() -> None:
    both = Compose([Mixup(classes=5, p=0.5, label_smoothing=0.1), CutMix(classes=5, p=0.5)])
    found = both(batch(range(30)))["label"]
    assert torch.allclose(found.sum(1), torch.ones(30))
    assert found.min() >= 0.02 - 1e-6
    assert (found > 0.021).sum(1).max() >= 3  # of at least three samples


ALPHAS = {0.5: lambda x: 2 / np.pi * np.arcsin(np.sqrt(x)), 1.0: lambda x: x, 2.0: lambda x: x * x * (3 - 2 * x)}


@pytest.mark.parametrize("alpha", ALPHAS)
def test_draws_from_beta_equal_known_quantiles(alpha: float) -> None:
    uniform = np.linspace(0, 1, 4001)[:-1]
    assert np.abs(ALPHAS[alpha](betas(uniform, alpha)) - uniform).max() < 1e-5


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.8, 3, 32, 1000])
def test_draws_from_beta_have_its_variance_and_fourth_moment(alpha: float) -> None:
    found = betas((np.arange(200_000) + 0.5) / 200_000, alpha) - 0.5
    variance = 1 / (8 * alpha + 4)
    assert abs(found.mean()) < 1e-9
    assert (found**2).mean() == pytest.approx(variance, rel=1e-3)
    assert (found**4).mean() == pytest.approx(variance**2 * 3 * (1 + 2 * alpha) / (3 + 2 * alpha), rel=1e-3)
    assert (np.diff(found) >= 0).all()


# replay ---------------------------------------------------------------------------------------------------------------


@EACH
def test_a_replay_is_equal_and_does_not_change_its_input(transform: Any) -> None:
    rows = batch(range(40))
    before = rows["image"].clone()
    assert same(transform(rows), transform(batch(range(40))))
    assert torch.equal(rows["image"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@EACH
def test_transforms_do_not_change_float_input(transform: Any, dtype: torch.dtype) -> None:
    rows = batch(range(8), dtype=dtype)
    before = rows["image"].clone()
    transform(rows)
    assert torch.equal(rows["image"], before)


@pytest.mark.parametrize("dtype", KINDS)
@EACH
def test_two_ranks_together_give_exactly_the_result_of_one(transform: Any, dtype: torch.dtype) -> None:
    whole = transform(batch(range(41), dtype=dtype))["image"]
    first, second = (transform(batch(range(rank, 41, 2), dtype=dtype))["image"] for rank in range(2))
    assert torch.equal(whole[0::2], first)
    assert torch.equal(whole[1::2], second)


@pytest.mark.parametrize("transform", [*(each for each in EVERY if not isinstance(each, Normalize)), *MIXES])
def test_results_differ_between_epochs_seeds_and_pictures(transform: Any) -> None:
    found = transform(batch(range(40)))["image"]
    assert not torch.equal(found, transform(batch(range(40), epoch=1))["image"])
    assert not torch.equal(found, transform(batch(range(40), seed=18))["image"])
    repeated = Rows({"image": pictures(1).repeat(40, 1, 1, 1), "label": torch.arange(40) % 5}, torch.arange(40))
    rows = transform(repeated)["image"]
    assert isinstance(transform, Mixup | CutMix) or len(torch.unique(rows, dim=0)) > 1


def test_two_crops_of_a_sample_get_different_changes() -> None:
    ids = torch.arange(64)
    rows = Rows({"global": pictures(64), "local": pictures(64)}, ids)
    for make in (RandomHorizontalFlip, RandomGrayscale, lambda **key: ColorJitter(0.4, **key)):
        rows = Compose([make(image="global"), make(image="local")])(rows)
        assert not torch.equal(rows["global"], rows["local"])


def test_the_memory_format_changes_nothing() -> None:
    rows = batch(range(16))
    last = rows.replace({"image": rows["image"].to(memory_format=torch.channels_last)})
    for transform in (*EVERY, *MIXES):
        assert torch.equal(transform(rows)["image"], transform(last)["image"])


def turned(rows: Rows, layout: str | None = "HWC") -> Rows:
    """The same rows with pictures as `[B, H, W, C]` and that layout declared."""
    found = rows.replace({"image": rows["image"].permute(0, 2, 3, 1).contiguous()})
    if layout is not None:
        found.layouts = {"image": layout}  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", ["HWC", None], ids=["declared", "told by the channels"])
@pytest.mark.parametrize("transform", [*EVERY, *MIXES], ids=lambda each: type(each).__name__)
def test_pictures_may_have_their_channels_last(transform: Any, layout: str | None, dtype: torch.dtype) -> None:
    rows = batch(range(16), dtype=dtype)
    wanted, found = transform(rows), transform(turned(rows, layout))
    assert torch.equal(found["image"].permute(0, 3, 1, 2), wanted["image"])
    assert torch.equal(found["label"], wanted["label"])
    assert found["image"].is_contiguous()


def square(count: int = 12) -> torch.Tensor:
    """Pictures of 3 × 3 pixels, whose layout is ambiguous."""
    return levels(count)[:, :, 1:4, 1:4].contiguous()


UNTOLD = [RandomHorizontalFlip(), RandomGrayscale(), ColorJitter(0.4), Normalize([0.5] * 3, [1] * 3), CutMix(classes=5)]
EACH_UNTOLD = pytest.mark.parametrize("transform", UNTOLD, ids=lambda each: type(each).__name__)


@EACH_UNTOLD
def test_pictures_of_ambiguous_layout_are_an_error_that_asks_for_layout(transform: Any) -> None:
    rows = Rows({"image": square(), "label": torch.arange(12) % 5}, torch.arange(12))
    hint = "set layout='CHW' or layout='HWC'"
    with pytest.raises(SchemaError, match=rf"{type(transform).__name__}: batch\['image'\]: expected .*{hint}"):
        transform(rows)


@pytest.mark.parametrize("channels", [2, 13])
def test_pictures_with_an_unusual_number_of_channels_are_an_error_that_asks_for_layout(channels: int) -> None:
    rows = Rows({"image": torch.zeros(4, channels, 20, 30)}, torch.arange(4))
    with pytest.raises(SchemaError, match=r"expected a tensor of uint8 or floats, \[B, C, H, W\] or .*set layout="):
        RandomHorizontalFlip()(rows)
    RandomHorizontalFlip(layout="CHW")(rows)
    Normalize([0.5] * channels, [1] * channels)(rows)  # the number of channels shows the layout
    Mixup(classes=2)(rows.replace({"label": torch.zeros(4, dtype=torch.int64)}))  # needs no layout


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("told", ["batch", "transform"])
def test_a_given_layout_is_used(told: str, layout: Any) -> None:
    image, ids = square(), torch.arange(12)
    rows = Rows({"image": image}, ids)
    if told == "batch":
        rows.layouts = {"image": layout}  # type: ignore[attr-defined]
    found = RandomHorizontalFlip(1, layout=layout if told == "transform" else None)(rows)["image"]
    assert torch.equal(found, image.flip(3 if layout == "CHW" else 2))


def test_a_layout_that_contradicts_the_batch_is_refused() -> None:
    with pytest.raises(SchemaError, match="Normalize: layout: expected 'HWC', as the batch says, got 'CHW'"):
        Normalize([0.5] * 3, [1] * 3, layout="CHW")(turned(batch(range(4))))


@pytest.mark.parametrize("transform", [*EVERY[:3], *MIXES], ids=lambda each: type(each).__name__)
def test_a_plain_dict_without_sample_ids_is_an_error(transform: Any) -> None:
    rows = dict(batch(range(4)))
    wanted = f"{type(transform).__name__}: expected a Batch: .* got dict .*transform="
    with pytest.raises(SchemaError, match=wanted):
        transform(rows)


def test_a_plain_dict_can_be_normalised() -> None:
    rows = batch(range(4))
    found = EVERY[3](dict(rows))
    assert type(found) is dict
    assert torch.equal(found["image"], EVERY[3](rows)["image"])
    with pytest.raises(SchemaError, match="expected a batch with 'image', got tuple"):
        EVERY[3]((rows["image"], rows["label"]))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_means_may_be_lists_arrays_or_tensors(kind: Any) -> None:
    rows = batch(range(4))
    given = Normalize(kind([0.5, 0.25, 0.125]), kind([0.5, 0.25, 0.125]))
    assert torch.equal(given(rows)["image"], Normalize((0.5, 0.25, 0.125), (0.5, 0.25, 0.125))(rows)["image"])
    assert given == Normalize((0.5, 0.25, 0.125), (0.5, 0.25, 0.125))
    assert hash(given) == hash(Normalize((0.5, 0.25, 0.125), (0.5, 0.25, 0.125)))


def test_sample_ids_may_be_a_numpy_array() -> None:
    rows = batch(range(9))
    numpys = Rows(rows, rows.sample_ids.numpy(), rows.epoch, rows.seed)
    assert same(RandomHorizontalFlip()(rows), RandomHorizontalFlip()(numpys))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    root = tmp_path_factory.mktemp("transforms") / "data"
    with mx8.Writer(root, columns={"image": "ndarray:uint8:3,13,11", "label": "int"}) as writer:
        for i, image in enumerate(levels(37).numpy()):
            writer.write({"image": image, "label": i % 5})
    with mx8.Dataset(root) as dataset:
        yield dataset


AUGMENT = Compose([RandomHorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1), RandomGrayscale(0.2)])


def by_sample(batches: Iterable[Any]) -> dict[int, torch.Tensor]:
    return {i: row for each in batches for i, row in zip(each.sample_ids.tolist(), each["image"], strict=True)}


def test_a_loader_gives_the_same_pictures_on_any_number_of_ranks_and_after_a_resume(dataset: mx8.Dataset) -> None:
    options: dict[str, Any] = {"shuffle": True, "seed": 17, "transform": AUGMENT}
    whole = mx8.Loader(dataset, batch_size=8, **options)
    epochs = [by_sample(whole), by_sample(whole)]
    assert len(epochs[0]) == 37
    assert any(not torch.equal(epochs[0][i], epochs[1][i]) for i in range(37))
    for rank in range(3):
        with mx8.Loader(dataset, batch_size=3, rank=rank, world_size=3, **options) as loader:
            for epoch in range(2):
                assert all(torch.equal(row, epochs[epoch][i]) for i, row in by_sample(loader).items())
    batches = iter(whole)
    state = next(batches) and whole.state_dict()
    whole.load_state_dict(state)
    assert all(torch.equal(row, AUGMENT(batch([i], epoch=2))["image"][0]) for i, row in by_sample(whole).items())
    whole.close()


def test_a_transform_gives_equal_results_inside_and_after_the_loader(dataset: mx8.Dataset) -> None:
    mix = Compose([AUGMENT, CutMix(classes=5), Normalize([0.5] * 3, [0.5] * 3)])
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "seed": 17}
    with mx8.Loader(dataset, transform=mix, **options) as within, mx8.Loader(dataset, **options) as before:
        for a, b in zip(within, map(mix, before), strict=True):
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["label"], b["label"])
            assert a["label"].shape == (len(a.sample_ids), 5)


def test_an_error_of_the_loader_describes_the_input_of_the_transform(dataset: mx8.Dataset) -> None:
    with (
        mx8.Loader(dataset, batch_size=8, transform=RandomHorizontalFlip(image="picture")) as loader,
        pytest.raises(mx8.LoaderError, match="expected a batch with 'picture', got one with image, label"),
    ):
        next(iter(loader))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("transform", [*EVERY, *MIXES], ids=lambda each: type(each).__name__)
def test_gpu_and_cpu_give_equal_results(transform: Any) -> None:
    rows = batch(range(50))
    on_gpu = Rows({key: value.cuda() for key, value in rows.items()}, rows.sample_ids.cuda(), rows.epoch, rows.seed)
    wanted, found = transform(rows), transform(on_gpu)
    for key in wanted:
        assert found[key].is_cuda
        assert torch.allclose(found[key].cpu().double(), wanted[key].double(), atol=1 if key == "image" else 1e-6)


# distributions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [RandomHorizontalFlip, RandomGrayscale])
def test_probability_0_changes_no_picture_and_1_changes_all(make: Any) -> None:
    rows = batch(range(50))
    assert torch.equal(make(0)(rows)["image"], rows["image"])
    whole = {RandomHorizontalFlip: flipped, RandomGrayscale: grey}[make](rows["image"], np.arange(50))
    assert torch.equal(make(1)(rows)["image"], whole)


@EACH_MIX
def test_rows_that_are_not_mixed_are_unchanged(mix: Mixup | CutMix) -> None:
    rows = batch(range(50))
    never = type(mix)(classes=5, p=0)(rows)
    assert torch.equal(never["image"], rows["image"])
    assert torch.equal(never["label"], torch.eye(5)[rows["label"]])
    some = type(mix)(classes=5, p=0.5)(rows)["image"]
    assert 10 < sum(torch.equal(a, b) for a, b in zip(some, rows["image"], strict=True)) < 40


@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("make", [RandomHorizontalFlip, RandomGrayscale])
def test_the_share_of_changed_pictures_is_p(make: Any, p: float) -> None:
    count = 20_000
    image = torch.tensor([[0, 9], [100, 20], [7, 3]], dtype=torch.uint8)[:, None, :]
    rows = Rows({"image": image.repeat(count, 1, 1, 1)}, torch.arange(count))
    changed = (make(p)(rows)["image"] != rows["image"]).flatten(1).any(1)
    assert abs(int(changed.sum()) - p * count) < 4 * (p * (1 - p) * count) ** 0.5


def test_brightness_is_uniformly_distributed_in_its_range() -> None:
    count = 20_000
    rows = Rows({"image": torch.full((count, 3, 1, 1), 0.25)}, torch.arange(count))
    for amount, (least, most) in {0.4: (0.6, 1.4), 2.0: (0.0, 3.0), (0.5, 0.75): (0.5, 0.75)}.items():
        found = np.sort(ColorJitter(amount)(rows)["image"][:, 0, 0, 0].numpy() / 0.25)
        wanted = least + (most - least) * (np.arange(count) + 0.5) / count
        assert np.abs(found - wanted).max() < 1.63 / count**0.5 * (most - least)  # Kolmogorov's bound at 1 %


def test_all_orders_of_steps_are_drawn_equally_often() -> None:
    drawn = uniforms(17, 0, np.arange(24_000), ColorJitter().purpose, 8)
    _, counts = np.unique(np.argsort(drawn[:, 4:], axis=1), axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # chi-squared, 23 degrees, 1 in 1000


# invalid arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RandomHorizontalFlip(1.5), "p: expected a probability from 0 to 1, got 1.5"),
        (lambda: RandomGrayscale(-0.1), "p: expected a probability from 0 to 1, got -0.1"),
        (lambda: RandomGrayscale(float("nan")), "got nan"),
        (lambda: ColorJitter(-1), "brightness: expected an amount from 0"),
        (lambda: ColorJitter(contrast=(2, 1)), r"contrast: expected .* got \(2, 1\)"),
        (lambda: ColorJitter(saturation=float("inf")), "saturation"),
        (lambda: ColorJitter(hue=0.6), "hue: expected an amount from 0 to 0.5"),
        (lambda: ColorJitter(hue=-0.1), "hue"),
        (lambda: Normalize([0.5], [0.5, 0.5]), "mean and std: expected as many numbers each"),
        (lambda: Normalize([], []), "mean: expected finite numbers, one for each channel"),
        (lambda: Normalize([0.5], [0]), "std: expected numbers above 0"),
        (lambda: Normalize([0.5], [0.5], torch.uint8), "dtype: expected a torch.dtype of floats, got torch.uint8"),
        (lambda: Mixup(classes=0), "classes: expected an int from 1, got 0"),
        (lambda: Mixup(classes=5, alpha=0), "alpha: expected a finite number above 0, got 0"),
        (lambda: CutMix(classes=5, label_smoothing=2), "label_smoothing: expected a probability"),
        (lambda: CutMix(classes=5, p=2), "p: expected"),
        (lambda: Compose([RandomHorizontalFlip(), RandomHorizontalFlip(0.1)]), "would draw the same numbers"),
        (lambda: Compose([Normalize([0.5], [1]), ColorJitter(0.4)]), "put it before Normalize"),
    ],
)
def test_an_invalid_setting_is_an_error_with_the_given_value(make: Any, says: str) -> None:
    with pytest.raises(mx8.SettingError, match=says):
        make()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (levels(4)[:, :2], r"uint8 \[4, 2, 13, 11\]"),
        (levels(4)[0], r"uint8 \[3, 13, 11\]"),
        (levels(4).int(), r"int32 \[4, 3, 13, 11\]"),
        (levels(4).numpy(), "ndarray, which is not a tensor"),
        (b"jpeg", "bytes, which is not a tensor"),
    ],
)
@pytest.mark.parametrize("transform", [EVERY[1], EVERY[2], EVERY[3]], ids=lambda each: type(each).__name__)
def test_arrays_that_are_not_pictures_are_an_error_with_what_was_found(transform: Any, value: Any, found: str) -> None:
    wanted = r"batch\['image'\]: expected a tensor of uint8 or floats, \[B, 3, H, W\] or \[B, H, W, 3\], got"
    with pytest.raises(SchemaError, match=f"^{type(transform).__name__}: {wanted} {found}") as caught:
        transform(Rows({"image": value}, torch.arange(4)))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (torch.tensor([0, 1, 5]), "expected labels from 0 to 4, got 5"),
        (torch.tensor([0, -1, 2]), "expected labels from 0 to 4, got -1"),
        (torch.tensor([0.0, 1, 2]), r"got torch.float32 \[3\]"),
        (torch.zeros(3, 4), r"got torch.float32 \[3, 4\]"),
        (torch.zeros(3, 5, dtype=torch.int64), r"got torch.int64 \[3, 5\]"),
        (np.arange(3), "got ndarray, which is not a tensor"),
    ],
)
@EACH_MIX
def test_labels_that_cannot_be_mixed_are_refused(mix: Any, labels: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=rf"^{type(mix).__name__}: batch\['label'\]: .*{says}"):
        mix(Rows({"image": levels(3), "label": labels}, torch.arange(3)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_may_have_any_integer_dtype(dtype: torch.dtype) -> None:
    rows = batch(range(9))
    assert same(Mixup(classes=5)(rows), Mixup(classes=5)(rows.replace({"label": rows["label"].to(dtype)})))


def test_transforms_can_be_copied_pickled_and_compared() -> None:
    assert RandomHorizontalFlip(0.5) == RandomHorizontalFlip()
    assert repr(Mixup(classes=3)) == (
        "Mixup(classes=3, alpha=1.0, p=1.0, label_smoothing=0.0, image='image', label='label')"
    )
    assert Mixup(classes=3) != CutMix(classes=3)
    with pytest.raises(FrozenInstanceError):
        RandomHorizontalFlip().p = 1  # type: ignore[misc]


def test_torch_is_imported_only_when_a_name_is_used() -> None:
    code = "import sys, mx8shards.transforms as t; print('torch' in sys.modules, len(dir(t)) > 7)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'Solarize'"):
        _ = transforms.Solarize
