"""What can be asked of a column of pictures? Frozen values, each of which names what its crops are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mx8shards.errors import SettingError, is_number, shown

if TYPE_CHECKING:
    from mx8shards.stages import Stage, Use

Layout = Literal["CHW", "HWC"]
Kind = Literal["uint8", "float16", "float32"]
Size = int | tuple[int, int]

_LAYOUTS = ("CHW", "HWC")
_KINDS = ("uint8", "float16", "float32")
_MOST = 1 << 14  # pixels of a crop's side
_TAKEN = ("sample_ids", "padding")  # names of what else a batch has


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What all crops have in common.

    `layout` and `dtype` are those of a batch: uint8 from 0 to 255; a float dtype is from 0 to 1, or, with `mean` and
    `std` (of that scale, one per channel), normalised. `flip` is how often a crop is mirrored. Crops that have the same
    `seed` draw the same numbers; others draw by their names. `exact` decodes to RGB first and resizes that, as Pillow
    would: slower, and nearly the same.
    """

    flip: float = 0.0
    layout: Layout = "CHW"
    dtype: Kind = "uint8"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    seed: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.layout not in _LAYOUTS:
            self._refuse("layout", "'CHW' or 'HWC'", self.layout)
        if self.dtype not in _KINDS:
            self._refuse("dtype", " or ".join(map(repr, _KINDS)), self.dtype)
        if not is_number(self.flip) or not 0 <= self.flip <= 1:
            self._refuse("flip", "a probability", self.flip)
        if self.seed is not None and type(self.seed) is not int:
            self._refuse("seed", "an int, or None", self.seed)
        if type(self.exact) is not bool:
            self._refuse("exact", "True or False", self.exact)
        if (self.mean is None) != (self.std is None):
            self._refuse("mean and std", "both, or neither", (self.mean, self.std))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                if self.dtype == "uint8":
                    self._refuse(name, "a float dtype for it", self.dtype)
                if not hasattr(values, "__getitem__") or len(values) != 3 or not all(map(is_number, values)):
                    self._refuse(name, "a number for each of red, green and blue", values)
                if name == "std" and not all(value > 0 for value in values):
                    self._refuse(name, "numbers above 0", values)
                object.__setattr__(self, name, tuple(float(value) for value in values))

    def _refuse(self, name: str, expected: str, found: object) -> None:
        raise SettingError(subject=f"{type(self).__name__}: {name}", expected=expected, found=shown(found))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of what is made; 0 and 0 if only the picture tells."""
        raise NotImplementedError

    def crops(self, column: str) -> Mapping[str, Picture]:
        """Each crop that is made of a picture, by its name in a batch."""
        raise NotImplementedError

    def stage(self, use: Use) -> Stage:
        """The stage that makes them."""
        from mx8shards.media.pictures import stage_of  # numba, for those who decode

        return stage_of(self.crops(use.column), use)


@dataclass(frozen=True)
class Decode(Picture):
    """Whole pictures, decoded exactly and not resized.

    With a `size` (height and width, or one number for both) all have to be of that size, and are stacked. Without, they
    differ, and a batch has them as Ragged: `batch["image"][i]` is one picture as an array.
    """

    size: Size | None = None
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
        """This one, under the column's name."""
        return {column: self}


@dataclass(frozen=True)
class Crop(Picture):
    """A part of a picture, resized to `size`: height and width, or one number for both."""

    size: Size

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", _normal(_checked_sides(self, self.size)))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return _checked_sides(self, self.size)

    def crops(self, column: str) -> Mapping[str, Crop]:
        """This one, under the column's name."""
        return {column: self}


@dataclass(frozen=True)
class CenterCrop(Crop):
    """The middle of a picture.

    With `resize`, of the picture resized so that its shorter side is that long, as torchvision's Resize and CenterCrop
    do. Without, of the picture as it is: only one that is smaller than the crop is enlarged.
    """

    resize: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is not None and (type(self.resize) is not int or not max(self.sides) <= self.resize <= _MOST):
            self._refuse("resize", f"pixels from the size to {_MOST}, or None", self.resize)


@dataclass(frozen=True)
class ResizeCrop(Crop):
    """As much of a picture as has the shape of `size`, from its middle, resized."""


@dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """A random part of a picture, as torchvision's: of `scale` of its area, with a `ratio` of width to height."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _are_range(self.scale) or self.scale[1] > 1:
            self._refuse("scale", "two numbers from above 0 to 1, the smaller one first", self.scale)
        if not _are_range(self.ratio):
            self._refuse("ratio", "two numbers above 0, the smaller one first", self.ratio)
        for name in ("scale", "ratio"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


@dataclass(frozen=True)
class MultiCrop:
    """Several crops of each picture, which is decoded once. Their names become keys of a batch.

    Each draws numbers of its own, by its name; crops with the same `seed` draw the same ones.
    """

    each: Mapping[str, Crop]

    def __post_init__(self) -> None:
        each: Any = self.each
        if not isinstance(each, Mapping) or not each:
            raise SettingError(subject="MultiCrop: each", expected="crops by name", found=shown(self.each))
        for name, crop in self.each.items():
            if type(name) is not str or name in _TAKEN or not isinstance(crop, Crop):
                found = f"{shown(crop)} under {shown(name)}"
                raise SettingError(subject="MultiCrop: each", expected="crops by name", found=found)
        if len({crop.exact for crop in self.each.values()}) > 1:
            expected = "crops that agree on exact, as the picture is decoded once"
            raise SettingError(subject="MultiCrop: each", expected=expected, found="both True and False")
        object.__setattr__(self, "each", dict(self.each))

    def __hash__(self) -> int:
        return hash(frozenset(self.each.items()))

    def stage(self, use: Use) -> Stage:
        """The stage that makes them."""
        from mx8shards.media.pictures import stage_of  # numba, for those who decode

        return stage_of(self.each, use)


def _checked_sides(picture: Picture, size: Any) -> tuple[int, int]:
    """Height and width, if they can be; else ValueError."""
    sides = (size, size) if hasattr(size, "__index__") else size
    if not isinstance(sides, (tuple, list)) or len(sides) != 2 or not all(map(_is_side, sides)):
        picture._refuse("size", f"pixels from 1 to {_MOST}: one number, or height and width", size)
    return int(sides[0]), int(sides[1])


def _normal(sides: tuple[int, int]) -> Size:
    """Equal sides as one number: there is one value for what is meant."""
    return sides[0] if sides[0] == sides[1] else sides


def _is_side(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__") and 1 <= value <= _MOST


def _are_range(values: Any) -> bool:
    if not isinstance(values, (tuple, list)) or len(values) != 2 or not all(map(is_number, values)):
        return False
    return bool(0 < values[0] <= values[1])
