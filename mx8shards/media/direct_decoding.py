"""How do a few kernel calls decode and crop the frames of clips, without PyAV's calls for each packet?

Only for videos whose packets are parts of the payload, and with a libavcodec that kernels know; `video_decoding` does
the others. Both give equal frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, require
from mx8shards.format.packet_index import VideoFacts
from mx8shards.kernels import clip_decoding, libavcodec
from mx8shards.media.packet_plan import Ints, Stretch
from mx8shards.media.video_colour import FORMATS
from mx8shards.media.video_decoders import Decoders, check_wanted, decoder_name, never, open_options
from mx8shards.media.video_decoding import ENOUGH_ROOM, Decoded, decoder_errors, other_frame, reversed_rows, unreadable
from mx8shards.media.video_memory import CodecParameters, Described

Array = npt.NDArray[Any]

_PACKETS_AT_ONCE = 16  # of a kernel call, which cannot be stopped: half a second of 4K


class Origin(NamedTuple):
    """Where a payload is: the shards, its row of the batch, and where it begins in its shard, with its size."""

    shards: Array
    row: Any
    begin: int
    size: int


class Crops(NamedTuple):
    """What the kernel needs to write the crops of frames to their places. `places` notes which are done."""

    frame: Any
    boxes: Array
    writing: Any
    table: Array
    scratch: Array
    places: Array


def is_available() -> bool:
    """Whether PyAV has a libavcodec that kernels know."""
    return libavcodec.library is not None


def decode_and_crop(
    stream: CodecParameters,
    parts: Sequence[Stretch],
    origin: Origin,
    crops: Crops,
    decoders: Decoders,
    is_stopped: Callable[[], bool] = never,
    room: AbstractContextManager[None] = ENOUGH_ROOM,
) -> tuple[Decoded, Ints]:
    """Decode stretches and crop their wanted frames; counts, and the wanted packets that gave no good frame.

    `is_stopped` and `room`: see `decode_stretches`.
    """
    tally: Any = np.zeros(1, clip_decoding.TALLY)
    with decoder_errors(), decoders.decoder(stream, is_stopped, _opened) as decoder, room:
        source = _source(stream.facts, decoder, origin)
        for k, part in enumerate(parts):
            if k:
                decoder.flush_buffers()
            for status in _decode(part, source, origin, crops, tally[0]):
                _check(status, stream.facts, tally[0])
                check_wanted(is_stopped)
    missing: Ints = np.unique(crops.places["packet"][crops.places["done"] == 0])
    return Decoded(int(tally["packets"][0]), int(tally["frames"][0])), missing


def _decode(part: Stretch, source: Any, origin: Origin, crops: Crops, tally: Any) -> Iterator[int]:
    """Decode one stretch, and tell after some packets how that ended. Only frames that are wanted of it are cropped."""
    first, last = np.searchsorted(crops.places["packet"], (part.wanted[0], part.wanted[-1] + 1))
    cropping = *crops[:-1], crops.places[first:last], tally
    for begin in range(0, len(part.packets), _PACKETS_AT_ONCE):
        packets, ends = _packets(part, begin), begin + _PACKETS_AT_ONCE >= len(part.packets)
        yield int(clip_decoding.decode_packets(source, origin.shards, origin.row, packets, ends, *cropping))


def _packets(part: Stretch, begin: int) -> Array:
    """The packets from this one on, of one call."""
    some = slice(begin, begin + _PACKETS_AT_ONCE)
    packets = np.empty(len(part.packets[some]), clip_decoding.PACKET)
    packets["number"], packets["position"], packets["size"] = part.packets[some], part.position[some], part.size[some]
    packets["keyframe"] = part.keyframe[some]
    return packets


def _source(facts: VideoFacts, decoder: libavcodec.Decoder, origin: Origin) -> Any:
    """The SOURCE of the kernel."""
    form = FORMATS[facts.pixel_format]
    record: Any = np.zeros(1, clip_decoding.SOURCE)
    source = record[0]
    source["decoder"], source["packet"], source["frame"] = decoder.addresses
    source["reorder"] = facts.reorder
    source["format"] = libavcodec.format_code(facts.pixel_format)
    source["chroma_rows"] = -(-facts.height // form.down) if form.across else 0
    source["begin"], source["size"] = origin.begin, origin.size
    return source


def _opened(index: Described) -> libavcodec.Decoder:
    """A new decoder with one thread, that refuses frames of more pixels than the index says."""
    facts = index.facts
    try:
        decoder = libavcodec.Decoder(
            decoder_name(facts), facts.width, facts.height, index.extradata, open_options(facts)
        )
    except LookupError as error:
        raise DecodeError(expected="a codec that FFmpeg decodes", found=facts.codec, reason="unsupported") from error
    _raise_error(decoder.error)
    return decoder


def _check(status: int, facts: VideoFacts, tally: Any) -> None:
    """Raise the error for what the kernel returned."""
    if status == clip_decoding.UNREADABLE:
        raise unreadable()
    if status == clip_decoding.UPSIDE_DOWN:
        raise reversed_rows()
    if status == clip_decoding.OTHER_FRAME:
        raise other_frame(
            facts, int(tally["width"]), int(tally["height"]), libavcodec.format_name(int(tally["format"]))
        )
    _raise_error(status)


def _raise_error(status: int) -> None:
    """Raise PyAV's exception for an error of FFmpeg."""
    if status < 0:
        require("av.error", "video").err_check(status)
