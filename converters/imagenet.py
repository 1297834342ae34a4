"""ImageNet (ILSVRC 2012) as a dataset, from its tars as they are downloaded.

    python -m mx8shards.convert converters/imagenet.py ILSVRC2012_img_train.tar data/train --workers 8
    python -m mx8shards.convert converters/imagenet.py ILSVRC2012_img_val.tar --synsets val_synsets.txt data/val

The tar of the training pictures holds a tar for each class, named by its synset (`n01440764.tar`). That of the
validation pictures holds pictures alone, so it needs a text with the synset of each, line by line, in the order of
their names. A label is the number of its synset in the sorted list of all synsets, as with torchvision; the list is the
metadata's "classes". Columns: image (a JPEG in tiles), label, path. The few PNG and CMYK files are kept as they are.
"""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import mx8shards as mx8
from mx8shards.media.tiles import tile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said of the tars."""
    parser.add_argument("tar", type=Path, metavar="TAR", help="ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar")
    parser.add_argument(
        "--synsets", type=Path, metavar="FILE", help="the synset of each validation picture, line by line"
    )


def open_source(args: argparse.Namespace) -> ImageNet:
    """The source that a command line means."""
    return ImageNet(args.tar, args.synsets)


class ImageNet:
    """Pictures in a tar of tars, or in a tar with a list of their synsets."""

    columns: Mapping[str, str] = {"image": "bytes", "label": "int", "path": "str"}

    def __init__(self, path: Path, synsets: Path | None) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._items = _pictures(file) if synsets is None else _listed_pictures(file, synsets)
        except tarfile.TarError as error:
            raise mx8.SourceError(f"not a tar that can be read: {error}", subject=str(path)) from error
        if not self._items:
            hint = "a tar of pictures alone needs --synsets FILE" if synsets is None else ""
            raise mx8.SourceError(subject=str(path), expected="pictures", found="none", hint=hint)
        classes = sorted({item[3] for item in self._items})
        self._labels = {synset: number for number, synset in enumerate(classes)}
        self.metadata: Mapping[str, Any] = {"classes": classes}

    def items(self) -> Sequence[Sequence[Any]]:
        """Path, place in the tar, size and synset of each picture."""
        return self._items

    def stamp(self, item: Sequence[Any]) -> object:
        """Place and size, and the time of the tar."""
        return [*item[1:], self._path.stat().st_mtime_ns]

    def sample(self, item: Sequence[Any]) -> Mapping[str, Any]:
        """One picture."""
        name, begin, size, synset = item
        with self._path.open("rb") as file:
            data = os.pread(file.fileno(), size, begin)
        if len(data) != size or not size:
            raise mx8.SourceError(expected=f"{size or 'some'} bytes", found=f"{len(data)}: the tar is cut short")
        return {"image": tile(data), "label": self._labels[synset], "path": name}


def _pictures(file: BinaryIO) -> list[tuple[str, int, int, str]]:
    """Those in the tars of a tar: each inner tar is read where it lies."""
    found = []
    for part in _members(file, 0):
        synset = part.name.removesuffix(".tar")
        if synset != part.name:
            inner = _members(file, part.offset_data)
            found += [(f"{synset}/{one.name}", one.offset_data, one.size, synset) for one in inner]
    return sorted(found)


def _listed_pictures(file: BinaryIO, synsets: Path) -> list[tuple[str, int, int, str]]:
    """Those of a tar in the order of their names, each with its line of the list."""
    members = sorted(_members(file, 0), key=lambda member: member.name)
    lines = synsets.read_text().split()
    if len(lines) != len(members):
        raise mx8.SourceError(subject=str(synsets), expected=f"{len(members)} lines", found=f"{len(lines)}")
    return [(one.name, one.offset_data, one.size, line) for one, line in zip(members, lines, strict=True)]


def _members(file: BinaryIO, begin: int) -> list[tarfile.TarInfo]:
    """The files in the tar that begins there; their places count from the beginning of `file`."""
    file.seek(begin)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        return [member for member in tar if member.isreg()]
