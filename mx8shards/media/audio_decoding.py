"""How is a part of a video's sound decoded? By its container's demuxer, to an exact number of samples.

Decoding begins a little before the part. Samples are placed by the times of their frames (`sound_places`), so that the
part begins where the picture does. Only then is it converted to the wanted rate and channels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, require
from mx8shards.media.containers import ffmpeg_errors, opened
from mx8shards.media.sound_places import Grid, SoundPlaces, grid_of
from mx8shards.media.video_decoding import LazyPayload, Readable

Samples = npt.NDArray[np.float32]

CODECS = ("aac", "mp3", "mp2", "ac3", "eac3", "opus", "vorbis", "flac", "alac")
_PREROLL = Fraction(1, 4)  # seconds that are decoded before a part, because codecs overlap their frames
_PADDING = Fraction(1, 10)  # seconds on both sides, for the filter that changes the rate


# Gives the grid of the video: it calls its argument, which finds the grid, unless it remembers it.
GridOf = Callable[[Callable[[], Grid | None]], Grid | None]


def decode_audio(video: Readable, begin: Fraction, out: Samples, rate: int, grid: GridOf = lambda find: find()) -> None:
    """Fill `out`, channels × samples, with the sound from `begin` on, in seconds of the container. Silence is zeros.

    DecodeError if there is no sound, or FFmpeg cannot decode it.
    """
    length = Fraction(out.shape[1], rate)
    with opened(io.BufferedReader(LazyPayload(video))) as container:
        if not container.streams.audio:
            raise DecodeError(expected="a stream of audio", found="none", reason="missing")
        stream = container.streams.audio[0]
        name = stream.codec_context.codec.canonical_name
        if name not in CODECS and not name.startswith("pcm_"):
            raise DecodeError(expected=f"audio by {', '.join(CODECS)} or PCM", found=name, reason="unsupported")
        native = int(stream.codec_context.sample_rate)
        first = begin - _PADDING
        count = round((length + 2 * _PADDING) * native)
        source = _native_samples(container, stream, first, count, native, grid)
    converted = _converted(source, native, rate, out.shape[0])
    skip = round(_PADDING * rate)
    part = converted[:, skip : skip + out.shape[1]]
    out[:, : part.shape[1]] = part
    out[:, part.shape[1] :] = 0


def _native_samples(
    container: Any, stream: Any, first: Fraction, count: int, native: int, grid_of_video: GridOf
) -> Samples:
    """`count` samples from the time `first` on, in the rate and channels of the stream."""
    unit, grid, by = stream.time_base * native, None, stream
    if first > _PREROLL:
        if unit > 1:
            grid = grid_of_video(lambda: _grid(container, stream, unit, native))
        if grid is not None and grid.origin - 2 * grid.size >= first * native + count:
            return np.zeros((1, count), np.float32)  # before the sound begins
        by = _stream_of_index(container, stream)
        container.seek(int((first - _PREROLL) / by.time_base), stream=by)
    found, begin = _samples_from(container, stream, first * native, count, SoundPlaces(unit, native, grid))
    is_first = grid is not None and begin + first * native <= grid.origin
    if begin > 0 and by is not stream and not is_first:  # sound stands before its pictures: read it from the beginning
        container.seek(int((first - _PREROLL) / stream.time_base), stream=stream)
        found, _ = _samples_from(container, stream, first * native, count, SoundPlaces(unit, native, grid))
    return found


def _stream_of_index(container: Any, stream: Any) -> Any:
    """The stream to seek by. The index of Matroska is of video: by sound, FFmpeg would read all from the beginning."""
    videos = container.streams.video
    return videos[0] if videos and "matroska" in container.format.name else stream


def _samples_from(container: Any, stream: Any, first: Fraction, count: int, places: SoundPlaces) -> tuple[Samples, int]:
    """The samples from sample `first` on, and where the first frame begins that was found, at most `count`."""
    found, begin = np.zeros((stream.codec_context.channels, count), np.float32), count
    unit = stream.time_base * stream.codec_context.sample_rate
    to_floats = require("av", "video").AudioResampler(format="fltp")
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        at = round(places.place(frame.pts * unit, frame.samples) - first)
        begin = min(begin, at)
        if at >= count:
            break
        for part in to_floats.resample(frame):
            samples = part.to_ndarray()
            low, high = max(at, 0), min(at + samples.shape[1], count)
            if low < high:
                found[:, low:high] = samples[: len(found), low - at : high - at]
            at += samples.shape[1]
    return found, begin


def _grid(container: Any, stream: Any, unit: Fraction, native: int) -> Grid | None:
    """The grid of the sound's frames; None also if its first frames cannot be decoded: the part may be whole."""
    try:
        with ffmpeg_errors():
            return grid_of(container.decode(stream), unit, native)
    except DecodeError:
        return None


def _converted(source: Samples, native: int, rate: int, channels: int) -> Samples:
    """The samples in another rate and number of channels."""
    av = require("av", "video")
    layouts = {1: "mono", 2: "stereo"}
    if source.shape[0] not in layouts:
        source = source.mean(axis=0, keepdims=True)
    if native == rate and source.shape[0] == channels:
        return source
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(source), "fltp", layouts[source.shape[0]])
    frame.sample_rate, frame.pts, frame.time_base = native, 0, Fraction(1, native)
    resampler = av.AudioResampler(format="fltp", layout=layouts[channels], rate=rate)
    parts = [part.to_ndarray() for part in [*resampler.resample(frame), *resampler.resample(None)]]
    found: Samples = np.concatenate(parts, axis=1)
    return found
