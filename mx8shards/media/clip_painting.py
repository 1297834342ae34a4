"""How are the decoded frames of clips cropped into a batch: one box per clip, in the layout that the user wants?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError
from mx8shards.format.packet_index import VideoFacts
from mx8shards.kernels import boxes, clip_decoding, video_frames
from mx8shards.media.crop_settings import CropSettings
from mx8shards.media.direct_decoding import Crops
from mx8shards.media.packet_plan import Ints
from mx8shards.media.picture_memory import ThreadMemory
from mx8shards.media.picture_stage import crop_record, crop_values
from mx8shards.media.video_colour import frame_record
from mx8shards.media.video_decoding import Planes
from mx8shards.stages import Output

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

Place = tuple[int, int]  # a row and the number of a frame in its clip


@dataclass(frozen=True, eq=False)
class Painting:
    """The crop and the layout of the clips of a column."""

    crop: CropSettings
    layout: str
    record: Array = field(init=False)  # of the crop, for kernels
    values: Array = field(init=False)  # of each level

    def __post_init__(self) -> None:
        object.__setattr__(self, "record", np.array([crop_record(self.crop)], boxes.CROP))
        object.__setattr__(self, "values", crop_values(self.crop))

    def outputs(self, column: str, frames: int) -> dict[str, Output]:
        """The outputs with pixels, by name."""
        (height, width), dtype = self.crop.sides, np.dtype(self.crop.dtype)
        if self.layout == "planes":
            chroma = Output(dtype, (frames, 2, height // 2, width // 2))
            return {column: Output(dtype, (frames, height, width)), f"{column}.chroma": chroma}
        sides = {"T": frames, "C": 3, "H": height, "W": width}
        return {column: Output(dtype, tuple(sides[axis] for axis in self.layout))}


class ClipPainter:
    """Crops the frames of one video into the rows of its clips.

    `targets` are the arrays of `Painting.outputs` over the bank, in that order.
    """

    def __init__(
        self, painting: Painting, targets: Sequence[Array], facts: VideoFacts, draws: Array, memory: ThreadMemory
    ) -> None:
        self._painting = painting
        self._targets = targets
        self._frame = frame_record(facts)
        self._draws = draws
        self._memory = memory
        self._boxes: dict[int, tuple[Array, int]] = {}

    def paint(self, places: Sequence[Place], planes: Planes) -> None:
        """Crop one frame into all places that want it."""
        done: dict[int, int] = {}
        for row, t in places:
            if row in done:
                for target in self._targets:
                    _frame_of(target, row, t, self._painting.layout)[:] = _frame_of(
                        target, row, done[row], self._painting.layout
                    )
            else:
                self._crop(row, t, planes)
            done[row] = t

    def crops(self, clips: Mapping[int, Ints]) -> Crops | None:
        """What a kernel needs to crop the frames of these clips, whose packets are given by row.

        None if the crops need more memory than a thread has: then frames are cropped one by one.
        """
        found, needs = zip(*(self._box(row) for row in clips), strict=True)
        writing = self._writing()
        need = int(clip_decoding.crop_bytes(max(needs), writing))
        memory = self._memory
        if need > len(memory.scratch) and not memory.grow(need):
            return None
        places = self._places(clips)
        return Crops(self._frame[0], np.concatenate(found), writing, self._painting.values, memory.scratch, places)

    def _writing(self) -> Any:
        """How the kernel writes a frame."""
        layout, (pixels, *chroma) = self._painting.layout, self._targets
        size, chroma_size = _frame_of(pixels, 0, 0, layout).nbytes, sum(each[0, 0].nbytes for each in chroma)
        step = pixels.strides[1] if layout == "CTHW" else 0
        return np.array([(layout == "planes", layout == "THWC", size, chroma_size, step)], clip_decoding.WRITING)[0]

    def _places(self, clips: Mapping[int, Ints]) -> Array:
        """The places of all frames of these clips, sorted by packet and box."""
        found, end = np.zeros(sum(map(len, clips.values())), clip_decoding.PLACE), 0
        for box, (row, packets) in enumerate(clips.items()):
            end, begin = end + len(packets), end
            part = found[begin:end]
            part["packet"], part["box"] = packets, box
            for name, target in zip(("to", "chroma"), self._targets, strict=False):
                step = target.strides[2 if self._painting.layout == "CTHW" else 1]
                part[name] = target.ctypes.data + row * target.strides[0] + step * np.arange(len(packets))
        return found[np.argsort(found["packet"], kind="stable")]

    def _crop(self, row: int, t: int, planes: Planes) -> None:
        """Crop one frame into one place."""
        box, need = self._box(row)
        memory = self._memory
        if need <= len(memory.scratch) or memory.grow(need):
            self._crop_with(memory.scratch, box, row, t, planes)
        elif need <= memory.large.most_bytes:
            with memory.large.lock:
                self._crop_with(memory.large.scratch(need), box, row, t, planes)
        else:
            expected = f"a frame that is cropped in {memory.large.most_bytes} bytes"
            raise DecodeError(expected=expected, found=f"one that takes {need}", reason="unsupported")

    def _crop_with(self, scratch: Bytes, box: Array, row: int, t: int, planes: Planes) -> None:
        layout = self._painting.layout
        outs = [_frame_of(target, row, t, layout) for target in self._targets]
        frame, place = self._frame[0], box[0]
        if layout == "planes":
            video_frames.crop_frame_planes(planes, frame, place, scratch, *map(_bytes_of, outs))
            return
        out = np.empty(outs[0].shape, outs[0].dtype) if layout == "CTHW" else outs[0]
        values, last = self._painting.values, layout == "THWC"
        video_frames.crop_frame(planes, frame, place, values, last, False, scratch, _bytes_of(out))
        if layout == "CTHW":
            outs[0][:] = out

    def _box(self, row: int) -> tuple[Array, int]:
        """The box of a clip and the scratch that it takes, which are the same in all of its frames."""
        found = self._boxes.get(row)
        if found is None:
            box = np.zeros(1, boxes.BOX)
            video_frames.find_frame_box(self._painting.record[0], self._draws[row], self._frame[0], box[0])
            found = self._boxes[row] = box, int(video_frames.frame_scratch_bytes(self._frame[0], box[0]))
        return found


def _frame_of(target: Array, row: int, t: int, layout: str) -> Array:
    """The part of a target for one frame of one clip."""
    found: Array = target[row, :, t] if layout == "CTHW" else target[row, t]
    return found


def _bytes_of(values: Array) -> Bytes:
    """A contiguous array as bytes."""
    return values.reshape(-1).view(np.uint8)
