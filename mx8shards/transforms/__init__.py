"""What can be done to the pictures of a whole batch? The names a user needs; each is loaded when it is first used.

All take batches of pictures, uint8 or floats from 0 to 1, on the CPU or a GPU, and give a new batch. Pictures are
`[B, C, H, W]` or `[B, H, W, C]`, as the batch says; `layout=` says it where the batch does not know and their number of
channels does not tell. What is random about a picture follows from (seed, epoch, sample_id) alone: it is the same on
any number of ranks, after any resume, in the loader's threads or after them.
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
