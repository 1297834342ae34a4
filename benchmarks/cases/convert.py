"""How fast is the conversion of a folder of pictures, compared with a loop over MDSWriter?"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import simplejpeg

from benchmarks import page_cache, pictures
from benchmarks.cases.write import sync_files
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.machine import ROOT
from benchmarks.picture_contenders import GENERATED
from benchmarks.process import Measured, Numbers
from mx8shards.media import tiles

NEEDS_BYTES = 1_500_000_000
WORKERS = 2
NOTES = """\
- Each contender is a new process with two workers, and its imports are included. The files are in the page cache. The
  time ends when all output is synced to disk.
- mx8shards checks every picture completely, stores image, label, path, height and width, hashes everything with blake3,
  and can be resumed. Tiled: it also rewrites the entropy-coded data and checks that the original can be restored.
- MDSWriter: each worker writes half of the files unchanged and unchecked, with their labels; the indices are merged.
  After decoding: each file is first decoded with Pillow, as a check. No hashes.
- One core: the time of tiling a picture, including the check, and the time of decoding it once.
"""
COLUMNS = (
    Column(title="images/s", number="images_per_s", digits=0),
    Column(title="time, × the first", number="seconds", digits=2, ratio=True),
    Column(title="without the start, s", number="without_start_s", digits=2),
    Column(title="processor, s", number="processor_s", digits=1, spread=False),
)
GROUP = "generated pictures"
OURS, TILED, BYTES, CHECKED = "mx8shards --no-tiles", "mx8shards, tiled", "MDSWriter", "MDSWriter, after decoding"
CORE = "one core"
DECODED, TILED_ONE, UNTILED = "decoded to RGB (simplejpeg)", "tiled, and checked", "untiled"


def _count(quick: bool) -> int:
    return 12 if quick else 4_000


def prepare(directory: Path, *, quick: bool) -> None:
    """Write a folder of files."""
    pictures.write_folder(directory / "files", GENERATED.make(4 if quick else 640), _count(quick))


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Our converter, and the loop over MDSWriter."""
    places = {"files": str(directory / "files"), "out": str(directory / "out"), "count": _count(quick)}
    ours = {OURS: ["--no-tiles"], TILED: []}
    loops = {} if quick else {BYTES: False, CHECKED: True}
    return [
        *(
            Job(group=GROUP, contender=name, run=convert, arguments={**places, "options": options})
            for name, options in ours.items()
        ),
        *(
            Job(group=GROUP, contender=name, run=loop, arguments={**places, "decode": decode}, needs="streaming")
            for name, decode in loops.items()
        ),
        *(
            Job(group=CORE, contender=name, run=one_by_one, arguments={"count": 4 if quick else 300, "what": name})
            for name in (DECODED, TILED_ONE, UNTILED)
        ),
    ]


def targets() -> list[Target]:
    """Ratios of our converter to the loop, and of tiling to decoding."""
    loop = Wanted(group=GROUP, contender=BYTES, against=OURS, number="seconds", least=1.5)
    cost = Wanted(group=CORE, contender=TILED_ONE, against=DECODED, number="seconds", most=1.3)
    return [
        Target("--no-tiles at least 1.5 × as fast as a loop over MDSWriter with two workers", (loop,)),
        Target("tiling a picture takes at most 1.3 × as long as decoding it", (cost,)),
    ]


# in a process of its own ------------------------------------------------------------------------------------------


def convert(files: str, out: str, count: int, options: list[str]) -> Numbers:
    """Run our converter, and time the whole command."""
    command = ["-m", "mx8shards.convert", "imagefolder", files, out, "--workers", str(WORKERS), *options]
    return _measured(command, ["-m", "mx8shards.convert", "--help"], Path(files), Path(out), count)


def loop(files: str, out: str, count: int, decode: bool) -> Numbers:
    """Run the loop, and time the whole command."""
    command = ["-m", "benchmarks.adapters.mosaicml_folder", files, out, str(WORKERS), *(["--decode"] if decode else [])]
    return _measured(command, ["-c", "import benchmarks.adapters.mosaicml_folder"], Path(files), Path(out), count)


def one_by_one(count: int, what: str) -> Numbers:
    """The time per picture of each step on one core, the fastest of five passes."""
    payloads = GENERATED.make(count)
    if what == UNTILED:
        payloads = [tiles.tile(payload) for payload in payloads]
    each = {DECODED: simplejpeg.decode_jpeg, TILED_ONE: tiles.tile, UNTILED: tiles.untile}[what]
    each(payloads[0])
    with Measured() as whole:
        seconds = min(_pass_s(each, payloads) for _ in range(5))
    return {"images_per_s": count / seconds, "seconds": seconds, **whole.numbers}


def _pass_s(each: Callable[[bytes], object], payloads: list[bytes]) -> float:
    start = time.perf_counter()
    for payload in payloads:
        each(payload)
    return time.perf_counter() - start


def _measured(command: list[str], start: list[str], files: Path, out: Path, count: int) -> Numbers:
    page_cache.fill(files)
    began = time.perf_counter()
    _run(start)
    start_s = time.perf_counter() - began
    with Measured() as whole:
        _run(command)
        sync_files(out)
    shutil.rmtree(out)
    return {
        "images_per_s": count / whole.seconds,
        "seconds": whole.seconds,
        "without_start_s": whole.seconds - start_s,
        **whole.numbers,
    }


def _run(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: ended with {done.returncode}\n{done.stderr[-2000:]}")
