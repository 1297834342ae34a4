"""Which pictures are mirrored?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import probability
from mx8shards.transforms.draws import uniforms
from mx8shards.transforms.pictures import Rows, beside, pictures

R = TypeVar("R", bound=Rows)


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip:
    """Each picture is mirrored with probability `p`."""

    p: float = 0.5
    image: str = "image"

    def __post_init__(self) -> None:
        probability("p", self.p)

    @property
    def purpose(self) -> str:
        """What it draws for."""
        return f"flip:{self.image}"

    def __call__(self, batch: R) -> R:
        """The batch with some of its pictures mirrored."""
        images = pictures(batch, self.image, "RandomHorizontalFlip")
        chosen = np.flatnonzero(uniforms(batch, self.purpose, 1)[:, 0] < self.p)
        return batch.replace(values={self.image: flipped(images, chosen)})


def flipped(images: torch.Tensor, rows: npt.NDArray[Any]) -> torch.Tensor:
    """The pictures, those at `rows` mirrored."""
    out = images.clone()
    chosen = beside(rows, images)
    out[chosen] = images[chosen].flip(-1)
    return out
