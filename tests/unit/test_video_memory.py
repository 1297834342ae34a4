"""Does decoding a video take no more memory than was estimated?"""

from __future__ import annotations

import dataclasses
import io

import av
import numpy as np
import pytest

from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import Planes, decode_frames
from mx8shards.media.video_memory import decoder_bytes
from tests import videos
from tests.anonymous_memory import anonymous_bytes
from tests.unit.test_video_decoding import ENOUGH, indexed, payload_of


def with_many_references() -> bytes:
    """An H.264 video of 640 × 360 pixels whose encoder keeps as many references as its level allows."""
    out, random = io.BytesIO(), np.random.default_rng(0)
    params = "ref=16:bframes=8:b-pyramid=normal:b-adapt=0:keyint=48:scenecut=0"
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "x264-params": params})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (540, 640), np.uint8), "yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def test_a_decoder_takes_no_more_memory_than_was_estimated() -> None:
    data = with_many_references()
    video = payload_of(data)
    estimate = decoder_bytes(video.index)
    for _ in range(2):  # the first time, libraries allocate memory that they keep
        decoders = Decoders(ENOUGH)
        decoders.join()
        before, found = anonymous_bytes(), [0]

        def take(_packet: int, _planes: Planes) -> None:
            found.append(anonymous_bytes() - before)  # noqa: B023

        decode_frames(video, np.arange(0, len(video.index.pts), 3), decoders, take)
        decoders.leave()
    assert max(found) <= estimate < 40 << 20


@pytest.mark.parametrize(
    ("codec", "level", "size", "references"),
    [
        ("h264", 30, (640, 480), 6),
        ("h264", 30, (96, 64), 16),
        ("hevc", 120, (1920, 1080), 6),
        ("hevc", 7, (1920, 1080), 16),
    ],
)
def test_references_are_limited_by_the_level(codec: str, level: int, size: tuple[int, int], references: int) -> None:
    index = indexed(videos.video(codec).data)
    extradata = bytearray(index.extradata)
    extradata[3 if codec == "h264" else 12] = level

    def estimate(reorder: int, extradata: bytes) -> int:
        facts = dataclasses.replace(index.facts, width=size[0], height=size[1], reorder=reorder)
        return decoder_bytes(dataclasses.replace(index, facts=facts, extradata=extradata))

    one = estimate(1, b"") - estimate(0, b"")  # the memory of one frame
    assert (estimate(0, b"") - estimate(0, bytes(extradata))) == (16 - references) * one
