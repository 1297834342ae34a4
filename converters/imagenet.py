"""Recipe for ImageNet (ILSVRC 2012): converts the tars as downloaded.

    python -m mx8shards.convert converters/imagenet.py ILSVRC2012_img_train.tar data/train --workers 8
    python -m mx8shards.convert converters/imagenet.py ILSVRC2012_img_val.tar --synsets val_synsets.txt data/val

The tar of the training pictures holds a tar for each class, named by its synset (`n01440764.tar`). The tar of the
validation pictures holds only pictures: --synsets names a text file with the synset of each picture, one per line, in
the order of the pictures' names. A label is the index of its synset in the sorted list of all synsets, as in
torchvision; "classes" in the metadata is that list. Columns: image (a JPEG in tiles), label, path. The only PNG is
stored unchanged; the few CMYK pictures are converted to RGB. A damaged tar ends the conversion, because a class could
be missing; a damaged picture is a reject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mx8shards as mx8
from mx8shards.convert.picture_checks import checked_picture
from mx8shards.convert.tarball import Tar

Item = tuple[str, str, str]  # path in the dataset, synset, and name in the tar


class ImageNet:
    """The pictures of the training tar, or of the validation tar with a list of synsets.

    Args:
        tar: ILSVRC2012_img_train.tar or ILSVRC2012_img_val.tar.
        synsets: A FILE with the synset of each validation picture, one per line. Needed for the validation tar.
    """

    columns: Mapping[str, str] = {"image": "bytes", "label": "int", "path": "str"}
    packages = ("pillow", "simplejpeg")

    def __init__(self, tar: str | Path, synsets: str | Path | None = None) -> None:
        path = Path(tar)
        self._outer = Tar(path)
        self._inner: dict[str, Tar] = {}  # by synset
        self.features = {"state": self._outer.state}
        self._items = self._of_classes(path) if synsets is None else self._of_a_list(Path(synsets))
        classes = sorted({synset for _, synset, _ in self._items if synset})
        self._labels = {synset: number for number, synset in enumerate(classes)}
        self.metadata: Mapping[str, Any] = {"classes": classes}

    def _of_classes(self, path: Path) -> list[Item]:
        """The pictures in each class's tar, which is read in place, and any other files beside these tars."""
        items = []
        for name in self._outer.names():
            if not name.endswith(".tar"):
                items.append((name, "", name))
                continue
            synset = name.removesuffix(".tar")
            try:
                tar = self._inner[synset] = Tar(path, *self._outer.place(name))
            except mx8.SourceError as error:
                raise error.at(place=name) from None
            if not tar.names():
                raise mx8.SourceError(subject=str(path), place=name, expected="pictures", found="none")
            items += [(f"{synset}/{one}", synset, one) for one in tar.names()]
        if not self._inner:
            hint = "the validation tar, which holds only pictures, needs --synsets FILE"
            raise mx8.SourceError(subject=str(path), expected="a tar for each class", found="none", hint=hint)
        return items

    def _of_a_list(self, synsets: Path) -> list[Item]:
        """The pictures, sorted by name, each with the synset on its line of the list."""
        names, lines = self._outer.names(), synsets.read_text().split()
        if len(lines) != len(names):
            raise mx8.SourceError(subject=str(synsets), expected=f"{len(names)} lines", found=f"{len(lines)}")
        return [(name, line, name) for name, line in zip(names, lines, strict=True)]

    def items(self) -> Sequence[Item]:
        """All files, in the order of their paths."""
        return self._items

    def stamp(self, item: Item) -> object:
        """Offset and size of a picture, and the state of the tar."""
        return [item[1], self._inner.get(item[1], self._outer).stamp(item[2])]

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one picture."""
        path, synset, name = item
        if not synset:
            raise mx8.SourceError(expected="the tar of a class", found="another file")
        image, _, _ = checked_picture(self._inner.get(synset, self._outer).read(name), rgb8=True)
        return {"image": image, "label": self._labels[synset], "path": path}


open_source = ImageNet
