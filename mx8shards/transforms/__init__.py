"""Batch transforms of pictures (flip, colour, Mixup, CutMix, Normalize). Each name is imported on first use.

They take a batch of pictures, uint8 or floats from 0 to 1, on the CPU or a GPU, and return a new batch. Pictures are
`[B, C, H, W]` or `[B, H, W, C]`, as the batch declares; give `layout=` if the batch does not declare it and the number
of channels is ambiguous. Random draws depend only on (seed, epoch, sample_id, occurrence): they are equal on any number
of ranks, after a resume, and inside or outside the loader's threads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mx8shards.errors import require

if TYPE_CHECKING:
    from mx8shards.transforms.colour_changes import ColorJitter, RandomGrayscale
    from mx8shards.transforms.compose import Compose
    from mx8shards.transforms.flip import RandomHorizontalFlip
    from mx8shards.transforms.mix import CutMix, Mixup
    from mx8shards.transforms.normalize import Normalize

__all__ = ["ColorJitter", "Compose", "CutMix", "Mixup", "Normalize", "RandomGrayscale", "RandomHorizontalFlip"]

_HOMES = {
    **dict.fromkeys(("ColorJitter", "RandomGrayscale"), "colour_changes"),
    **dict.fromkeys(("CutMix", "Mixup"), "mix"),
    "Compose": "compose",
    "Normalize": "normalize",
    "RandomHorizontalFlip": "flip",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mx8shards.transforms' has no attribute {name!r}")
    require("torch", "torch")
    value = getattr(import_module(f"mx8shards.transforms.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
