"""Which settings of a crop does the picture stage get from Decode, CenterCrop, RandomResizedCrop and the others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CropKind = Literal["whole", "cover", "random", "within", "native"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSettings:
    """One crop of a picture, or the whole picture.

    kind    "whole": the whole picture, not resized; "cover": the largest centred box with the aspect ratio of `sides`;
            "random": a random box; "within": a centred box, after the shorter side was resized to `resize`; "native": a
            centred box of the output's size, or a smaller one, enlarged, if the picture is smaller
    sides   height and width of the output; 0 and 0 if it has the size of each picture
    """

    kind: CropKind
    sides: tuple[int, int]
    resize: int = 0
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    flip: float
    layout: Literal["CHW", "HWC"]
    dtype: Literal["uint8", "float16", "float32"]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    seed: int | None
    exact: bool
    upright: bool
