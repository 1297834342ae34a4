"""How does the Loader decode clips of videos into a batch? The stage of `mx8.Clip`, run by a loader's threads.

All clips of one video in a batch are decoded in one sweep, by the thread whose rows include the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, FormatError
from mx8shards.format.clip_times import ClipFrames, seconds_of
from mx8shards.format.packet_index import PacketIndex
from mx8shards.format.randomness import occurrences_of, uniforms
from mx8shards.kernels.boxes import DRAWS
from mx8shards.kernels.records import MAPPED, OK
from mx8shards.media.clip_counts import ClipCounts
from mx8shards.media.clip_painting import ClipPainter, Painting
from mx8shards.media.clip_sweeps import Sweep, copier, failing, frames_in, payloads_of, read_index, require_clips
from mx8shards.media.crop_settings import CropSettings
from mx8shards.media.picture_memory import LargeMemory, ThreadMemory, thread_bytes
from mx8shards.media.video_colour import frame_record
from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import Payload, Planes, decode_frames
from mx8shards.stages import DecoderContext, Output, Stage, Work

Array = npt.NDArray[Any]

_COST_OF_PIXEL = 16  # decoding and cropping one pixel of a frame takes as long as copying 16 bytes


@dataclass(frozen=True)
class Plan:
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
    narrows = True

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
        self.scratch_bytes = threads + self._large.most_bytes + self._decoders.most_bytes

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
        plan = Plan(self._sweeps(work), payloads, self._draw(work))
        work.notes[self] = plan
        spans = work.spans[:, self._context.number]
        spans["size"] = 0
        for row, sweep in plan.sweeps.items():
            begin, size = sweep.needed(int(payloads["size"][row]))
            spans["begin"][row], spans["size"][row] = payloads["begin"][row] + begin, size
        return bool((work.rows["way"] == MAPPED).all() or (spans["size"] != payloads["size"]).any())

    def _sweeps(self, work: Work) -> dict[int, Sweep]:
        """The sweeps of a batch. Rows whose index is missing or damaged are refused."""
        videos: dict[int, Sweep] = {}
        for row in np.flatnonzero(work.rows["status"] == OK).tolist():
            sample_id = int(work.rows["sample_id"][row])
            with failing(work, [row], self._counts):
                if sample_id in videos:
                    index = videos[sample_id].index
                else:
                    index = read_index(work, row, self._columns.packets, self._context.number)
                clip = frames_in(work, row, index, self._columns)
                videos.setdefault(sample_id, Sweep(index)).clips[row] = clip
        return {sweep.row: sweep for sweep in videos.values()}

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
            facts = sweep.index.facts
            costs[row] = _COST_OF_PIXEL * facts.width * facts.height * self._times.frames * len(sweep.clips)
        return costs

    # filling ----------------------------------------------------------------------------------------------------

    def fill(self, work: Work, start: int, stop: int, resource: ThreadResource) -> None:
        """Decode the sweeps whose first rows are in [start, stop).

        If a sweep fails, its clips are decoded one by one, so that only those that need the damaged part are lost.
        """
        sweeps = work.notes[self].sweeps
        for sweep in (sweeps[row] for row in range(start, stop) if row in sweeps):
            parts = sweep.split()
            if len(parts) > 1:
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
        plan: Plan = work.notes[self]
        row, wanted = sweep.row, sweep.wanted()
        begin, size = plan.payloads[row].tolist()
        targets = [work.array(key, output) for key, output in self._pixels.items()]
        painter = ClipPainter(self._painting, targets, sweep.index, plan.draws, resource.memory)

        def take(packet: int, planes: Planes) -> None:
            painter.paint(wanted[packet], planes)

        counts = decode_frames(
            Payload(sweep.index, size, copier(work, row, begin, size)), sweep.packets(), self._decoders, take
        )
        self._counts.decoded(len(sweep.clips), counts)
        for row, clip in sweep.clips.items():
            for key, value in self._facts(sweep.index, clip).items():
                work.array(key, self.outputs[key])[row] = value

    def _facts(self, index: PacketIndex, clip: ClipFrames) -> Mapping[str, Any]:
        """The outputs beside the pixels."""
        begin, end = seconds_of(clip, index)
        values: list[Any] = [clip.numbers, clip.valid, begin, end]
        if self._painting.layout == "planes":
            values.append(frame_record(index.facts)["colour"][0])
        return dict(zip(_fact_outputs(self._context.column, 0, self._painting.layout), values, strict=True))

    def reason(self, sample_id: int) -> Exception | None:
        """The error of a sample whose clip was refused."""
        return self._counts.error_of(sample_id)


def _fact_outputs(column: str, frames: int, layout: str) -> dict[str, Output]:
    """The outputs beside the pixels, by name."""
    found = {
        f"{column}.frames": Output(np.dtype(np.int64), (frames,)),
        f"{column}.mask": Output(np.dtype(np.bool_), (frames,)),
        f"{column}.start": Output(np.dtype(np.float64), ()),
        f"{column}.end": Output(np.dtype(np.float64), ()),
    }
    return found | ({f"{column}.colour": Output(np.dtype(np.float32), (6,))} if layout == "planes" else {})
