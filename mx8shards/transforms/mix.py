"""How are pictures of a batch, and their labels, mixed two by two?

Every row gets a partner of the same batch. What is drawn for a row follows from (seed, epoch, sample_id, occurrence),
but who its partner is depends on who else is in the batch: replay is exact for the same world size and batch size, in
any order of the rows.
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
    beside,
    check_layout,
    column,
    images_of,
    pictures,
    require_rows,
)

Ints = npt.NDArray[np.int64]
Mix = Callable[[torch.Tensor, Floats, Ints, Floats], tuple[torch.Tensor, Floats]]


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
        """The name of its draws: whether a row takes part, its share, the order of the batch, where it is cut."""
        return f"{type(self).__name__.lower()}:{self.image}"

    def _mixed(self, batch: R, seen: Pictures, mix: Mix) -> R:
        who = type(self).__name__
        labels = shares_of(
            column(batch, self.label, who), self.classes, self.label_smoothing, f"{who}: batch[{self.label!r}]"
        )
        drawn = uniforms(batch, self.purpose, 5)
        share = np.where(drawn[:, 0] < self.p, betas(drawn[:, 1], self.alpha), 1.0)
        partner = partners(drawn[:, 2])
        images, share = mix(seen.images, share, partner, drawn[:, 3:])
        return batch.replace(values={self.image: seen.put_back(images), self.label: blended(labels, share, partner)})


class Mixup(_Mix):
    """Each picture becomes `share * picture + (1 - share) * partner`, and so does its label.

    A row's partner is another row of the batch (itself in a batch of one). Therefore a replay is exact only with the
    same world size and batch size.

    Args:
        classes: How many classes there are: labels are ints below it, or float shares [B, classes] that another mix
            left, and become float32 [B, classes].
        alpha: The share comes from Beta(alpha, alpha); a finite number above 0. Below 1 most pictures keep nearly all
            of themselves or of their partner, above 1 most are mixed about half and half.
        p: The probability, from 0 to 1, that a row takes part.
        label_smoothing: How much of each integer label, from 0 to 1, is spread over all classes.
        image: The column that holds the pictures.
        label: The column that holds the labels.
    """

    __slots__ = ()

    def __call__(self, batch: R) -> R:
        """The batch with its pictures and labels mixed."""
        who = type(self).__name__
        images = images_of(require_rows(batch, who), self.image, who, "[B, C, H, W] or [B, H, W, C]")
        return self._mixed(batch, Pictures(images, "CHW"), _blended)  # what is only blended may have any layout


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix(_Mix):
    """Each picture gets a box of its partner's pixels, and its label the same share of the partner's label.

    The box has the proportions of the picture and 1 - share of its area. Its centre may be anywhere, and what lies
    outside of the picture is cut off.
    A row's partner is another row of the batch (itself in a batch of one). Therefore a replay is exact only with the
    same world size and batch size.

    Args:
        classes: How many classes there are: labels are ints below it, or float shares [B, classes] that another mix
            left, and become float32 [B, classes].
        alpha: The share comes from Beta(alpha, alpha); a finite number above 0. Below 1 most pictures keep nearly all
            of themselves or of their partner, above 1 most are mixed about half and half.
        p: The probability, from 0 to 1, that a row takes part.
        label_smoothing: How much of each integer label, from 0 to 1, is spread over all classes.
        image: The column that holds the pictures.
        label: The column that holds the labels.
        layout: "CHW" or "HWC", if neither the batch nor the number of channels tells the layout. None: the layout in
            `batch.layouts`, where the Loader puts that of all pictures it decodes.
    """

    layout: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        _Mix.__post_init__(self)
        check_layout(self.layout)

    def __call__(self, batch: R) -> R:
        """The batch with its pictures and labels mixed."""
        who = type(self).__name__
        seen = pictures(require_rows(batch, who), self.image, who, self.layout)
        return self._mixed(batch, seen, _cut_and_pasted)


def partners(keys: Floats) -> Ints:
    """Another row for each row: the next one in the order of the keys, the first one for the last."""
    order = np.argsort(keys, kind="stable")
    found: Ints = np.empty(len(keys), np.int64)
    found[order] = np.roll(order, -1)
    return found


def boxes(share: Floats, centre: Floats, height: int, width: int) -> Ints:
    """Per row top, bottom, left and right of a box of the area 1 - share around a centre (x, y), cut at the borders."""
    half = np.sqrt(1 - share) / 2
    sides = []
    for size, at in ((height, centre[:, 1]), (width, centre[:, 0])):
        middle, reach = np.floor(at * size), np.floor(half * size)
        sides += [np.maximum(middle - reach, 0), np.minimum(middle + reach, size)]
    found: Ints = np.stack(sides, 1).astype(np.int64)
    return found


def _blended(images: torch.Tensor, share: Floats, partner: Ints, _: Floats) -> tuple[torch.Tensor, Floats]:
    return blended(images, share, partner), share


def _cut_and_pasted(images: torch.Tensor, share: Floats, partner: Ints, centre: Floats) -> tuple[torch.Tensor, Floats]:
    height, width = images.shape[2:]
    box = boxes(share, centre, height, width)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    return pasted(images, partner, box), 1 - area / (height * width)


def pasted(images: torch.Tensor, partner: Ints, box: Ints) -> torch.Tensor:
    """The pictures, each with its partner's pixels within its box."""
    top, bottom, left, right = beside(box, images).T[:, :, None, None]
    y = torch.arange(images.shape[2], device=images.device)[:, None]
    x = torch.arange(images.shape[3], device=images.device)
    within = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(within[:, None], images[beside(partner, images)], images)


def blended(rows: torch.Tensor, share: Floats, partner: Ints) -> torch.Tensor:
    """`share * row + (1 - share) * partner`, of pictures or of labels."""
    work = rows.to(torch.promote_types(rows.dtype, torch.float32))
    shape = (-1, *[1] * (rows.ndim - 1))
    own, other = (beside(each, rows).to(work.dtype).view(shape) for each in (share, 1 - share))
    mixed = (work * own).add_(work[beside(partner, rows)].mul_(other))
    return (mixed.round_() if rows.dtype == torch.uint8 else mixed).to(rows.dtype)


def shares_of(labels: Any, classes: int, smoothing: float, place: str) -> torch.Tensor:
    """Labels as float32 [B, classes]: of integers, 1 in their class, smoothed; such shares themselves as they are."""
    wanted = f"a tensor of integers [B], or of floats [B, {classes}]"
    if not isinstance(labels, torch.Tensor):
        raise SchemaError(subject=place, expected=wanted, found=f"{type(labels).__name__}, which is no tensor")
    if labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] == classes:
        return labels.to(torch.float32)
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.ndim != 1:
        raise SchemaError(subject=place, expected=wanted, found=f"{labels.dtype} {list(labels.shape)}")
    if not labels.is_cuda:  # on a GPU, scatter_ notices: the host need not wait for it here
        _check_range(labels, classes, place)
    share = torch.full((len(labels), classes), smoothing / classes, device=labels.device)
    return share.scatter_(1, labels.long()[:, None], 1 - smoothing + smoothing / classes)


def _check_range(labels: torch.Tensor, classes: int, place: str) -> None:
    bad = labels[(labels < 0) | (labels >= classes)]
    if len(bad):
        raise SchemaError(subject=place, expected=f"labels from 0 to {classes - 1}", found=f"{bad[0].item()}")
