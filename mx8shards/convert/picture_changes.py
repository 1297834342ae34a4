"""How are pictures changed during conversion: scaled, turned upright, re-encoded, stored in tiles?"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mx8shards.convert.picture_checks import (
    check_kept,
    check_picture,
    check_whole,
    in_rgb8,
    open_nonempty,
    refusals,
    shrink,
    stored_bytes,
    tile,
)
from mx8shards.errors import DecodeError, SourceError, one_of, require, true_or_false, whole_number
from mx8shards.format.picture_files import JPEGS, can_be_rgb8, checked_orientation, open_picture

Format = Literal["jpeg", "yuv420"]

_JPEG_BEGIN = b"\xff\xd8\xff"
_TRANSPOSITIONS = {  # Pillow's transposition for each EXIF orientation
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIDEWAYS = 5  # orientations 5 to 8 exchange width and height
_COARSE = 2  # Pillow's number for 4:2:0
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))
_MOST_SIDE = 1 << 16  # the limit of JPEG


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The requested changes, and counts of the pictures turned so far (`counts`)."""

    max_side: int | None
    min_side: int | None
    quality: int | None
    format: Format | None
    tiles: bool
    upright: bool
    rgb8: bool
    by_kernels: bool = field(default=True, compare=False)  # check stored JPEGs with our kernels, not with libjpeg
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        for name in ("max_side", "min_side", "quality"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1, 100 if name == "quality" else _MOST_SIDE)
        if self.format is not None:
            one_of("format", self.format, get_args(Format))
        for name in ("tiles", "upright", "rgb8"):
            true_or_false(name, getattr(self, name))

    def to_json(self) -> Mapping[str, Any]:
        """The options that differ from the defaults, and `tiles`."""
        sizes = {"max_side": self.max_side, "min_side": self.min_side, "quality": self.quality}
        asked = {"upright": self.upright or None, "rgb8": self.rgb8 or None}
        options = {**sizes, "format": self.format, "tiles": self.tiles, **asked}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def features(self) -> Mapping[str, Any]:
        """Facts other than the options that affect the converted bytes."""
        return {"turns without loss": self.upright and _turns_without_loss()}

    def applied(self, data: bytes) -> tuple[bytes, int, int]:
        """The bytes to store, and the width and height of their raster. SourceError if the picture is refused."""
        image, width, height = self._checked(data)
        return (_planes(image) if self.format == "yuv420" else image), width, height

    def _checked(self, data: bytes) -> tuple[bytes, int, int]:
        """Check and change a picture. Returns its bytes, not yet as planes, and the width and height of its raster."""
        with refusals(data), open_nonempty(data) as picture:
            if self.rgb8 and can_be_rgb8(picture):
                return self._checked(in_rgb8(picture, data, self.quality or 95))
            check_picture(picture)
            turned = (
                self.upright and checked_orientation(picture) != 1
            )  # must be read first, because loading a TIFF rotates it
            changed = self._resized(picture, data)
            if changed is None:
                check_kept(picture, data)
                changed = self._turned(data, picture) if turned else None
            if changed is not None:
                self.counts["upright"] += turned
                return changed
            tiles = self.tiles and self.format != "yuv420"
            image = stored_bytes(picture, data, tiles=tiles, by_kernels=self.by_kernels)
            return image, picture.width, picture.height

    def _tiled(self, data: bytes) -> bytes:
        """Store a JPEG in tiles, if requested and possible."""
        return tile(data) if self.tiles and self.format != "yuv420" else data

    def _scale(self, size: tuple[int, int]) -> float:
        """The factor by which a picture of this size is scaled; if it is 1 or more, the picture keeps its size."""
        scale = 1.0
        if self.max_side is not None:
            scale = min(scale, self.max_side / max(size))
        if self.min_side is not None:
            scale = min(scale, self.min_side / min(size))
        return scale

    def _resized(self, picture: Any, data: bytes) -> tuple[bytes, int, int] | None:
        """The picture scaled down or re-encoded, or None if the options do not change it."""
        scale = self._scale(picture.size)
        other = self.format == "jpeg" and picture.format not in JPEGS
        asked = (self.max_side, self.min_side, self.format) != (None, None, None)
        turned = asked and checked_orientation(picture) != 1  # these options turn all pictures upright …
        turned = turned and (not self.upright or self.format == "yuv420")  # … but `_turned` can do it losslessly
        if scale >= 1 and self.quality is None and not other and not turned:
            return None
        shrink(picture, data, scale)
        check_whole(picture, data)
        scale = self._scale(picture.size)
        upright = _upright(picture).convert("RGB")
        if scale < 1:
            size = [max(1, round(side * scale)) for side in upright.size]
            upright = upright.resize(size, require("PIL.Image", "convert").Resampling.LANCZOS)
        out = io.BytesIO()
        if self.format == "yuv420" and self.quality is None:
            upright.save(out, "PNG", compress_level=1)  # lossless, because it is only an intermediate step to planes
        else:
            upright.save(out, "JPEG", quality=self.quality or 95, subsampling="4:2:0")
        image = out.getvalue()
        return self._tiled(image) if image.startswith(_JPEG_BEGIN) else image, upright.width, upright.height

    def _turned(self, data: bytes, picture: Any) -> tuple[bytes, int, int]:
        """The picture turned upright: a JPEG losslessly or, if that is impossible, re-encoded; other formats as PNG."""
        upright = None
        shrink(picture, data, 1)
        check_whole(picture, data)
        if picture.format in JPEGS:
            upright = _turned_jpeg(data, checked_orientation(picture))
        if upright is not None:
            width, height = picture.size if checked_orientation(picture) < _SIDEWAYS else picture.size[::-1]
            return self._tiled(upright), width, height
        turned = _upright(picture)
        out = io.BytesIO()
        profile = picture.info.get("icc_profile")
        if picture.format in JPEGS:
            sampling = require("PIL.JpegImagePlugin", "convert").get_sampling(picture)
            coarse = sampling == _COARSE or picture.mode == "L"
            turned.save(out, "JPEG", quality=95, subsampling="4:2:0" if coarse else "4:4:4", icc_profile=profile)
            self.counts["upright_reencoded"] += 1
            return self._tiled(out.getvalue()), turned.width, turned.height
        turned = turned if turned.mode in _PNG_MODES else turned.convert("RGBA" if "A" in turned.mode else "RGB")
        turned.save(out, "PNG", icc_profile=profile)
        return out.getvalue(), turned.width, turned.height


def _upright(picture: Any) -> Any:
    """The picture with its EXIF rotation applied and its EXIF and XMP data removed.

    Pillow's exif_transpose also parses and rewrites all EXIF data, which can take far more memory than their size.
    """
    picture.load()  # rotates a TIFF
    method = _TRANSPOSITIONS.get(checked_orientation(picture))
    if method is None:
        return picture
    turned = picture.transpose(require("PIL.Image", "convert").Transpose[method])
    for name in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):
        turned.info.pop(name, None)
    return turned


def _turns_without_loss() -> bool:
    from mx8shards.media.upright import has_library

    return has_library()


def _turned_jpeg(data: bytes, orientation: int) -> bytes | None:
    """A JPEG turned upright losslessly, or None if its sides or its EXIF data do not allow that."""
    from mx8shards.media.upright import upright_jpeg

    found = upright_jpeg(data, orientation)
    if found is not None:
        with open_picture(found) as picture:
            found = found if checked_orientation(picture) == 1 else None
    return found


def _planes(picture: bytes) -> bytes:
    from mx8shards.media.yuv420 import encode

    try:
        return encode(picture)
    except DecodeError as error:
        raise SourceError(f"cannot be stored as yuv420 planes: {error}") from error
