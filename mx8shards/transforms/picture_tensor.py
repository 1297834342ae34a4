"""Which tensor of a batch contains the pictures, and what is their layout (CHW or HWC)?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from mx8shards.errors import SchemaError, one_of
from mx8shards.format.images import LAYOUTS

Layout = Literal["CHW", "HWC"]

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


class BatchLike(Protocol):
    """The interface of a batch that transforms need.

    If it has `layouts`, a mapping from columns to "CHW" or "HWC", transforms use it. If its `extras` have an array of
    occurrences, repeats of a sample get different draws.
    """

    @property
    def seed(self) -> int:
        """The loader's seed."""

    @property
    def epoch(self) -> int:
        """The epoch that the batch belongs to."""

    @property
    def sample_ids(self) -> Any:
        """The sample_ids of its rows."""

    def __getitem__(self, key: str) -> Any:
        """One column."""

    def __iter__(self) -> Iterator[str]:
        """The names of its columns."""

    def replace(self, values: Mapping[str, Any]) -> Self:
        """A batch of the same rows in which these columns are replaced."""


class Pictures(NamedTuple):
    """The pictures of a batch as `[B, C, H, W]`, and the batch's own layout; a permuted view if that is HWC."""

    images: torch.Tensor
    layout: str

    def put_back(self, images: torch.Tensor) -> torch.Tensor:
        """Convert pictures `[B, C, H, W]` to the batch's layout."""
        return images if self.layout == "CHW" else images.permute(0, 2, 3, 1).contiguous()


R = TypeVar("R", bound=BatchLike)


def require_batch(batch: R, caller: str) -> R:
    """The batch, if it has seed, epoch and sample_ids; SchemaError for a plain dict."""
    if not hasattr(batch, "replace"):
        raise SchemaError(
            subject=caller,
            expected="a Batch: its seed, epoch and sample_ids determine the random draws",
            found=type(batch).__name__,
            hint="pass it to the Loader as transform=, which runs before a DataLoader turns batches into dicts",
        )
    return batch


def images_of(batch: Any, key: str, caller: str, shape: str) -> torch.Tensor:
    """A column of pictures, stacked; SchemaError for anything else."""
    found = column(batch, key, caller)
    good = isinstance(found, torch.Tensor) and (found.dtype == torch.uint8 or found.is_floating_point())
    if not good or found.ndim != 4:
        raise _not_pictures(found, key, caller, shape)
    images: torch.Tensor = found
    return images


def pictures(batch: Any, key: str, caller: str, layout: Layout | None = None, channels: int | None = None) -> Pictures:
    """The pictures of a batch, with `channels` channels if given; SchemaError for anything else.

    Their layout is the one that the batch declares for the column, or `layout`. If there is neither, it is inferred
    from the number of channels, which must be 1, 3 or 4 on exactly one of the two possible axes.
    """
    declared = getattr(batch, "layouts", {}).get(key)
    if layout is not None and declared not in (None, layout):
        raise SchemaError(
            subject=caller, place="layout", expected=f"{declared!r}, as the batch says", found=repr(layout)
        )
    known = layout or declared
    count = channels or "C"
    shapes = {"CHW": f"[B, {count}, H, W]", "HWC": f"[B, H, W, {count}]"}
    shape = shapes[known] if known else f"{shapes['CHW']} or {shapes['HWC']}"
    images = images_of(batch, key, caller, shape)
    sides = {"CHW": images.shape[1], "HWC": images.shape[3]}
    if known is None:
        wanted = _CHANNELS if channels is None else (channels,)
        likely = [name for name, side in sides.items() if side in wanted]
        if len(likely) > 1 or (not likely and channels is None):
            raise _not_pictures(images, key, caller, shape, "set layout='CHW' or layout='HWC'")
        known = likely[0] if likely else "CHW"
    if channels not in (None, sides[known]):
        raise _not_pictures(images, key, caller, shape)
    return Pictures(images if known == "CHW" else images.permute(0, 3, 1, 2), known)


def _not_pictures(found: Any, key: str, caller: str, shape: str, hint: str = "") -> SchemaError:
    return SchemaError(
        subject=caller,
        place=f"batch[{key!r}]",
        expected=f"a tensor of uint8 or floats, {shape}",
        found=_described(found),
        hint=hint,
    )


def check_layout(layout: Any) -> None:
    """SettingError unless it is "CHW", "HWC" or None."""
    if layout is not None:
        one_of("layout", layout, LAYOUTS)


def column(batch: Any, key: str, caller: str) -> Any:
    """A column of a batch; SchemaError if the batch does not have it."""
    if not isinstance(batch, Mapping):
        raise SchemaError(subject=caller, expected=f"a batch with {key!r}", found=type(batch).__name__)
    try:
        return batch[key]
    except KeyError:
        found = f"one with {', '.join(map(str, batch))}"
        raise SchemaError(subject=caller, expected=f"a batch with {key!r}", found=found) from None


def replaced(batch: Any, values: Mapping[str, Any]) -> Any:
    """The batch with these columns replaced; a plain dict remains a dict."""
    return batch.replace(values=values) if hasattr(batch, "replace") else {**batch, **values}


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__}, which is not a tensor"


def to_device_of(values: npt.NDArray[Any], tensor: torch.Tensor) -> torch.Tensor:
    """Copy an array to the device of a tensor, without waiting for it."""
    return torch.from_numpy(values).to(tensor.device, non_blocking=True)


def per_picture(values: npt.NDArray[np.float64], images: torch.Tensor) -> torch.Tensor:
    """One number per picture, with the shape and dtype to be multiplied with float pictures."""
    return to_device_of(values, images).to(images.dtype)[:, None, None, None]


def to_floats(images: torch.Tensor) -> torch.Tensor:
    """A copy of the pictures as floats from 0 to 1: float32, or float64 if they are."""
    floats = images.to(torch.promote_types(images.dtype, torch.float32), copy=True)
    return floats.div_(255) if images.dtype == torch.uint8 else floats


def from_floats(floats: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of `to_floats`; uint8 levels are rounded."""
    return (floats * 255).round_().to(dtype) if dtype == torch.uint8 else floats.to(dtype)
