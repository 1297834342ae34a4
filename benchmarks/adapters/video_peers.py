"""How do peers read clips of videos? Each opens the file of a clip in a worker of torch's DataLoader.

All deliver the largest centred square of each frame, resized to 224 pixels, as uint8 [T, height, width, 3] (torchcodec:
[T, 3, height, width]), and use one FFmpeg thread. Resizing is done in the way that is cheapest for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import videos
from benchmarks.adapters.ours_clips import FRAMES, SIZE, one_of_each
from benchmarks.adapters.torch_loader import Epochs, collate

_SIZES: dict[str, Any] = {}  # shapes of frames by path, because decord takes the size in advance


class Clips(torch.utils.data.Dataset[dict[str, Any]]):
    """The same clips as our view: every start that is a multiple of `every`."""

    def __init__(self, root: Path, reader: str, stride: int, every: int, frames: int) -> None:
        span = (FRAMES - 1) * stride + 1
        starts = range(0, frames - span + 1, every)
        self._clips = [(str(path), start) for path in videos.files(root) for start in starts]
        self.per_video = len(starts)
        self._read, self._stride = READERS[reader], stride

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, start = self._clips[index]
        return {"video": self._read(path, self._wanted(start)), "label": int("class1" in path)}

    def _wanted(self, start: int) -> Sequence[int]:
        return range(start, start + FRAMES * self._stride, self._stride)

    def read_together(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Several clips of one video, each frame decoded once."""
        path = self._clips[numbers[0]][0]
        wanted = [self._wanted(self._clips[number][1]) for number in numbers]
        frames = sorted({frame for clip in wanted for frame in clip})
        found = torch.as_tensor(self._read(path, frames))
        places = {frame: place for place, frame in enumerate(frames)}
        clips = torch.stack([found[[places[frame] for frame in clip]] for clip in wanted])
        return {"video": clips, "label": torch.full((len(numbers),), int("class1" in path))}


class Videos(torch.utils.data.Dataset[dict[str, Any]]):
    """All clips of each video, whose frames are read in one call."""

    def __init__(self, clips: Clips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips) // self._clips.per_video

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = index * self._clips.per_video
        return self._clips.read_together(range(first, first + self._clips.per_video))


def _scaled(width: int, height: int) -> tuple[int, int]:
    """The size at which the shorter side is SIZE."""
    return (SIZE, SIZE * height // width) if width < height else (SIZE * width // height, SIZE)


def _centre(frames: Any) -> Any:
    """The centred square of frames [T, height, width, 3]."""
    top, left = (frames.shape[1] - SIZE) // 2, (frames.shape[2] - SIZE) // 2
    return np.ascontiguousarray(frames[:, top : top + SIZE, left : left + SIZE])


def with_torchcodec(path: str, wanted: Sequence[int], seek_mode: str = "exact") -> Any:
    """torchcodec's decoder, and torch's resizing of the centred square."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode)
    frames = decoder.get_frames_at(list(wanted)).data
    side = min(frames.shape[2:])
    top, left = (frames.shape[2] - side) // 2, (frames.shape[3] - side) // 2
    square = frames[:, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)


def with_torchcodec_approximate(path: str, wanted: Sequence[int]) -> Any:
    """torchcodec without a scan of the file."""
    return with_torchcodec(path, wanted, "approximate")


def with_decord(path: str, wanted: Sequence[int]) -> Any:
    """decord2, which resizes while it decodes."""
    import decord

    if path not in _SIZES:
        _SIZES[path] = decord.VideoReader(path, num_threads=1)[0].shape
    width, height = _scaled(_SIZES[path][1], _SIZES[path][0])
    reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
    return _centre(reader.get_batch(list(wanted)).asnumpy())


def with_pyav(path: str, wanted: Sequence[int]) -> Any:
    """PyAV: seek to the time of the first frame by its rate, then decode; swscale converts and resizes."""
    import av

    found: dict[int, Any] = {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate, base = stream.average_rate, stream.time_base
        assert rate is not None
        assert base is not None
        container.seek(int(wanted[0] / rate / base), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts or 0) * base * rate)
            if number in wanted:
                width, height = _scaled(frame.width, frame.height)
                found[number] = frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
            if number >= wanted[-1]:
                break
    return _centre(np.stack([found[number] for number in wanted]))


def with_opencv(path: str, wanted: Sequence[int]) -> Any:
    """OpenCV: seek to the first frame, then read; frames that are not wanted are grabbed only."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
    found = []
    for number in range(wanted[0], wanted[-1] + 1):
        capture.grab()
        if number in wanted:
            frame = capture.retrieve()[1]
            resized = cv2.resize(frame, _scaled(frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_LINEAR)
            found.append(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))
    capture.release()
    return _centre(np.stack(found))


READERS = {
    "torchcodec": with_torchcodec,
    "torchcodec approximate": with_torchcodec_approximate,
    "decord": with_decord,
    "pyav": with_pyav,
    "opencv": with_opencv,
}


def open_loader(
    root: Path,
    batch_size: int,
    reader: str,
    stride: int,
    every: int,
    frames: int,
    workers: int,
    in_order: bool = False,
    in_one_call: bool = False,
) -> Any:
    """A DataLoader with workers, in our order; `in_one_call`: an item is all clips of a video."""
    clips = Clips(root, reader, stride, every, frames)
    order = range(len(clips)) if in_order else one_of_each(len(clips) // clips.per_video, clips.per_video)
    dataset = Videos(clips) if in_one_call else torch.utils.data.Subset(clips, order)
    per_item = clips.per_video if in_one_call else 1
    return Epochs(
        torch.utils.data.DataLoader,
        workers,
        dataset=dataset,
        batch_size=batch_size // per_item,
        shuffle=False,
        collate_fn=_joined if in_one_call else collate,
    )


def _joined(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The clips of several videos as one batch."""
    return {name: torch.cat([item[name] for item in items]) for name in items[0]}
