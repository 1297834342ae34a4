"""What do the parts of decoding a clip cost: opening it, its packets, and the crop, size and colours of its frames?"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import videos
from benchmarks.adapters.ours_clips import FRAMES, SIZE
from benchmarks.process import Measured, Numbers
from mx8shards.format.packet_index import PacketIndex
from mx8shards.kernels.boxes import DRAWS
from mx8shards.media.clip_painting import ClipPainter, Painting
from mx8shards.media.packet_plan import reach, stretches
from mx8shards.media.picture_memory import LargeMemory, ThreadMemory
from mx8shards.media.specs import ResizeCrop
from mx8shards.media.video_decoders import Decoders
from mx8shards.media.video_decoding import planes_of
from mx8shards.media.video_index import index_video
from mx8shards.media.video_memory import CodecParameters

_ENOUGH = 1 << 30


def painting(root: str, by: str, seconds: float) -> Numbers:
    """Processor time per frame of the crop, the resizing and the conversion to RGB, by our kernels or by swscale."""
    path = videos.files(Path(root))[0]
    index = _index(path)
    with av.open(str(path)) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(32), strict=False)]
    with Measured() as whole:
        paint = {"mx8shards": _ours, "swscale": _swscale}[by](index, len(frames))
        numbers = _timed(lambda number: paint(frames[number % len(frames)], number % len(frames)), seconds)
    return {**numbers, **whole.numbers}


def _ours(index: PacketIndex, frames: int) -> Callable[[Any, int], None]:
    painting = Painting(ResizeCrop(SIZE)._settings(), "TCHW")
    out = np.zeros((1, frames, 3, SIZE, SIZE), np.uint8)
    memory = ThreadMemory(None, 64 << 20, LargeMemory(64 << 20))
    painter = ClipPainter(painting, [out], index.facts, np.zeros((1, DRAWS)), memory)
    stream = CodecParameters.of(index)
    return lambda frame, number: painter.paint([(0, number)], planes_of(frame, stream))


def _swscale(index: PacketIndex, frames: int) -> Callable[[Any, int], None]:
    height, width = index.facts.height, index.facts.width
    scaled, low = SIZE * width // height, (SIZE * width // height - SIZE) // 2

    def paint(frame: Any, number: int) -> None:
        rgb = frame.reformat(scaled, SIZE, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()
        np.ascontiguousarray(rgb[:, low : low + SIZE])

    return paint


def opening(root: str, by: str, seconds: float) -> Numbers:
    """Processor time until a decoder can get the first packet of a clip in the middle of a video."""
    path = videos.files(Path(root))[0]
    index = _index(path)
    stream = CodecParameters.of(index)
    middle = int(index.pts[index.frames[len(index.frames) // 2]])

    def ours(_: int) -> None:
        with Decoders(_ENOUGH).decoder(stream):
            pass

    def naive(_: int) -> None:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            container.seek(middle, stream=container.streams.video[0])
            next(container.demux(container.streams.video[0]))

    with Measured() as whole:
        numbers = _timed({"mx8shards": ours, "av.open and seek": naive}[by], seconds)
    return {**numbers, **whole.numbers}


def packets(root: str, stride: int) -> Numbers:
    """Of the packets from the keyframe before a clip to its last frame, how many our decoder gets, over all clips."""
    fed = covered = 0
    with Measured() as whole:
        for path in videos.files(Path(root)):
            index = _index(path)
            for start in range(len(index.frames) - (FRAMES - 1) * stride):
                wanted = np.sort(index.frames[start + stride * np.arange(FRAMES)])
                fed += sum(len(part.packets) for part in stretches(index, wanted))
                begin, end = reach(index, wanted)
                covered += end - begin
    return {"fed_percent": 100 * fed / covered, **whole.numbers}


def _index(path: Path) -> PacketIndex:
    return index_video(path.read_bytes(), decode=False).packets


def _timed(act: Callable[[int], None], seconds: float) -> Numbers:
    """Processor milliseconds of one call, after a few that compile and warm up."""
    for number in range(3):
        act(number)
    calls, begun, end = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        act(calls)
        calls += 1
    return {"core_ms": 1000 * (time.process_time() - begun) / calls}
