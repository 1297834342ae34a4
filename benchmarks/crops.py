"""Which random and centre crops do all contenders take of a picture, and how does Pillow take them?"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]  # left, upper, right, lower
RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True, slots=True)
class Random:
    """A random part of the picture, resized, like torchvision's RandomResizedCrop."""

    size: int
    scale: tuple[float, float] = (0.08, 1.0)

    def box(self, width: int, height: int) -> Box:
        """Draw a box."""
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)  # noqa: S311
            ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))  # noqa: S311
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x, y = random.randint(0, width - w), random.randint(0, height - h)  # noqa: S311
                return x, y, x + w, y + h
        side = min(width, height)
        return _middle(width, height, side)


@dataclass(frozen=True, slots=True)
class Centre:
    """The centre of the picture, scaled so that the shorter side would have `resize` pixels."""

    size: int
    resize: int

    def box(self, width: int, height: int) -> Box:
        """The box."""
        return _middle(width, height, min(width, height) * self.size // self.resize)


def _middle(width: int, height: int, side: int) -> Box:
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


Crop = Random | Centre

# No crop is mirrored, because that would cost some contenders another pass over the pixels and others nothing.
CROPS: dict[str, dict[str, Crop]] = {
    "random": {"image": Random(224)},
    "centre": {"image": Centre(224, 256)},
    "two": {"one": Random(224), "two": Random(224)},
    "train": {"image": Random(64, (0.4, 1.0))},
    "test": {"image": Centre(64, 96)},
    "six": {
        **{f"global{k}": Random(224, (0.3, 1.0)) for k in range(2)},
        **{f"local{k}": Random(98, (0.05, 0.3)) for k in range(4)},
    },
}


def with_pillow(picture: Any, crops: str) -> dict[str, npt.NDArray[np.uint8]]:
    """All crops of a Pillow image: decoded once, each resized from its box with antialiasing."""
    picture = picture.convert("RGB")
    return {
        name: np.asarray(picture.resize((crop.size, crop.size), 2, box=crop.box(*picture.size)))  # 2: bilinear
        for name, crop in CROPS[crops].items()
    }
