"""Recipe for Something-Something V2: the WebM files, unpacked, and the JSON files of the labels.

    python -m mx8shards.convert converters/something_something.py 20bn-something-something-v2 labels/train.json \\
        labels/labels.json data/train --workers 8

An entry of train.json or validation.json has an id, which names the file `<id>.webm`, the label ("putting pen on
table"), and its template ("Putting [something] on [something]"). labels.json gives the number of each template: the
label in the dataset. "classes" in the metadata are the templates in that order. Further column: caption, the label in
words. Other columns: those of `convert videofolder`. test.json has no labels; convert it with `convert videofolder`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mx8shards as mx8
from mx8shards.convert.video_changes import VIDEO_COLUMNS, VIDEO_METADATA, checked_video

Item = tuple[str, int, str]  # the name of the file, the label, and the caption


class SomethingSomething:
    """The videos that a file of labels lists.

    Args:
        src: The folder of the .webm files.
        entries: train.json or validation.json.
        templates: labels.json, with the number of each template.
        gop: Re-encode the videos for random access, with a keyframe every N frames.
    """

    columns: Mapping[str, str] = {**VIDEO_COLUMNS, "label": "int", "path": "str", "caption": "str"}
    packages = ("av",)

    def __init__(self, src: str | Path, entries: str | Path, templates: str | Path, *, gop: int | None = None) -> None:
        self._root, self._gop = Path(src), gop
        numbers = {name: int(number) for name, number in json.loads(Path(templates).read_text()).items()}
        self._items: list[Item] = [
            (f"{entry['id']}.webm", numbers[_plain(entry["template"])], entry["label"])
            for entry in json.loads(Path(entries).read_text())
        ]
        classes = sorted(numbers, key=numbers.__getitem__)
        self.metadata: Mapping[str, Any] = {**VIDEO_METADATA, "classes": classes, "gop": gop}

    def items(self) -> Sequence[Item]:
        """All videos, in the order of the file."""
        return self._items

    def stamp(self, item: Item) -> object:
        """Size and modification time of a video; None if it is missing."""
        path = self._root / item[0]
        return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one video."""
        name, label, caption = item
        path = self._root / name
        if not path.is_file():
            raise mx8.SourceError(expected=f"a file {path}", found="none")
        video = checked_video(path.read_bytes(), gop=self._gop)
        return {**video, "label": label, "path": name, "caption": caption}


def _plain(template: str) -> str:
    """A template as labels.json spells it: without the brackets around its gaps."""
    return template.replace("[", "").replace("]", "")


open_source = SomethingSomething
