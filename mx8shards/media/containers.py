"""How is a video opened? By PyAV, from bytes, with a list of allowed formats and codecs and without network.

What a container says is untrusted: sizes are checked before a frame is decoded, and a container that refers to other
files or URLs (playlists, external tracks) is refused.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

from mx8shards.errors import DecodeError, ShardsError, error_text, require
from mx8shards.format.packet_index import CODECS

FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf")
# 8-bit 4:2:0, 4:2:2, 4:4:4 and grey. "yuvj" is FFmpeg's old name of full range.
PIXEL_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray")
MOST_PIXELS = 1 << 26  # of a frame: 8K is 2²⁵

# Decoders by which FFmpeg may learn what a stream is, when a container is opened.
_SOUND: tuple[str, ...] = (
    "aac",
    "mp3",
    "mp3float",
    "mp2",
    "mp2float",
    "ac3",
    "eac3",
    "opus",
    "libopus",
    "vorbis",
    "flac",
    "alac",
)
_SOUND += ("amrnb", "amrwb", "wmav1", "wmav2", "wmapro", "dca", "pcm_mulaw", "pcm_alaw", "pcm_u8", "pcm_s8")
_SOUND += tuple(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be"))

_OPTIONS = {
    "codec_whitelist": ",".join((*CODECS, "libdav1d", *_SOUND)),
    "format_whitelist": ",".join(FORMATS),
    "protocol_whitelist": "none",  # nothing but the bytes given
    "enable_drefs": "0",  # references of a MOV to other files
    "use_absolute_path": "0",
}

_ODD = (ValueError, IndexError, AttributeError, TypeError, OverflowError)  # PyAV's, for unusual files

_BITEXACT = {"fflags": "+bitexact"}  # no version and no date in the file


class PayloadFile(io.RawIOBase):
    """A payload as a file, without a copy of it."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self._bytes = memoryview(payload)
        self._at = 0

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset, and return it."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._bytes)}[whence])
        return self._at

    def readinto(self, target: Any, /) -> int:
        """Copy the next bytes; 0 at the end."""
        part = self._bytes[self._at : self._at + len(target)]
        target[: len(part)] = part
        self._at += len(part)
        return len(part)


@contextlib.contextmanager
def opened(source: bytes | memoryview | IO[bytes], most_pixels: int = MOST_PIXELS) -> Iterator[Any]:
    """A payload or a file as a PyAV container, closed at the end. DecodeError if it is none, or of another format.

    Errors of FFmpeg inside the block become DecodeError. Opening may decode a frame, of at most `most_pixels`.
    """
    file: Any = PayloadFile(source) if isinstance(source, bytes | memoryview) else source
    if file.seek(0, io.SEEK_END) == 0:
        raise DecodeError(expected="a video", found="an empty file")
    file.seek(0)
    with ffmpeg_errors(), _container(file, most_pixels) as container:
        yield container


def _container(file: Any, most_pixels: int) -> Any:
    """An open container. DecodeError if its format is not allowed, which FFmpeg calls an invalid argument."""
    av = require("av", "video")
    limit = {"max_pixels": str(most_pixels)}
    try:
        return av.open(file, options=limit, container_options=_OPTIONS, metadata_errors="replace")
    except av.ArgumentError as error:
        expected = "MP4, MOV, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, FLV or ASF"
        raise DecodeError(expected=f"a whole video in {expected}", found="another format, or damage") from error


@contextlib.contextmanager
def ffmpeg_errors() -> Iterator[None]:
    """Convert errors of FFmpeg, and those that PyAV raises for damaged or unusual files, to DecodeError."""
    av = require("av", "video")
    try:
        with pyav_errors():
            yield
    except av.FFmpegError as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        raise DecodeError(expected="a whole video", found=reason[0].lower() + reason[1:]) from error


@contextlib.contextmanager
def pyav_errors() -> Iterator[None]:
    """Convert the errors that PyAV raises for damaged or unusual files to DecodeError, but not those of FFmpeg."""
    av = require("av", "video")
    try:
        yield
    except (ShardsError, av.FFmpegError):
        raise
    except _ODD as error:
        raise DecodeError(expected="a whole video", found=error_text(error), reason="backend") from error


@contextlib.contextmanager
def new_container(kind: str, out: io.BytesIO, options: Mapping[str, str]) -> Iterator[Any]:
    """A new container in memory, complete at the end. Equal versions of FFmpeg give equal bytes.

    Args:
        kind: FFmpeg's name of the format.
        out: Where the bytes go.
        options: Options of the muxer.
    """
    mode = "w"
    with require("av", "video").open(out, mode, format=kind, container_options={**_BITEXACT, **options}) as container:
        yield container


def video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture. DecodeError if there is none, or none that is allowed."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise DecodeError(expected="a video stream", found=f"only streams of {', '.join(kinds)}" if kinds else "none")
    stream = streams[0]
    name = codec_name(stream)
    if name not in CODECS:
        raise DecodeError(expected=f"one of the codecs {', '.join(CODECS)}", found=name or "an unknown codec")
    check_size(stream.codec_context.width, stream.codec_context.height)
    return stream


def has_audio(container: Any) -> bool:
    """Whether a container has an audio stream."""
    return bool(container.streams.audio)


def codec_name(stream: Any) -> str:
    """FFmpeg's name of the codec, whichever decoder it is decoded by; empty if it is unknown."""
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def check_size(width: int, height: int) -> None:
    """DecodeError for frames that are empty or too large to decode."""
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise DecodeError(expected=f"frames of 1 to {MOST_PIXELS} pixels", found=f"{width} x {height}")


def _is_cover(stream: Any) -> bool:
    disposition = require("av.stream", "video").Disposition
    return bool(stream.disposition & (disposition.attached_pic | disposition.timed_thumbnails))
