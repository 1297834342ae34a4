"""How fast are batches of clips of 16 frames from H.264 videos, from the page cache?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import loader_contenders, reading, videos
from benchmarks.harness import Column, Job, Target, Wanted, say
from benchmarks.loader_contenders import THREADS, Contender, Reading
from benchmarks.videos import Kind

NEEDS_BYTES = 1_500_000_000
NOTES = """\
- Clips of 16 frames at all starts that are multiples of 30 frames, shuffled; uint8 [B, 16, 3, 224, 224] of the largest
  centred square. H.264 with x264's defaults (medium, CRF 23) and the named longest GOP, 30 frames per second.
- Peers: a DataLoader with one worker per core around each; one FFmpeg thread each. torchcodec needs FFmpeg's libraries.
  They resize in their own cheapest way, so pixels differ slightly.
- Ours with GOP 16: the form that `convert videofolder --gop 16 --max-side 340` writes, from the same videos: smaller
  frames, so it is not the same bytes.
"""
COLUMNS = (
    Column(title="clips/s", number="images_per_s", digits=1),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor ms per clip", number="core_ms", digits=1),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
)
OURS, OWN_FORM = "mx8shards, untouched files", "mx8shards, --gop 16 --max-side 340"
PEERS = {
    "torchcodec": "torchcodec.decoders",
    "torchcodec approximate": "torchcodec.decoders",
    "decord": "decord",
    "pyav": "av",
    "opencv": "cv2",
}
MAIN = tuple(Kind(f"480p GOP {gop}", gop) for gop in (12, 60, 250))
LONG = (
    Kind("480p GOP 600 of 120 s", 600, seconds=120, count=2),
    Kind("1080p GOP 60", 60, width=1920, height=1080, count=4),
)
QUICK = (Kind("480p GOP 12", 12, width=160, height=96, seconds=2, count=2),)
EVERY = 30
FORMS = {OURS: (), OWN_FORM: ("--gop", "16", "--max-side", "340")}


def _kinds(quick: bool) -> tuple[Kind, ...]:
    return QUICK if quick else MAIN + LONG


def _folder(name: str) -> str:
    return "mds" if name == OURS else "own"


def _strides(kind: Kind, quick: bool) -> tuple[int, ...]:
    return (2, 4) if kind in MAIN and not quick else (2,)


def _forms(kind: Kind, quick: bool) -> list[str]:
    return [OURS, OWN_FORM] if kind == MAIN[1] and not quick else [OURS]


def prepare(directory: Path, *, quick: bool) -> None:
    """Encode the videos, and convert them."""
    for kind in _kinds(quick):
        root = kind.folder(directory)
        videos.write_folder(root / "files", kind)
        size = sum(path.stat().st_size for path in videos.files(root / "files"))
        say(f"  {kind.name}: {kind.count} videos of {size / kind.count / 1e6:.1f} MB")
        for name in _forms(kind, quick):
            videos.convert(root / "files", root / _folder(name), *FORMS[name])


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders for each kind of videos and stride."""
    return [
        job
        for kind in _kinds(quick)
        for stride in _strides(kind, quick)
        for job in _jobs(directory, kind, stride, quick)
    ]


def _jobs(directory: Path, kind: Kind, stride: int, quick: bool) -> list[Job]:
    shared = {"stride": stride, "every": EVERY}
    ours = [
        Contender(name, "ours_clips", _folder(name), [{**shared, "threads": THREADS}]) for name in _forms(kind, quick)
    ]
    peers = [
        Contender(
            name,
            "video_peers",
            "files",
            [{**shared, "reader": name, "frames": kind.frames, "workers": 0 if quick else THREADS}],
            needs,
        )
        for name, needs in PEERS.items()
        if not quick or name == "pyav"
    ]
    clips = kind.count * (1 + (kind.frames - 15 * stride - 1) // EVERY)
    arguments = {"samples": clips, "batch_size": 2 if quick else 8, "seconds": 0.05 if quick else 5}
    asked = Reading(
        f"{kind.name}, stride {stride}", kind.folder(directory), reading.clips, arguments, best="images_per_s"
    )
    return loader_contenders.jobs(asked, [*ours, *peers], quick=quick)


def targets() -> list[Target]:
    """Ratios to every peer, on the same bytes and threads."""
    return [
        Target(
            f"480p GOP {kind.gop}, stride {stride}: at least {least:g} × as fast as {peer}",
            (
                Wanted(
                    group=f"{kind.name}, stride {stride}",
                    contender=OURS,
                    against=peer,
                    number="images_per_s",
                    least=least,
                ),
            ),
        )
        for kind in MAIN
        for stride in (2, 4)
        for peer in PEERS
        for least in [1.5 if kind.gop == 250 else 1.7]
    ]
