"""Are clips counted without facts, and without reading every packet index again?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.clips.clip_facts import lengths_of
from mx8shards.format.packet_index import FORMAT, VIDEOS
from tests.clip_data import packets_of
from tests.videos import video

SAMPLES = 300
FORMS = [("h264", "closed"), ("h264", "edit list"), ("hevc", "vfr"), None]  # None: no video


@pytest.fixture
def root(tmp_path: Path) -> Path:
    metadata = {VIDEOS: {"video": {"packets": "packets", "format": FORMAT}}}
    columns = {"video": "bytes", "packets": "bytes"}
    with mx8.Writer(tmp_path / "data", columns=columns, metadata=metadata) as writer:
        for number in range(SAMPLES):
            form = FORMS[number % len(FORMS)]
            writer.write({"video": b"", "packets": b"" if form is None else packets_of(video(*form).data)})
    return tmp_path / "data"


def lengths(root: Path, fps: float | None = None) -> list[int]:
    """The length of each video, as clips count it."""
    with mx8.Dataset(root) as dataset:
        view = dataset.clips("video", frames=1, fps=fps)
        assert view.view.videos is not None
        found = lengths_of(dataset.shards, dataset.view, dataset.metadata, view.view.videos).tolist()
        assert len(view) == sum(found)
        return found


def test_lengths_are_kept_in_a_file(root: Path) -> None:
    frames = [0 if form is None else len(video(*form).numbers) for form in FORMS]
    moments = lengths(root, fps=10)
    assert lengths(root) == frames * (SAMPLES // len(FORMS))
    assert moments[0] == 16
    assert moments[3] == 0
    for path in root.glob("*.mds"):
        path.unlink()
    assert lengths(root) == frames * (SAMPLES // len(FORMS))
    assert lengths(root, fps=10) == moments


def test_few_videos_are_counted_by_their_indices_alone(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        assert len(dataset.select(np.arange(8)).clips("video", frames=40)) == 4
    assert not list(root.rglob("*.lengths"))


def test_a_damaged_file_is_refused(root: Path) -> None:
    lengths(root)
    (path,) = root.rglob("*.lengths")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(mx8.FormatError, match="expected lengths of 300 videos"):
        lengths(root)
    path.unlink()
    assert sum(lengths(root)) > 0


def test_a_video_with_a_damaged_index_has_no_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = packets_of(video("h264").data)
    metadata = {VIDEOS: {"video": {"packets": "packets", "format": FORMAT}}}
    with mx8.Writer(tmp_path, columns={"video": "bytes", "packets": "bytes"}, metadata=metadata) as writer:
        for packets in (good, good[:-1], good):
            writer.write({"video": b"", "packets": packets})
    assert lengths(tmp_path) == [40, 0, 40]
    assert "its packet index is damaged" in caplog.text
    assert "sample 1" in caplog.text
