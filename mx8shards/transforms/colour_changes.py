"""How are brightness, contrast, saturation, hue and greyness of each picture changed at random?

The formulas are torchvision's, for floats from 0 to 1. Fused operations are avoided, because their rounding depends on
the alignment of the data: a picture's result must not depend on the batch it is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import SettingError, is_number, shown
from mx8shards.transforms.draws import uniforms
from mx8shards.transforms.picture_tensor import (
    R,
    check_layout,
    from_floats,
    per_picture,
    pictures,
    require_batch,
    to_device_of,
    to_floats,
)
from mx8shards.transforms.random_pictures import RandomPictures

Amount = float | tuple[float, float]
Array = npt.NDArray[Any]

_PIECE_BYTES = 4 << 20  # bytes per pass on a CPU, so that they stay in its cache


@dataclass(frozen=True, slots=True)
class RandomGrayscale(RandomPictures):
    """Makes random pictures of a batch grey, with three equal channels. Each picture has its own draw.

    Args:
        p: The probability, from 0 to 1, that a picture becomes grey.
        image: The column that holds the pictures, of three channels, uint8 or floats from 0 to 1.
        layout: "CHW" or "HWC". None: the layout in `batch.layouts`, which the Loader sets for pictures that it decodes;
            if it is not set, the layout is inferred from the number of channels.
    """

    p: float = 0.1

    @property
    def purpose(self) -> str:
        """The name under which it draws random numbers."""
        return f"grayscale:{self.image}"

    def __call__(self, batch: R) -> R:
        """The batch with some of its pictures made grey."""
        return self._changed(batch, self.purpose, grey, 3)


@dataclass(frozen=True, slots=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue of each picture by random amounts, in a random order.

    The formulas are torchvision's. Each picture has its own draws. uint8 pictures are rounded once, at the end.

    Args:
        brightness: An amount `a` from 0, for a factor from max(0, 1 - a) to 1 + a; or a pair (least, most) of factors.
        contrast: An amount or a pair, as above: it scales the distance from the picture's mean luma.
        saturation: An amount or a pair, as above: it scales the distance from each pixel's luma.
        hue: An amount `a` from 0 to 0.5, for a rotation from -a to a around the circle of hues, or a pair (least, most)
            of rotations from -0.5 to 0.5, where 0.5 is half the circle.
        image: The column that holds the pictures, of three channels, uint8 or floats from 0 to 1: before Normalize.
        layout: "CHW" or "HWC". None: the layout in `batch.layouts`, which the Loader sets for pictures that it decodes;
            if it is not set, the layout is inferred from the number of channels.
    """

    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0
    image: str = "image"
    layout: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        check_layout(self.layout)
        for name in ("brightness", "contrast", "saturation"):
            object.__setattr__(self, name, _checked(name, getattr(self, name), 1.0, (0.0, math.inf)))
        object.__setattr__(self, "hue", _checked("hue", self.hue, 0.0, (-0.5, 0.5)))

    @property
    def purpose(self) -> str:
        """The name under which it draws: four amounts, and four numbers whose ranks give the order of the steps."""
        return f"jitter:{self.image}"

    def __call__(self, batch: R) -> R:
        """The batch with its pictures' colours changed."""
        caller = type(self).__name__
        seen = pictures(require_batch(batch, caller), self.image, caller, self.layout, 3)
        drawn = uniforms(batch, self.purpose, 8)
        amounts = (self.brightness, self.contrast, self.saturation)
        least, most = np.array([*(_range(each, 1.0) for each in amounts), _range(self.hue, 0.0)]).T
        changes = least + (most - least) * drawn[:, :4]
        images = jittered(seen.images, changes, np.argsort(drawn[:, 4:], axis=1))
        return batch.replace(values={self.image: seen.put_back(images)})


def _checked(name: str, given: Any, neutral: float, allowed: tuple[float, float]) -> Amount:
    """An amount or a pair, as floats; SettingError if its range of factors or turns exceeds the allowed one."""
    is_pair = isinstance(given, (tuple, list))
    values = list(given) if is_pair else [given]
    if len(values) == 1 + is_pair and all(map(is_number, values)):
        amount: Amount = (float(values[0]), float(values[1])) if is_pair else float(given)
        least, most = _range(amount, neutral)
        if allowed[0] <= least <= most <= allowed[1]:
            return amount
    span = "from 0 to 0.5" if name == "hue" else "from 0"
    raise SettingError(subject=name, expected=f"an amount {span}, or (least, most)", found=shown(given))


def _range(amount: Amount, neutral: float) -> tuple[float, float]:
    """The range of a factor (never below 0) or of a turn."""
    if isinstance(amount, (tuple, list)):
        least, most = amount
        return least, most
    return max(neutral - amount, 0.0) if neutral else -amount, neutral + amount


def grey(images: torch.Tensor, rows: Array) -> torch.Tensor:
    """The pictures, with those at `rows` replaced by their luma in every channel."""
    out = images.clone()
    chosen = to_device_of(rows, images)
    out[chosen] = from_floats(_luma(to_floats(images[chosen])), images.dtype).expand(-1, 3, -1, -1)
    return out


def jittered(images: torch.Tensor, changes: Array, order: Array) -> torch.Tensor:
    """The pictures changed by `changes` [B, 4] (brightness, contrast, saturation, hue), in each row's `order`."""
    out = torch.empty_like(images)
    step = len(images) if images.is_cuda else max(1, _PIECE_BYTES // max(1, 4 * images[:1].numel()))
    for start in range(0, len(images), max(1, step)):
        rows = slice(start, start + step)
        out[rows] = from_floats(_jittered(to_floats(images[rows]), changes[rows], order[rows]), images.dtype)
    return out


def _jittered(floats: torch.Tensor, changes: Array, order: Array) -> torch.Tensor:
    for turn in range(order.shape[1]):
        for number, (adjust, neutral) in enumerate(_STEPS):
            rows = np.flatnonzero((order[:, turn] == number) & (changes[:, number] != neutral))
            if len(rows):
                chosen = to_device_of(rows, floats)
                floats[chosen] = adjust(floats[chosen], per_picture(changes[rows, number], floats))
    return floats


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply each picture (floats from 0 to 1) by its factor."""
    return (images * factor).clamp_(0, 1)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the difference of each picture (floats from 0 to 1) from its mean luma by its factor."""
    mean = _luma(images).mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(images.dtype)
    return _blended(images, mean, factor)


def saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the difference of each pixel (floats from 0 to 1) from its luma by its picture's factor."""
    return _blended(images, _luma(images), factor)


def hue(images: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Rotate the HSV hues of each picture (floats from 0 to 1) by its fraction of the circle."""
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - torch.minimum(torch.minimum(red, green), blue)
    unit = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    of_blue = (red - green) / unit + 4
    of_green = (blue - red) / unit + 2
    sixth = torch.where(high == red, (green - blue) / unit, torch.where(high == green, of_green, of_blue))
    sixth += turn[:, 0] * 6
    return torch.stack([high - _trapezoid(sixth + start) * chroma for start in (5, 3, 1)], 1)


def _trapezoid(sixth: torch.Tensor) -> torch.Tensor:
    """HSV's trapezoid of period 6, the fraction of its chroma that a channel lacks: rising, 1, 1, falling, 0, 0."""
    at = sixth - torch.floor(sixth / 6) * 6
    return torch.minimum(at, 4 - at).clamp_(0, 1)


def _luma(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.unbind(1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114)[:, None]


def _blended(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (images * factor).add_(other * (1 - factor)).clamp_(0, 1)


_STEPS = ((brightness, 1.0), (contrast, 1.0), (saturation, 1.0), (hue, 0.0))
