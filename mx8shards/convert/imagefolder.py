"""How does a folder of pictures become samples?

    SRC/cat/1.jpg, SRC/dog/2.png   one folder per class: columns image, label, path, height, width
    SRC/1.jpg, SRC/more/2.jpg      no classes (--labels none): the same without label

Nothing of a picture is lost, unless a side or a quality is asked for: JPEGs are stored in tiles (media/tiles.py), from
which their very bytes come back, and all others as they are. Height and width are those of its raster, before any
rotation that its EXIF data ask of a viewer.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards.convert.source import Item
from mx8shards.errors import MissingPackageError, SourceError, require

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
SPLITS = ("train", "val", "valid", "validation", "test")

_MOST_PIXELS = 1 << 28
_EIGHT_BITS = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"))
_MOST_LINKS = 40  # as many as Linux follows
_NOWHERE = (-1, 0)
_JPEG_BEGIN = b"\xff\xd8\xff"
_PNG_END = b"IEND\xaeB`\x82"
_ENCODED = frozenset(("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said of a folder of pictures."""
    parser.add_argument("src", metavar="SRC", help="a folder of pictures, or an uncompressed .tar of one")
    parser.add_argument(
        "--labels",
        choices=("auto", "none", "imagefolder"),
        default="auto",
        help="imagefolder: each folder is a class; none: no labels; auto: whichever the folder looks like",
    )
    parser.add_argument("--max-side", type=_side, metavar="PIXELS", help="scale down until no side is longer")
    parser.add_argument("--min-side", type=_side, metavar="PIXELS", help="scale down until the shorter side is so long")
    parser.add_argument("--quality", type=_quality, metavar="1-100", help="encode all as JPEG of this quality")
    parser.add_argument(
        "--no-tiles", dest="tiles", action="store_false", help="store JPEGs as they are, not in tiles to read parts of"
    )


def open_source(args: argparse.Namespace) -> ImageFolder:
    """The folder that a command line means."""
    return ImageFolder(
        Path(args.src),
        labels=getattr(args, "labels", "auto"),
        max_side=getattr(args, "max_side", None),
        min_side=getattr(args, "min_side", None),
        quality=getattr(args, "quality", None),
        tiles=getattr(args, "tiles", True),
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

    def __init__(
        self, src: Path, *, labels: str, max_side: int | None, min_side: int | None, quality: int | None, tiles: bool
    ) -> None:
        self._files: Files = Tar(src) if src.is_file() else Folder(src)
        self._max_side, self._min_side, self._quality, self._tiles = max_side, min_side, quality, tiles
        names = self._files.names()
        self.classes = _classes(src, names, labels)
        self._names = names
        self._numbers = {name: number for number, name in enumerate(self.classes or ())}
        self.columns: Mapping[str, str] = {
            "image": "bytes",
            "path": "str",
            "height": "int32",
            "width": "int32",
            **({"label": "int"} if self.classes is not None else {}),
        }
        sizes = {"max_side": max_side, "min_side": min_side, "quality": quality}
        options = {"labels": labels, **sizes, "tiles": tiles}
        self.metadata: Mapping[str, Any] = {
            "imagefolder": {name: value for name, value in options.items() if value is not None},
            **({"classes": list(self.classes)} if self.classes is not None else {}),
        }

    def items(self) -> Sequence[Item]:
        """The pictures' paths below SRC."""
        return [(name,) for name in self._names]

    def stamp(self, item: Item) -> object:
        """Size and time of a picture's file."""
        return self._files.stamp(item[0])

    def sample(self, item: Item) -> Mapping[str, Any]:
        """One picture, looked at whole: none that is cut short gets in."""
        name = item[0]
        if not _is_text(name):
            raise SourceError("its name is not UTF-8")
        data = self._files.read(name)
        image, width, height = self._checked(data)
        if self._tiles and image.startswith(_JPEG_BEGIN):
            image = _tiled(image)
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
            with pillow.open(io.BytesIO(data)) as picture:
                _check_kind(picture)
                resized = self._resized(picture)
                if resized is not None:
                    return resized
                if picture.format == "JPEG":
                    _check_jpeg(data)
                else:
                    picture.load()
                    _check_end(picture, data)
                return data, picture.width, picture.height
        except (SourceError, MissingPackageError):
            raise
        except pillow.UnidentifiedImageError:
            raise SourceError("no picture: its first bytes are not those of any known format") from None
        except Exception as error:  # Pillow raises whatever it meets: SyntaxError, struct.error, its own
            raise SourceError(f"no picture that can be read: {' '.join(str(error).split())[:200]}") from error

    def _resized(self, picture: Any) -> tuple[bytes, int, int] | None:
        """The picture scaled down or encoded anew, if that was asked for and changes anything."""
        scale = 1.0
        if self._max_side is not None:
            scale = min(scale, self._max_side / max(picture.size))
        if self._min_side is not None:
            scale = min(scale, self._min_side / min(picture.size))
        if scale >= 1 and self._quality is None:
            return None
        upright = require("PIL.ImageOps", "convert").exif_transpose(picture).convert("RGB")
        if scale < 1:
            size = [max(1, round(side * scale)) for side in upright.size]
            upright = upright.resize(size, require("PIL.Image", "convert").Resampling.LANCZOS)
        out = io.BytesIO()
        upright.save(out, "JPEG", quality=self._quality or 95, subsampling="4:2:0")
        return out.getvalue(), upright.width, upright.height


def _tiled(jpeg: bytes) -> bytes:
    from mx8shards.media.tiles import tile  # Numba takes as long to import as thousands of pictures to convert

    return tile(jpeg)


def _check_kind(picture: Any) -> None:
    """SourceError for what a training set should not hold unseen."""
    if picture.format not in _ENCODED:
        raise SourceError(expected=f"one of {', '.join(sorted(_ENCODED))}", found=str(picture.format))
    if picture.width * picture.height > _MOST_PIXELS:
        raise SourceError(expected=f"at most {_MOST_PIXELS} pixels", found=f"{picture.width} x {picture.height}")
    frames = getattr(picture, "n_frames", 1)
    if frames != 1:
        raise SourceError(expected="one picture", found=f"{frames} frames")
    raw = str(getattr(picture.tile[0], "args", "")) if picture.tile else ""
    if picture.mode not in _EIGHT_BITS or ";16" in raw:  # Pillow makes eight bits of sixteen where there are colours
        raise SourceError(expected="8 bits per channel", found=f"mode {raw if ';16' in raw else picture.mode}")


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
        pillow = require("PIL.Image", "convert")
        with pillow.open(io.BytesIO(data)) as picture:
            picture.load()


def _classes(src: Path, names: Sequence[str], labels: str) -> tuple[str, ...] | None:
    """The folders at the top if they are classes, sorted; None if there are no labels."""
    if labels == "none":
        return None
    loose = [name for name in names if "/" not in name]
    found = tuple(sorted({name.split("/", 1)[0] for name in names if "/" in name}))
    for name in found:
        if not _is_text(name):
            raise SourceError("the folder's name is not UTF-8", subject=f"{src}/{os.fsencode(name)!r}")
    if found and set(found) <= set(SPLITS):
        raise SourceError(
            subject=str(src),
            expected="one split, or classes",
            found=f"the splits {', '.join(found)}",
            hint=f"convert each of them: {src}/{found[0]}; --labels none takes all pictures as one",
        )
    if labels == "auto" and not found:
        return None
    if not found or loose:
        what = f"{loose[0]} beside them" if loose else "none"
        raise SourceError(
            subject=str(src), expected="a folder for each class", found=what, hint="--labels none takes pictures alone"
        )
    return found


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()  # a Path for each of a million names takes seconds


def _is_text(name: str) -> bool:
    """Whether a name, as Python got it from the file system, can be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Folder:
    """Files in a folder, those of its folders included; symlinks are followed, and what is hidden is not looked at."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SourceError(expected="a folder, or a .tar file", found="no such thing", subject=str(root))
        self._root = root

    def names(self) -> list[str]:
        """The pictures' paths, sorted."""
        return sorted(self._walk(self._root, "", frozenset()))

    def _walk(self, directory: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
        here = os.path.realpath(directory)
        if here in above:  # a symlink that leads back up
            return
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_directory(entry):
                        yield from self._walk(directory / entry.name, f"{prefix}{entry.name}/", above | {here})
                    elif _suffix(entry.name) in SUFFIXES and (entry.is_symlink() or entry.is_file()):  # no pipe
                        yield prefix + entry.name
        except OSError as error:
            raise SourceError(f"cannot be listed: {error.strerror}", subject=str(directory)) from error

    def stamp(self, name: str) -> object:
        """Size and time, or why there are none."""
        try:
            found = (self._root / name).stat()
        except OSError as error:
            return str(error.strerror)
        return [found.st_size, found.st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a symlink to itself
            raise
        return False


class Tar:
    """Files in an uncompressed tar, read where they lie. Links to files in it are followed, hidden ones left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    name = posixpath.normpath(member.name).lstrip("/")
                    if member.isreg():
                        self._places[name] = (member.offset_data, member.size)
                    elif member.islnk():
                        links[name] = posixpath.normpath(member.linkname).lstrip("/")
                    elif member.issym():
                        links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        except (tarfile.TarError, OSError) as error:
            hint = "a compressed one has to be unpacked first"
            raise SourceError(f"no tar that can be read: {error}", subject=str(path), hint=hint) from error

        for name, target in links.items():
            for _ in range(_MOST_LINKS):
                target = links.get(target, target)
            self._places[name] = self._places.get(target, _NOWHERE)

    def names(self) -> list[str]:
        """The pictures' paths, sorted."""
        return sorted(name for name in self._places if "/." not in f"/{name}" and _suffix(name) in SUFFIXES)

    def stamp(self, name: str) -> object:
        """Place and size, and the time of the tar."""
        return [*self._places[name], self._path.stat().st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        begin, size = self._places[name]
        if begin < 0:
            raise SourceError("cannot be read: a link to nothing in the tar")
        try:
            with open(self._path, "rb") as file:
                file.seek(begin)
                data = file.read(size)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise SourceError(expected=f"{size} bytes", found=f"{len(data)}: the tar is cut short")
        return data


Files = Folder | Tar
