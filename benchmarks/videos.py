"""Which videos are benchmarked? Moving pictures with noise, by x264's defaults but with fixed GOP lengths."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT
from benchmarks.process import Measured, Numbers

FPS = 30


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of videos: their size, GOP length and duration, and how many different ones there are."""

    name: str
    gop: int
    width: int = 854
    height: int = 480
    seconds: int = 10
    count: int = 8
    repeats: int = 1  # how often the encoded frames follow each other

    def folder(self, directory: Path) -> Path:
        """The directory of these videos in all forms."""
        return directory / self.name.replace(" ", "-")

    @property
    def frames(self) -> int:
        """The number of frames of each video."""
        return FPS * self.seconds * self.repeats


def files(root: Path) -> list[Path]:
    """The videos of a folder."""
    return sorted(root.glob("*/*.mp4"))


def write_folder(root: Path, kind: Kind) -> None:
    """Encode the videos, in one folder per class; those that an earlier run has written stay."""
    if len(files(root)) == kind.count:
        return
    for number in range(kind.count):
        path = root / f"class{number % 2}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(path.with_suffix(".part"), kind, number)
        if kind.repeats > 1:
            _repeat(path.with_suffix(".part"), path.with_suffix(".whole"), kind.repeats)
            path.with_suffix(".whole").rename(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def _encode(path: Path, kind: Kind, number: int) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "medium", "crf": "23", "x264-params": f"keyint={kind.gop}:scenecut=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
        stream.codec_context.thread_count = len(os.sched_getaffinity(0))
        for picture in _pictures(kind, number):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def _repeat(source: Path, path: Path, times: int) -> None:
    """Write the packets of a video several times, one after the other."""
    import av

    with av.open(str(source)) as whole, av.open(str(path), "w", format="mp4") as container:
        stream = whole.streams.video[0]
        out = container.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        length = stream.duration or 0
        for number in range(times):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + number * length, (packet.dts or 0) + number * length
                again.time_base, again.duration, again.is_keyframe = (
                    packet.time_base,
                    packet.duration,
                    packet.is_keyframe,
                )
                again.stream = out
                container.mux(again)


def _pictures(kind: Kind, seed: int) -> Iterator[Any]:
    """A window that moves smoothly over a large smooth picture, with a little noise; the scene changes every 4 s."""
    random = np.random.default_rng(seed)
    noise = random.integers(-4, 5, (4, kind.height, kind.width, 1), dtype=np.int16)
    frames = FPS * kind.seconds
    for begin in range(0, frames, 4 * FPS):
        scene, speed = _scene(kind, random), random.uniform(1, 5, 2)
        for phase in range(min(4 * FPS, frames - begin)):
            y, x = (int(step * phase) % 300 for step in speed)
            window = scene[y : y + kind.height, x : x + kind.width]
            yield (window + noise[phase % 4]).clip(0, 255).astype(np.uint8)


def _scene(kind: Kind, random: np.random.Generator) -> Any:
    """A picture of blocks of several sizes, 300 pixels larger than the frames on each side."""
    height, width = kind.height + 320, kind.width + 320
    picture = np.zeros((height, width, 3), np.int16)
    for size, strength in ((160, 110), (40, 70), (10, 30)):
        few = random.integers(0, strength, (-(-height // size), -(-width // size), 3)).astype(np.int16)
        picture += np.kron(few, np.ones((size, size, 1), np.int16))[:height, :width]
    return picture


def convert(src: Path, out: Path, *options: str) -> None:
    """Run our converter as a user does, unless an earlier run did."""
    if (out / "index.json").is_file():
        return
    command = [sys.executable, "-m", "mx8shards.convert", "videofolder", str(src), str(out), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: ended with {done.returncode}\n{done.stderr[-2000:]}")


def write_payloads(dataset: Path, root: Path) -> None:
    """Write the videos of a converted dataset as files, for readers that read files."""
    import mx8shards as mx8

    for sample in mx8.Dataset(dataset):
        path = root / Path(sample["path"]).with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample["video"])


def quality(root: str, other: str) -> Numbers:
    """The size of re-encoded videos in percent of that of others, and their PSNR against those, scaled, for luma."""
    pairs = list(zip(files(Path(root)), files(Path(other)), strict=True))
    sizes = [sum(path.stat().st_size for path in paths) for paths in zip(*pairs, strict=True)]
    with Measured() as whole:
        error = np.mean([_mean_error(*pair) for pair in pairs])
    return {"size_percent": 100 * sizes[0] / sizes[1], "psnr_db": float(10 * np.log10(255**2 / error)), **whole.numbers}


def _mean_error(path: Path, other: Path) -> float:
    """The mean squared difference of luma."""
    import av

    found = []
    with av.open(str(path)) as mine, av.open(str(other)) as whole:
        for frame, source in zip(mine.decode(video=0), whole.decode(video=0), strict=True):
            scaled = source.reformat(frame.width, frame.height, "yuv420p", interpolation="BICUBIC")
            difference = _luma(frame).astype(np.int16) - _luma(scaled)
            found.append(float((difference.astype(np.float32) ** 2).mean()))
    return float(np.mean(found))


def _luma(frame: Any) -> Any:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
