"""Where are the packet indices of videos without a column of them? In a file in the cache directory, made once.

    magic        MAGIC
    indices      the packet index of each sample, in order; empty for a video from which clips cannot be decoded
    refused      JSON: the number of these videos, and the reasons of the first of them, as pairs of sample_id and text
    offsets      where each index begins, then where the last one ends: uint64
    samples      their number, uint64

The name of the file depends on the snapshot, the column and the version of PyAV, because another one may open videos
that this one does not. It is made from packets alone, without decoding frames.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from mx8shards.clips import refused_videos
from mx8shards.clips.made_files import found_in, made_in, places_of
from mx8shards.clips.refused_videos import Refused
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DecodeError, FormatError, SchemaError, require, visible, without_traceback
from mx8shards.format.packet_index import FORMAT, encode_packet_index
from mx8shards.media.sniff import sniff
from mx8shards.shards.cores import core_count
from mx8shards.shards.open_shard import Shards

MAGIC = b"MX8PKTS2"
_NUMBER = struct.Struct("<Q")
_AT_ONCE = 256  # videos that are read before their indices are written
_LOOKS = 16  # samples, spread over the column, that must all be pictures for it to be refused early
_PICTURES = ("JPEG", "PNG", "GIF", "BMP", "WebP", "AVIF", "HEIC", "TIFF")  # as `sniff` begins


@dataclass(frozen=True)
class PacketFile:
    """A file of packet indices, which is opened for each of them: an index is read once per video and batch."""

    path: Path

    def size(self, sample_id: int) -> int:
        """The size of the packet index of a sample; 0 if it has none. FormatError if the file is damaged."""
        begin, end = self._bounds(ReadFile(self.path), sample_id)
        return end - begin

    def read(self, sample_id: int, most: int) -> bytes:
        """The first `most` bytes of the packet index of a sample; FormatError if the file is damaged."""
        file = ReadFile(self.path)
        begin, end = self._bounds(file, sample_id)
        return file.read(begin, min(end - begin, most))

    def reason(self, sample_id: int) -> str:
        """Why a sample has no packet index; empty if the reason was not kept."""
        return self.refused[0].reasons.get(sample_id, "")

    @cached_property
    def refused(self) -> tuple[Refused, int]:
        """The videos without packet index, and the number of all samples."""
        file = ReadFile(self.path)
        samples, table = self._table(file)
        begin = self._number(file, table + _NUMBER.size * samples)
        if not len(MAGIC) <= begin <= table <= begin + refused_videos.MOST_BYTES:
            raise self._damaged(f"reasons from {begin} to {table}")
        try:
            return refused_videos.parse(file.read(begin, table - begin)), samples
        except FormatError as error:
            raise self._damaged(str(error)) from error

    def _bounds(self, file: ReadFile, sample_id: int) -> tuple[int, int]:
        """Where the index of a sample begins and ends."""
        samples, table = self._table(file)
        if not 0 <= sample_id < samples:
            raise self._damaged(f"{samples} samples")
        begin, end = (self._number(file, table + _NUMBER.size * (sample_id + k)) for k in range(2))
        if not len(MAGIC) <= begin <= end <= table:
            raise self._damaged(f"an index from {begin} to {end}")
        return begin, end

    def _table(self, file: ReadFile) -> tuple[int, int]:
        """The number of samples, and where their offsets begin."""
        size = file.size_bytes
        samples = self._number(file, size - _NUMBER.size)
        table = size - _NUMBER.size * (samples + 2)
        if table < len(MAGIC):
            raise self._damaged(f"{samples} samples in {size} bytes")
        return samples, table

    def _number(self, file: ReadFile, at: int) -> int:
        data = file.read(max(at, 0), _NUMBER.size)
        if len(data) < _NUMBER.size:
            raise self._damaged("a file that was cut short")
        number: int = _NUMBER.unpack(data)[0]
        return number

    def _damaged(self, found: str) -> FormatError:
        return FormatError(
            subject=str(self.path), expected="a file of packet indices", found=found, hint="remove it; it is made again"
        )


def packet_file(shards: Shards, column: str) -> PacketFile:
    """The file with the packet indices of a column of videos, made if it does not exist. Logs which have none.

    SchemaError if no sample is a video. To tell so early, a column is also refused if none of its first 256 samples is
    a video and 16 samples from the first to the last, evenly spread, are all pictures; the others are not looked at.
    """
    version = require("av", "video").__version__
    places = places_of(shards, [FORMAT, column, version], ".packets")
    file = PacketFile(found_in(places) or made_in(places, partial(_pieces, shards, column)))
    refused, samples = file.refused
    if refused.videos:
        logging.getLogger("mx8shards").warning("%s: %s", column, refused.text(samples))
    return file


def _pieces(shards: Shards, column: str) -> Iterator[bytes]:
    """The bytes of the file."""
    offsets, refused = [len(MAGIC)], Refused(0, {})
    yield MAGIC
    with ThreadPoolExecutor(core_count()) as threads:
        for begin in range(0, shards.samples, _AT_ONCE):
            some = range(begin, min(begin + _AT_ONCE, shards.samples))
            for sample_id, found in zip(some, threads.map(partial(_index, shards, column), some), strict=True):
                if isinstance(found, DecodeError):
                    refused = refused.with_one(sample_id, found)
                else:
                    yield found
                offsets.append(offsets[-1] + (0 if isinstance(found, DecodeError) else len(found)))
            _require_videos(shards, column, refused, some.stop)
    yield refused_videos.encode(refused)
    yield np.array(offsets, "<u8").tobytes()
    yield _NUMBER.pack(shards.samples)


def _require_videos(shards: Shards, column: str, refused: Refused, count: int) -> None:
    """SchemaError if none of the first `count` samples is a video, and they are all samples, or all seem pictures.

    Others than the first are looked at once, after the first `_AT_ONCE` samples.
    """
    if refused.videos < count:
        return
    if count < shards.samples and (count > _AT_ONCE or not _seems_pictures(shards, column)):
        return
    kind = sniff(_payload(shards, column, 0))
    is_all = count == shards.samples
    others = "" if is_all else f", and {_LOOKS} others from the first to the last are pictures"
    clips = "clips are for columns of videos"
    if not is_all:
        clips += ", and a few videos among pictures need a dataset of their own"
    raise SchemaError(
        subject=f"column {column!r}",
        expected="videos",
        found=f"none in the first {count} samples{others}; sample 0 is {kind or 'of an unknown format'}: "
        + visible(refused.reasons[0]),
        hint=f"{clips}; Loader(decode=…) decodes pictures, such as with mx8.CenterCrop(…)"
        if kind.startswith(_PICTURES)
        else clips,
    )


def _seems_pictures(shards: Shards, column: str) -> bool:
    """Whether samples that are spread over a column, from the first to the last, are all pictures."""
    some = [look * (shards.samples - 1) // (_LOOKS - 1) for look in range(_LOOKS)]
    return all(sniff(_payload(shards, column, sample_id)).startswith(_PICTURES) for sample_id in some)


def _payload(shards: Shards, column: str, sample_id: int) -> bytes:
    i, row = shards.locate(sample_id)
    shard = shards.open_shard(i)
    return bytes(shard.payloads(row, [shard.columns.names.index(column)])[0])


def _index(shards: Shards, column: str, sample_id: int) -> bytes | DecodeError:
    """The packet index of one video, or the reason why clips cannot be decoded from it."""
    from mx8shards.media.video_index import index_video  # needs PyAV

    try:
        return encode_packet_index(index_video(_payload(shards, column, sample_id), decode=False).packets)
    except DecodeError as error:
        return without_traceback(error)
