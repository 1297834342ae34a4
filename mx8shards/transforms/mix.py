"""How are pairs of pictures and their labels mixed (Mixup, CutMix)?

Every row gets a partner in its batch. A row's draws depend on (seed, epoch, sample_id, occurrence), but its partner
depends on the other rows: a replay is exact only with the same world size and batch size. The order of the rows does
not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import SchemaError, probability, real_number, whole_number
from mx8shards.transforms.draws import Floats, betas, uniforms
from mx8shards.transforms.picture_tensor import (
    Pictures,
    R,
    check_layout,
    column,
    images_of,
    pictures,
    require_batch,
    to_device_of,
)

Ints = npt.NDArray[np.int64]
MixPair = Callable[[torch.Tensor, Floats, Ints, Floats], tuple[torch.Tensor, Floats]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mix:
    classes: int
    alpha: float = 1.0
    p: float = 1.0
    label_smoothing: float = 0.0
    image: str = "image"
    label: str = "label"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", whole_number("classes", self.classes, 1))
        probability("p", self.p)
        probability("label_smoothing", self.label_smoothing)
        real_number("alpha", self.alpha, "a finite number above 0", lambda alpha: 0 < alpha < np.inf)

    @property
    def purpose(self) -> str:
        """The name under which it draws: whether a row takes part, its weight, its rank for pairing, the box centre."""
        return f"{type(self).__name__.lower()}:{self.image}"

    def _mixed(self, batch: R, seen: Pictures, mix: MixPair) -> R:
        caller = type(self).__name__
        labels = soft_labels(
            column(batch, self.label, caller), self.classes, self.label_smoothing, f"{caller}: batch[{self.label!r}]"
        )
        drawn = uniforms(batch, self.purpose, 5)
        weight = np.where(drawn[:, 0] < self.p, betas(drawn[:, 1], self.alpha), 1.0)
        partner = partners(drawn[:, 2])
        images, weight = mix(seen.images, weight, partner, drawn[:, 3:])
        return batch.replace(values={self.image: seen.put_back(images), self.label: blended(labels, weight, partner)})


class Mixup(_Mix):
    """Each picture becomes `weight * picture + (1 - weight) * partner`, and so does its label.

    A row's partner is another row of the batch (itself in a batch of one). Therefore a replay is exact only with the
    same world size and batch size.

    Args:
        classes: The number of classes. Labels are ints below it, or soft labels (floats [B, classes]) from an earlier
            mix, and become soft labels, float32 [B, classes].
        alpha: The weight is drawn from Beta(alpha, alpha); a finite number above 0. Below 1 most weights are close to 0
            or 1, above 1 most are close to one half.
        p: The probability, from 0 to 1, that a row takes part.
        label_smoothing: How much of each integer label, from 0 to 1, is spread over all classes.
        image: The column that holds the pictures.
        label: The column that holds the labels.
    """

    __slots__ = ()

    def __call__(self, batch: R) -> R:
        """The batch with its pictures and labels mixed."""
        caller = type(self).__name__
        images = images_of(require_batch(batch, caller), self.image, caller, "[B, C, H, W] or [B, H, W, C]")
        return self._mixed(batch, Pictures(images, "CHW"), _blended)  # the layout does not matter for blending


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix(_Mix):
    """Each picture gets a box of its partner's pixels, and its label is mixed in proportion to the areas.

    The box has the proportions of the picture and 1 - weight of its area. Its centre is uniform in the picture; the
    part of the box outside the picture is cut off.
    A row's partner is another row of the batch (itself in a batch of one). Therefore a replay is exact only with the
    same world size and batch size.

    Args:
        classes: The number of classes. Labels are ints below it, or soft labels (floats [B, classes]) from an earlier
            mix, and become soft labels, float32 [B, classes].
        alpha: The weight is drawn from Beta(alpha, alpha); a finite number above 0. Below 1 most weights are close to 0
            or 1, above 1 most are close to one half.
        p: The probability, from 0 to 1, that a row takes part.
        label_smoothing: How much of each integer label, from 0 to 1, is spread over all classes.
        image: The column that holds the pictures.
        label: The column that holds the labels.
        layout: "CHW" or "HWC". None: the layout in `batch.layouts`, which the Loader sets for pictures that it decodes;
            if it is not set, the layout is inferred from the number of channels.
    """

    layout: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        _Mix.__post_init__(self)
        check_layout(self.layout)

    def __call__(self, batch: R) -> R:
        """The batch with its pictures and labels mixed."""
        caller = type(self).__name__
        seen = pictures(require_batch(batch, caller), self.image, caller, self.layout)
        return self._mixed(batch, seen, _cut_and_pasted)


def partners(keys: Floats) -> Ints:
    """A partner for each row: the next row in the order of the keys; for the last row, the first."""
    order = np.argsort(keys, kind="stable")
    found: Ints = np.empty(len(keys), np.int64)
    found[order] = np.roll(order, -1)
    return found


def boxes(weight: Floats, centre: Floats, height: int, width: int) -> Ints:
    """Top, bottom, left and right of each row's box: area 1 - weight around a centre (x, y), clipped to the picture."""
    half = np.sqrt(1 - weight) / 2
    sides = []
    for size, at in ((height, centre[:, 1]), (width, centre[:, 0])):
        middle, reach = np.floor(at * size), np.floor(half * size)
        sides += [np.maximum(middle - reach, 0), np.minimum(middle + reach, size)]
    found: Ints = np.stack(sides, 1).astype(np.int64)
    return found


def _blended(images: torch.Tensor, weight: Floats, partner: Ints, _: Floats) -> tuple[torch.Tensor, Floats]:
    return blended(images, weight, partner), weight


def _cut_and_pasted(images: torch.Tensor, weight: Floats, partner: Ints, centre: Floats) -> tuple[torch.Tensor, Floats]:
    height, width = images.shape[2:]
    box = boxes(weight, centre, height, width)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return pasted(images, partner, box), 1 - area / (height * width)


def pasted(images: torch.Tensor, partner: Ints, box: Ints) -> torch.Tensor:
    """The pictures, with each box replaced by the partner's pixels."""
    top, bottom, left, right = to_device_of(box, images).T[:, :, None, None]
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    x = torch.arange(images.shape[3], device=images.device)
    within = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(within[:, None], images[to_device_of(partner, images)], images)


def blended(rows: torch.Tensor, weight: Floats, partner: Ints) -> torch.Tensor:
    """`weight * row + (1 - weight) * partner`, for pictures or labels."""
    floats = rows.to(torch.promote_types(rows.dtype, torch.float32))
    shape = (-1, *[1] * (rows.ndim - 1))
    own, other = (to_device_of(each, rows).to(floats.dtype).view(shape) for each in (weight, 1 - weight))
    mixed = (floats * own).add_(floats[to_device_of(partner, rows)].mul_(other))
    return (mixed.round_() if rows.dtype == torch.uint8 else mixed).to(rows.dtype)


def soft_labels(labels: Any, classes: int, smoothing: float, place: str) -> torch.Tensor:
    """Labels as float32 [B, classes]: integers become one-hot with smoothing; soft labels are kept."""
    wanted = f"a tensor of integers [B], or of floats [B, {classes}]"
    if not isinstance(labels, torch.Tensor):
        raise SchemaError(subject=place, expected=wanted, found=f"{type(labels).__name__}, which is not a tensor")
    if labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] == classes:
        return labels.to(torch.float32)
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim != 1:
        raise SchemaError(subject=place, expected=wanted, found=f"{labels.dtype} {list(labels.shape)}")
    if not labels.is_cuda:  # on a GPU, scatter_ detects it, and the host need not wait
        _check_range(labels, classes, place)
    soft = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return soft.scatter_(1, labels.long()[:, None], 1 - smoothing + smoothing / classes)


def _check_range(labels: torch.Tensor, classes: int, place: str) -> None:
    bad = labels[(labels < 0) | (labels >= classes)]
    if len(bad):
        raise SchemaError(subject=place, expected=f"labels from 0 to {classes - 1}", found=f"{bad[0].item()}")
