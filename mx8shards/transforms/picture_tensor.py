"""Which tensor of a batch holds the pictures, and which of its sides are channels?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import SchemaError, one_of
from mx8shards.format.images import LAYOUTS

Layout = Literal["CHW", "HWC"]

_CHANNELS = (1, 3, 4)  # of grey pictures, of RGB, of RGBA


class Rows(Protocol):
    """What a transform needs of a loader's batch.

    Where it has `layouts`, a mapping from columns to "CHW" or "HWC", transforms go by it. Where it has `extras` with an
    array of occurrences, repeats of a sample get draws of their own.
    """

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


class Pictures(NamedTuple):
    """The pictures of a batch as `[B, C, H, W]`: a view, where the batch has them as `[B, H, W, C]`."""

    images: torch.Tensor
    layout: str

    def put_back(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures `[B, C, H, W]` in the layout that the batch has."""
        return images if self.layout == "CHW" else images.permute(0, 2, 3, 1).contiguous()


R = TypeVar("R", bound=Rows)


def require_rows(batch: R, who: str) -> R:
    """The batch, which knows its samples and their epoch; SchemaError for a plain dict, which does not."""
    if not hasattr(batch, "replace"):
        raise SchemaError(
            subject=who,
            expected="a Batch: what is drawn follows from its seed, epoch and sample_ids",
            found=type(batch).__name__,
            hint="give it to the Loader as transform=, which runs before a DataLoader makes dicts of batches",
        )
    return batch


def images_of(batch: Any, key: str, who: str, shape: str) -> torch.Tensor:
    """A column of pictures, stacked; SchemaError for anything else."""
    found = column(batch, key, who)
    good = isinstance(found, torch.Tensor) and (found.dtype == torch.uint8 or found.is_floating_point())
    if not good or found.ndim != 4:
        raise _not_pictures(found, key, who, shape)
    images: torch.Tensor = found
    return images


def pictures(batch: Any, key: str, who: str, layout: Layout | None = None, channels: int | None = None) -> Pictures:
    """The pictures of a batch; SchemaError for anything else. `channels`: there must be so many.

    Their layout is the one that the batch declares for the column, or that was given. Where neither says it, the
    number of channels must: 1, 3 or 4 on one of the two sides alone.
    """
    declared = getattr(batch, "layouts", {}).get(key)
    if layout is not None and declared not in (None, layout):
        raise SchemaError(subject=who, place="layout", expected=f"{declared!r}, as the batch says", found=repr(layout))
    known = layout or declared
    count = channels or "C"
    shapes = {"CHW": f"[B, {count}, H, W]", "HWC": f"[B, H, W, {count}]"}
    shape = shapes[known] if known else f"{shapes['CHW']} or {shapes['HWC']}"
    images = images_of(batch, key, who, shape)
    sides = {"CHW": images.shape[1], "HWC": images.shape[3]}
    if known is None:
        wanted = _CHANNELS if channels is None else (channels,)
        likely = [name for name, side in sides.items() if side in wanted]
        if len(likely) > 1 or (not likely and channels is None):
            raise _not_pictures(images, key, who, shape, "layout='CHW' or layout='HWC' says which of them it is")
        known = likely[0] if likely else "CHW"
    if channels not in (None, sides[known]):
        raise _not_pictures(images, key, who, shape)
    return Pictures(images if known == "CHW" else images.permute(0, 3, 1, 2), known)


def _not_pictures(found: Any, key: str, who: str, shape: str, hint: str = "") -> SchemaError:
    return SchemaError(
        subject=who,
        place=f"batch[{key!r}]",
        expected=f"a tensor of uint8 or floats, {shape}",
        found=_described(found),
        hint=hint,
    )


def check_layout(layout: Any) -> None:
    """SettingError unless it is a layout, or None."""
    if layout is not None:
        one_of("layout", layout, LAYOUTS)


def column(batch: Any, key: str, who: str) -> Any:
    """A column of a batch; SchemaError if it has none of that name."""
    if not isinstance(batch, Mapping):
        raise SchemaError(subject=who, expected=f"a batch with {key!r}", found=type(batch).__name__)
    try:
        return batch[key]
    except KeyError:
        found = f"one with {', '.join(map(str, batch))}"
        raise SchemaError(subject=who, expected=f"a batch with {key!r}", found=found) from None


def replaced(batch: Any, values: Mapping[str, Any]) -> Any:
    """The batch with these values in the place of its own; a plain dict stays one."""
    return batch.replace(values=values) if hasattr(batch, "replace") else {**batch, **values}


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
