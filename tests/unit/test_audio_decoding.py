"""Is sound exact wherever it stands in its container, and is little of the container read for it?"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from mx8shards.media.audio_decoding import decode_audio
from mx8shards.media.sound_places import Grid, Grids

RATE, FPS, SECONDS = 44_100, 25, 40
LATE = 20  # second at which late sound begins
TONE = (0.5 * np.sin(np.arange(SECONDS * RATE) ** 1.4 * 0.001)).astype(np.float32)  # no part is like another


class Counted:
    """A payload that counts the bytes that are read of it."""

    def __init__(self, data: bytes) -> None:
        self._bytes = np.frombuffer(data, np.uint8)
        self.read = 0

    @property
    def size(self) -> int:
        return len(self._bytes)

    def copy(self, at: int, count: int, to: int) -> bool:
        ctypes.memmove(to, self._bytes.ctypes.data + at, count)
        self.read += count
        return True


def pictures(container: Any) -> list[Any]:
    stream = container.add_stream("mjpeg", rate=FPS, width=64, height=48, pix_fmt="yuvj420p")
    noise = np.random.default_rng(0).integers(0, 256, (72, 64), np.uint8)
    found = []
    for number in range(SECONDS * FPS):
        frame = av.VideoFrame.from_ndarray(noise, "yuvj420p")
        frame.pts = number
        found += stream.encode(frame)
    return [*found, *stream.encode()]


def sound(container: Any, begin: int) -> list[Any]:
    stream = container.add_stream("flac", rate=RATE, layout="mono", options={"frame_size": "1024"})
    found = []
    for at in range(begin * RATE, SECONDS * RATE, 1024):
        samples = np.round(TONE[None, at : at + 1024] * (1 << 15)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        found += stream.encode(frame)
    return [*found, *stream.encode()]


def video(begin: int = 0, *, sound_first: bool = False) -> bytes:
    """Matroska with sound from a second on; `sound_first`: all sound stands before all pictures."""
    out, options = io.BytesIO(), {"max_interleave_delta": "1"} if sound_first else {}
    with av.open(out, "w", format="matroska", container_options=options) as container:
        packets: Sequence[Any] = [*sound(container, begin), *pictures(container)]
        if not sound_first:
            packets = sorted(packets, key=lambda packet: packet.pts * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return out.getvalue()


def error_of(payload: Counted, second: float, begin: int = 0, **grid: Any) -> float:
    """The largest difference of a second of sound from what was encoded."""
    found, first = np.zeros((1, RATE), np.float32), round(second * RATE)
    decode_audio(payload, Fraction(first, RATE), found, RATE, **grid)
    expected = np.where(np.arange(first, first + RATE) < begin * RATE, 0, TONE[first : first + RATE])
    return float(np.abs(found[0] - expected).max())


@pytest.mark.parametrize("second", [0, 3.3, 21.7, 38.9])
def test_of_a_matroska_file_only_what_is_near_is_read(second: float) -> None:
    payload = Counted(video())
    assert error_of(payload, second) < 1e-3
    assert payload.read < payload.size / 4


@pytest.mark.parametrize("second", [0, 3.3, 21.7, 38.9])
def test_sound_that_stands_before_its_pictures_is_found(second: float) -> None:
    assert error_of(Counted(video(sound_first=True)), second) < 1e-3


def test_where_late_sound_begins_is_remembered() -> None:
    payload, grids = Counted(video(LATE)), Grids(2)

    def grid(find: Any) -> Grid | None:
        return grids.of(7, find)

    assert error_of(payload, 30, LATE, grid=grid) < 1e-3
    first, payload.read = payload.read, 0
    for second in (19.5, 25, 3):
        assert error_of(payload, second, LATE, grid=grid) < 1e-3
    assert payload.read < first


def test_few_grids_are_kept() -> None:
    grids, found = Grids(2), []

    def find() -> Grid | None:
        found.append(0)
        return None

    for sample_id in (1, 1, 2, 2, 1, 3, 3, 1):
        grids.of(sample_id, find)
    assert len(found) == 4  # 1, 2, 3, and 1 again
