"""How is a video changed by its conversion: kept, copied into MP4, re-encoded, or a part of it taken?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import IO, Any, Literal, get_args

from mx8shards.convert.reasons import is_about_file
from mx8shards.errors import (
    DecodeError,
    MissingPackageError,
    ShardsError,
    SourceError,
    error_text,
    one_of,
    real_number,
    require,
    true_or_false,
    whole_number,
)
from mx8shards.format.packet_index import PacketIndex, encode_packet_index
from mx8shards.media.remuxing import remuxed
from mx8shards.media.video_cuts import Span, seconds_of
from mx8shards.media.video_encoding import CRF, ENCODERS, MOST_CRF, MOST_GOP, Encoding, reencoded, versions
from mx8shards.media.video_facts import COLUMNS, fact_columns, videos_metadata
from mx8shards.media.video_index import IndexedVideo, index_video

Codec = Literal["h264", "av1"]

_USUAL_GOP = 16
_MOST_SIDE, _MOST_FPS = 1 << 14, 1_000


VIDEO_COLUMNS: Mapping[str, str] = {"video": "bytes", "packets": "bytes", **COLUMNS}
VIDEO_METADATA: Mapping[str, Any] = videos_metadata({"video": ""})


def checked_video(data: bytes, **options: Any) -> Mapping[str, Any]:
    """Check a video for a recipe, and change it if asked: the values of VIDEO_COLUMNS. SourceError if it is refused.

    Options are those of VideoChanges. All frames are decoded, so that damaged videos are refused, unless `decode` is
    False. The metadata of the recipe must contain VIDEO_METADATA.
    """
    return VideoChanges(**options).applied(data)


@dataclass(frozen=True, kw_only=True)
class VideoChanges:
    """The requested changes: the options of `VideoFolder` of these names."""

    remux: bool = False
    gop: int | None = None
    max_side: int | None = None
    fps: float | None = None
    crf: int | None = None
    codec: Codec | None = None
    audio: bool = True
    decode: bool = True

    def __post_init__(self) -> None:
        for name in ("remux", "audio", "decode"):
            true_or_false(name, getattr(self, name))
        if self.codec is not None:
            one_of("codec", self.codec, get_args(Codec))
        for name, most in (("gop", MOST_GOP), ("max_side", _MOST_SIDE), ("crf", MOST_CRF[self.codec or "h264"])):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 0 if name == "crf" else 1, most)
        if self.fps is not None:
            expected = f"a number above 0, up to {_MOST_FPS}"
            real_number("fps", self.fps, expected, lambda number: 0 < number <= _MOST_FPS)

    @property
    def encoding(self) -> Encoding | None:
        """How videos are re-encoded; None if they are not."""
        if (self.gop, self.max_side, self.fps, self.crf, self.codec) == (None,) * 5:
            return None
        codec = self.codec or "h264"
        return Encoding(
            codec=codec,
            gop=self.gop or _USUAL_GOP,
            crf=CRF[codec] if self.crf is None else self.crf,
            max_side=self.max_side,
            fps=None if self.fps is None else Fraction(self.fps).limit_denominator(1_001),
        )

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions that the bytes of re-encoded videos depend on; none if they are not re-encoded."""
        encoding = self.encoding
        return {} if encoding is None else {**versions(), "encoder": ENCODERS[encoding.codec]}

    def to_json(self) -> Mapping[str, Any]:
        """The options that differ from the defaults."""
        found = {name: getattr(self, name) for name in ("gop", "max_side", "fps", "crf", "codec")}
        found |= {"remux": self.remux or None, "audio": None if self.audio else False}
        return {name: value for name, value in found.items() if value is not None}

    def applied(self, payload: bytes) -> dict[str, Any]:
        """The columns of a whole video. SourceError if it is refused."""
        with refusals():
            if self.encoding is not None:
                payload = reencoded(payload, self.encoding, audio=self.audio)
            elif self.remux or not self.audio:
                payload = remuxed(payload, index_video(payload, decode=False).packets, audio=self.audio)
            return _columns(payload, index_video(payload, decode=self.decode))

    def indexed(self, source: bytes | IO[bytes]) -> PacketIndex:
        """The packet index of a video whose parts are taken. SourceError if it is refused."""
        with refusals():
            return index_video(source, decode=False, for_clips=self.encoding is None).packets

    def part(self, source: bytes | IO[bytes], index: PacketIndex, span: Span) -> dict[str, Any]:
        """The columns of a part of a video, with `source_start` and `source_end`. SourceError if it is refused."""
        with refusals():
            payload = remuxed(source, index, span=span, audio=self.audio)
            if self.encoding is not None:
                payload = reencoded(payload, self.encoding, audio=self.audio)
            found = index_video(payload, decode=self.decode)
            found = found if self.encoding is not None else _ending(found, index, span)
            start, end = seconds_of(index, span)
            return {**_columns(payload, found), "source_start": start, "source_end": end}


def _columns(payload: bytes, found: IndexedVideo) -> dict[str, Any]:
    facts = fact_columns(found.packets, has_audio=found.has_audio)
    return {"video": payload, "packets": encode_packet_index(found.packets), **facts}


def _ending(part: IndexedVideo, whole: PacketIndex, span: Span) -> IndexedVideo:
    """The index of a part that ends where its span does: MP4 knows the duration of the last frame only roughly."""
    facts = part.packets.facts
    shown = Fraction(*whole.facts.time_base) * (min(span[1], whole.facts.end) - _first_time(whole, span))
    end = round(shown / Fraction(*facts.time_base))
    if end <= part.packets.pts[part.packets.shown].max():
        return part
    return part._replace(packets=replace(part.packets, facts=replace(facts, end=end)))


def _first_time(index: PacketIndex, span: Span) -> int:
    times = index.pts[index.frames]
    return int(times[times >= span[0]][0])


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Convert errors about a video to SourceError, except those that are not about the video."""
    require("av", "video")
    try:
        yield
    except (SourceError, MissingPackageError, MemoryError):
        raise
    except DecodeError as error:
        raise SourceError(error.message, expected=error.expected, found=error.found, hint=error.hint) from error
    except ShardsError:
        raise
    except Exception as error:  # PyAV raises many types for odd files: ValueError, IndexError, its own
        if isinstance(error, OSError) and not is_about_file(error):
            raise
        raise SourceError(expected="a whole video", found=error_text(error)) from error
