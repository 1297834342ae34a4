"""How fast are shuffled batches of crops of pictures of about 500 × 375 pixels, from the page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import picture_contenders, pictures
from benchmarks.harness import Column, Job, Target
from benchmarks.loader_contenders import Contender
from benchmarks.picture_contenders import GENERATED, MOSAIC, PLANES, REAL, REFERENCE, SIMPLEJPEG, TILED, UNTOUCHED, Kind

NEEDS_BYTES = 8_500_000_000
NOTES = """\
- All contenders decode equal JPEG files (4:2:0) to uint8, shuffled, with one thread or worker process per core, from a
  warm page cache. The consumer touches one byte per page. Crops are not mirrored.
- Generated: ellipses, natural spectrum and grain, 108 KB on average. Photographs: crops of nine photographs in
  scikit-image and scikit-learn, re-encoded, 74 KB on average.
- Untouched: the files' own bytes (convert --no-tiles). Tiled, the default: equal pixels in 1 % more bytes, from which
  the original files can be restored. yuv420: uncompressed planes.
- Random crop: RandomResizedCrop 224. Centre crop: 224 of 256. Six crops: two of 224 and four of 98 pixels. FFCV decodes
  a picture once for each crop of it, and resizes by area averaging.
- Processor µs: the processor time per image, of all threads and processes of a contender. Other load on the machine
  affects it least. A target is met by images/s (the first number) or by images per second of processor time; the target
  against streaming, which was measured in two rounds, only by the latter.
- Libraries: ours decode with the libturbojpeg 3.x installed by `pip install "mx8shards[images]"`, unless a row says
  otherwise. The other 3.x is that of the wheel `turbojpeg`; FFCV is built with the system's.
- Some contenders that are much slower or faster than the others were measured only in the first two rounds.
"""
COLUMNS = (
    Column(title="images/s", number="images_per_s", digits=0),
    Column(title="time, × mx8shards tiled", number="microseconds", digits=2, ratio=True),
    Column(title="processor µs per image", number="core_us", digits=0),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
RANDOM, CENTRE = "generated, random crop", "generated, centre crop"
TWO, SIX = "generated, two random crops", "generated, six crops"
REAL_RANDOM, REAL_CENTRE = "photographs, random crop", "photographs, centre crop"

OURS = ("tiled", "mds")


def _groups() -> dict[str, tuple[Kind, list[Contender]]]:
    """The contenders of each group."""
    ours, ffcv, pillow = picture_contenders.ours, picture_contenders.ffcv, picture_contenders.pillow
    others = [*picture_contenders.ours_variants("random"), pillow("random"), *picture_contenders.others("random")]
    return {
        RANDOM: (GENERATED, [*ours("random"), ffcv("random"), *others]),
        CENTRE: (GENERATED, [*ours("centre"), ffcv("centre"), pillow("centre")]),
        TWO: (GENERATED, [*ours("two", OURS), ffcv("two")]),
        SIX: (GENERATED, [*ours("six", OURS), ffcv("six", rounds=picture_contenders.FEW_ROUNDS)]),
        REAL_RANDOM: (REAL, [*ours("random"), ffcv("random"), pillow("random")]),
        REAL_CENTRE: (REAL, [*ours("centre", OURS), ffcv("centre")]),
    }


def _asked(quick: bool) -> dict[str, tuple[Kind, list[Contender]]]:
    if quick:
        return {RANDOM: (GENERATED, picture_contenders.ours("random", OURS))}
    there = bool(pictures.real_files())
    return {group: asked for group, asked in _groups().items() if there or asked[0] is not REAL}


def prepare(directory: Path, *, quick: bool) -> None:
    """Write both kinds of pictures, in every format."""
    asked = _asked(quick).values()
    for kind in dict.fromkeys(kind for kind, _ in asked):
        contenders = [one for of, members in asked if of is kind for one in members]
        picture_contenders.prepare(directory, kind, contenders, quick=quick)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders."""
    found = []
    for group, (kind, contenders) in _asked(quick).items():
        found += picture_contenders.jobs(directory, group, kind, contenders, quick=quick)
    return found


def targets() -> list[Target]:
    """Ratios to the others, of images/s or of images per second of processor time."""

    times = picture_contenders.speed_target
    return [
        times(RANDOM, UNTOUCHED, 1.5),
        times(RANDOM, TILED, 2.2),
        times(RANDOM, SIMPLEJPEG, 1.3),
        times(RANDOM, TILED, 0.98, REFERENCE),
        times(RANDOM, PLANES, 8),
        times(RANDOM, TILED, 6, MOSAIC, picture_contenders.RATES[1:]),
        times(CENTRE, UNTOUCHED, 1.4),
        times(CENTRE, TILED, 1.9),
        times(TWO, UNTOUCHED, 2.2),
        times(REAL_RANDOM, UNTOUCHED, 1.5),
        times(REAL_RANDOM, TILED, 2.2),
        times(REAL_RANDOM, PLANES, 8),
        times(REAL_CENTRE, UNTOUCHED, 1.4),
        times(REAL_CENTRE, TILED, 1.9),
    ]
