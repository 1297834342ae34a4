"""Recipe for Kinetics-400, -600 and -700: the clips as the CVDF mirror gives them, unpacked, and its annotations.

    python -m mx8shards.convert converters/kinetics.py k400/train k400/annotations/train.csv data/train --workers 8
    python -m mx8shards.convert converters/kinetics.py k400/val k400/annotations/val.csv data/val --max-side 340

A line of the annotations has a label, youtube_id, time_start and time_end; its clip of ten seconds is
`<youtube_id>_<time_start>_<time_end>.mp4`, with six digits for each time, in the folder itself or in one named by the
label. Clips that are missing (many videos are gone) are rejects. A label is the index of its name in the sorted list of
all labels of the file, which is "classes" in the metadata. Columns: those of `convert videofolder`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mx8shards as mx8
from mx8shards.convert.video_changes import VIDEO_COLUMNS, VIDEO_METADATA, checked_video

Item = tuple[str, str]  # the name of the clip's file, and its label


class Kinetics:
    """The clips that an annotation file lists.

    Args:
        src: The folder of the clips.
        annotations: train.csv, val.csv or test.csv.
        gop: Re-encode the clips for random access, with a keyframe every N frames.
        max_side: Re-encode; scale larger clips down so that the longer side has this many pixels.
    """

    columns: Mapping[str, str] = {**VIDEO_COLUMNS, "label": "int", "path": "str"}
    packages = ("av",)

    def __init__(
        self, src: str | Path, annotations: str | Path, *, gop: int | None = None, max_side: int | None = None
    ) -> None:
        self._root, self._changes = Path(src), {"gop": gop, "max_side": max_side}
        with open(annotations, newline="") as file:
            rows = list(csv.DictReader(file))
        self._items = [(_name_of(row), row["label"]) for row in rows]
        classes = sorted({label for _, label in self._items})
        self._labels = {name: number for number, name in enumerate(classes)}
        self.metadata: Mapping[str, Any] = {**VIDEO_METADATA, "classes": classes, "kinetics": self._changes}

    def items(self) -> Sequence[Item]:
        """All clips, in the order of the annotations."""
        return self._items

    def stamp(self, item: Item) -> object:
        """Size and modification time of a clip; None if it is missing."""
        path = self._path(item)
        return None if path is None else [path.stat().st_size, path.stat().st_mtime_ns]

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one clip."""
        path = self._path(item)
        if path is None:
            raise mx8.SourceError(expected=f"a file {item[0]}", found="none")
        return {
            **checked_video(path.read_bytes(), **self._changes),
            "label": self._labels[item[1]],
            "path": item[0],
        }

    def _path(self, item: Item) -> Path | None:
        name, label = item
        places = (self._root / name, self._root / label / name)
        return next((path for path in places if path.is_file()), None)


def _name_of(row: Mapping[str, str]) -> str:
    return f"{row['youtube_id']}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}.mp4"


open_source = Kinetics
