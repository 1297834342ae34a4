"""Recipe for UCF101: the videos of UCF101.rar, unpacked, and the lists of UCF101TrainTestSplits-RecognitionTask.zip.

    python -m mx8shards.convert converters/ucf101.py UCF-101 ucfTrainTestlist/trainlist01.txt data/train --workers 8
    python -m mx8shards.convert converters/ucf101.py UCF-101 ucfTrainTestlist/testlist01.txt data/test --workers 8

A line of a list names a video, as `Archery/v_Archery_g01_c01.avi`; the number behind it in the training lists is not
needed. A label is the index of its class in the sorted list of all classes, which is "classes" in the metadata; that is
one less than in classInd.txt. Columns: those of `convert videofolder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mx8shards as mx8
from mx8shards.convert.video_changes import VIDEO_COLUMNS, VIDEO_METADATA, checked_video


class Ucf101:
    """The videos that a list names.

    Args:
        src: The folder UCF-101, with a folder for each class.
        names: trainlist01.txt, testlist01.txt or another list.
        gop: Re-encode the videos for random access, with a keyframe every N frames.
    """

    columns: Mapping[str, str] = {**VIDEO_COLUMNS, "label": "int", "path": "str"}
    packages = ("av",)

    def __init__(self, src: str | Path, names: str | Path, *, gop: int | None = None) -> None:
        self._root, self._gop = Path(src), gop
        self._names = [line.split()[0] for line in Path(names).read_text().splitlines() if line.strip()]
        classes = sorted(path.name for path in self._root.iterdir() if path.is_dir())
        self._labels = {name: number for number, name in enumerate(classes)}
        self.metadata: Mapping[str, Any] = {**VIDEO_METADATA, "classes": classes, "gop": gop}

    def items(self) -> Sequence[tuple[str]]:
        """The names, in the order of the list."""
        return [(name,) for name in self._names]

    def stamp(self, item: tuple[str]) -> object:
        """Size and modification time of a video; None if it is missing."""
        path = self._root / item[0]
        return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None

    def sample(self, item: tuple[str]) -> Mapping[str, Any]:
        """Convert one video."""
        (name,) = item
        path = self._root / name
        if not path.is_file():
            raise mx8.SourceError(expected=f"a file {path}", found="none")
        return {
            **checked_video(path.read_bytes(), gop=self._gop),
            "label": self._labels[path.parent.name],
            "path": name,
        }


open_source = Ucf101
