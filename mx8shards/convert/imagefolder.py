"""How does a folder of pictures become samples?

    SRC/cat/1.jpg, SRC/dog/2.png   one folder per class: columns image, label, path, height, width
    SRC/1.jpg, SRC/more/2.jpg      no classes (--labels none): the same without label

Nothing of a picture is lost, unless a side or a quality is asked for: JPEGs are stored in tiles (media/tiles.py), from
which their very bytes come back, and all others as they are. Height and width are those of its raster, before any
rotation that its EXIF data ask of a viewer. With --upright, and where sides or a format are asked for, that rotation is
applied to the raster. A file that is no picture is a reject; a hidden file (its name begins with a dot) is left out.
A picture in CMYK or of 16 bits per channel is a reject, too, unless --rgb8 asks for 8-bit RGB of it.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards.convert.classes import class_list, classes_of
from mx8shards.convert.files import is_text, open_files, suffix_of
from mx8shards.convert.picture_checks import can_be_rgb8, check_kept, check_picture, in_rgb8, shrink
from mx8shards.convert.source import Item
from mx8shards.errors import DecodeError, MissingPackageError, SourceError, require
from mx8shards.format.picture_files import FORMATS, JPEGS, open_picture

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
_HIDDEN = "files and folders whose name begins with a dot are not looked at"
_MANY = 20_000
_JPEG_BEGIN = b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = 5  # orientations from this one on exchange width and height
_COARSE = 2  # what Pillow calls 4:2:0
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))
_PNG_END = b"IEND\xaeB`\x82"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said of a folder of pictures."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help="a folder of pictures, or an uncompressed .tar of one; hidden files (.name) are left out",
    )
    parser.add_argument(
        "--labels",
        choices=("auto", "none", "imagefolder"),
        default="auto",
        help="imagefolder: each folder in SRC is a class; none: no labels; auto: classes if SRC holds folders (auto)",
    )
    parser.add_argument(
        "--classes",
        type=class_list,
        metavar="FILE",
        help="the class names in the order of their labels: one name per line, or a JSON list (default: the names of "
        "the folders, sorted)",
    )
    parser.add_argument("--max-side", type=_side, metavar="PIXELS", help="scale down until no side is longer")
    parser.add_argument("--min-side", type=_side, metavar="PIXELS", help="scale the shorter side down to this length")
    parser.add_argument(
        "--format",
        choices=("jpeg", "yuv420"),
        help="jpeg: encode all other formats as JPEG; yuv420: store decoded planes, which are larger and faster to "
        "read (default: keep the format)",
    )
    parser.add_argument("--quality", type=_quality, metavar="1-100", help="encode all pictures as JPEG of this quality")
    parser.add_argument(
        "--upright",
        action="store_true",
        help="apply the rotation in the EXIF data: without loss to JPEGs whose sides are whole blocks (needs "
        "libturbojpeg), to other JPEGs by encoding them again at quality 95, to other formats as PNG",
    )
    parser.add_argument(
        "--rgb8",
        action="store_true",
        help="make 8-bit RGB or grey of pictures in CMYK or of 16 bits per channel, which are rejects otherwise: JPEGs "
        "are encoded anew at quality 95 (or --quality), others become PNGs",
    )
    parser.add_argument(
        "--no-tiles", dest="tiles", action="store_false", help="store JPEGs as they are, without tiles for fast crops"
    )


def open_source(args: argparse.Namespace) -> ImageFolder:
    """The folder that a command line means."""
    return ImageFolder(
        Path(args.src).expanduser(),
        labels=getattr(args, "labels", "auto"),
        max_side=getattr(args, "max_side", None),
        min_side=getattr(args, "min_side", None),
        quality=getattr(args, "quality", None),
        format=getattr(args, "format", None),
        tiles=getattr(args, "tiles", True),
        upright=getattr(args, "upright", False),
        classes=getattr(args, "classes", None),
        rgb8=getattr(args, "rgb8", False),
    )


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1 pixel, got {text}")
    return int(text)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text}")
    return int(text)


class ImageFolder:
    """Pictures in folders, or in a tar of them, in the order of their paths."""

    packages = ("pillow", "simplejpeg")  # other versions may encode a picture, or refuse it, in another way

    def __init__(
        self,
        src: Path,
        *,
        labels: str,
        max_side: int | None,
        min_side: int | None,
        quality: int | None,
        format: str | None,  # noqa: A002 - the option's name
        tiles: bool,
        upright: bool,
        classes: Sequence[str] | None,
        rgb8: bool,
    ) -> None:
        self._files = open_files(src)
        self._max_side, self._min_side, self._quality = max_side, min_side, quality
        self._format, self._tiles, self._upright, self._rgb8 = format, tiles, upright, rgb8
        self._names = self._files.names()
        pictures = [name for name in self._names if suffix_of(name) in SUFFIXES and not name.startswith("../")]
        if not pictures:
            found = f"none among {len(self._names)} files"
            raise SourceError(
                subject=str(src), expected=f"pictures ({' '.join(sorted(SUFFIXES))})", found=found, hint=_HIDDEN
            )
        self.classes = classes_of(src, pictures, labels, classes)
        self.features = {"state": self._files.state, "turns without loss": upright and _turns_without_loss()}
        self.counts: Counter[str] = Counter()  # of samples: how many were turned upright, and how many by encoding anew
        # kernels read twice as quickly as libjpeg, but Numba takes as long to import as thousands of pictures to read
        self._by_kernels = tiles or len(pictures) > _MANY
        self._numbers = {name: number for number, name in enumerate(self.classes or ())}
        self.columns: Mapping[str, str] = {
            "image": "bytes",
            "path": "str",
            "height": "int32",
            "width": "int32",
            **({"label": "int"} if self.classes is not None else {}),
        }
        sizes = {"max_side": max_side, "min_side": min_side, "quality": quality}
        asked = {"upright": upright or None, "rgb8": rgb8 or None}
        options = {"labels": labels, **sizes, "format": format, "tiles": tiles, **asked}
        self.metadata: Mapping[str, Any] = {
            "imagefolder": {name: value for name, value in options.items() if value is not None},
            **({"classes": list(self.classes)} if self.classes is not None else {}),
        }

    def items(self) -> Sequence[Item]:
        """The paths of all files below SRC."""
        return [(name,) for name in self._names]

    def stamp(self, item: Item) -> object:
        """Size and time of a picture's file."""
        return self._files.stamp(item[0]) if suffix_of(item[0]) in SUFFIXES else None

    def sample(self, item: Item) -> Mapping[str, Any]:
        """One picture, looked at whole: none that is cut short gets in."""
        name = item[0]
        if not is_text(name):
            raise SourceError("its name is not UTF-8")
        if suffix_of(name) not in SUFFIXES:
            raise SourceError("no picture, by its name: the suffix is none that is known")
        data = self._files.read(name)
        image, width, height = self._checked(data)
        if self._format == "yuv420":
            image = _planes(image)
        sample = {"image": image, "path": name, "height": height, "width": width}
        if self.classes is not None:
            sample["label"] = self._numbers[name.split("/", 1)[0]]
        return sample

    def _checked(self, data: bytes) -> tuple[bytes, int, int]:
        """The bytes to keep, and the size of their raster."""
        pillow = require("PIL.Image", "convert")
        if not data:
            raise SourceError("the file is empty")
        try:
            with open_picture(data) as picture:
                if self._rgb8 and can_be_rgb8(picture):
                    return self._checked(in_rgb8(picture, self._quality or 95))
                check_picture(picture)
                turned = self._upright and _orientation(picture) != 1  # asked first: loading a TIFF turns it
                changed = self._resized(picture, data)
                if changed is None:
                    check_kept(picture, data)
                    changed = self._turned(data, picture) if turned else None
                if changed is not None:
                    self.counts["upright"] += turned
                    return changed
                if picture.format in JPEGS:
                    return self._whole_jpeg(data, picture), picture.width, picture.height
                picture.load()
                _check_end(picture, data)
                return data, picture.width, picture.height
        except (SourceError, MissingPackageError):
            raise
        except DecodeError as error:
            what, hint = {"expected": error.expected, "found": error.found}, error.hint
            raise SourceError(error.message, **what, hint=hint) from error
        except pillow.UnidentifiedImageError:
            raise SourceError(f"no picture: its first bytes are not those of {', '.join(FORMATS)}") from None
        except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
            raise SourceError(f"no picture that can be read: {' '.join(str(error).split())[:200]}") from error

    def _whole_jpeg(self, data: bytes, picture: Any) -> bytes:
        """A JPEG as it is stored. Every bit of it was read: by tiling it or, where that is not possible, by libjpeg."""
        tables = all(component[3] in picture.quantization for component in picture.layer)
        tiled = self._tiled(data)
        if not tables or (tiled is data and not (self._by_kernels and _is_whole(data))):
            _check_jpeg(data)
        return tiled

    def _tiled(self, data: bytes) -> bytes:
        """A JPEG in tiles, if these are wanted and possible."""
        if not self._tiles or self._format == "yuv420":
            return data
        from mx8shards.media.tiles import tile

        return tile(data)

    def _scale(self, size: tuple[int, int]) -> float:
        """How far a picture of this size is scaled down."""
        scale = 1.0
        if self._max_side is not None:
            scale = min(scale, self._max_side / max(size))
        if self._min_side is not None:
            scale = min(scale, self._min_side / min(size))
        return scale

    def _resized(self, picture: Any, data: bytes) -> tuple[bytes, int, int] | None:
        """The picture scaled down or encoded anew, if that was asked for and changes anything."""
        scale = self._scale(picture.size)
        other = self._format == "jpeg" and picture.format not in JPEGS
        asked = (self._max_side, self._min_side, self._format) != (None, None, None)
        turned = asked and _orientation(picture) != 1  # all are upright then, whatever their size …
        turned = turned and (not self._upright or self._format == "yuv420")  # … and `_turned` does that without loss
        if scale >= 1 and self._quality is None and not other and not turned:
            return None
        shrink(picture, data, scale)
        scale = self._scale(picture.size)
        upright = require("PIL.ImageOps", "convert").exif_transpose(picture).convert("RGB")
        if scale < 1:
            size = [max(1, round(side * scale)) for side in upright.size]
            upright = upright.resize(size, require("PIL.Image", "convert").Resampling.LANCZOS)
        out = io.BytesIO()
        if self._format == "yuv420" and self._quality is None:
            upright.save(out, "PNG", compress_level=1)  # only planes are made of it: nothing more is lost
        else:
            upright.save(out, "JPEG", quality=self._quality or 95, subsampling="4:2:0")
        image = out.getvalue()
        return self._tiled(image) if image.startswith(_JPEG_BEGIN) else image, upright.width, upright.height

    def _turned(self, data: bytes, picture: Any) -> tuple[bytes, int, int]:
        """The picture turned upright: a JPEG without loss or, where that is impossible, encoded anew; others as PNG."""
        upright = None
        shrink(picture, data, 1)
        if picture.format in JPEGS:
            _check_jpeg(data)
            upright = _turned_jpeg(data, _orientation(picture))
        if upright is not None:
            width, height = picture.size if _orientation(picture) < _SIDEWAYS else picture.size[::-1]
            return self._tiled(upright), width, height
        turned = require("PIL.ImageOps", "convert").exif_transpose(picture)
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


def _orientation(picture: Any) -> int:
    """What EXIF (or XMP) data say of the raster, from 1 to 8; 1, which is upright, where they make no sense."""
    found = picture.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _turns_without_loss() -> bool:
    from mx8shards.media.upright import has_library

    return has_library()


def _turned_jpeg(data: bytes, orientation: int) -> bytes | None:
    """A JPEG turned upright without loss, or None where its sides or its EXIF data do not allow that."""
    from mx8shards.media.upright import upright_jpeg

    found = upright_jpeg(data, orientation)
    if found is not None:
        with open_picture(found) as picture:
            found = found if _orientation(picture) == 1 else None
    return found


def _is_whole(jpeg: bytes) -> bool:
    from mx8shards.media.tiles import is_whole

    return is_whole(jpeg)


def _planes(picture: bytes) -> bytes:
    from mx8shards.media.yuv420 import encode

    try:
        return encode(picture)
    except DecodeError as error:
        raise SourceError(f"no planes can be made of it: {error}") from error


def _check_end(picture: Any, data: bytes) -> None:
    """SourceError for a PNG whose last chunk is missing: Pillow is content with the others."""
    if picture.format == "PNG" and _PNG_END not in data:
        raise SourceError("no picture that can be read: it is cut short")


def _check_jpeg(data: bytes) -> None:
    """Decode at an eighth of the size, where a warning is an error: every byte has to be there for that."""
    simplejpeg = require("simplejpeg", "convert")
    try:
        simplejpeg.decode_jpeg(
            data, colorspace="GRAY", fastdct=True, min_factor=8, min_width=1, min_height=1, strict=True
        )
    except ValueError as error:
        if "cmyk" not in str(error).lower() and "colorspace" not in str(error).lower():
            raise
        with open_picture(data) as picture:
            picture.load()
