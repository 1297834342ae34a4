"""How quickly do pictures of about 500 × 375 become crops, in random order, from files that are in memory?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import decoding, pictures
from benchmarks.contest import Contender
from benchmarks.decoding import GENERATED, MOSAIC, PLANES, REAL, REFERENCE, SIMPLEJPEG, TILED, UNTOUCHED, Kind
from benchmarks.harness import Column, Job, Target

NEEDS_BYTES = 8_500_000_000
NOTES = """\
- All decode the very same JPEG files (4:2:0), to uint8, shuffled, with as many threads or worker processes as there are
  cores, from a warm page cache; the consumer touches one byte per page. Nobody mirrors a crop.
- Generated: ellipses, natural spectrum and grain, 108 KB on average. Photographs: pieces of nine that scikit-image and
  scikit-learn carry, encoded anew, 74 KB on average.
- Untouched: the files' own bytes (convert --no-tiles). Tiled: the same pixels and 1 % more bytes, from which the files
  can be restored; it is the default. yuv420: planes, stored without any compression.
- Random crop: RandomResizedCrop 224. Centre crop: 224 of 256. Six crops: two of 224 and four of 98 pixels. FFCV decodes
  a picture once for each crop of it, and resizes by areas.
- A core's µs: the processor's time that an image took, in all threads and processes of a contender. Other work on the
  machine changes it least. A target is met by images/s (the first number), or by images per second of a core; that of
  streaming, which was measured in two rounds, by the latter alone.
- Libraries: ours decode with the libturbojpeg 3.x that `pip install "mx8shards[images]"` brings, unless a row says
  otherwise. The other 3.x is the one in the wheel `turbojpeg`; FFCV is built with the system's.
- Some that are far from the others were measured in the first two rounds only.
"""
COLUMNS = (
    Column(title="images/s", number="images_per_s", digits=0),
    Column(title="time, × mx8shards tiled", number="microseconds", digits=2, ratio=True),
    Column(title="a core's µs per image", number="core_us", digits=0),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
RANDOM, CENTRE = "generated, random crop", "generated, centre crop"
TWO, SIX = "generated, two random crops", "generated, six crops"
REAL_RANDOM, REAL_CENTRE = "photographs, random crop", "photographs, centre crop"

OURS = ("tiled", "mds")


def _groups() -> dict[str, tuple[Kind, list[Contender]]]:
    """Who is compared in each group."""
    ours, ffcv, pillow = decoding.ours, decoding.ffcv, decoding.pillow
    others = [*decoding.ours_otherwise("random"), pillow("random"), *decoding.others("random")]
    return {
        RANDOM: (GENERATED, [*ours("random"), ffcv("random"), *others]),
        CENTRE: (GENERATED, [*ours("centre"), ffcv("centre"), pillow("centre")]),
        TWO: (GENERATED, [*ours("two", OURS), ffcv("two")]),
        SIX: (GENERATED, [*ours("six", OURS), ffcv("six", rounds=decoding.FEW)]),
        REAL_RANDOM: (REAL, [*ours("random"), ffcv("random"), pillow("random")]),
        REAL_CENTRE: (REAL, [*ours("centre", OURS), ffcv("centre")]),
    }


def _asked(quick: bool) -> dict[str, tuple[Kind, list[Contender]]]:
    if quick:
        return {RANDOM: (GENERATED, decoding.ours("random", OURS))}
    there = bool(pictures.real_files())
    return {group: asked for group, asked in _groups().items() if there or asked[0] is not REAL}


def prepare(directory: Path, *, quick: bool) -> None:
    """Both kinds of pictures, in every form."""
    asked = _asked(quick).values()
    for kind in dict.fromkeys(kind for kind, _ in asked):
        contenders = [one for of, members in asked if of is kind for one in members]
        decoding.prepare(directory, kind, contenders, quick=quick)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Everyone who decodes."""
    found = []
    for group, (kind, contenders) in _asked(quick).items():
        found += decoding.jobs(directory, group, kind, contenders, quick=quick)
    return found


def targets() -> list[Target]:
    """What the issue asks for, as a multiple of others: of images/s, or of images per second of a core."""

    times = decoding.as_quick
    return [
        times(RANDOM, UNTOUCHED, 1.5),
        times(RANDOM, TILED, 2.2),
        times(RANDOM, SIMPLEJPEG, 1.3),
        times(RANDOM, TILED, 0.98, REFERENCE),
        times(RANDOM, PLANES, 8),
        times(RANDOM, TILED, 6, MOSAIC, decoding.EITHER[1:]),
        times(CENTRE, UNTOUCHED, 1.4),
        times(CENTRE, TILED, 1.9),
        times(TWO, UNTOUCHED, 2.2),
        times(REAL_RANDOM, UNTOUCHED, 1.5),
        times(REAL_RANDOM, TILED, 2.2),
        times(REAL_RANDOM, PLANES, 8),
        times(REAL_CENTRE, UNTOUCHED, 1.4),
        times(REAL_CENTRE, TILED, 1.9),
    ]
