"""Does converters/lerobot.py convert episodes with all their cameras and tables?

pyarrow is no part of the extra `test`: `pip install pyarrow`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from tests.videos import FPS, encoded, number_in

pytest.importorskip("av")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

CAMERAS = ("observation.images.top", "observation.images.wrist")
LENGTHS = (14, 9, 12)  # two episodes are in the first files, one in the second
FILES = ((0, 1), (2,))
FEATURES = {
    **{name: {"dtype": "video", "shape": [64, 96, 3]} for name in CAMERAS},
    "observation.state": {"dtype": "float32", "shape": [3]},
    "action": {"dtype": "float32", "shape": [2]},
    "next.done": {"dtype": "bool", "shape": [1]},
    "timestamp": {"dtype": "float32", "shape": [1]},
    **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
    "note": {"dtype": "string", "shape": [1]},
}


def rows_of(episode: int) -> list[dict[str, Any]]:
    return [
        {
            "observation.state": [float(episode), float(frame), 0.5],
            "action": [float(episode), float(frame)],
            "next.done": frame == LENGTHS[episode] - 1,
            "timestamp": np.float32(frame / FPS),
            "note": "",
            "frame_index": frame,
            "episode_index": episode,
            "index": 0,
            "task_index": 0,
        }
        for frame in range(LENGTHS[episode])
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows), path)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Three episodes of two cameras. A frame's number is its place in its file, plus 100 in the second camera."""
    root, episodes = tmp_path / "lerobot", []
    for file, members in enumerate(FILES):
        write(root / f"data/chunk-000/file-{file:03d}.parquet", [row for each in members for row in rows_of(each)])
        total = sum(LENGTHS[each] for each in members)
        for camera, name in enumerate(CAMERAS):
            path = root / f"videos/{name}/chunk-000/file-{file:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = range(100 * camera, 100 * camera + total)
            path.write_bytes(encoded(("h264", "mpeg4")[camera], numbers, range(total)))
        begin = 0
        for each in members:
            places: dict[str, Any] = {"data/chunk_index": 0, "data/file_index": file}
            for name in CAMERAS:
                places |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": file}
                places |= {f"videos/{name}/from_timestamp": begin / FPS}
                places |= {f"videos/{name}/to_timestamp": (begin + LENGTHS[each]) / FPS}
            begin += LENGTHS[each]
            tasks, statistics = [f"task {each}"], {"stats/action/mean": [0.0]}
            episodes.append({"episode_index": each, "length": LENGTHS[each], "tasks": tasks, **places, **statistics})
    write(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": FEATURES,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def test_episodes_have_their_parts_of_all_cameras_and_their_rows(src: Path, tmp_path: Path, repository: Path) -> None:
    report = mx8.convert_from(repository / "converters/lerobot.py", src, tmp_path / "data", workers=2)
    assert (report.samples, list(report.rejects)) == (3, [])
    with mx8.Dataset(tmp_path / "data") as dataset:
        assert [(sample["path"], sample["task"]) for sample in dataset] == [
            (f"episode_{each:06d}", f"task {each}") for each in range(3)
        ]
        assert not {"index", "note", "task_index"} & dataset.columns.keys()
        for episode, sample in enumerate(dataset):
            rows = rows_of(episode)
            for name in ("observation.state", "action", "next.done", "timestamp"):
                assert sample[name].tolist() == [row[name] for row in rows]
        clips = dataset.clips(CAMERAS, at=[-1 / FPS, 0], anchors="timestamp")
        assert len(clips) == sum(LENGTHS)
        decode = {name: mx8.Clip((64, 96)) for name in CAMERAS}
        with mx8.Loader(clips, batch_size=5, shuffle=True, output="numpy", memory="256mb", decode=decode) as loader:
            for batch in loader:
                for row, (episode, frame) in enumerate(zip(batch.sample_ids, batch.extras["clip"], strict=True)):
                    assert batch["action"][row][frame].tolist() == [episode, frame]
                    begin = LENGTHS[0] if episode == 1 else 0
                    wanted = [begin + max(frame - 1, 0), begin + frame]
                    for camera, name in enumerate(CAMERAS):
                        shown = [number_in(each.mean(axis=0)) - 100 * camera for each in batch[name][row]]
                        assert shown == wanted


def test_an_episode_whose_video_has_another_length_is_a_reject(src: Path, tmp_path: Path, repository: Path) -> None:
    table = src / "meta/episodes/chunk-000/file-000.parquet"
    rows = parquet.read_table(table).to_pylist()
    rows[1]["length"] += 1
    write(table, rows)
    report = mx8.convert_from(repository / "converters/lerobot.py", src, tmp_path / "data", max_side=48)
    assert [tuple(each) for each in report.rejects] == [
        ("episode_000001", "expected 10 frames of observation.images.top, got 9")
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("v3.0", "v2.1", r"meta/info.json: expected codebase_version v3\.\*, got v2.1"),
        ('"dtype": "video"', '"dtype": "image"', "observation.images.top: expected videos, got single pictures"),
    ],
)
def test_other_forms_of_lerobot_are_refused(
    old: str, new: str, message: str, src: Path, tmp_path: Path, repository: Path
) -> None:
    info = src / "meta/info.json"
    info.write_text(info.read_text().replace(old, new))
    with pytest.raises(mx8.SourceError, match=message):
        mx8.convert_from(repository / "converters/lerobot.py", src, tmp_path / "data")
