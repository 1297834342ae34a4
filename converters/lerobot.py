"""Recipe for datasets of LeRobot, version 3: a sample is an episode, with the videos of all cameras and its tables.

    python -m mx8shards.convert converters/lerobot.py lerobot/aloha data/aloha --workers 8
    python -m mx8shards.convert converters/lerobot.py lerobot/aloha data/small --gop 16 --max-side 256

It needs `pip install "mx8shards[video]" pyarrow`, and the dataset in a folder, with its `meta`, `data` and `videos`. An
episode's part of each file of videos is cut without re-encoding, and has as many frames as the episode has rows.

Columns, for `observation.images.top` and each other camera: the video under that name, and the facts of `convert
videofolder` as `about_observation.images.top_frames` and so on. For each numeric feature of the table, such as `action`
and `timestamp`: an array with a row for each frame. Also `task` (a line for each), `episode_index` and `path`. A clip
for each frame, with its action at `batch["action"][row][batch.extras["clip"][row]]`:

    dataset.clips(["observation.images.top"], at=[-0.1, 0], anchors="timestamp")
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from mx8shards.convert.named_videos import VideoFile, named_columns, named_metadata, named_video

NUMBERS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "bool")
LEFT_OUT = ("index", "frame_index", "episode_index", "task_index")

Item = tuple[str, int]  # the name of an episode, and its row in the table of episodes


class LeRobot:
    """The episodes of a dataset of LeRobot.

    Args:
        src: The folder of the dataset.
        gop: Re-encode the videos for random access, with a keyframe every N frames.
        max_side: Re-encode; scale larger videos down so that the longer side has this many pixels.
    """

    packages = ("av", "pyarrow")

    def __init__(self, src: str | Path, *, gop: int | None = None, max_side: int | None = None) -> None:
        self._root, self._changes = Path(src), {"gop": gop, "max_side": max_side}
        self._info = json.loads((self._root / "meta/info.json").read_text())
        version = str(self._info["codebase_version"])
        if not version.startswith("v3."):
            hint = "LeRobot has a script that converts older datasets"
            raise mx8.SourceError(subject="meta/info.json", expected="codebase_version v3.*", found=version, hint=hint)
        kinds = {name: feature["dtype"] for name, feature in self._info["features"].items()}
        pictures = [name for name, kind in kinds.items() if kind == "image"]
        if pictures:
            hint = "LeRobot has a script that makes videos of them"
            raise mx8.SourceError(subject=pictures[0], expected="videos", found="single pictures", hint=hint)
        self._cameras = [name for name, kind in kinds.items() if kind == "video"]
        self._arrays = {
            name: "uint8" if kind == "bool" else kind
            for name, kind in kinds.items()
            if kind in NUMBERS and name not in LEFT_OUT
        }
        self._episodes = [
            row
            for file in sorted((self._root / "meta/episodes").rglob("*.parquet"))
            for row in _table(file).to_pylist()
        ]
        self.columns: Mapping[str, str] = {
            **named_columns(self._cameras),
            **{name: f"ndarray:{kind}" for name, kind in self._arrays.items()},
            "task": "str",
            "episode_index": "int",
            "path": "str",
        }
        self.metadata: Mapping[str, Any] = {
            **named_metadata(self._cameras),
            "lerobot": {"fps": self._info["fps"], "robot_type": self._info.get("robot_type"), **self._changes},
        }

    def items(self) -> Sequence[Item]:
        """All episodes, in the order of the table."""
        return [(f"episode_{episode['episode_index']:06d}", row) for row, episode in enumerate(self._episodes)]

    def stamp(self, item: Item) -> object:
        """Sizes and modification times of the files of an episode."""
        episode = self._episodes[item[1]]
        files = [self._file("data", episode), *(self._file(f"videos/{name}", episode) for name in self._cameras)]
        return [[file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None for file in files]

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one episode."""
        episode = self._episodes[item[1]]
        number = int(episode["episode_index"])
        rows = _rows(self._file("data", episode), number)
        sample = {name: np.array(rows[name].to_pylist(), kind) for name, kind in self._arrays.items()}
        for name in self._cameras:
            sample |= named_video(name, self._part(name, episode))
        return {**sample, "task": "\n".join(episode["tasks"]), "episode_index": number, "path": item[0]}

    def _part(self, camera: str, episode: Mapping[str, Any]) -> Mapping[str, Any]:
        """An episode's part of the file of a camera. SourceError if it has not as many frames as the episode."""
        key = f"videos/{camera}"
        video = _video(self._file(key, episode), **self._changes)
        part = video.part(episode[f"{key}/from_timestamp"], episode[f"{key}/to_timestamp"])
        if part["frames"] != episode["length"]:
            expected, found = f"{episode['length']} frames of {camera}", f"{part['frames']}"
            raise mx8.SourceError(expected=expected, found=found)
        return part

    def _file(self, key: str, episode: Mapping[str, Any]) -> Path:
        """The file with an episode's rows (data) or video (videos/CAMERA)."""
        path: str = self._info["data_path" if key == "data" else "video_path"]
        place = {name: episode[f"{key}/{name}"] for name in ("chunk_index", "file_index")}
        return self._root / path.format(video_key=key.removeprefix("videos/"), **place)


@lru_cache(16)
def _video(path: Path, gop: int | None, max_side: int | None) -> VideoFile:
    return VideoFile(path, gop=gop, max_side=max_side)


@lru_cache(1)
def _table(path: Path) -> Any:
    """A table, without statistics."""
    parquet = importlib.import_module("pyarrow.parquet")
    names = [name for name in parquet.read_schema(path).names if not name.startswith("stats/")]
    return parquet.read_table(path, columns=names)


def _rows(path: Path, episode: int) -> Any:
    """The rows of an episode, in the order of their frames."""
    compute = importlib.import_module("pyarrow.compute")
    table = _table(path)
    return table.filter(compute.equal(table["episode_index"], episode)).sort_by("frame_index")


open_source = LeRobot
