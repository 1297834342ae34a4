"""How are the pictures in a folder or tar converted to samples (`convert imagefolder`)?

    SRC/cat/1.jpg, SRC/dog/2.png   one folder per class: columns image, label, path, height, width
    SRC/1.jpg, SRC/more/2.jpg      no classes (--labels none): the other columns, without label

By default conversion is lossless: JPEGs are stored in tiles (media/tiles.py), from which the original bytes can be
restored, and other files are stored unchanged. Height and width are those of the raster, before the rotation in the
EXIF data. With --upright, --max-side, --min-side, --format or --quality, this rotation is applied to the raster. Files
that are not pictures are rejects; hidden files (whose names begin with a dot) are skipped. Pictures with 16 bits per
channel are rejects unless --rgb8 converts them to 8-bit RGB. CMYK pictures are rejects unless an option re-encodes
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mx8shards.convert.class_folders import ClassFolders
from mx8shards.convert.file_kinds import PICTURES
from mx8shards.convert.picture_changes import Changes
from mx8shards.convert.source import Item

Labels = Literal["auto", "none", "imagefolder"]

_MANY = 20_000


class ImageFolder:
    """The pictures in a folder or a tar, in the order of their paths.

    Args:
        src: A folder of pictures, or an uncompressed .tar of one, or the URL of either (s3://bucket/photos). Hidden
            files (.name) are skipped. If a tar contains one folder and all pictures are in its subfolders, that folder
            is used as SRC (unless --labels is given).
        labels: imagefolder: every folder in SRC is a class, and must contain a file. none: no labels. auto: like
            imagefolder if SRC contains folders, otherwise like none.
        classes: A FILE that lists the class names, one per line or as a JSON list; in Python also a list. The first
            name gets label 0, the next one label 1, and so on. Use it to give several datasets equal labels. Default:
            the names of the folders, sorted.
        max_side: Scale larger pictures down so that the longer side has this many pixels. Also applies the EXIF
            rotation.
        min_side: Scale larger pictures down so that the shorter side has this many pixels. Also applies the EXIF
            rotation.
        format: jpeg: encode all other formats as JPEG. yuv420: store decoded planes, which are larger and faster to
            read. Both also apply the EXIF rotation. Default: keep the format of each file.
        quality: Re-encode all pictures as JPEG of this quality, from 1 to 100. Also applies the EXIF rotation.
        upright: Apply the EXIF rotation. JPEGs are rotated losslessly if their sides are multiples of the JPEG block
            size (8 or 16 pixels) and libturbojpeg is installed; other JPEGs are re-encoded at quality 95. Other formats
            become PNGs. Re-encoding drops EXIF and other metadata, except for the colour profile.
        rgb8: Convert CMYK pictures and pictures with 16 bits per channel to 8-bit RGB or grey: JPEGs are re-encoded at
            quality 95 (or --quality), others become PNGs. Without this option, 16-bit pictures are rejects. CMYK
            pictures are rejects too, unless --quality, --max-side, --min-side or --format re-encodes them as RGB.
        tiles: JPEGs are stored in tiles, so that a Loader decodes only the tiles that a crop needs; the original file
            can be restored. False: JPEGs are stored unchanged.
    """

    packages = ("pillow", "simplejpeg")  # their versions affect how pictures are encoded and which are refused

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
        changes = Changes(
            max_side=max_side,
            min_side=min_side,
            quality=quality,
            format=format,
            tiles=tiles,
            upright=upright,
            rgb8=rgb8,
        )
        self._folders = ClassFolders(src, labels, classes, PICTURES)
        self.travels = self._folders.travels
        # kernels check JPEGs twice as fast as libjpeg, but importing Numba takes as long as checking thousands of them
        self._changes = replace(changes, by_kernels=tiles or len(self._folders.names) > _MANY)
        self.counts = (
            self._changes.counts
        )  # how many pictures were turned upright, and how many of these were re-encoded
        self.features = {"state": self._folders.files.state, **self._changes.features}
        self.classes = self._folders.classes
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

    def items(self) -> Sequence[Item]:
        """The paths of all files in SRC, each with the facts about its object if it is in a store."""
        return self._folders.items()

    def expect(self, items: Sequence[Item]) -> None:
        """Begin to read these pictures ahead, if they are in a store.

        Args:
            items: Some of `items`, in the order in which `sample` is called with them.
        """
        self._folders.expect(items)

    def stamp(self, item: Item) -> object:
        """Size and modification time of a picture's file.

        Args:
            item: one of `items`.
        """
        return self._folders.stamp(item)

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one picture. Every byte is checked, so that truncated files are rejected.

        Args:
            item: one of `items`.
        """
        self._folders.check(item)
        image, width, height = self._changes.applied(self._folders.read(item))
        sample = {"image": image, "path": item[0], "height": height, "width": width}
        if self.classes is not None:
            sample["label"] = self._folders.label(item)
        return sample


open_source = ImageFolder
