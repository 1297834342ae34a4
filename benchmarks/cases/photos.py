"""How quickly do photos of 12 megapixels become crops of 224 pixels, from files that are in memory?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import decoding
from benchmarks.contest import Contender
from benchmarks.decoding import LARGE, TILED, UNTOUCHED
from benchmarks.harness import Column, Job, Target

NEEDS_BYTES = 2_500_000_000
NOTES = """\
- 4000 × 3000 pixels, 4:2:0, generated, at 2 bits per pixel; batches of 8. Everything else as in images.
- Of an untouched file all has to be unpacked, whatever the crop is; `pixels` shows how much of its time that takes.
- FFCV works one batch ahead here, for every picture of each batch that it works on takes 36 MB.
"""
COLUMNS = (
    Column(title="images/s", number="images_per_s", digits=1),
    Column(title="time, × mx8shards tiled", number="microseconds", digits=2, ratio=True),
    Column(title="a core's µs per image", number="core_us", digits=0),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
RANDOM, CENTRE = "12 megapixels, random crop", "12 megapixels, centre crop"
OURS = ("tiled", "mds")


def _contenders(crops: str, quick: bool) -> list[Contender]:
    ours = decoding.ours(crops, OURS)
    return ours if quick else [*ours, decoding.ffcv(crops, ahead=1), decoding.pillow(crops)]


def prepare(directory: Path, *, quick: bool) -> None:
    """The photos, in every form."""
    decoding.prepare(directory, LARGE, _contenders("random", quick), quick=quick)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone who decodes."""
    crops = {RANDOM: "random"} if quick else {RANDOM: "random", CENTRE: "centre"}
    found = []
    for group, kind in crops.items():
        found += decoding.jobs(directory, group, LARGE, _contenders(kind, quick), quick=quick, seconds=3)
    return found


def targets() -> list[Target]:
    """What the issue asks for."""

    return [decoding.as_quick(RANDOM, UNTOUCHED, 2.5), decoding.as_quick(RANDOM, TILED, 4.5)]
