"""How long does the first use on a machine take, while Numba compiles the kernels?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import picture_contenders, pictures
from benchmarks.harness import Column, Job, Target, Wanted, is_installed
from benchmarks.loader_contenders import ARRAYS
from benchmarks.picture_contenders import FFCV
from benchmarks.process import Measured, Numbers

NEEDS_BYTES = 300_000_000
NOTES = """\
- Each run is a new process. Cold: Numba's cache is empty. Warm: an earlier process filled it, as `mx8shards warm-up`
  does. FFCV has no cache, so it compiles in every process.
- Import: mx8shards or ffcv, and torch. First batch: from the import to the first batch of 32 samples. Convert is one
  command that tiles 32 pictures, so it has only a total.
- Compilation is single-threaded, so its processor time is also the time a user waits on an idle machine.
"""
COLUMNS = (
    Column(title="import, processor s", number="import_core_s", digits=1),
    Column(title="first batch, processor s", number="first_core_s", digits=1),
    Column(title="total, processor s", number="core_s", digits=1),
    Column(title="total, s", number="seconds", digits=1),
)
COLD, WARM = "cold cache", "warm cache"
GATHER, TILED, UNTOUCHED = "4 KiB arrays", "random crops, tiled", "random crops, untouched files"
PLANES, EXACT, CONVERT = "random crops, yuv420", "random crops, exact", "convert, 32 pictures"

_BATCH = 32
_COUNT = 32  # number of pictures

# Each group's adapter, folder and options.
_READ: dict[str, tuple[str, str, dict[str, object]]] = {
    GATHER: ("ours", "arrays", {}),
    TILED: ("ours_images", "tiled", {"crops": "random"}),
    UNTOUCHED: ("ours_images", "mds", {"crops": "random"}),
    PLANES: ("ours_images", "yuv420", {"crops": "random"}),
    EXACT: ("ours_images", "tiled", {"crops": "random", "exact": True}),
}

_FIRST_BATCH = """
import importlib, json, sys, time
from pathlib import Path
adapter, root, options = json.loads(sys.argv[1])
importlib.import_module("ffcv" if adapter == "ffcv_images" else "mx8shards").Loader
module = importlib.import_module(f"benchmarks.adapters.{adapter}")
import_core_s = time.process_time()
loader = module.open_loader(Path(root), **options)
next(iter(loader))
print(json.dumps({"import_core_s": import_core_s, "first_core_s": time.process_time() - import_core_s}))
loader.close()
"""


def prepare(directory: Path, *, quick: bool) -> None:
    """Write a few samples of each kind."""
    from benchmarks.adapters import ours

    ours.write(directory / "arrays", dict(ARRAYS.columns), ARRAYS.samples(64))
    if quick:
        return
    pictures.write_folder(directory / "files", pictures.generated(8), _COUNT)
    for form in ["tiled", "mds", "yuv420", *(["beton"] if is_installed("ffcv") else [])]:
        picture_contenders.write(directory, form)


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """Every first use with a cold and a warm cache, and FFCV's first batch."""
    found = []
    for group, (adapter, folder, options) in _READ.items():
        if quick and group != GATHER:
            continue
        asked = {"adapter": adapter, "root": str(directory / folder), "options": {"batch_size": _BATCH, **options}}
        found += [
            Job(group=group, contender=name, run=first_batch, arguments={**asked, "cache": cache})
            for name, cache in _caches(directory, quick=quick)
        ]
        if group == UNTOUCHED:
            asked["adapter"], asked["root"] = "ffcv_images", str(directory / "beton")
            asked["options"] = {
                "batch_size": _BATCH,
                "crops": "random",
                "threads": picture_contenders.THREADS,
                "ahead": 3,
            }
            found.append(
                Job(group=group, contender=FFCV, run=first_batch, arguments={**asked, "cache": None}, needs="ffcv")
            )
    if not quick:
        found += [
            Job(group=CONVERT, contender=name, run=convert, arguments={"files": str(directory / "files"), "cache": c})
            for name, c in _caches(directory, quick=quick)
        ]
    return found


def _caches(directory: Path, *, quick: bool) -> list[tuple[str, str | None]]:
    """An empty cache (None), and one that is filled before: in quick runs Numba's own (""), as it is."""
    return [(COLD, None), (WARM, "" if quick else str(directory / "kernels"))]


def targets() -> list[Target]:
    """Limits of processor time with a cold cache."""
    return [
        Target(
            "the first batch of crops: within 15 s of processor time",
            (Wanted(group=TILED, contender=COLD, number="core_s", most=15),),
        ),
        Target(
            "convert: within 5 s of processor time", (Wanted(group=CONVERT, contender=COLD, number="core_s", most=5),)
        ),
    ]


# in a process of its own ------------------------------------------------------------------------------------------


def first_batch(adapter: str, root: str, options: dict[str, object], cache: str | None) -> Numbers:
    """The time from the start of a process to its first batch."""
    question = json.dumps((adapter, root, options))
    return _measured([sys.executable, "-W", "ignore", "-c", _FIRST_BATCH, question], cache)


def convert(files: str, cache: str | None) -> Numbers:
    """The time of `mx8shards convert` with one worker."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "mx8shards", "convert", "imagefolder", files]
        return _measured([*command, f"{out}/measured"], cache, [*command, f"{out}/before"])


def _measured(command: list[str], cache: str | None, before: list[str] | None = None) -> Numbers:
    """Run a command with an empty cache, or with one that `before` or an earlier run of the command has filled."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "NUMBA_CACHE_DIR": empty if cache is None else cache}
        if cache:
            _run(before or command, environment)
        with Measured() as whole:
            answer = _run(command, environment)
    found: Numbers = json.loads(answer) if answer.startswith("{") else {}
    return {**found, "core_s": whole.numbers["processor_s"], "seconds": whole.seconds, **whole.numbers}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:5])}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout
