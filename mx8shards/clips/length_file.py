"""How long are videos without columns that say so? A file in the cache directory, made once from packet indices.

magic      MAGIC
lengths    for each sample four int64: frames, duration, and the numerator and denominator of the time base in
           which the duration counts; all 0 for a video from which clips cannot be decoded
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mx8shards.clips.made_files import found_in, made_in, places_of
from mx8shards.clips.packet_columns import read_packets
from mx8shards.disk.map import ReadFile
from mx8shards.errors import DecodeError, DiskError, FormatError
from mx8shards.format.clip_times import IndexFile
from mx8shards.format.packet_index import FORMAT
from mx8shards.shards.cores import core_count
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Ids

_logger = logging.getLogger("mx8shards")

MAGIC = b"MX8LENS\n"
NUMBERS = ("frames", "duration", "time_base_num", "time_base_den")
_NONE = (0, 0, 0, 0)
_AT_ONCE = 1024
_LEAST = 256  # samples: of fewer, packet indices are read each time
_FEW = 8  # if a view has less than an eighth of the samples, only their packet indices are read

Lengths = npt.NDArray[np.int64]  # a row for each video: NUMBERS


def lengths_of_videos(shards: Shards, source: str | IndexFile, sample_ids: Ids) -> Lengths:
    """The lengths of the videos of these samples. `source`: the column or the file with their packet indices."""
    places = places_of(shards, ["lengths 1", FORMAT, str(source)], ".lengths")
    path = found_in(places)
    if path is None and _LEAST <= shards.samples <= _FEW * len(sample_ids):
        try:
            path = made_in(places, partial(_pieces, shards, source))
        except DiskError:
            path = None  # no directory can be written
    if path is None:
        return _read_lengths(shards, source, sample_ids.tolist())
    return _read(path, shards.samples)[sample_ids]


def _read(path: Path, samples: int) -> Lengths:
    """The lengths of all videos; FormatError if the file is damaged."""
    file = ReadFile(path)
    data = file.read(0, min(file.size_bytes, len(MAGIC) + 8 * len(NUMBERS) * samples + 1))
    found = np.frombuffer(data, np.uint8)[len(MAGIC) :]
    if not data.startswith(MAGIC) or len(found) != 8 * len(NUMBERS) * samples:
        hint = "remove it; it is made again"
        raise FormatError(subject=str(path), expected=f"lengths of {samples} videos", found="another file", hint=hint)
    return found.view("<i8").reshape(samples, len(NUMBERS)).astype(np.int64)


def _pieces(shards: Shards, source: str | IndexFile) -> Iterator[bytes]:
    """The bytes of the file."""
    yield MAGIC
    for begin in range(0, shards.samples, _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, shards.samples))
        yield _read_lengths(shards, source, some).astype("<i8").tobytes()


def _read_lengths(shards: Shards, source: str | IndexFile, sample_ids: Sequence[int]) -> Lengths:
    """The lengths of these videos, from their packet indices."""
    with ThreadPoolExecutor(core_count()) as threads:
        rows = list(threads.map(partial(_length, shards, source), sample_ids))
    return np.array(rows, np.int64).reshape(-1, len(NUMBERS))


def _length(shards: Shards, source: str | IndexFile, sample_id: int) -> tuple[int, int, int, int]:
    """The length of a video; zeros without a valid packet index, so that it has no clips."""
    try:
        index = read_packets(shards, sample_id, source)
    except DecodeError:
        return _NONE
    except FormatError as error:
        _logger.warning("a video has no clips, because its packet index is damaged: %s", error)
        return _NONE
    first = int(index.pts[index.frames[0]])
    return len(index.frames), index.facts.end - first, *index.facts.time_base
