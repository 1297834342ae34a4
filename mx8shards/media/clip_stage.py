"""How does the Loader decode clips of videos into a batch? The stage of `mx8.Clip`, run by a loader's threads.

All clips of one video in a batch are decoded in one sweep, by the thread whose rows include the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, FormatError
from mx8shards.format.randomness import occurrences_of, uniforms
from mx8shards.kernels.boxes import DRAWS
from mx8shards.kernels.records import MAPPED
from mx8shards.media import direct_decoding
from mx8shards.media.clip_counts import ClipCounts
from mx8shards.media.clip_painting import ClipPainter, Painting
from mx8shards.media.clip_sweeps import (
    Span,
    Sweep,
    SweepClip,
    clip_in,
    copier,
    failing,
    need_parts,
    note_bytes,
    payloads_of,
    require_clips,
    rows_of_videos,
    sweep_of,
)
from mx8shards.media.crop_settings import CropSettings
from mx8shards.media.index_reading import IndexReader, payload_bytes
from mx8shards.media.packet_plan import Ints, Stretch, from_start, stretches
from mx8shards.media.picture_memory import LargeMemory, ThreadMemory, thread_bytes
from mx8shards.media.video_colour import frame_record
from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import (
    Decoded,
    PayloadBytes,
    decode_container,
    decode_stretches,
    frame_missing,
)
from mx8shards.stages import DecoderContext, Output, Stage, Work

Array = npt.NDArray[Any]

# Decodes stretches: counts, and the wanted packets that gave no good frame.
DecodeParts = Callable[[list[Stretch]], tuple[Decoded, Ints]]

_COST_OF_PIXEL = 16  # decoding and cropping one pixel of a frame takes as long as copying 16 bytes


@dataclass(frozen=True)
class ClipPlan:
    """What a batch needs: its sweeps by their first rows, the spans of the videos, and the random numbers of rows."""

    sweeps: dict[int, Sweep]
    payloads: Array
    draws: Array


class ThreadResource:
    """What a thread needs: scratch, and the open decoders, which all threads share."""

    def __init__(self, decoders: Decoders, memory: ThreadMemory) -> None:
        self.decoders, self.memory = decoders, memory
        decoders.join()

    def close(self) -> None:
        """Free the scratch; the last thread closes the decoders."""
        self.memory.close()
        self.decoders.leave()


class Clips(Stage):
    """Decodes the clips of one column of videos, and makes their crops."""

    opens_thread = True
    narrows = narrows_to_parts = True

    def __init__(self, crop: CropSettings, layout: str, context: DecoderContext) -> None:
        self.columns = (context.column,)
        self._context, self._columns = context, require_clips(context)
        self._times = self._columns.times
        self._painting = Painting(crop, layout)
        self._pixels = self._painting.outputs(context.column, self._times.frames)
        self.outputs = {**self._pixels, **_fact_outputs(context.column, self._times.frames, layout)}
        self._counts = ClipCounts()
        half = context.scratch_bytes // 2
        self._thread_bytes = thread_bytes(context.scratch_bytes, context.threads)
        self._decoders: Decoders = context.shared.setdefault("video decoders", Decoders(half))
        self._large: LargeMemory = context.shared.setdefault("large pictures", LargeMemory(half))
        threads = self._thread_bytes * context.threads
        self._reader = IndexReader(self._columns, context.number, self._large)
        self.scratch_bytes = (
            threads + self._large.most_bytes + self._decoders.most_bytes + self._reader.most_bytes(context.threads)
        )
        self.note_bytes = note_bytes(self._times.frames)

    def open_thread(self) -> ThreadResource:
        """The resource of one thread."""
        return ThreadResource(self._decoders, ThreadMemory(None, self._thread_bytes, self._large))

    def counts(self) -> Mapping[str, int]:
        """How many clips were decoded, and how many failed, by class."""
        return self._counts.report()

    # planning ---------------------------------------------------------------------------------------------------

    def narrow(self, work: Work) -> bool:
        """Find the frames of each clip, and narrow the spans of videos to the packets that are decoded."""
        payloads = payloads_of(work, self._context.number)
        plan = work.notes[self] = ClipPlan({}, payloads, self._draw(work))
        needed: dict[int, list[Span]] = {}
        for rows in rows_of_videos(work):
            with failing(work, rows, self._counts):
                found = self._sweep(work, rows)
                if found is not None:
                    sweep, spans = found
                    plan.sweeps[sweep.row], needed[sweep.row] = sweep, spans
        shrunk = need_parts(work, payloads, needed)
        return shrunk or bool((work.rows["way"] == MAPPED).all())

    def _sweep(self, work: Work, rows: list[int]) -> tuple[Sweep, list[Span]] | None:
        """The sweep of the clips of one video, and where its bytes lie. Clips beyond its end are refused."""
        clips: dict[int, SweepClip] = {}
        with self._reader.indices(work, rows[0]) as indices:
            for row in rows:
                with failing(work, [row], self._counts):
                    clips[row] = clip_in(work, row, indices, self._columns)
            if not clips:
                return None
            return sweep_of(indices.video, clips, payload_bytes(work, rows[0], self._context.number))

    def _draw(self, work: Work) -> Array:
        """The random numbers of the crop of each row."""
        crop, ids = self._painting.crop, work.rows["sample_id"]
        if crop.kind != "random" and not crop.flip:
            return np.zeros((len(ids), DRAWS))
        purpose = f"crop:{self._context.column}" if crop.seed is None else f"crops:{crop.seed}"
        return uniforms(self._context.seed, work.epoch, ids, purpose, DRAWS, occurrences_of(work.extras))

    def costs(self, work: Work) -> Array:
        """The cost of each sweep, for its first row: in proportion to the pixels that are decoded."""
        costs = np.zeros(len(work.rows), np.int64)
        for row, sweep in work.notes[self].sweeps.items():
            facts = sweep.stream.facts
            costs[row] = _COST_OF_PIXEL * facts.width * facts.height * self._times.frames * len(sweep.clips)
        return costs

    # filling ----------------------------------------------------------------------------------------------------

    def fill(self, work: Work, start: int, stop: int, resource: ThreadResource) -> None:
        """Decode the sweeps whose first rows are in [start, stop).

        If a sweep fails, its clips are decoded one by one, so that only those that need the damaged part are lost.
        """
        sweeps = work.notes[self].sweeps
        for sweep in (sweeps[row] for row in range(start, stop) if row in sweeps):
            parts = [sweep]
            if len(sweep.clips) > 1:
                parts = sweep.split()
                try:
                    self._decode(work, sweep, resource)
                except (DecodeError, FormatError, OSError):
                    pass
                else:
                    continue
            for part in parts:
                with failing(work, list(part.clips), self._counts):
                    self._decode(work, part, resource)

    def _decode(self, work: Work, sweep: Sweep, resource: ThreadResource) -> None:
        """Decode the clips of one video into the bank."""
        plan: ClipPlan = work.notes[self]
        targets = [work.array(key, output) for key, output in self._pixels.items()]
        painter = ClipPainter(self._painting, targets, sweep.stream.facts, plan.draws, resource.memory)
        counts, missing = self._frames(work, sweep, painter)
        if len(missing):
            raise frame_missing(sweep.frame_of(int(missing[0])))
        self._counts.decoded(len(sweep.clips), counts, sweep.covered())
        self._note_padding(work, sweep)
        for row, clip in sweep.clips.items():
            for key, value in self._facts(sweep, clip).items():
                work.array(key, self.outputs[key])[row] = value

    def _frames(self, work: Work, sweep: Sweep, painter: ClipPainter) -> tuple[Decoded, Ints]:
        """Decode the frames of a sweep and crop them: counts, and the packets that gave no good frame."""
        if not sweep.stream.facts.slices:
            payload = self._payload(work, sweep)
            take, wanted = sweep.taken_by(painter), sweep.packets()
            sizes = self._reader.copied(work, sweep.row, lambda index: index.size.copy())
            room = self._reader.room(sizes.nbytes)
            return decode_container(sweep.stream, sizes, payload, wanted, self._decoders, take, work.is_stopped, room)
        decode = self._way(work, sweep, painter)
        wanted = sweep.packets()
        counts, missing = decode(
            sweep.parts or self._reader.copied(work, sweep.row, lambda index: stretches(index, wanted))
        )
        if len(missing):
            work.require_whole(sweep.row)
            more, missing = decode([self._reader.copied(work, sweep.row, lambda index: from_start(index, missing))])
            counts.add(more)
        return counts, missing

    def _way(self, work: Work, sweep: Sweep, painter: ClipPainter) -> DecodeParts:
        """How stretches are decoded and cropped: by a kernel, or by PyAV if the kernel cannot."""
        way: Callable[..., tuple[Decoded, Ints]]
        common: dict[str, Any] = {"decoders": self._decoders, "is_stopped": work.is_stopped}
        packets = {row: clip.packets for row, clip in sweep.clips.items()}
        crops = painter.crops(packets) if direct_decoding.is_available() else None
        if crops is None:
            copy, take = self._payload(work, sweep).copy, sweep.taken_by(painter)
            way = partial(decode_stretches, sweep.stream, copy=copy, take=take, **common)
        else:
            origin = direct_decoding.Origin(work.shards, work.rows[sweep.row], *self._span(work, sweep))
            way = partial(direct_decoding.decode_and_crop, sweep.stream, origin=origin, crops=crops, **common)

        def decode(parts: list[Stretch]) -> tuple[Decoded, Ints]:
            return way(parts, room=self._reader.room(sum(part.nbytes for part in parts)))

        return decode

    def _span(self, work: Work, sweep: Sweep) -> tuple[int, int]:
        """Where the payload begins in its shard, and its size."""
        begin, size = work.notes[self].payloads[sweep.row].tolist()
        return begin, size

    def _payload(self, work: Work, sweep: Sweep) -> PayloadBytes:
        begin, size = self._span(work, sweep)
        return PayloadBytes(size, copier(work, sweep.row, begin, size))

    def _note_padding(self, work: Work, sweep: Sweep) -> None:
        """Count clips that have no frame of their own."""
        rows = [row for row, clip in sweep.clips.items() if not clip.frames.valid.any()]
        if rows:
            self._counts.all_padding(self._context.column, work.rows["sample_id"][rows].tolist())

    def _facts(self, sweep: Sweep, clip: SweepClip) -> Mapping[str, Any]:
        """The outputs beside the pixels."""
        values: list[Any] = [clip.frames.numbers, clip.frames.valid, *clip.bounds]
        if self._painting.layout == "planes":
            values.append(frame_record(sweep.stream.facts)["colour"][0])
        return dict(zip(_fact_outputs(self._context.column, 0, self._painting.layout), values, strict=True))

    def wait(self) -> str:
        """Why threads wait for decoders, if some do."""
        return self._decoders.wait()

    def reason(self, work: Work, row: int) -> Exception | None:
        """The error of the clip in this row, if it was refused."""
        return self._counts.error_of(work, row)


def _fact_outputs(column: str, frames: int, layout: str) -> dict[str, Output]:
    """The outputs beside the pixels, by name."""
    found = {
        f"{column}.frames": Output(np.dtype(np.int64), (frames,)),
        f"{column}.mask": Output(np.dtype(np.bool_), (frames,)),
        f"{column}.start": Output(np.dtype(np.float64), ()),
        f"{column}.end": Output(np.dtype(np.float64), ()),
    }
    return found | ({f"{column}.colour": Output(np.dtype(np.float32), (6,))} if layout == "planes" else {})
