"""Which arrays does a loader yield: torch tensors or NumPy arrays, both over the memory of a bank?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt

from mx8shards.errors import require

OutputKind = Literal["torch", "numpy"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("torch", "numpy")
Array = npt.NDArray[Any]


def converter(kind: OutputKind) -> Callable[[Array], Any]:
    """A function that makes the user's kind of output, tensor or array, over the memory of an array."""
    if kind == "numpy":
        return _identity
    torch = require("torch", "torch")
    from mx8shards.loading import torch_containers  # noqa: F401 - imports torch, and registers batches with it

    return torch.from_numpy  # type: ignore[no-any-return]


def _identity(array: Array) -> Array:
    return array
