"""How do levels become the numbers that a network takes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from mx8shards.errors import SettingError, is_number, shown
from mx8shards.transforms.pictures import Rows, beside, pictures

R = TypeVar("R", bound=Rows)


@dataclass(frozen=True, slots=True)
class Normalize:
    """`(picture - mean) / std` per channel, as `dtype`, of uint8 pictures (then divided by 255) or floats from 0 to 1.

    `mean` and `std` are of pictures from 0 to 1, one number per channel, as torchvision has them and as
    `mx8shards summary --pixels` prints them.
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: torch.dtype = torch.float32
    image: str = "image"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            found = f"{shown(self.mean)} and {shown(self.std)}"
            raise SettingError(subject="mean and std", expected="as many numbers each", found=found)
        if not all(each > 0 for each in self.std):
            raise SettingError(subject="std", expected="numbers above 0", found=shown(self.std))
        dtype: Any = self.dtype
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise SettingError(subject="dtype", expected="a torch.dtype of floats", found=shown(self.dtype))

    def __call__(self, batch: R) -> R:
        """The batch with its pictures normalised."""
        images = pictures(batch, self.image, "Normalize", len(self.mean))
        return batch.replace(values={self.image: normalized(images, self.mean, self.std, self.dtype)})


def _per_channel(name: str, given: Any) -> tuple[float, ...]:
    """A list, tuple, array or tensor of finite numbers as a tuple of floats."""
    values = given.tolist() if isinstance(given, (np.ndarray, torch.Tensor)) else given
    if not isinstance(values, (list, tuple)) or not values or not all(map(is_number, values)):
        raise SettingError(subject=name, expected="finite numbers, one for each channel", found=shown(given))
    return tuple(map(float, values))


def normalized(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """`(images - mean) / std` per channel, calculated in float32 or better."""
    work = torch.promote_types(torch.promote_types(images.dtype, dtype), torch.float32)
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    offset, scale = (
        beside(np.array(each), images).to(work)[:, None, None]
        for each in ([unit * m for m in mean], [1 / (unit * s) for s in std])
    )
    return images.to(work, copy=True).sub_(offset).mul_(scale).to(dtype)
