"""Are the planes of chosen frames bit for bit those of a full sequential decode?"""

from __future__ import annotations

import ctypes
import functools
import io
from collections.abc import Iterable

import av
import numpy as np
import pytest

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import PacketIndex
from mx8shards.media.packet_plan import keyframes_before, stretches
from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import Decoded, Payload, Planes, decode_frames
from mx8shards.media.video_index import index_video
from tests import videos

ENOUGH = 1 << 30
EVERY_CELL = pytest.mark.parametrize(("codec", "form"), videos.CELLS, ids=lambda value: value.replace(" ", "-"))


@functools.cache
def indexed(data: bytes) -> PacketIndex:
    return index_video(data).packets


def payload_of(data: bytes) -> Payload:
    source = np.frombuffer(data, np.uint8)

    def copy(at: int, count: int, to: int) -> bool:
        if at + count > len(source):
            return False
        ctypes.memmove(to, source.ctypes.data + at, count)
        return True

    return Payload(indexed(data), len(data), copy)


def cropped(frame: av.VideoFrame) -> list[bytes]:
    """The planes of a frame without the padding of their rows."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].tobytes()
        for plane in frame.planes
    ]


@functools.cache
def sequential(data: bytes) -> list[list[bytes]]:
    """The planes of every frame by a full sequential decode."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_count = 1
        return [cropped(frame) for frame in container.decode(video=0)]


def chosen(data: bytes, numbers: Iterable[int], decoders: Decoders) -> tuple[dict[int, list[bytes]], Decoded]:
    """The planes of these frames, by their numbers, as clips are decoded."""
    video = payload_of(data)
    facts, found = video.index.facts, {}
    number_of = {packet: number for number, packet in enumerate(video.index.frames.tolist())}

    def take(packet: int, planes: Planes) -> None:
        across = [facts.width, *[-(-facts.width // (1 if "444" in facts.pixel_format else 2))] * 2]
        found[number_of[packet]] = [
            rows[:, :width].tobytes() for rows, width in zip(planes, across, strict=True) if len(rows)
        ]

    counts = decode_frames(video, np.unique(video.index.frames[list(numbers)]), decoders, take)
    return found, counts


def wrong_frames(data: bytes, count: int, seed: int, decoders: Decoders) -> int:
    """How many of `count` random frames, in random clips, differ from a full sequential decode."""
    expected, rng, wrong = sequential(data), np.random.default_rng(seed), 0
    assert len(expected) == len(indexed(data).frames)
    while count > 0:
        size = int(rng.integers(1, min(9, count + 1)))
        numbers = set(rng.integers(0, len(expected), size).tolist())
        if rng.random() < 0.5:
            first, stride = int(rng.integers(0, len(expected))), int(rng.integers(1, 5))
            numbers = set(range(first, len(expected), stride)[:size])
        found, _ = chosen(data, numbers, decoders)
        assert found.keys() == numbers
        wrong += sum(found[number] != expected[number] for number in numbers)
        count -= len(numbers)
    return wrong


@EVERY_CELL
def test_no_random_frame_differs_from_a_full_decode(codec: str, form: str) -> None:
    data = videos.video(codec, form).data
    decoders = Decoders(ENOUGH)
    decoders.join()
    assert wrong_frames(data, 50, 0, decoders) == 0
    decoders.leave()


@pytest.mark.hunt
@EVERY_CELL
def test_no_frame_of_a_thousand_differs_from_a_full_decode(codec: str, form: str) -> None:
    decoders = Decoders(ENOUGH)
    decoders.join()
    assert wrong_frames(videos.video(codec, form, 200).data, 1_000, 1, decoders) == 0
