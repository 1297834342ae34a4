"""How many random frames of videos are wrong?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.frame_readers import READERS
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.process import Measured, Numbers
from tests import videos

NEEDS_BYTES = 50_000_000
COUNT = 50
NOTES = f"""\
- Of {COUNT} random frames of each video, whose numbers are painted into their pixels: how many are not the frame of
  that number in a full sequential decode. All, if the reader fails: OpenCV's wheel has no AV1, and no peer but OpenCV
  opens MPEG-TS (H.264, HEVC and MPEG-4 with a negative start). A form that an encoder does not make counts as 0.
- "seek by i/fps": PyAV, seeking to the number divided by the average rate, and decoding from there.
"""
COLUMNS = tuple(Column(title=form, number=form, digits=0, spread=False) for form in videos.FORMS)
NEEDS = {"torchcodec": "torchcodec.decoders", "torchcodec approximate": "torchcodec.decoders", "decord": "decord"}
NEEDS |= {"opencv": "cv2"}


def prepare(directory: Path, *, quick: bool) -> None:
    """Write the videos."""
    for codec, form in videos.CELLS:
        (directory / f"{codec} {form}.video").write_bytes(videos.video(codec, form).data)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """One process for each codec and reader."""
    return [
        Job(
            group=codec,
            contender=reader,
            run=wrong_frames,
            arguments={"directory": str(directory), "codec": codec, "reader": reader},
            rounds=1,
            needs=NEEDS.get(reader, ""),
        )
        for codec in (videos.CODECS[:1] if quick else videos.CODECS)
        for reader in (list(READERS)[:1] if quick else READERS)
    ]


def wrong_frames(directory: str, codec: str, reader: str) -> Numbers:
    """The number of wrong frames for each form."""
    found: Numbers = {}
    with Measured() as whole:
        for form in videos.FORMS:
            if (codec, form) in videos.CELLS:
                found[form] = _wrong(
                    Path(directory, f"{codec} {form}.video"), reader, videos.video(codec, form).numbers
                )
            else:
                found[form] = 0
    return {**found, "all": sum(found.values()), **whole.numbers}


def _wrong(path: Path, reader: str, numbers: tuple[int, ...]) -> int:
    chosen = np.random.default_rng(0).integers(0, len(numbers), COUNT).tolist()
    try:
        frames = READERS[reader](path, chosen)
    except Exception as error:  # noqa: BLE001 - a reader that fails has no frame
        print(f"{reader}: {path.name}: {error}")
        return COUNT
    shown = [-1 if frame is None else _number(np.asarray(frame)) for frame in frames]
    return sum(found != numbers[number] for found, number in zip(shown, chosen, strict=True))


def _number(frame: Any) -> int:
    """The number painted into a frame, which a reader may have rotated clockwise."""
    luma = frame.mean(axis=2)
    return int(videos.number_in(luma if luma.shape[1] >= videos.WIDTH else np.rot90(luma)))


def targets() -> list[Target]:
    """No frame of ours is wrong."""
    return [
        Target(f"{codec}: no frame is wrong", (Wanted(group=codec, contender="mx8shards", number="all", most=0.0),))
        for codec in videos.CODECS
    ]
