"""How much memory does decoding a video take? An upper estimate, from the size of its frames and its codec."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mx8shards.format.packet_index import PacketIndex, VideoFacts

# Frames that a decoder keeps as references, besides those that it holds back to put them in order.
_REFERENCES = {"h264": 16, "hevc": 16, "vp9": 8, "vp8": 4, "av1": 10, "mpeg4": 3, "mpeg2video": 3, "mpeg1video": 3}
_REFERENCES |= {"mjpeg": 1, "h263": 2}
_MOST_REFERENCES = 16
_MORE_FRAMES = 3  # the one being decoded, and those that we hold

# Macroblocks of all references together, by the level of H.264 (ITU-T H.264, table A-1).
_H264_BLOCKS = {9: 396, 10: 396, 11: 900, 12: 2376, 13: 2376, 20: 2376, 21: 4752, 22: 8100, 30: 8100, 31: 18000}
_H264_BLOCKS |= {32: 20480, 40: 32768, 41: 32768, 42: 34816, 50: 110400, 51: 184320, 52: 184320}

# Luma samples of the largest picture, by 30 times the level of HEVC (ITU-T H.265, table A.8).
_HEVC_SAMPLES = {30: 36_864, 60: 122_880, 63: 245_760, 90: 552_960, 93: 983_040, 120: 2_228_224, 123: 2_228_224}
_HEVC_SAMPLES |= {150: 8_912_896, 153: 8_912_896, 156: 8_912_896, 180: 35_651_584, 183: 35_651_584, 186: 35_651_584}
_HEVC_LEVEL_AT = 12  # in the decoder's configuration record

_EDGE = 64  # pixels around a frame that decoders allocate on each side
_SAMPLE_BYTES = {"gray": 1.0, "yuv420p": 1.5, "yuvj420p": 1.5, "yuv422p": 2.0, "yuvj422p": 2.0}
_SIDE_BYTES = 1.0  # per pixel: motion vectors and other data of a frame
_FIXED_BYTES = 2 << 20  # tables and buffers of a decoder


class Described(Protocol):
    """The facts about a video that a decoder needs: of a packet index, or of CodecParameters."""

    @property
    def facts(self) -> VideoFacts:
        """Facts about the whole stream."""

    @property
    def extradata(self) -> bytes:
        """The configuration that the decoder gets before the first packet."""

    @property
    def largest(self) -> int:
        """The size of the largest packet."""


class CodecParameters(NamedTuple):
    """The facts about a video that a decoder needs, without its packets."""

    facts: VideoFacts
    extradata: bytes
    largest: int

    @classmethod
    def of(cls, index: PacketIndex) -> CodecParameters:
        """The facts that a packet index has."""
        return cls(index.facts, index.extradata, index.largest)


def decoder_bytes(index: Described) -> int:
    """An upper estimate of the memory of a decoder with one thread, with its frames and its largest packet."""
    facts = index.facts
    width, height = facts.width + 2 * _EDGE, facts.height + 2 * _EDGE
    pixel_bytes = _SAMPLE_BYTES.get(facts.pixel_format, 3.0) + _SIDE_BYTES
    frames = _references(index) + facts.reorder + _MORE_FRAMES
    return int(width * height * pixel_bytes) * frames + 3 * index.largest + _FIXED_BYTES


def _references(index: Described) -> int:
    """How many frames the decoder keeps as references."""
    facts, extradata = index.facts, index.extradata
    most = _REFERENCES.get(facts.codec, _MOST_REFERENCES)
    if facts.codec == "h264" and len(extradata) > 3 and extradata[0] == 1 and extradata[3] in _H264_BLOCKS:
        blocks = -(-facts.width // 16) * -(-facts.height // 16)
        return max(1, min(most, _H264_BLOCKS[extradata[3]] // blocks))
    if facts.codec == "hevc" and len(extradata) > _HEVC_LEVEL_AT and extradata[0] == 1:
        limit = _HEVC_SAMPLES.get(extradata[_HEVC_LEVEL_AT], 0)
        quarters = -(-4 * facts.width * facts.height // max(limit, 1))
        return {1: 16, 2: 12, 3: 8, 4: 6}.get(quarters, most)
    return most
