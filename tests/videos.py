"""Small test videos in which every frame's number is painted into its pixels.

`video(codec, form)` makes one, once per process. CELLS are the pairs that exist; MISSING says why the others do not.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints only errors

WIDTH, HEIGHT, BLOCK = 96, 64, 16
BITS = 12  # of a frame's number; as many blocks again hold its complement
BLACK, WHITE = 50, 200
FRAMES, GOP, FPS = 40, 12, 25
CUT = 5  # frames that the edit list cuts off at the start: GOP 12 begins before

CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
FORMS = ("closed", "open", "pyramid", "vfr", "edit list", "rotated", "negative start", "wrong rate")

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
MISSING = {
    ("vp9", "open"): "the encoder makes no frame that is shown before a keyframe which precedes it",
    ("vp9", "pyramid"): "the encoder makes hidden frames in its second pass only, and PyAV has no second pass",
    ("mpeg4", "pyramid"): "B-frames of MPEG-4 part 2 are never references",
    ("mjpeg", "open"): "every frame is a keyframe",
    ("mjpeg", "pyramid"): "every frame is a keyframe",
}
CELLS = tuple((codec, form) for codec in CODECS for form in FORMS if (codec, form) not in MISSING)


@dataclass(frozen=True)
class Video:
    """A video file, and the numbers of its frames in the order of presentation."""

    data: bytes
    numbers: tuple[int, ...]
    rotation: int = 0  # clockwise, in degrees


def painted(number: int) -> np.ndarray:
    """The luma of frame `number`: a block per bit, then the blocks of its complement, with a texture that moves."""
    bits = number | (~number & ((1 << BITS) - 1)) << BITS
    across = WIDTH // BLOCK
    blocks = np.array([WHITE if bits >> i & 1 else BLACK for i in range(2 * BITS)], np.uint8)
    luma = np.kron(blocks.reshape(-1, across), np.ones((BLOCK, BLOCK), np.uint8))
    texture = (np.arange(WIDTH)[None] * 3 + np.arange(HEIGHT)[:, None] * 5 + 2 * number) % 40
    return luma + texture.astype(np.uint8) - 20


def number_in(luma: np.ndarray) -> int:
    """The number painted into the luma of a frame (not rotated); -1 if it is unreadable."""
    inner = luma[:HEIGHT, :WIDTH].reshape(HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK)[:, 4:12, :, 4:12]
    means = inner.mean(axis=(1, 3)).ravel()
    bits = sum(1 << i for i, mean in enumerate(means) if mean > (BLACK + WHITE) / 2)
    number, complement = bits & ((1 << BITS) - 1), bits >> BITS
    return number if complement == ~number & ((1 << BITS) - 1) else -1


def luma_of(frame) -> np.ndarray:
    """The first plane of a decoded frame, without the padding of its rows."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def planes_of(frame) -> list[bytes]:
    """The pixels of all planes of a decoded frame, without the padding of their rows."""
    rows = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
    return [each[: plane.height, : plane.width].tobytes() for each, plane in zip(rows, frame.planes, strict=True)]


def decoded(data: bytes) -> list[tuple[int, int]]:
    """Time and painted number of every frame, by a full sequential decode."""
    import av

    with av.open(io.BytesIO(data)) as container:
        return [(frame.pts, number_in(luma_of(frame))) for frame in container.decode(video=0)]


@functools.cache
def video(codec: str, form: str = "closed", frames: int = FRAMES) -> Video:
    """The video of a codec in a form; ValueError for a pair that does not exist."""
    if (codec, form) in MISSING:
        raise ValueError(MISSING[codec, form])
    times = range(frames)
    if form == "vfr":
        times = np.cumsum(np.random.default_rng(5).integers(1, 6, frames)).tolist()
    if form == "negative start":
        times = range(-CUT, frames - CUT)
    data = encoded(
        codec,
        range(frames),
        times,
        suffix=_suffix(codec, form),
        options=_options(codec, form),
        rate=60 if form == "wrong rate" else FPS,
        rotation=90 if form == "rotated" else 0,
    )
    numbers = tuple(range(frames))
    if form == "edit list":
        data, numbers = with_cut_start(data, CUT), numbers[CUT:]
    return Video(data, numbers, 90 if form == "rotated" else 0)


def encoded(
    codec: str,
    numbers: Sequence[int],
    times: Sequence[int],
    *,
    suffix: str = "mp4",
    options: dict[str, str] | None = None,
    rate: int = FPS,
    rotation: int = 0,
    audio: bool = False,
    sound_rate: int = 16_000,
    pixel_format: str | None = None,
    colour: tuple[int, int] | None = None,
) -> bytes:
    """A video of painted frames. `times` are in units of 1/FPS seconds."""
    import av

    out = io.BytesIO()
    options = options or _options(codec, "closed")
    unit = 1 if suffix == "avi" else 100  # AVI counts frames
    as_given = {} if suffix in ("mp4", "flv") else {"avoid_negative_ts": "disabled"}
    with av.open(out, "w", format="matroska" if suffix == "mkv" else suffix, container_options=as_given) as container:
        stream = container.add_stream(_ENCODERS.get(codec, codec), rate=rate, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = pixel_format or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.codec_context.time_base = Fraction(1, FPS * unit)
        stream.codec_context.gop_size = GOP
        stream.codec_context.thread_count = 1
        if colour is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colour
        if rotation:
            stream.set_display_rotation(-rotation)
        sound = container.add_stream("aac", rate=sound_rate, layout="mono") if audio else None
        for number, time in zip(numbers, times, strict=True):
            frame = av.VideoFrame(WIDTH, HEIGHT, stream.pix_fmt)
            for plane, values in zip(frame.planes, _planes(number, frame), strict=True):
                plane.update(values)
            frame.pts, frame.time_base = time * unit, Fraction(1, FPS * unit)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _mux_tone(container, sound, len(numbers) / FPS, sound_rate)
    return out.getvalue()


def _planes(number: int, frame) -> list[bytes]:
    found = []
    for plane, values in zip(frame.planes, [painted(number), None, None], strict=False):
        rows = np.full((plane.height, plane.line_size), 128, np.uint8)
        if values is not None:
            rows[:, :WIDTH] = values
        found.append(rows.tobytes())
    return found


def _mux_tone(container, stream, seconds: float, rate: int) -> None:
    import av

    count = int(seconds * rate)
    samples = (8_000 * np.sin(np.arange(count) ** 1.4 * 0.005)).astype(np.int16)  # no part is like another
    for at in range(0, count, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + 1024], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _suffix(codec: str, form: str) -> str:
    """The container of a form. Matroska has no B-frames before time 0, and MPEG-TS has only some codecs."""
    if form == "negative start":
        return "mpegts" if codec in ("h264", "hevc", "mpeg4") else "mkv"
    return "mkv" if form == "wrong rate" else "mp4"


def _options(codec: str, form: str) -> dict[str, str]:
    """Options of the encoder for a form."""
    open_gop, pyramid = int(form == "open"), int(form == "pyramid")
    b_frames = 4 if pyramid else 2
    params = f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop={open_gop}:bframes={b_frames}:b-adapt=0"
    if codec == "h264":
        params += f":b-pyramid={'normal' if pyramid else 'none'}:cpu-independent=1"
        return {"preset": "veryfast", "crf": "20", "x264-params": params}
    if codec == "hevc":
        params += f":b-pyramid={pyramid}:log-level=none:pools=none:frame-threads=1"
        return {"preset": "ultrafast", "crf": "20", "x265-params": params}
    if codec == "vp9":
        return {"deadline": "good", "cpu-used": "8", "crf": "20"}
    if codec == "av1":
        params = f"irefresh-type={1 if open_gop else 2}:hierarchical-levels={3 if pyramid else 2}:lp=1"
        return {"preset": "8", "crf": "12", "svtav1-params": params}
    if codec == "mpeg4":  # cannot close a GOP with B-frames
        return {
            "qscale": "3",
            **({"flags": "+cgop", "sc_threshold": "1000000000"} if form == "closed" else {"bf": str(b_frames)}),
        }
    return {"qscale": "3"}


def with_cut_start(mp4: bytes, frames: int) -> bytes:
    """The file with an edit list that begins `frames` frames later."""
    at = mp4.index(b"elst")
    version, count = mp4[at + 4], int.from_bytes(mp4[at + 8 : at + 12], "big")
    if version != 0 or count != 1:
        raise ValueError(f"an edit list of version {version} with {count} entries")
    duration, begin = struct.unpack_from(">Ii", mp4, at + 12)
    scale = mp4.index(b"mdhd")
    (per_second,) = struct.unpack_from(">I", mp4, scale + 16)
    header = mp4.index(b"mvhd")
    (movie,) = struct.unpack_from(">I", mp4, header + 16)
    edit = struct.pack(">Ii", duration - frames * movie // FPS, begin + frames * per_second // FPS)
    return mp4[: at + 12] + edit + mp4[at + 20 :]


def with_stream_type(mpegts: bytes, kind: int) -> bytes:
    """The MPEG-TS of one H.264 stream, of which its table says that it has another type."""
    head, tail = bytes.fromhex("02b0120001c10000e100f000"), bytes.fromhex("e100f000")
    old, new = (head + bytes([each]) + tail for each in (0x1B, kind))
    if mpegts.count(old) == 0:
        raise ValueError("no table of one H.264 stream")
    return mpegts.replace(old + _mpeg_crc(old), new + _mpeg_crc(new))


def _mpeg_crc(data: bytes) -> bytes:
    """The checksum of a table of MPEG-TS."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found >> 31 else 0)) & 0xFFFFFFFF
    return found.to_bytes(4, "big")
