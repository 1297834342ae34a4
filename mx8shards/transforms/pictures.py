"""What does a transform take from a batch, and is it that?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import SchemaError


class Rows(Protocol):
    """What a transform needs of a loader's batch."""

    @property
    def seed(self) -> int:
        """The loader's."""

    @property
    def epoch(self) -> int:
        """The epoch that the batch belongs to."""

    @property
    def sample_ids(self) -> Any:
        """Which samples its rows are."""

    def __getitem__(self, key: str) -> Any:
        """One column of it."""

    def __iter__(self) -> Iterator[str]:
        """The names of its columns."""

    def replace(self, values: Mapping[str, Any]) -> Self:
        """The same rows, with these values in the place of its own."""


def pictures(batch: Rows, key: str, who: str, channels: int | None = None) -> torch.Tensor:
    """The pictures of a batch, `[B, C, H, W]`; SchemaError for anything else. `channels`: there must be so many."""
    found = column(batch, key, who)
    wanted = f"a tensor of uint8 or floats, [B, {channels or 'C'}, H, W]"
    good = (
        isinstance(found, torch.Tensor)
        and (found.dtype == torch.uint8 or found.is_floating_point())
        and found.ndim == 4
        and channels in (None, found.shape[1])
    )
    if not good:
        raise SchemaError(subject=who, place=f"batch[{key!r}]", expected=wanted, found=_described(found))
    rows: torch.Tensor = found
    return rows


def column(batch: Rows, key: str, who: str) -> Any:
    """A column of a batch; SchemaError if it has none of that name."""
    try:
        return batch[key]
    except KeyError:
        raise SchemaError(subject=who, expected=f"a batch with {key!r}", found=f"one with {', '.join(batch)}") from None


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__}, which is no tensor"


def beside(values: npt.NDArray[Any], tensor: torch.Tensor) -> torch.Tensor:
    """Numbers made on the host, on the device of a tensor; the host does not wait for it."""
    return torch.from_numpy(values).to(tensor.device, non_blocking=True)


def factors(values: npt.NDArray[np.float64], images: torch.Tensor) -> torch.Tensor:
    """One number per picture, in the shape and dtype that multiplies pictures of floats."""
    return beside(values, images).to(images.dtype)[:, None, None, None]


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """A copy of pictures as numbers from 0 to 1 to calculate with: float32, or float64 where they are."""
    work = images.to(torch.promote_types(images.dtype, torch.float32), copy=True)
    return work.div_(255) if images.dtype == torch.uint8 else work


def as_before(work: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The reverse of `as_floats`; levels are rounded."""
    return (work * 255).round_().to(dtype) if dtype == torch.uint8 else work.to(dtype)
