"""Do recipes write several videos per sample, as parts of files, with facts that `clips` finds?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.convert.named_videos import VideoFile, named_columns, named_metadata, named_video
from tests.videos import FPS, decoded, encoded, video

av = pytest.importorskip("av")

CAMERAS = ("images.top", "wrist")
EPISODES = (0, 13, 14, 40)  # their first frames


def parts(path: Path, **options: object) -> list[dict[str, object]]:
    file = VideoFile(path, **options)
    return [file.part(begin / FPS, end / FPS) for begin, end in pairwise(EPISODES)]


def test_cameras_of_episodes_are_cut_and_become_clips_without_another_look_at_the_videos(tmp_path: Path) -> None:
    (tmp_path / "top.mp4").write_bytes(video("h264", "open").data)
    (tmp_path / "wrist.mkv").write_bytes(video("vp9", "wrong rate").data)
    columns = named_columns(CAMERAS)
    assert columns["wrist"] == columns["about_wrist_packets"] == "bytes"
    assert max(name for name in columns if name.endswith("_packets")) < min(CAMERAS)
    files = parts(tmp_path / "top.mp4"), parts(tmp_path / "wrist.mkv", gop=4)
    with mx8.Writer(tmp_path / "data", columns=columns, metadata=named_metadata(CAMERAS)) as writer:
        for top, wrist in zip(*files, strict=True):
            writer.write({**named_video("images.top", top), **named_video("wrist", wrist)})
    with mx8.Dataset(tmp_path / "data", cache_dir=tmp_path / "cache") as dataset:
        for sample, (begin, end) in zip(dataset, pairwise(EPISODES), strict=True):
            for name in CAMERAS:
                assert [number for _, number in decoded(sample[name])] == list(range(begin, end))
                assert sample[f"about_{name}_frames"] == end - begin
        clips = dataset.clips(["wrist", "images.top"], frames=5, every=5)
        assert len(clips) == 13 // 5 + 26 // 5
        assert clips[2]["images.top.frames"].tolist() == clips[2]["wrist.frames"].tolist() == list(range(5))
    assert not (tmp_path / "cache").exists()  # no file of packet indices was made


def test_a_part_outside_of_its_file_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "top.mp4").write_bytes(video("h264").data)
    with pytest.raises(mx8.SourceError, match=r"a part that begins before the video ends, at 1\.6 s, got 99 s"):
        VideoFile(tmp_path / "top.mp4").part(99, 99.5)
    with pytest.raises(FileNotFoundError):
        VideoFile(tmp_path / "none.mp4").part(0, 1)
    (tmp_path / "ten.mp4").write_bytes(encoded("h264", range(3), range(3), pixel_format="yuv420p10le"))
    with pytest.raises(mx8.SourceError, match="yuv420p10le"):
        VideoFile(tmp_path / "ten.mp4").part(0, 1)
