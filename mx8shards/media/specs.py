"""Which decoders of pictures does `decode=` accept: Decode, CenterCrop, ResizeCrop, RandomResizedCrop, MultiCrop?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from mx8shards.errors import (
    SettingError,
    finite_numbers,
    is_number,
    one_of,
    probability,
    shown,
    true_or_false,
    whole_number,
)
from mx8shards.format.images import LAYOUTS
from mx8shards.media.crop_settings import CropSettings

if TYPE_CHECKING:
    from mx8shards.stages import DecoderContext, Stage

Size = int | tuple[int, int]

_DTYPES = ("uint8", "float16", "float32")
_MOST = 1 << 14  # pixels of a crop's side
_RESERVED = ("sample_ids", "padding")  # keys that every batch has


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The arguments that Decode and all crops share; their docstrings explain them."""

    flip: float = 0.0
    layout: Literal["CHW", "HWC"] = "CHW"
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    seed: int | None = None
    exact: bool = False
    upright: bool = False

    def __post_init__(self) -> None:
        one_of(self._named("layout"), self.layout, LAYOUTS)
        one_of(self._named("dtype"), self.dtype, _DTYPES)
        probability(self._named("flip"), self.flip)
        if self.seed is not None:
            self._keep("seed", whole_number(self._named("seed"), self.seed, None))
        for name in ("exact", "upright"):
            self._keep(name, true_or_false(self._named(name), getattr(self, name)))
        if (self.mean is None) != (self.std is None):
            self._refuse("mean and std", "both, or neither", (self.mean, self.std))
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                self._keep(name, self._per_channel(name, getattr(self, name)))

    def _per_channel(self, name: str, given: Any) -> tuple[float, ...]:
        """`given` as three numbers, checked."""
        values = finite_numbers(given)
        if self.dtype == "uint8":
            self._refuse(name, "a float dtype for it", self.dtype)
        if values is None or len(values) != 3:
            self._refuse(name, "a finite number for each of red, green and blue", given)
        if name == "mean" and max(values) > 1:
            self._refuse(name, "numbers up to 1, as levels are from 0 to 1 (divide those of 0 to 255 by 255)", given)
        if name == "std" and not all(value > 0 for value in values):
            self._refuse(name, "numbers above 0", given)
        return values

    def _keep(self, name: str, value: object) -> None:
        """Set a field of this frozen value to its checked form."""
        object.__setattr__(self, name, value)

    def _named(self, name: str) -> str:
        return f"{type(self).__name__}: {name}"

    def _refuse(self, name: str, expected: str, found: object) -> NoReturn:
        raise SettingError(subject=self._named(name), expected=expected, found=shown(found)) from None

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the output; 0 and 0 if it has the size of each picture."""
        raise NotImplementedError

    def crops(self, column: str) -> Mapping[str, Picture]:
        """The crops that are made of a picture, by their keys in a batch."""
        raise NotImplementedError

    def stage(self, context: DecoderContext) -> Stage:
        """The stage that makes these crops."""
        return _stage_of(self.crops(context.column), context)

    def _box(self) -> dict[str, Any]:
        """The settings of CropSettings that differ between the classes."""
        return {"kind": "cover"}

    def _settings(self) -> CropSettings:
        """The settings of this crop, for the stage."""
        shared = {f.name: getattr(self, f.name) for f in fields(Picture)}
        return CropSettings(sides=self.sides, **self._box(), **shared)


@dataclass(frozen=True)
class Decode(Picture):
    """Whole pictures, decoded exactly and not resized.

    Args:
        size: The height and width that all pictures have, or one number for both: a batch has them stacked, and a
            picture of another size is an error. None: sizes differ, and a batch has them as Ragged, where
            `batch["image"][i]` is one picture as an array.
        flip: The probability, from 0 to 1, that a picture is mirrored, left to right.
        layout: "CHW" or "HWC": whether a batch has `[B, 3, height, width]` or `[B, height, width, 3]`.
        dtype: "uint8" for levels from 0 to 255; "float16" or "float32" for numbers from 0 to 1.
        mean: With `std` and a float dtype, pictures are normalised: `(value - mean) / std`. Three finite numbers, for
            red, green and blue from 0 to 1.
        std: Three numbers above 0; given with `mean` or not at all.
        seed: Crops with the same seed draw the same numbers, for example for a picture and its mask. None: the numbers
            depend on the crop's name in the batch.
        upright: True applies the rotation in EXIF data (not XMP) first. That is slower for rotated pictures, which
            `convert imagefolder --upright` rotates once, in advance. False uses the raster as it is, as torchvision's
            ImageFolder does.
    """

    size: int | tuple[int, int] | None = None
    exact: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            object.__setattr__(self, "size", _normal(_checked_sides(self, self.size)))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of all pictures; 0 and 0 if they differ."""
        return (0, 0) if self.size is None else _checked_sides(self, self.size)

    def crops(self, column: str) -> Mapping[str, Decode]:
        """This crop, under the column's name."""
        return {column: self}

    def _box(self) -> dict[str, Any]:
        return {"kind": "whole"}


@dataclass(frozen=True)
class Crop(Picture):
    """A part of a picture, resized to `size`: height and width, or one number for both."""

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", _normal(_checked_sides(self, self.size)))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return _checked_sides(self, self.size)

    def crops(self, column: str) -> Mapping[str, Crop]:
        """This crop, under the column's name."""
        return {column: self}


@dataclass(frozen=True)
class CenterCrop(Crop):
    """The centre of a picture, resized only if `resize` is given or the picture is smaller than the crop.

    Args:
        size: The height and width of a crop in pixels, from 1 to 16384, or one number for both.
        resize: The length of the picture's shorter side after it was resized, as torchvision's Resize does before its
            CenterCrop: from the longer side of `size` to 16384. None: the picture is not resized, unless it is smaller
            than the crop.
        flip: The probability, from 0 to 1, that a crop is mirrored, left to right.
        layout: "CHW" or "HWC": whether a batch has `[B, 3, height, width]` or `[B, height, width, 3]`.
        dtype: "uint8" for levels from 0 to 255; "float16" or "float32" for numbers from 0 to 1.
        mean: With `std` and a float dtype, crops are normalised: `(value - mean) / std`. Three finite numbers, for
            red, green and blue from 0 to 1.
        std: Three numbers above 0; given with `mean` or not at all.
        seed: Crops with the same seed draw the same numbers, for example for a picture and its mask. None: the numbers
            depend on the crop's name in the batch.
        exact: True decodes to RGB and resizes that, as Pillow does. False resizes luma and chroma before the conversion
            to RGB: that is faster, and differs by half a level on average.
        upright: True applies the rotation in EXIF data (not XMP) first. That is slower for rotated pictures, which
            `convert imagefolder --upright` rotates once, in advance. False uses the raster as it is, as torchvision's
            ImageFolder does.
    """

    resize: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is None:
            return
        try:
            self._keep("resize", whole_number("resize", self.resize, max(self.sides), _MOST))
        except SettingError:
            self._refuse("resize", f"pixels from the size to {_MOST}, or None", self.resize)

    def _box(self) -> dict[str, Any]:
        return {"kind": "native"} if self.resize is None else {"kind": "within", "resize": self.resize}


@dataclass(frozen=True)
class ResizeCrop(Crop):
    """The largest centred part of a picture with the aspect ratio of `size`, resized.

    Args:
        size: The height and width of a crop in pixels, from 1 to 16384, or one number for both.
        flip: The probability, from 0 to 1, that a crop is mirrored, left to right.
        layout: "CHW" or "HWC": whether a batch has `[B, 3, height, width]` or `[B, height, width, 3]`.
        dtype: "uint8" for levels from 0 to 255; "float16" or "float32" for numbers from 0 to 1.
        mean: With `std` and a float dtype, crops are normalised: `(value - mean) / std`. Three finite numbers, for
            red, green and blue from 0 to 1.
        std: Three numbers above 0; given with `mean` or not at all.
        seed: Crops with the same seed draw the same numbers, for example for a picture and its mask. None: the numbers
            depend on the crop's name in the batch.
        exact: True decodes to RGB and resizes that, as Pillow does. False resizes luma and chroma before the conversion
            to RGB: that is faster, and differs by half a level on average.
        upright: True applies the rotation in EXIF data (not XMP) first. That is slower for rotated pictures, which
            `convert imagefolder --upright` rotates once, in advance. False uses the raster as it is, as torchvision's
            ImageFolder does.
    """


@dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """A random part of a picture, resized, as torchvision does. The draw depends on seed, epoch, sample and name.

    Args:
        size: The height and width of a crop in pixels, from 1 to 16384, or one number for both.
        scale: The smallest and the largest share of the picture's area that a crop covers, above 0 and at most 1.
        ratio: The smallest and the largest ratio of a crop's width to its height before it is resized, above 0.
        flip: The probability, from 0 to 1, that a crop is mirrored, left to right.
        layout: "CHW" or "HWC": whether a batch has `[B, 3, height, width]` or `[B, height, width, 3]`.
        dtype: "uint8" for levels from 0 to 255; "float16" or "float32" for numbers from 0 to 1.
        mean: With `std` and a float dtype, crops are normalised: `(value - mean) / std`. Three finite numbers, for
            red, green and blue from 0 to 1.
        std: Three numbers above 0; given with `mean` or not at all.
        seed: Crops with the same seed draw the same numbers, for example for a picture and its mask. None: the numbers
            depend on the crop's name in the batch.
        exact: True decodes to RGB and resizes that, as Pillow does. False resizes luma and chroma before the conversion
            to RGB: that is faster, and differs by half a level on average.
        upright: True applies the rotation in EXIF data (not XMP) first. That is slower for rotated pictures, which
            `convert imagefolder --upright` rotates once, in advance. False uses the raster as it is, as torchvision's
            ImageFolder does.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _are_range(self.scale) or self.scale[1] > 1:
            self._refuse("scale", "two numbers from above 0 to 1, the smaller one first", self.scale)
        if not _are_range(self.ratio):
            self._refuse("ratio", "two numbers above 0, the smaller one first", self.ratio)
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))

    def _box(self) -> dict[str, Any]:
        return {"kind": "random", "scale": self.scale, "ratio": self.ratio}


@dataclass(frozen=True)
class MultiCrop:
    """Several crops of each picture, which is decoded once. Their names become keys of a batch.

    The random numbers of a crop depend on its name; crops with the same `seed` draw the same numbers.

    Args:
        each: The crops by their names in the batch, such as `{"large": CenterCrop(224), "small": CenterCrop(96)}`. All
            have the same `exact` and `upright`.
    """

    each: Mapping[str, Crop]

    def __post_init__(self) -> None:
        each: Any = self.each
        if not isinstance(each, Mapping) or not each:
            raise SettingError(subject="MultiCrop: each", expected="crops by name", found=shown(self.each))
        for name, crop in self.each.items():
            if type(name) is not str or name in _RESERVED or not isinstance(crop, Crop):
                found = f"{shown(crop)} under {shown(name)}"
                raise SettingError(subject="MultiCrop: each", expected="crops by name", found=found)
        for setting in ("exact", "upright"):
            if len({getattr(crop, setting) for crop in self.each.values()}) > 1:
                expected = f"crops that agree on {setting}, as the picture is decoded once"
                raise SettingError(subject="MultiCrop: each", expected=expected, found="both True and False")
        object.__setattr__(self, "each", dict(self.each))

    def __hash__(self) -> int:
        return hash(frozenset(self.each.items()))

    def stage(self, context: DecoderContext) -> Stage:
        """The stage that makes these crops."""
        return _stage_of(self.each, context)


def _stage_of(crops: Mapping[str, Picture], context: DecoderContext) -> Stage:
    from mx8shards.media.picture_stage import stage_of  # imported here because it loads Numba

    return stage_of({name: crop._settings() for name, crop in crops.items()}, context)


def _checked_sides(picture: Picture, size: Any) -> tuple[int, int]:
    """Height and width from the `size` argument; SettingError if that is invalid."""
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    try:
        height, width = (whole_number("size", side, 1, _MOST) for side in sides)
    except ValueError:  # a SettingError, or not two numbers
        picture._refuse("size", f"pixels from 1 to {_MOST}: one number, or height and width", size)
    return height, width


def _normal(sides: tuple[int, int]) -> Size:
    """Equal sides as one number, so that equal settings compare equal."""
    return sides[0] if sides[0] == sides[1] else sides


def _are_range(values: Any) -> bool:
    if not isinstance(values, (tuple, list)) or len(values) != 2 or not all(map(is_number, values)):
        return False
    return bool(0 < values[0] <= values[1])
