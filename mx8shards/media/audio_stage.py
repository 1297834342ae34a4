"""How does the Loader decode the sound of clips into a batch? The stage of `mx8.Audio`, run by a loader's threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import DecodeError
from mx8shards.format.clip_times import SOUND, bounds_of
from mx8shards.kernels.records import MAPPED, OK
from mx8shards.media.audio_decoding import decode_audio
from mx8shards.media.clip_counts import ClipCounts
from mx8shards.media.clip_sweeps import (
    Array,
    copier,
    failing,
    frames_in,
    need_parts,
    payloads_of,
    require_clips,
    rows_of_videos,
)
from mx8shards.media.index_reading import IndexReader, Indices
from mx8shards.media.picture_memory import LargeMemory
from mx8shards.media.sound_places import Grids
from mx8shards.media.video_decoding import PayloadBytes
from mx8shards.stages import RAGGED, DecoderContext, Stage, Work

_MOST_BYTES = 1 << 26  # of the sound of a clip
_COST_OF_BYTE = 32  # decoding a byte of samples takes as long as copying 32 bytes
_COPIES = 8  # of the samples of a clip in several rates and forms, while they are decoded

_KEPT_GRIDS = 1024  # of videos


@dataclass(frozen=True)
class Part:
    """The sound of one row: when it begins in the container, in seconds, and its samples."""

    begin: Fraction
    samples: int


class AudioClips(Stage):
    """Decodes the sound of the clips of one column of videos."""

    narrows = narrows_to_parts = needs_whole = True
    measures = True

    def __init__(self, rate: int, channels: int, context: DecoderContext) -> None:
        self._columns = require_clips(context)
        self._context, self._rate, self._channels = context, rate, channels
        self._key = context.column + SOUND
        self.columns = (context.column,)
        self.outputs = {self._key: RAGGED}
        self.decoders: Mapping[str, Callable[[memoryview], Any]] = {self._key: partial(_decode_row, channels)}
        self._most_bytes = min(_MOST_BYTES, context.scratch_bytes // 2 // context.threads // _COPIES)
        half = context.scratch_bytes // 2
        self._large: LargeMemory = context.shared.setdefault("large pictures", LargeMemory(half))
        self._reader = IndexReader(self._columns, context.number, self._large)
        self.scratch_bytes = (
            self._most_bytes * _COPIES * context.threads
            + self._large.most_bytes
            + self._reader.most_bytes(context.threads)
        )
        self._counts = ClipCounts()
        self._grids = Grids(_KEPT_GRIDS)

    def narrow(self, work: Work) -> bool:
        """Find the part of the sound of each row. The whole payload is needed."""
        payloads = payloads_of(work, self._context.number)
        parts: dict[int, Part] = {}
        for rows in rows_of_videos(work):
            with failing(work, rows, self._counts), self._reader.indices(work, rows[0]) as indices:
                for row in rows:
                    with failing(work, [row], self._counts):
                        parts[row] = self._part(work, row, indices)
        work.notes[self] = parts
        need_parts(work, payloads, {row: [(0, int(payloads["size"][row]))] for row in parts})
        return bool((work.rows["way"] == MAPPED).all())

    def _part(self, work: Work, row: int, indices: Indices) -> Part:
        """The sound of a clip; DecodeError if it is too long."""
        index = indices.video
        begin, end = bounds_of(frames_in(work, row, indices, self._columns), index)
        samples = round((end - begin) * self._rate)
        if samples * self._channels * 4 > self._most_bytes:
            found = f"{float(end - begin):.1f} s"
            raise DecodeError(expected=f"sound of {self._most_bytes} bytes", found=found, reason="unsupported")
        first = int(index.pts[index.frames[0]])
        return Part(begin + first * Fraction(*index.facts.time_base), samples)

    def measure(self, work: Work) -> Mapping[str, Array]:
        """The bytes of the samples of each row."""
        sizes = np.zeros(len(work.rows), np.int64)
        for row, part in work.notes[self].items():
            sizes[row] = 4 * self._channels * part.samples if work.rows["status"][row] == OK else 0
        return {self._key: sizes}

    def costs(self, work: Work) -> Array:
        """In proportion to the samples."""
        costs: Array = _COST_OF_BYTE * self.measure(work)[self._key]
        return costs

    def fill(self, work: Work, start: int, stop: int, resource: Any) -> None:
        """Decode the sound of rows [start, stop)."""
        parts: dict[int, Part] = work.notes[self]
        for row in range(start, stop):
            if row in parts and work.rows["status"][row] == OK:
                with failing(work, [row], self._counts):
                    self._decode(work, row, parts[row])

    def _decode(self, work: Work, row: int, part: Part) -> None:
        begin, size = payloads_of(work, self._context.number)[row].tolist()
        out = np.zeros((self._channels, part.samples), np.float32)
        grid = partial(self._grids.of, int(work.rows["sample_id"][row]))
        decode_audio(PayloadBytes(size, copier(work, row, begin, size)), part.begin, out, self._rate, grid)
        region, bank = work.region(self._key), work.whole
        at = region.values + int(bank[region.offsets :][8 * row : 8 * row + 8].view(np.int64)[0])
        bank[at : at + out.nbytes] = out.reshape(-1).view(np.uint8)

    def counts(self) -> Mapping[str, int]:
        """How many clips failed, by class."""
        found = self._counts.report()
        return {name: count for name, count in found.items() if name.startswith("clips_failed")}

    def reason(self, work: Work, row: int) -> Exception | None:
        """The error of the sound in this row, if it was refused."""
        return self._counts.error_of(work, row)


def _decode_row(channels: int, row: memoryview) -> Array:
    """The samples of one row."""
    return np.frombuffer(row, np.float32).reshape(channels, -1)
