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

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from mx8shards.convert.classes import check_no_empty, class_names, classes_of, top_of_tar
from mx8shards.convert.picture_changes import Changes
from mx8shards.convert.source import Item
from mx8shards.convert.source_files import is_text, open_files, suffix_of, user_path
from mx8shards.convert.tarball import Tar
from mx8shards.errors import SourceError, one_of

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
Labels = Literal["auto", "none", "imagefolder"]

_HIDDEN = "files and folders whose name begins with a dot are not looked at"
_MANY = 20_000


class ImageFolder:
    """Pictures in folders, or in a tar of them, in the order of their paths.

    Args:
        src: a folder of pictures, or an uncompressed .tar of one; hidden files (.name) are left out. If a tar holds one
            folder whose pictures all lie in folders, that folder is taken as SRC (unless --labels is given)
        labels: imagefolder: each folder in SRC is a class, and has to hold a file; none: no labels; auto: classes if
            SRC holds folders
        classes: the class names in the order of their labels, or a FILE of them: one name per line, or a JSON list
            (default: the names of the folders, sorted)
        max_side: scale down until no side is longer, in pixels; applies the rotation in the EXIF data, too
        min_side: scale the shorter side down to this length, in pixels; applies the rotation in the EXIF data, too
        format: jpeg: encode all other formats as JPEG; yuv420: store decoded planes, which are larger and faster to
            read; applies the rotation in the EXIF data, too (default: keep the format)
        quality: encode all pictures as JPEG of this quality, 1 to 100; applies the rotation in the EXIF data, too
        upright: apply the rotation in the EXIF data: without loss to JPEGs whose sides are whole blocks (needs
            libturbojpeg), to other JPEGs by encoding them again at quality 95, to other formats as PNG; what is encoded
            again loses its EXIF and other metadata, except for the colour profile
        rgb8: make 8-bit RGB or grey of pictures in CMYK or of 16 bits per channel: JPEGs are encoded anew at quality 95
            (or --quality), others become PNGs. Without it, pictures of 16 bits are rejects, and so are those in CMYK,
            except where another option encodes them anew, which makes RGB of them: --quality, or --max-side, --min-side
            and --format where they change the picture
        tiles: store JPEGs in tiles for fast crops; False (--no-tiles) stores them as they are
    """

    packages = ("pillow", "simplejpeg")  # other versions may encode a picture, or refuse it, in another way

    def __init__(
        self,
        src: str | os.PathLike[str],
        *,
        labels: Labels = "auto",
        classes: str | os.PathLike[str] | Sequence[str] | None = None,
        max_side: int | None = None,
        min_side: int | None = None,
        format: Literal["jpeg", "yuv420"] | None = None,  # noqa: A002 - the option's name
        quality: int | None = None,
        upright: bool = False,
        rgb8: bool = False,
        tiles: bool = True,
    ) -> None:
        one_of("labels", labels, get_args(Labels))
        wanted = class_names(classes)
        changes = Changes(
            max_side=max_side,
            min_side=min_side,
            quality=quality,
            format=format,
            tiles=tiles,
            upright=upright,
            rgb8=rgb8,
        )
        self._files = open_files(user_path(src))
        self._list(str(src), labels, wanted)
        # kernels read twice as quickly as libjpeg, but Numba takes as long to import as thousands of pictures to read
        self._changes = replace(changes, by_kernels=tiles or len(self._names) > _MANY)
        self.counts = self._changes.counts  # of samples: how many were turned upright, and how many by encoding anew
        self.features = {"state": self._files.state, **self._changes.features}
        self._numbers = {name: number for number, name in enumerate(self.classes or ())}
        self.columns: Mapping[str, str] = {
            "image": "bytes",
            "path": "str",
            "height": "int32",
            "width": "int32",
            **({"label": "int"} if self.classes is not None else {}),
        }
        self.metadata: Mapping[str, Any] = {
            "imagefolder": {"labels": labels, **self._changes.to_json()},
            **({"classes": list(self.classes)} if self.classes is not None else {}),
        }

    def _list(self, src: str, labels: Labels, wanted: Sequence[str] | None) -> None:
        """List the files and find their classes."""
        names = self._files.names()
        pictures = [name for name in names if suffix_of(name) in SUFFIXES and not name.startswith("../")]
        folders, self._top = self._files.folders(), ""
        if isinstance(self._files, Tar) and labels == "auto":
            top = top_of_tar(names, pictures, folders)
            if top and top[:-1] not in (wanted or ()):
                self._top, folders = top, self._files.folders(top)
        self._names = [name.removeprefix(self._top) for name in names]
        pictures = [name.removeprefix(self._top) for name in pictures]
        if not pictures:
            found = f"none among {len(self._names)} files"
            raise SourceError(
                subject=src, expected=f"pictures ({' '.join(sorted(SUFFIXES))})", found=found, hint=_HIDDEN
            )
        self.classes = classes_of(Path(src), pictures, labels, wanted)
        if self.classes is not None and wanted is None:
            check_no_empty(Path(src), folders, self._names)

    def items(self) -> Sequence[Item]:
        """The paths of all files below SRC."""
        return [(name,) for name in self._names]

    def stamp(self, item: Item) -> object:
        """Size and time of a picture's file.

        Args:
            item: one of `items`.
        """
        return self._files.stamp(self._top + item[0]) if suffix_of(item[0]) in SUFFIXES else None

    def sample(self, item: Item) -> Mapping[str, Any]:
        """One picture, every byte of it read: none that is cut short gets in.

        Args:
            item: one of `items`.
        """
        name = item[0]
        if not is_text(name):
            raise SourceError("its name is not UTF-8")
        if suffix_of(name) not in SUFFIXES:
            raise SourceError(
                expected=f"a picture's suffix ({' '.join(sorted(SUFFIXES))})", found=suffix_of(name) or "none"
            )
        image, width, height = self._changes.applied(self._files.read(self._top + name))
        sample = {"image": image, "path": name, "height": height, "width": width}
        if self.classes is not None:
            sample["label"] = self._numbers[name.split("/", 1)[0]]
        return sample


open_source = ImageFolder
