"""How fast are batches of clips of 16 frames from H.264 videos, from the page cache?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import clip_parts, loader_contenders, reading, videos
from benchmarks.adapters.ours_clips import FRAMES
from benchmarks.harness import Column, Job, Target, Wanted, say
from benchmarks.loader_contenders import THREADS, Contender, Reading
from benchmarks.videos import Kind

NEEDS_BYTES = 400_000_000
NOTES = """\
- Clips of 16 frames that begin at all multiples of 30 frames, in batches with one random clip of each video; uint8
  [B, 16, 3, 224, 224] of the largest centred square. H.264 with x264's defaults (medium, CRF 23), but GOPs of the
  named length; 30 frames per second; 8 videos of 10 s, if nothing else is said (GOP 600: 4 of 20 s; 1080p: 4).
- Peers: a DataLoader with one worker per core around each; one FFmpeg thread each. torchcodec needs FFmpeg's libraries.
  They resize in their own cheapest way, so pixels differ slightly.
- Five clips of a video: every batch has five clips each of two videos. "all clips in one call": the item of the
  DataLoader is a video, whose frames torchcodec decodes in one call.
- Re-encoded: what `convert videofolder --gop 16 --max-side 340` writes from the 480p GOP 60 videos; peers read these
  files. The rows below compare it with its source; PSNR is that of luma against the scaled source.
- Packets: how many are decoded, of those from the keyframe before a clip to its last frame, over all clips of a video.
"""
COLUMNS = (
    Column(title="clips/s", number="images_per_s", digits=1),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor ms per clip", number="core_ms", digits=2),
    Column(title="processor time, × mx8shards", number="core_ms", digits=2, ratio=True),
    Column(title="anonymous memory, MB", number="anonymous_growth_mb", digits=0, spread=False),
    Column(title="size, % of the source", number="size_percent", digits=0, spread=False),
    Column(title="PSNR, dB", number="psnr_db", digits=1, spread=False),
    Column(title="packets decoded, %", number="fed_percent", digits=1, spread=False),
)
CROP, OPENING, PACKETS = "crop, size and colours of a 480p frame", "opening a clip", "packets"
SWSCALE, SEEK = "swscale", "av.open and seek"
OURS, SOURCE, QUALITY = "mx8shards", "mx8shards, its source", "the files"
PEERS = {
    "torchcodec": "torchcodec.decoders",
    "torchcodec approximate": "torchcodec.decoders",
    "decord": "decord",
    "pyav": "av",
    "opencv": "cv2",
}
IN_ONE_CALL = "torchcodec, all clips in one call"
MAIN = tuple(Kind(f"480p GOP {gop}", gop) for gop in (12, 60, 250))
TWO_MINUTES = Kind("480p GOP 60 of 120 s", 60, repeats=12)
LONG_GOP = Kind("480p GOP 600", 600, seconds=20, count=4)
LARGE = Kind("1080p GOP 60", 60, width=1920, height=1080, count=4)
TINY = Kind("tiny GOP 12", 12, width=160, height=96, seconds=3, count=2)
REENCODED = ("--gop", "16", "--max-side", "340")


@dataclass(frozen=True, slots=True)
class Task:
    """What a group of contenders reads: videos in a form, and which of their clips in one batch."""

    group: str
    kind: Kind
    stride: int
    least: float  # how many times as fast as every peer ours should be; 0: not said
    every: int = 30
    batch_size: int = 8
    in_order: bool = False  # all clips of a video follow each other
    form: str = ""  # "own": the re-encoded videos


def _main(kind: Kind, stride: int, least: float = 0.0) -> Task:
    return Task(f"{kind.name}, stride {stride}", kind, stride, least, batch_size=kind.count)


SEVERAL = Task("480p GOP 60, stride 4, five clips of a video", MAIN[1], 4, 2.5, 50, 10, in_order=True)
OWN_FORM = Task("480p GOP 60, re-encoded, stride 2", MAIN[1], 2, 3.0, form="own-")
TASKS = (
    *(_main(kind, stride, 1.5 if kind.gop == 250 else 1.7) for kind in MAIN for stride in (2, 4)),
    *(_main(kind, 2) for kind in (TWO_MINUTES, LONG_GOP, LARGE)),
    SEVERAL,
    OWN_FORM,
)
QUICK = (replace(OWN_FORM, kind=TINY, batch_size=2),)


def _tasks(quick: bool) -> Sequence[Task]:
    return QUICK if quick else TASKS


def prepare(directory: Path, *, quick: bool) -> None:
    """Encode the videos, and convert them."""
    for task in _tasks(quick):
        root = task.kind.folder(directory)
        videos.write_folder(root / "files", task.kind)
        videos.convert(root / "files", root / "mds")
        if task.form:
            videos.convert(root / "files", root / "own-mds", *REENCODED)
            videos.write_payloads(root / "own-mds", root / "own-files")
    for kind in dict.fromkeys(task.kind for task in _tasks(quick)):
        size = sum(path.stat().st_size for path in videos.files(kind.folder(directory) / "files"))
        say(f"  {kind.name}: {kind.count} videos of {size / kind.count / 1e6:.1f} MB")


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders of each task, and the parts of a clip."""
    found = [job for task in _tasks(quick) for job in _jobs(directory, task, quick)]
    return [*found, *_parts(directory, [TINY] if quick else MAIN, 0.05 if quick else 1.0)]


def _jobs(directory: Path, task: Task, quick: bool) -> list[Job]:
    root = task.kind.folder(directory)
    shared: dict[str, Any] = {"stride": task.stride, "every": task.every, "in_order": task.in_order}
    clips = task.kind.count * (1 + (task.kind.frames - (FRAMES - 1) * task.stride - 1) // task.every)
    arguments = {"samples": clips, "batch_size": task.batch_size, "seconds": 0.05 if quick else 2.5}
    asked = Reading(task.group, root, reading.clips, arguments, best="images_per_s")
    contenders = [_ours(OURS, task.form + "mds", shared), *_peers(task, shared, quick)]
    if not task.form:
        return loader_contenders.jobs(asked, contenders, quick=quick)
    files = {"root": str(root / "own-files"), "other": str(root / "files")}
    quality = Job(group=task.group, contender=QUALITY, run=videos.quality, arguments=files, rounds=1)
    return [*loader_contenders.jobs(asked, [*contenders, _ours(SOURCE, "mds", shared)], quick=quick), quality]


def _parts(directory: Path, kinds: Sequence[Kind], seconds: float) -> list[Job]:
    """What parts of a clip cost, beside other ways; the share of packets that are decoded."""
    root = str(kinds[0].folder(directory) / "files")
    found = [
        Job(group=group, contender=by, run=run, arguments={"root": root, "by": by, "seconds": seconds})
        for group, run, others in ((CROP, clip_parts.painting, SWSCALE), (OPENING, clip_parts.opening, SEEK))
        for by in (OURS, others)
    ]
    return found + [
        Job(
            group=PACKETS,
            contender=_main(kind, stride).group,
            run=clip_parts.packets,
            arguments={"root": str(kind.folder(directory) / "files"), "stride": stride},
            rounds=1,
        )
        for kind in kinds
        for stride in (2, 4)
    ]


def _ours(name: str, folder: str, shared: dict[str, Any]) -> Contender:
    return Contender(name, "ours_clips", folder, [{**shared, "threads": THREADS}])


def _peers(task: Task, shared: dict[str, Any], quick: bool) -> list[Contender]:
    options = {**shared, "frames": task.kind.frames, "workers": 0 if quick else THREADS}
    found = [
        Contender(name, "video_peers", task.form + "files", [{**options, "reader": name}], needs)
        for name, needs in PEERS.items()
        if not quick or name == "pyav"
    ]
    if task.in_order and not quick:
        whole = {**options, "reader": "torchcodec", "in_one_call": True}
        found.append(Contender(IN_ONE_CALL, "video_peers", "files", [whole], PEERS["torchcodec"]))
    return found


def targets() -> list[Target]:
    """Ratios to every peer, on the same bytes and threads; and those of the parts."""
    return [*_speeds(), *map(_part, ((CROP, SWSCALE, 0.3), (OPENING, SEEK, 0.2))), *_shares()]


def _part(asked: tuple[str, str, float]) -> Target:
    group, other, most = asked
    wanted = Wanted(group=group, contender=OURS, against=other, number="core_ms", most=most)
    return Target(f"{group}: at most {most:g} × the processor time of {other}", (wanted,))


def _shares() -> list[Target]:
    return [
        Target(
            f"{group}: at most {most} % of the packets from the keyframe to the last frame",
            (Wanted(group=PACKETS, contender=group, number="fed_percent", most=most),),
        )
        for kind in MAIN
        for group, most in ((_main(kind, 2).group, 80), (_main(kind, 4).group, 70))
    ]


def _speeds() -> list[Target]:
    return [
        Target(
            f"{task.group}: at least {task.least:g} × as fast as {peer}",
            (Wanted(group=task.group, contender=OURS, against=peer, number="images_per_s", least=task.least),),
        )
        for task in TASKS
        if task.least
        for peer in (*PEERS, IN_ONE_CALL)
    ]
