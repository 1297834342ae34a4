"""Which bytes of videos are read for clips, and how much memory do their packet indices take?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.packet_index import FORMAT, VIDEOS, PacketIndex, encode_packet_index, parse_packet_index
from mx8shards.kernels import memory
from mx8shards.media import clip_sweeps
from tests import videos
from tests.anonymous_memory import anonymous_bytes
from tests.clip_data import packets_of, repeated, write_videos
from tests.page_cache import drop, resident_bytes

FPS, GOP, FRAMES = 25, 20, 200
WHOLE = mx8.Clip(crop=mx8.CenterCrop((videos.HEIGHT, videos.WIDTH)))


def of_noise(path: Path) -> bytes:
    """A video of several MB, so that what the kernel reads ahead around each part is little beside it."""
    noise = np.random.default_rng(1)
    options = {"preset": "ultrafast", "qp": "12", "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(FRAMES):
            pixels = noise.integers(0, 256, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return path.read_bytes()


def covering_bytes(index: PacketIndex, frames: Sequence[int]) -> int:
    """The bytes of the GOPs that these frames are in."""
    keyframes = np.flatnonzero(index.keyframe).tolist()
    packets = index.frames[list(frames)].tolist()
    gops = {max(k for k in keyframes if k <= packet) for packet in packets}
    ends = dict(zip(keyframes, [*keyframes[1:], len(index.pts)], strict=True))
    return sum(int(index.size[gop : ends[gop]].sum()) for gop in gops)


@pytest.mark.skipif(not memory.KNOWS_CACHE, reason="this system does not tell what is cached")
@pytest.mark.parametrize("io", ["auto", "pread", "mmap"])
def test_far_clips_of_one_video_do_not_read_what_is_between(tmp_path: Path, io: Any) -> None:
    data = of_noise(tmp_path / "noise.mp4")
    index = parse_packet_index(packets_of(data))
    anchors, at = [np.array([0.1, 7.0])], [0.0, 0.04, 2.0]  # the last frame is not next to the others either
    with write_videos(tmp_path / "data", [data], {"times": "ndarray:float64"}, times=anchors) as dataset:
        view = dataset.clips("video", at=at, anchors="times")
        drop(tmp_path / "data")
        before = resident_bytes(tmp_path / "data")
        if before > len(data) // 20:
            pytest.skip("this file system forgets nothing")
        with mx8.Loader(
            view, batch_size=2, io=io, threads=2, output="numpy", memory="256mb", decode={"video": mx8.Clip(16)}
        ) as loader:
            (batch,) = loader
    frames = sorted({*batch["video.frames"].ravel().tolist()})
    covered = covering_bytes(index, frames)
    assert len(frames) == 6
    assert covered < len(data) / 2
    assert resident_bytes(tmp_path / "data") - before <= 1.1 * covered + len(packets_of(data))


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mx8.Dataset]:
    """Videos of more than an hour: a payload of some kB, and an index of half a MB for 108,000 packets."""
    root, data = tmp_path_factory.mktemp("long") / "data", videos.video("h264").data
    packets = encode_packet_index(repeated(parse_packet_index(packets_of(data)), 2_700))
    columns = {"video": "bytes", "packets": "bytes", "frames": "int"}
    metadata = {VIDEOS: {"video": {"packets": "packets", "format": FORMAT, "facts": ""}}}
    with mx8.Writer(root, columns=columns, metadata=metadata, hashes=()) as writer:
        for _ in range(48):
            writer.write({"video": data, "packets": packets, "frames": 2_700 * videos.FRAMES})
    with mx8.Dataset(root) as found:
        yield found


def test_packet_indices_of_hours_take_no_memory_beyond_the_limit(long_videos: mx8.Dataset) -> None:
    view, most = long_videos.clips("video", frames=4, random=1), 0
    for trial in range(2):  # in the first, libraries and kernels allocate what they keep
        before = anonymous_bytes()
        with mx8.Loader(
            view, batch_size=8, output="numpy", threads=2, memory="96mb", decode={"video": WHOLE}
        ) as loader:
            for batch in loader:
                most = max(most, trial * (anonymous_bytes() - before))
                for clip, frames in zip(batch["video"], batch["video.frames"] % videos.FRAMES, strict=True):
                    assert [videos.number_in(frame.mean(axis=0)) for frame in clip] == frames.tolist()
    assert most < 48 << 20  # parsed, the index of one video has 8 MB


def test_an_index_that_does_not_fit_into_memory_is_refused(long_videos: mx8.Dataset) -> None:
    view = long_videos.select([0]).clips("video", frames=4, random=1)
    settings = {"batch_size": 1, "output": "numpy", "threads": 1, "decode": {"video": mx8.Clip(16)}}
    with mx8.Loader(view, memory="32mb", on_error="skip", **settings) as loader:
        assert sum(len(batch["video"]) for batch in loader) == 0
        assert loader.stats()["clips_failed_unsupported"] == 1
    with (
        mx8.Loader(view, memory="32mb", **settings) as loader,
        pytest.raises(
            mx8.LoaderError, match="a packet index that is parsed in 4194304 bytes, an eighth of memory="
        ) as refused,
    ):
        next(iter(loader))
    enough = int(re.findall(r"\(memory=(\d+)\)", str(refused.value))[0])
    with mx8.Loader(view, memory=enough, **settings) as loader:
        assert len(next(iter(loader))["video"]) == 1


@pytest.mark.parametrize("form", [("h264", "open"), ("h264", "negative start")], ids=["slices", "container"])
def test_packets_that_are_not_kept_are_found_again(
    form: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_sweeps, "_KEPT_PACKETS", 4)
    with write_videos(tmp_path / "data", [videos.video(*form).data]) as dataset:
        view = dataset.clips("video", frames=6, stride=3, every=9)
        with mx8.Loader(view, batch_size=4, output="numpy", memory="128mb", decode={"video": WHOLE}) as loader:
            for batch in loader:
                for clip, frames in zip(batch["video"], batch["video.frames"], strict=True):
                    assert [videos.number_in(frame.mean(axis=0)) for frame in clip] == frames.tolist()
