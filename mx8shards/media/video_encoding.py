"""How is a video re-encoded so that clips decode fast: short closed GOPs, small frames, no B-pyramid?

Frames are turned upright, scaled, and converted to 8-bit 4:2:0 with limited range; the matrix stays. Audio is copied.
An encoder runs in one thread and the file is muxed bit-exactly, so equal versions of FFmpeg give equal bytes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mx8shards.errors import DecodeError, error_text, require
from mx8shards.media.container_ends import check_whole
from mx8shards.media.containers import new_container, opened, video_stream
from mx8shards.media.display_matrix import upright_filters
from mx8shards.media.mp4_boxes import with_index_first
from mx8shards.media.video_index import check_frame, times_in_order

ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}
CRF = {"h264": 23, "av1": 35}
MOST_GOP, MOST_CRF = 1 << 16, {"h264": 51, "av1": 63}

# without cpu-independent, x264's macroblock tree depends on uninitialised memory if frames are small (found at 96 x 64)
# b-adapt=0: always three B-frames between two others. Clips with a stride need not decode them all: at equal PSNR, this
# takes 5-12 % less time, and files are 1 % smaller, than with the number of B-frames that x264 would choose
_X264 = "keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:b-pyramid=none:b-adapt=0:cpu-independent=1"
# without its in-loop filters AV1 decodes about a quarter faster at an equal size
_SVT = "keyint={gop}:scd=0:irefresh-type=2:lp=1:enable-dlf=0:enable-cdef=0:enable-restoration=0"
_LIMITED = 1  # AVColorRange


@dataclass(frozen=True)
class Encoding:
    """How videos are re-encoded.

    Attributes:
        codec: "h264" or "av1".
        gop: Frames from one keyframe to the next.
        crf: The encoder's constant rate factor: a smaller number gives better and larger videos.
        max_side: The longest side, in pixels; smaller videos keep their size. None: no limit.
        fps: Frames per second: the frame that is shown at each time. None: all frames, at their times.
    """

    codec: str
    gop: int
    crf: int
    max_side: int | None = None
    fps: Fraction | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size of the encoded frames. Both sides are even, as 4:2:0 needs."""
        scale = min(1.0, (self.max_side or max(width, height)) / max(width, height))
        return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))  # type: ignore[return-value]

    @property
    def options(self) -> dict[str, str]:
        """Options of the encoder."""
        if self.codec == "av1":
            return {"preset": "8", "crf": str(self.crf), "svtav1-params": _SVT.format(gop=self.gop)}
        params = _X264.format(gop=self.gop)
        return {"preset": "medium", "tune": "fastdecode", "crf": str(self.crf), "x264-params": params}


def versions() -> dict[str, str]:
    """The versions that the bytes of a re-encoded video depend on."""
    av = require("av", "video")
    found = {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}
    return {"av": str(av.__version__), **{name: found[name] for name in ("libavcodec", "libavformat", "libswscale")}}


def reencoded(payload: bytes, encoding: Encoding, *, audio: bool = True) -> bytes:
    """A video in a new MP4, re-encoded. DecodeError if it is damaged, or its audio cannot be copied.

    Args:
        payload: The container's bytes.
        encoding: How it is re-encoded.
        audio: Copy the audio, too.
    """
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes its settings to stderr otherwise
    check_whole(payload)
    out = io.BytesIO()
    times = times_in_order(payload)
    with opened(payload) as container, new_container("mp4", out, {}) as target:
        sounds = container.streams.audio if audio else ()
        _Encoder(container, target, encoding, sounds).run(times)
    return with_index_first(out.getvalue())


class _Encoder:
    """Encodes the frames of one container into another."""

    def __init__(self, container: Any, target: Any, encoding: Encoding, sounds: Iterable[Any]) -> None:
        self._container, self._target, self._encoding = container, target, encoding
        self._source = video_stream(container)
        self._source.codec_context.thread_count = 1
        self._unit = Fraction(self._source.time_base)
        self._streams = {stream.index: stream for stream in (self._source, *sounds)}
        rate = encoding.fps or self._source.guessed_rate or self._source.average_rate or Fraction(25)
        self._video = target.add_stream(ENCODERS[encoding.codec], rate=rate, options=encoding.options)
        self._copies = {stream.index: _copied_stream(target, stream) for stream in sounds}
        self._graph = _Graph(encoding)
        self._origin: int | None = None

    def run(self, times: Any) -> None:
        """Encode all frames. `times`: of the frames in order, if they are not their own."""
        waiting: list[Any] = []  # packets of audio, until the time of the first frame is known
        for frame, time in self._frames(self._timed(times, waiting)):
            if self._origin is None or not self._video.codec_context.is_open:
                self._begin(frame)
            frame.pts, frame.time_base = time, self._out_unit
            for turned in self._graph.turned(frame):
                self._target.mux(self._video.encode(turned))
            self._copy(waiting)
        if self._origin is None:
            raise DecodeError(expected="at least one frame", found="none")
        self._target.mux(self._video.encode())
        self._copy(waiting)

    @property
    def _out_unit(self) -> Fraction:
        return self._unit if self._encoding.fps is None else 1 / self._encoding.fps

    def _timed(self, times: Any, waiting: list[Any]) -> Iterator[tuple[Any, int]]:
        """All frames with their times from the first one on; packets of audio are put into `waiting`."""
        number = 0
        for packet in self._container.demux(list(self._streams.values())):
            if packet.stream.index != self._source.index:
                waiting += [packet] if packet.size else []
                continue
            for frame in self._source.codec_context.decode(packet if packet.size else None):
                check_frame(frame, number)
                time = frame.pts if times is None else int(times[min(number, len(times) - 1)])
                if time is None:
                    raise DecodeError(expected="a time for every frame", found=f"none for frame {number}")
                self._origin = time if self._origin is None else self._origin
                number += 1
                yield frame, time - self._origin

    def _frames(self, timed: Iterator[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
        """The frames to encode with their times: all, or those that are shown at the times of the new rate."""
        if self._encoding.fps is None:
            return timed
        return self._at_rate(timed, self._encoding.fps * self._unit)

    def _at_rate(self, timed: Iterator[tuple[Any, int]], rate: Fraction) -> Iterator[tuple[Any, int]]:
        """The frame that is shown at each time of a rate, in frames per unit of time."""
        shown, since = next(timed, (None, 0))
        count, step = 0, 1
        for frame, time in timed:
            while count < time * rate:
                yield shown, count
                count += 1
            step = time - since
            shown, since = frame, time
        while shown is not None and count < (since + (shown.duration or step)) * rate:
            yield shown, count
            count += 1

    def _begin(self, frame: Any) -> None:
        """Set up the encoder for frames like this one."""
        context = self._video.codec_context
        across, down = self._graph.size(frame)
        context.width, context.height, context.pix_fmt = across, down, "yuv420p"
        context.time_base, context.thread_count = self._out_unit, 1
        context.colorspace, context.color_range = int(frame.colorspace), _LIMITED
        context.color_primaries, context.color_trc = int(frame.color_primaries), int(frame.color_trc)
        aspect = self._source.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = 1 / Fraction(aspect) if self._graph.is_transposed(frame) else Fraction(aspect)

    def _copy(self, waiting: list[Any]) -> None:
        """Copy packets of audio, with their times from the first frame on."""
        for packet in waiting:
            shift = round((self._origin or 0) * self._unit / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = self._copies[packet.stream_index]
            self._target.mux(packet)
        waiting.clear()


def _copied_stream(target: Any, stream: Any) -> Any:
    """A stream of audio in the new file. DecodeError if MP4 does not hold its codec."""
    try:
        return target.add_stream_from_template(stream, opaque=True)
    except ValueError as error:
        found, hint = error_text(error), "--no-audio leaves it out"
        raise DecodeError(expected="audio that MP4 holds", found=found, hint=hint) from None


class _Graph:
    """Turns, scales and converts frames."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._size: tuple[int, int] | None = None
        self._kind: tuple[Any, ...] = ()
        self._graph: Any = None

    def is_transposed(self, frame: Any) -> bool:
        """Whether width and height are exchanged."""
        return any(each.startswith("transpose") for each in upright_filters(frame))

    def size(self, frame: Any) -> tuple[int, int]:
        """The size of all encoded frames, if this is the first one."""
        if self._size is None:
            sides = (frame.height, frame.width) if self.is_transposed(frame) else (frame.width, frame.height)
            self._size = self._encoding.size(*sides)
        return self._size

    def turned(self, frame: Any) -> Iterator[Any]:
        """The frame as it is encoded."""
        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if kind != self._kind:
            self._kind, self._graph = kind, self._made(frame)
        self._graph.vpush(frame)
        turned = self._graph.vpull()
        turned.pict_type = 0  # the encoder chooses keyframes, not the source
        yield turned

    def _made(self, frame: Any) -> Any:
        av = require("av", "video")
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(Fraction(frame.time_base)),
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        width, height = self.size(frame)
        flags = "bicubic+accurate_rnd+full_chroma_int+bitexact"
        steps = (*upright_filters(frame), f"scale={width}:{height}:flags={flags}:out_range=limited", "format=yuv420p")
        nodes = [source]
        for step in steps:
            name, _, options = step.partition("=")
            nodes.append(graph.add(name, options or None))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph
