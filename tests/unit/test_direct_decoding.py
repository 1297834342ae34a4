"""Do kernels that call libavcodec give the frames and the errors that PyAV gives?"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from mx8shards.errors import DecodeError, LoaderError
from mx8shards.format.packet_index import PacketIndex
from mx8shards.kernels import libavcodec
from mx8shards.kernels.boxes import DRAWS
from mx8shards.kernels.records import FAULT, MAPPED, READ, ROW, SHARD
from mx8shards.media import direct_decoding
from mx8shards.media.clip_painting import ClipPainter, Painting
from mx8shards.media.direct_decoding import Origin, decode_and_crop
from mx8shards.media.packet_plan import stretches
from mx8shards.media.picture_memory import LargeMemory, ThreadMemory
from mx8shards.media.specs import CenterCrop, ResizeCrop
from mx8shards.media.video_decoders import Decoders, never
from mx8shards.media.video_decoding import ENOUGH_ROOM, PayloadBytes, Planes, decode_container, decode_stretches
from mx8shards.media.video_memory import CodecParameters
from tests import videos
from tests.anonymous_memory import anonymous_bytes
from tests.unit.test_video_decoding import ENOUGH, EVERY_CELL, indexed

WHOLE = CenterCrop((videos.HEIGHT, videos.WIDTH))
pytestmark = pytest.mark.skipif(libavcodec.library is None, reason="this PyAV has another libavcodec")


class Clip:
    """One clip of a video and its pixels, which are decoded in one of two ways."""

    def __init__(
        self, data: bytes, numbers: Iterable[int], layout: str = "TCHW", crop: CenterCrop | ResizeCrop = WHOLE
    ) -> None:
        self.data = data
        self.index = indexed(data)
        self.packets = self.index.frames[np.array(list(numbers))]
        self._painting = Painting(crop._settings(), layout)
        outputs = self._painting.outputs("video", len(self.packets)).values()
        self.pixels = [np.zeros((1, *(output.shape or ())), output.dtype) for output in outputs]

    def decode(
        self,
        decoders: Decoders,
        *,
        direct: bool,
        index: PacketIndex | None = None,
        way: int = MAPPED,
        is_stopped: Callable[[], bool] = never,
        room: AbstractContextManager[None] = ENOUGH_ROOM,
    ) -> Any:
        """Decode its frames; the counts and the missing packets."""
        index = index or self.index
        stream, wanted = CodecParameters.of(index), np.unique(self.packets)
        memory = ThreadMemory(None, 64 << 20, LargeMemory(64 << 20))
        painter = ClipPainter(self._painting, self.pixels, index.facts, np.full((1, DRAWS), 0.3), memory)
        parts = stretches(index, wanted)
        if direct:
            crops = painter.crops({0: self.packets})
            assert crops is not None
            return decode_and_crop(stream, parts, self._origin(way), crops, decoders, is_stopped, room)
        places = {packet: [(0, int(t)) for t in np.flatnonzero(self.packets == packet)] for packet in wanted.tolist()}

        def take(packet: int, planes: Planes) -> None:
            painter.paint(places[packet], planes)

        return decode_stretches(stream, parts, self._copy, decoders, take, is_stopped, room)

    def _copy(self, at: int, count: int, to: int) -> bool:
        ctypes.memmove(to, self.data[at : at + count], count)
        return True

    def _origin(self, way: int) -> Origin:
        source = np.frombuffer(self.data, np.uint8)
        shards, rows = np.zeros(1, SHARD), np.zeros(1, ROW)
        shards["base"], rows["way"], rows["file"] = source.ctypes.data, way, -1
        return Origin(shards, rows[0], 0, len(source))


def different_clips(data: bytes, count: int, seed: int, decoders: Decoders, **form: Any) -> int:
    """How many of `count` random clips have other pixels, or other counts, than PyAV gives."""
    rng, wrong, frames = np.random.default_rng(seed), 0, len(indexed(data).frames)
    for _ in range(count):
        first, stride = int(rng.integers(0, frames)), int(rng.integers(1, 5))
        numbers = [*range(first, frames, stride)][: int(rng.integers(1, 9))]
        one, other = Clip(data, [*numbers, numbers[0]], **form), Clip(data, [*numbers, numbers[0]], **form)
        counts, missing = one.decode(decoders, direct=True)
        expected, _ = other.decode(decoders, direct=False)
        wrong += len(missing) > 0 or counts != expected
        wrong += any((mine != theirs).any() for mine, theirs in zip(one.pixels, other.pixels, strict=True))
    return wrong


def is_direct(data: bytes) -> bool:
    """Whether its packets are parts of the payload."""
    return indexed(data).facts.slices


@EVERY_CELL
def test_no_random_clip_differs_from_what_pyav_decodes(codec: str, form: str) -> None:
    data = videos.video(codec, form).data
    decoders = Decoders(ENOUGH)
    decoders.join()
    if is_direct(data):
        assert different_clips(data, 8, 0, decoders, layout="planes") == 0
    decoders.leave()


@pytest.mark.hunt
@EVERY_CELL
def test_no_clip_of_three_hundred_differs_from_what_pyav_decodes(codec: str, form: str) -> None:
    data = videos.video(codec, form, 200).data
    decoders = Decoders(ENOUGH)
    decoders.join()
    if is_direct(data):
        assert different_clips(data, 300, 1, decoders) == 0
    decoders.leave()


@pytest.mark.parametrize("layout", ["TCHW", "THWC", "CTHW"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_every_layout_and_dtype_has_the_pixels_of_pyav(layout: str, dtype: Any) -> None:
    decoders = Decoders(ENOUGH)
    decoders.join()
    crop = ResizeCrop((24, 40), dtype=dtype)
    assert different_clips(videos.video("h264").data, 4, 2, decoders, layout=layout, crop=crop) == 0
    decoders.leave()


def test_pictures_are_equal_however_the_payload_is_accessed() -> None:
    data, decoders = videos.video("h264").data, Decoders(ENOUGH)
    clips = [Clip(data, range(5)) for _ in range(2)]
    for clip, way in zip(clips, (MAPPED, FAULT), strict=True):
        clip.decode(decoders, direct=True, way=way)
    assert (clips[0].pixels[0] == clips[1].pixels[0]).all()
    assert clips[0].pixels[0].any()


def test_a_packet_that_cannot_be_read_is_an_os_error() -> None:
    with pytest.raises(OSError, match="shorter than it was"):
        Clip(videos.video("h264").data, range(5)).decode(Decoders(ENOUGH), direct=True, way=READ)  # of a closed file


@pytest.mark.parametrize("position", [-1, 1 << 40, (1 << 63) - 1])
def test_packets_outside_of_the_payload_are_not_read(position: int) -> None:
    clip = Clip(videos.video("h264").data, range(5))
    index = dataclasses.replace(clip.index, position=np.full_like(clip.index.position, position))
    with pytest.raises(OSError, match="shorter than it was"):
        clip.decode(Decoders(ENOUGH), direct=True, index=index)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"])
def test_damage_is_the_error_or_the_loss_that_it_is_in_pyav(codec: str) -> None:
    good, rng = videos.video(codec).data, np.random.default_rng(0)
    index, decoders = indexed(good), Decoders(ENOUGH)
    for packet in rng.integers(0, len(index.pts), 6).tolist():
        data = bytearray(good)
        begin, size = int(index.position[packet]), int(index.size[packet])
        data[begin + size // 3 : begin + size] = bytes(size - size // 3)
        found: list[Any] = []
        for direct in (True, False):
            clip = Clip(good, range(0, 40, 3))
            clip.data = bytes(data)
            try:
                counts, missing = clip.decode(decoders, direct=direct)
                found.append((counts, missing.tolist(), clip.pixels[0].tobytes()))
            except DecodeError as error:
                found.append((str(error), error.reason))
        assert found[0] == found[1]


@pytest.mark.parametrize("change", [{"height": 2 * videos.HEIGHT}, {"pixel_format": "yuv422p"}])
def test_frames_unlike_those_of_the_index_are_refused(change: dict[str, Any]) -> None:
    messages = []
    for direct in (True, False):
        clip = Clip(videos.video("h264").data, range(3), crop=ResizeCrop(16))
        index = dataclasses.replace(clip.index, facts=dataclasses.replace(clip.index.facts, **change))
        with pytest.raises(DecodeError, match="as at the beginning of the video") as caught:
            clip.decode(Decoders(ENOUGH), direct=direct, index=index)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_frame_larger_than_the_index_says_is_refused_before_it_is_allocated() -> None:
    clip = Clip(videos.video("h264").data, range(3), crop=ResizeCrop(16))
    decoder = libavcodec.Decoder("h264", 96, 64, clip.index.extradata, {"max_pixels": "100"})
    assert decoder.error < 0 or clip.index.facts.width * clip.index.facts.height > 100
    facts = dataclasses.replace(clip.index.facts, codec="nonsense")
    with pytest.raises(DecodeError, match="expected one of the codecs"):
        clip.decode(Decoders(ENOUGH), direct=True, index=dataclasses.replace(clip.index, facts=facts))


def test_decoding_ends_within_a_stretch_once_its_batch_is_not_wanted() -> None:
    clip = Clip(videos.video("h264").data, range(videos.FRAMES))
    with pytest.raises(LoaderError, match="stopped"):
        clip.decode(Decoders(ENOUGH), direct=True, is_stopped=lambda: True)
    assert clip.pixels[0][0, 0].any()
    assert not clip.pixels[0][0, -1].any()


@pytest.mark.parametrize("way", ["kernel", "PyAV", "container"])
def test_the_lock_of_large_memory_is_taken_after_the_decoder(way: str) -> None:
    """A crop may take it while its thread has a decoder: if others waited for decoders with it, all would for ever."""
    clip, decoders, taken = Clip(videos.video("h264").data, range(5)), Decoders(ENOUGH), []

    @contextmanager
    def room() -> Iterator[None]:
        taken.append(decoders._used_bytes)
        yield

    if way == "container":
        payload, wanted = PayloadBytes(len(clip.data), clip._copy), np.unique(clip.packets)
        stream = CodecParameters.of(clip.index)
        decode_container(stream, clip.index.size, payload, wanted, decoders, lambda _, __: None, room=room())
    else:
        clip.decode(decoders, direct=way == "kernel", room=room())
    assert len(taken) == 1
    assert taken[0] > 0


def test_closed_decoders_free_their_memory() -> None:
    clip = Clip(videos.video("h264").data, range(3))

    def open_and_close(times: int) -> None:
        for _ in range(times):
            clip.decode(Decoders(ENOUGH), direct=True)  # nobody has joined it, so the decoder is closed at once

    open_and_close(20)
    before = anonymous_bytes()
    open_and_close(200)
    assert anonymous_bytes() - before < 4 << 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_VERSIONS", {"avcodec_version": 61}),
        ("_PACKET", {72: 5}),
        ("_FRAME", {116: 0}),
        ("_CONTEXT", {136: 0}),
        ("_TIMES", {"frame": (8,), "packet": (8,)}),
        ("_OF_KERNELS", ("avcodec_of_another_time",)),
    ],
)
def test_a_library_with_other_structures_is_not_used(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert libavcodec._found() is not None
    monkeypatch.setattr(libavcodec, name, value)
    assert libavcodec._found() is None


def test_without_a_known_library_pyav_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libavcodec, "library", None)
    assert not direct_decoding.is_available()
    assert libavcodec.format_code("yuv420p") == -1
    assert libavcodec.format_name(0) == "0"
    with pytest.raises(RuntimeError, match="no known libavcodec"):
        libavcodec._linked("avcodec_send_packet", None)(0, 0)
