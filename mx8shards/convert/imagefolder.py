"""How does a folder of pictures become samples?

    SRC/cat/1.jpg, SRC/dog/2.png   one folder per class: columns image, label, path, height, width
    SRC/1.jpg, SRC/more/2.jpg      no classes (--labels none): the same without label

Nothing of a picture is lost, unless a side or a quality is asked for: JPEGs are stored in tiles (media/tiles.py), from
which their very bytes come back, and all others as they are. Height and width are those of its raster, before any
rotation that its EXIF data ask of a viewer. With --upright, --max-side, --min-side, --format or --quality, the rotation
is applied to the raster. A file that is no picture is a reject; a hidden file (its name begins with a dot) is left out.
A picture of 16 bits per channel is a reject, too, unless --rgb8 asks for 8-bit RGB of it; so is one in CMYK that no
option encodes anew.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards.convert.classes import check_no_empty, class_list, classes_of, top_of_tar
from mx8shards.convert.picture_checks import (
    can_be_rgb8,
    check_kept,
    check_picture,
    check_whole,
    in_rgb8,
    kept,
    opened,
    refusals,
    shrink,
    tile,
)
from mx8shards.convert.source import Item
from mx8shards.convert.source_files import is_text, open_files, suffix_of, user_path
from mx8shards.convert.tarball import Tar
from mx8shards.errors import DecodeError, SourceError, require
from mx8shards.format.picture_files import JPEGS, open_picture

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
_HIDDEN = "files and folders whose name begins with a dot are not looked at"
_MANY = 20_000
_TURNS = "applies the rotation in the EXIF data, too"
_JPEG_BEGIN = b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = 5  # orientations from this one on exchange width and height
_COARSE = 2  # what Pillow calls 4:2:0
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options of this source."""
    parser.add_argument(
        "src",
        metavar="SRC",
        help="a folder of pictures, or an uncompressed .tar of one; hidden files (.name) are left out. If a tar holds "
        "one folder whose pictures all lie in folders, that folder is taken as SRC (unless --labels is given)",
    )
    parser.add_argument(
        "--labels",
        choices=("auto", "none", "imagefolder"),
        default="auto",
        help="imagefolder: each folder in SRC is a class, and has to hold a file; none: no labels; "
        "auto: classes if SRC holds folders (auto)",
    )
    parser.add_argument(
        "--classes",
        type=class_list,
        metavar="FILE",
        help="the class names in the order of their labels: one name per line, or a JSON list (default: the names of "
        "the folders, sorted)",
    )
    parser.add_argument(
        "--max-side", type=_side, metavar="PIXELS", help=f"scale down until no side is longer; {_TURNS}"
    )
    parser.add_argument(
        "--min-side", type=_side, metavar="PIXELS", help=f"scale the shorter side down to this length; {_TURNS}"
    )
    parser.add_argument(
        "--format",
        choices=("jpeg", "yuv420"),
        help="jpeg: encode all other formats as JPEG; yuv420: store decoded planes, which are larger and faster to "
        f"read; {_TURNS} (default: keep the format)",
    )
    parser.add_argument(
        "--quality", type=_quality, metavar="1-100", help=f"encode all pictures as JPEG of this quality; {_TURNS}"
    )
    parser.add_argument(
        "--upright",
        action="store_true",
        help="apply the rotation in the EXIF data: without loss to JPEGs whose sides are whole blocks (needs "
        "libturbojpeg), to other JPEGs by encoding them again at quality 95, to other formats as PNG; what is encoded "
        "again loses its EXIF and other metadata, except for the colour profile",
    )
    parser.add_argument(
        "--rgb8",
        action="store_true",
        help="make 8-bit RGB or grey of pictures in CMYK or of 16 bits per channel: JPEGs are encoded anew at quality "
        "95 (or --quality), others become PNGs. Without it, pictures of 16 bits are rejects, and so are those in CMYK, "
        "except where another option encodes them anew, which makes RGB of them: --quality, or --max-side, --min-side "
        "and --format where they change the picture",
    )
    parser.add_argument(
        "--no-tiles", dest="tiles", action="store_false", help="store JPEGs as they are, without tiles for fast crops"
    )


def open_source(args: argparse.Namespace) -> ImageFolder:
    """The folder that a command line means."""
    return ImageFolder(
        user_path(args.src),
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
        names = self._files.names()
        pictures = [name for name in names if suffix_of(name) in SUFFIXES and not name.startswith("../")]
        folders, self._top = self._files.folders(), ""
        if isinstance(self._files, Tar) and labels == "auto":
            top = top_of_tar(names, pictures, folders)
            if top and top[:-1] not in (classes or ()):
                self._top, folders = top, self._files.folders(top)
        self._names = [name.removeprefix(self._top) for name in names]
        pictures = [name.removeprefix(self._top) for name in pictures]
        if not pictures:
            found = f"none among {len(self._names)} files"
            raise SourceError(
                subject=str(src), expected=f"pictures ({' '.join(sorted(SUFFIXES))})", found=found, hint=_HIDDEN
            )
        self.classes = classes_of(src, pictures, labels, classes)
        if self.classes is not None and classes is None:
            check_no_empty(src, folders, self._names)
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
        return self._files.stamp(self._top + item[0]) if suffix_of(item[0]) in SUFFIXES else None

    def sample(self, item: Item) -> Mapping[str, Any]:
        """One picture, looked at whole: none that is cut short gets in."""
        name = item[0]
        if not is_text(name):
            raise SourceError("its name is not UTF-8")
        if suffix_of(name) not in SUFFIXES:
            raise SourceError(
                expected=f"a picture's suffix ({' '.join(sorted(SUFFIXES))})", found=suffix_of(name) or "none"
            )
        data = self._files.read(self._top + name)
        image, width, height = self._checked(data)
        if self._format == "yuv420":
            image = _planes(image)
        sample = {"image": image, "path": name, "height": height, "width": width}
        if self.classes is not None:
            sample["label"] = self._numbers[name.split("/", 1)[0]]
        return sample

    def _checked(self, data: bytes) -> tuple[bytes, int, int]:
        """The bytes to keep, and the size of their raster."""
        with refusals(), opened(data) as picture:
            if self._rgb8 and can_be_rgb8(picture):
                return self._checked(in_rgb8(picture, data, self._quality or 95))
            check_picture(picture)
            turned = self._upright and _orientation(picture) != 1  # asked first: loading a TIFF turns it
            changed = self._resized(picture, data)
            if changed is None:
                check_kept(picture, data)
                changed = self._turned(data, picture) if turned else None
            if changed is not None:
                self.counts["upright"] += turned
                return changed
            tiles = self._tiles and self._format != "yuv420"
            image = kept(picture, data, tiles=tiles, by_kernels=self._by_kernels)
            return image, picture.width, picture.height

    def _tiled(self, data: bytes) -> bytes:
        """A JPEG in tiles, if these are wanted and possible."""
        return tile(data) if self._tiles and self._format != "yuv420" else data

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
        check_whole(picture, data)
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
        check_whole(picture, data)
        if picture.format in JPEGS:
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


def _planes(picture: bytes) -> bytes:
    from mx8shards.media.yuv420 import encode

    try:
        return encode(picture)
    except DecodeError as error:
        raise SourceError(f"no planes can be made of it: {error}") from error
