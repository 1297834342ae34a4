"""How are pictures normalised by mean and standard deviation (Normalize)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from mx8shards.errors import SettingError, finite_numbers, shown
from mx8shards.transforms.picture_tensor import check_layout, pictures, replaced, to_device_of

B = TypeVar("B", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class Normalize:
    """`(picture - mean) / std` per channel, for uint8 pictures (divided by 255 first) or floats from 0 to 1.

    It draws no random numbers, so it also accepts a plain dict of tensors, such as a DataLoader's.

    Args:
        mean: The mean of each channel, for levels from 0 to 1, as in torchvision and as printed by
            `mx8shards summary --pixels`: a list, tuple, array or tensor of numbers.
        std: The standard deviation of each channel, above 0.
        dtype: The torch.dtype of the result: torch.float32, or another floating-point type.
        image: The column that holds the pictures.
        layout: "CHW" or "HWC". None: the layout in `batch.layouts`, which the Loader sets for pictures that it decodes;
            if it is not set, the layout is inferred from the number of channels.
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
    """`(images - mean) / std` per channel, computed in float32 or a wider type."""
    wide = torch.promote_types(torch.promote_types(images.dtype, dtype), torch.float32)
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    offset, scale = (
        to_device_of(np.array(each), images).to(wide)[:, None, None]
        for each in ([unit * m for m in mean], [1 / (unit * s) for s in std])
    )
    return images.to(wide, copy=True).sub_(offset).mul_(scale).to(dtype)
