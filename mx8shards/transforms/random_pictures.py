"""How are random pictures of a batch chosen and changed (RandomHorizontalFlip, RandomGrayscale)?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import probability
from mx8shards.transforms.draws import uniforms
from mx8shards.transforms.picture_tensor import R, check_layout, pictures, require_batch

Change = Callable[[torch.Tensor, npt.NDArray[Any]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class RandomPictures:
    """Each picture of the column `image` is changed with the probability `p`."""

    p: float
    image: str = "image"
    layout: Literal["CHW", "HWC"] | None = None

    def __post_init__(self) -> None:
        probability("p", self.p)
        check_layout(self.layout)

    def _changed(self, batch: R, purpose: str, change: Change, channels: int | None = None) -> R:
        """The batch after `change(images, rows)`; `rows` are drawn under the name `purpose`, one draw per picture."""
        caller = type(self).__name__
        seen = pictures(require_batch(batch, caller), self.image, caller, self.layout, channels)
        rows = np.flatnonzero(uniforms(batch, purpose, 1)[:, 0] < self.p)
        return batch.replace(values={self.image: seen.put_back(change(seen.images, rows))})
