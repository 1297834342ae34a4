"""Which pictures of a batch are flipped (RandomHorizontalFlip)?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.transforms.picture_tensor import R, to_device_of
from mx8shards.transforms.random_pictures import RandomPictures


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip(RandomPictures):
    """Mirrors random pictures of a batch, left to right. Each picture has its own draw.

    Args:
        p: The probability, from 0 to 1, that a picture is mirrored.
        image: The column of the pictures: uint8 or floats, four dimensions.
        layout: "CHW" or "HWC". None: the layout in `batch.layouts`, which the Loader sets for pictures that it decodes;
            if it is not set, the layout is inferred from the number of channels.
    """

    p: float = 0.5

    @property
    def purpose(self) -> str:
        """The name under which it draws random numbers."""
        return f"flip:{self.image}"

    def __call__(self, batch: R) -> R:
        """The batch with some of its pictures mirrored."""
        return self._changed(batch, self.purpose, flipped)


def flipped(images: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    """The pictures `[B, C, H, W]`, with those at `rows` mirrored."""
    out = images.clone()
    chosen = to_device_of(rows, images)
    out[chosen] = images[chosen].flip(-1)
    return out
