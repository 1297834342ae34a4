"""Which videos are benchmarked? Moving photographs with noise, encoded with x264's defaults at several GOP lengths."""

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

    def folder(self, directory: Path) -> Path:
        """The directory of these videos in all forms."""
        return directory / self.name.replace(" ", "-")

    @property
    def frames(self) -> int:
        """The number of frames of each video."""
        return FPS * self.seconds


def files(root: Path) -> list[Path]:
    """The videos of a folder."""
    return sorted(root.glob("*/*.mp4"))


def write_folder(root: Path, kind: Kind) -> None:
    """Encode the videos, in one folder per class; those that an earlier run has written stay."""
    import av

    if len(files(root)) == kind.count:
        return
    for number in range(kind.count):
        path = root / f"class{number % 2}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path.with_suffix(".part")), "w", format="mp4") as container:
            options = {"preset": "medium", "crf": "23", "x264-params": f"keyint={kind.gop}"}
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
            stream.codec_context.thread_count = len(os.sched_getaffinity(0))
            for picture in _pictures(kind, number):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())
        path.with_suffix(".part").rename(path)


def _pictures(kind: Kind, seed: int) -> Iterator[Any]:
    """A window that moves smoothly over a large smooth picture, with a little noise; the scene changes every 4 s."""
    random = np.random.default_rng(seed)
    noise = random.integers(-4, 5, (4, kind.height, kind.width, 1), dtype=np.int16)
    for begin in range(0, kind.frames, 4 * FPS):
        scene, speed = _scene(kind, random), random.uniform(1, 5, 2)
        for phase in range(min(4 * FPS, kind.frames - begin)):
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
