"""How do levels become the numbers that a network takes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

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
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std: expected as many numbers each, got {self.mean!r} and {self.std!r}")
        if not all(each > 0 for each in self.std):
            raise ValueError(f"std: expected numbers above 0, got {self.std!r}")
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype: expected one of floats, got {self.dtype}")

    def __call__(self, batch: R) -> R:
        """The batch with its pictures normalised."""
        images = pictures(batch, self.image, "Normalize", len(self.mean))
        return batch.replace(values={self.image: normalized(images, self.mean, self.std, self.dtype)})


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
