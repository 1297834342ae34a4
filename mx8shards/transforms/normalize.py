"""How do levels become the numbers that a network takes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from mx8shards.errors import SettingError, finite_numbers, shown
from mx8shards.transforms.picture_tensor import beside, check_layout, pictures, replaced

B = TypeVar("B", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class Normalize:
    """`(picture - mean) / std` per channel, of uint8 pictures (divided by 255 before) or floats from 0 to 1.

    It draws nothing, so that it also takes a plain dict of tensors, as a DataLoader makes it.

    Args:
        mean: The mean of each channel of pictures from 0 to 1, as torchvision has it and as
            `mx8shards summary --pixels` prints it: a list, tuple, array or tensor of numbers.
        std: The standard deviation of each channel, above 0.
        dtype: The torch.dtype of the result: torch.float32, or another one of floats.
        image: The column that holds the pictures.
        layout: "CHW" or "HWC", if neither the batch nor the number of channels tells the layout. None: the layout in
            `batch.layouts`, where the Loader puts that of all pictures it decodes.
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: torch.dtype = torch.float32
    image: str = "image"
    layout: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        check_layout(self.layout)
        for name in ("mean", "std"):
            given = getattr(self, name)
            numbers = finite_numbers(given)
            if numbers is None:
                raise SettingError(subject=name, expected="finite numbers, one for each channel", found=shown(given))
            object.__setattr__(self, name, numbers)
        if len(self.mean) != len(self.std):
            found = f"{shown(self.mean)} and {shown(self.std)}"
            raise SettingError(subject="mean and std", expected="as many numbers each", found=found)
        if not all(each > 0 for each in self.std):
            raise SettingError(subject="std", expected="numbers above 0", found=shown(self.std))
        dtype: Any = self.dtype
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise SettingError(subject="dtype", expected="a torch.dtype of floats", found=shown(self.dtype))

    def __call__(self, batch: B) -> B:
        """The batch with its pictures normalised."""
        seen = pictures(batch, self.image, type(self).__name__, self.layout, len(self.mean))
        images = normalized(seen.images, self.mean, self.std, self.dtype)
        found: B = replaced(batch, {self.image: seen.put_back(images)})
        return found


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
