"""How do peers give the frames with some numbers, in order of presentation, of a video file? RGB, in their own size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Frames = list[Any]


def ours(path: Path, numbers: Sequence[int]) -> Frames:
    """Our decoder, with an index made on the spot."""
    from mx8shards.media.video_decoders import Decoders
    from mx8shards.media.video_decoding import Payload, decode_frames
    from mx8shards.media.video_index import index_video

    data = path.read_bytes()
    source, found = np.frombuffer(data, np.uint8), {}
    index = index_video(data).packets
    order = {packet: number for number, packet in enumerate(index.frames.tolist())}

    def copy(begin: int, size: int, to: int) -> bool:
        import ctypes

        ctypes.memmove(to, source.ctypes.data + begin, size)
        return True

    def take(packet: int, planes: Any) -> None:
        luma = planes[0][:, : index.facts.width]
        found[order[packet]] = np.repeat(luma[..., None], 3, axis=2)

    decoders = Decoders(1 << 30)
    decode_frames(Payload(index, len(data), copy), np.unique(index.frames[list(numbers)]), decoders, take)
    return [found[number] for number in numbers]


def torchcodec(path: Path, numbers: Sequence[int], seek_mode: str = "exact") -> Frames:
    """torchcodec after a scan of the file."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", seek_mode=seek_mode)
    return [decoder.get_frame_at(number).data.numpy() for number in numbers]


def torchcodec_approximate(path: Path, numbers: Sequence[int]) -> Frames:
    """torchcodec without a scan."""
    return torchcodec(path, numbers, "approximate")


def decord(path: Path, numbers: Sequence[int]) -> Frames:
    """decord2."""
    import decord as module

    reader = module.VideoReader(str(path))
    return [_without_padding(reader[number].asnumpy()) for number in numbers]


def _without_padding(frame: Any) -> Any:
    """decord2 3.4 takes the padding of the rows of narrow frames for a fourth channel."""
    height, width, _ = frame.shape
    return frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


def opencv(path: Path, numbers: Sequence[int]) -> Frames:
    """OpenCV, by setting the position."""
    import cv2

    capture, found = cv2.VideoCapture(str(path)), []
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    for number in numbers:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        good, frame = capture.read()
        found.append(frame[..., ::-1] if good else None)
    return found


def by_rate(path: Path, numbers: Sequence[int]) -> Frames:
    """PyAV, by seeking to number / rate and taking the first frame from then on, as many scripts do."""
    import av

    found: Frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for number in numbers:
            time = number / float(stream.average_rate or 25)
            container.seek(int(time / float(stream.time_base or 1)), stream=stream)
            frames = (frame for frame in container.decode(stream) if (frame.time or 0) >= time - 1e-6)
            frame = next(frames, None)
            found.append(None if frame is None else frame.to_ndarray(format="rgb24"))
    return found


READERS = {
    "mx8shards": ours,
    "torchcodec": torchcodec,
    "torchcodec approximate": torchcodec_approximate,
    "decord": decord,
    "opencv": opencv,
    "seek by i/fps": by_rate,
}
