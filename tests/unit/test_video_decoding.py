"""Are the planes of chosen frames bit for bit those of a full sequential decode?"""

from __future__ import annotations

import ctypes
import functools
import io
import threading
from collections.abc import Iterable

import av
import numpy as np
import pytest

from mx8shards.errors import DecodeError, LoaderError
from mx8shards.format.packet_index import PacketIndex
from mx8shards.media.packet_plan import keyframes_before, reach, stretches
from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import Decoded, Payload, Planes, decode_frames
from mx8shards.media.video_index import index_video
from mx8shards.media.video_memory import decoder_bytes
from tests import videos
from tests.waiting import wait_until

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


def test_a_decoder_is_reused_for_equal_extradata_only() -> None:
    decoders, opened = Decoders(ENOUGH), []
    decoders.join()
    for form in ("closed", "closed", "open", "closed"):
        with decoders.decoder(indexed(videos.video("h264", form).data)) as context:
            opened.append(id(context))
            kept = context  # noqa: F841 - so that no other decoder gets its id
    same = (
        indexed(videos.video("h264", "closed").data).extradata == indexed(videos.video("h264", "open").data).extradata
    )
    assert opened[0] == opened[1] == opened[3]
    assert (opened[2] == opened[0]) == same
    decoders.leave()


def test_memory_of_decoders_is_limited() -> None:
    index = indexed(videos.video("h264").data)
    decoders = Decoders(decoder_bytes(index) * 3 // 2)
    decoders.join()
    order: list[str] = []
    began = threading.Event()

    def second() -> None:
        began.set()
        with decoders.decoder(index):
            order.append("second")

    with decoders.decoder(index):
        thread = threading.Thread(target=second)
        thread.start()
        began.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with pytest.raises(DecodeError, match="a video that is decoded in"):
        Decoders(decoder_bytes(index) - 1).memory(decoder_bytes(index)).__enter__()


def test_a_wait_for_decoders_says_why_and_ends_when_nobody_wants_the_frames() -> None:
    index = indexed(videos.video("h264").data)
    size = decoder_bytes(index)
    decoders, stopped, errors = Decoders(size), threading.Event(), []

    def wait() -> None:
        try:
            with decoders.decoder(index, stopped.is_set):
                errors.append("decoded")
        except LoaderError as error:
            errors.append(str(error))

    with decoders.memory(size):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: decoders.wait() == f"threads wait for {size} bytes of decoders, which have {size} of {size}")
        stopped.set()
        thread.join()
    assert errors == ["the run was stopped"]
    assert decoders.wait() == ""


def test_idle_decoders_make_room_for_others() -> None:
    small, large = (indexed(videos.video(codec).data) for codec in ("mpeg4", "h264"))
    decoders = Decoders(decoder_bytes(large) + decoder_bytes(small) - 1)
    decoders.join()
    for index in (small, large, small):
        with decoders.decoder(index):
            pass
    decoders.leave()


def test_a_payload_that_cannot_be_read_is_an_os_error() -> None:
    data = videos.video("h264").data
    good = payload_of(data)
    decoders = Decoders(ENOUGH)
    with pytest.raises(OSError, match="shorter than it was"):
        decode_frames(
            Payload(good.index, good.size, lambda *_: False), good.index.frames[:3], decoders, lambda *_: None
        )


def test_keyframes_are_before_a_frame_in_both_orders() -> None:
    index = indexed(videos.video("hevc", "open").data)
    every = np.arange(len(index.pts))
    found = keyframes_before(index, every)
    for packet, keyframe in zip(every.tolist(), found.tolist(), strict=True):
        good = [k for k in np.flatnonzero(index.keyframe[: packet + 1]) if index.pts[k] <= index.pts[packet]]
        assert keyframe == (good or [0])[-1]
    by_decoding_alone = np.flatnonzero(index.keyframe)
    assert (found != by_decoding_alone[np.searchsorted(by_decoding_alone, every, side="right") - 1]).any()


def test_packets_that_nothing_needs_are_left_out() -> None:
    index = indexed(videos.video("h264").data)
    wanted = np.unique(index.frames[[14, 16, 18, 20]])
    (stretch,) = stretches(index, wanted)
    left_out = np.setdiff1d(np.arange(stretch.packets[0], wanted[-1] + 1), stretch.packets)
    assert len(left_out) >= 2
    assert index.disposable[left_out].all()
    begin, end = reach(index, wanted)
    assert end - begin == len(stretch.packets) + len(left_out)


def test_far_clips_are_separate_stretches_and_near_ones_are_not() -> None:
    index = indexed(videos.video("h264").data)
    assert len(stretches(index, np.unique(index.frames[[1, 39]]))) == 2
    assert len(stretches(index, np.unique(index.frames[range(5, 30)]))) == 1


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *[("h264", suffix) for suffix in ("asf", "mpegts", "flv", "avi")],
        *[("mpeg4", suffix) for suffix in ("asf", "mpegts", "avi")],
    ],
)
def test_frames_are_right_in_containers_whose_times_or_packets_are_odd(codec: str, suffix: str) -> None:
    options = {"bf": "2"} if codec == "mpeg4" else None
    data = videos.encoded(codec, range(40), range(40), suffix=suffix, options=options)
    decoders = Decoders(ENOUGH)
    decoders.join()
    assert wrong_frames(data, 50, 0, decoders) == 0
    decoders.leave()
