"""Who reads the same samples, from which files, and with which settings?"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import data, reading
from benchmarks.harness import Job, in_a_process, is_installed, say
from benchmarks.process import Numbers

OURS, MEMCPY = "mx8shards Loader", "bare memcpy"
MOSAIC, LIT, WEB = "streaming StreamingDataset", "litdata StreamingDataset", "WebDataset"
FFCV, SPDL = "FFCV", "SPDL over mapped MDS"
MOSAIC_LIST, LIT_LIST = "streaming, a list of bytes", "litdata, a list of views of its maps"

THREADS = len(os.sched_getaffinity(0))
BANKS = 6

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """Samples of one shape."""

    name: str
    columns: Mapping[str, str]
    sample_bytes: int
    samples: Callable[[int], Iterable[Mapping[str, Any]]]


def _blobs(count: int) -> Iterable[Mapping[str, Any]]:
    blobs = data.blobs(min(count, 300))
    return ({"image": blobs[i % len(blobs)]} for i in range(count))


def _arrays(count: int) -> Iterable[Mapping[str, Any]]:
    arrays = data.arrays(min(count, 20_000))
    return ({"array": arrays[i % len(arrays)], "label": i} for i in range(count))


BLOBS = Kind("100 KB blobs", {"image": "bytes"}, data.BLOB_BYTES, _blobs)
ARRAYS = Kind("4 KiB + int", {"array": "ndarray:int32:1024", "label": "int"}, 4 * data.ARRAY_ITEMS + 8, _arrays)


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who reads, the folder of the files it reads, and the settings of which the best ones are looked for."""

    name: str
    adapter: str
    folder: str
    tries: Sequence[Options] = ({},)
    needs: str = ""  # what must be installed
    rounds: int | None = None  # where fewer are enough


@dataclass(frozen=True, slots=True)
class Reading:
    """What all of a group are asked to do."""

    group: str
    root: Path
    run: Callable[..., Numbers]
    arguments: Options = field(default_factory=dict)
    best: str = "samples_per_s"  # the number that is looked for
    practice: Path | None = None  # small data of the same kind to begin with
    rounds: int | None = None


FORMATS = {
    "mds": "ours",
    "litdata": "lightning",
    "tar": "webds",
    "beton": "ffcv_beton",
}  # who writes what is in a folder


def peers(counts: Sequence[int] = (0, 1, 2, 4)) -> list[Contender]:
    """The loaders that our users would take instead. Each gives a batch's bytes as one block of memory, as we do."""
    tries = [{"workers": count} for count in counts]
    per_item = [{**options, "batch_decode": 0} for options in tries]
    threads = [{"threads": count} for count in range(1, THREADS + 1)]
    return [
        Contender(MOSAIC, "mosaicml", "mds", tries, "streaming"),
        Contender(LIT, "lightning", "litdata", [*per_item, *tries[:1]], "litdata"),
        Contender(WEB, "webds", "tar", tries, "webdataset"),
        Contender(SPDL, "spdl_threads", "mds", threads, "spdl.pipeline"),
        Contender(FFCV, "ffcv_beton", "beton", threads[-1:], "ffcv", rounds=2),  # it compiles for a quarter of a minute
    ]


def listing_peers() -> list[Contender]:
    """Two of them giving a list of what they have, which costs them least and leaves the copying to whoever comes."""
    return [
        Contender(MOSAIC_LIST, "mosaicml", "mds", [{"joined": False}], "streaming"),
        Contender(LIT_LIST, "lightning", "litdata", [{"joined": False, "batch_decode": 0}], "litdata"),
    ]


def memcpy(banks: int = BANKS) -> Contender:
    """What copying alone takes."""
    return Contender(MEMCPY, "memcpy", "mds", [{"threads": THREADS, "banks": banks}])


def write(directory: Path, kind: Kind, count: int, contenders: Sequence[Contender]) -> None:
    """The same samples in every format that the contenders who are here read."""
    directory.mkdir(parents=True, exist_ok=True)
    for folder in dict.fromkeys(contender.folder for contender in contenders if is_installed(contender.needs)):
        writer: Any = importlib.import_module(f"benchmarks.adapters.{FORMATS[folder]}")
        writer.write(directory / folder, kind.columns, kind.samples(count))


def jobs(asked: Reading, contenders: Sequence[Contender], *, quick: bool) -> list[Job]:
    """One job of each, with the settings that suit it best."""
    return [_tuned(_jobs(asked, contender), asked, quick) for contender in contenders]


def _jobs(asked: Reading, contender: Contender) -> list[Job]:
    return [
        Job(
            group=asked.group,
            contender=contender.name,
            run=asked.run,
            arguments={
                "adapter": contender.adapter,
                "options": options,
                **_places(asked, contender),
                **asked.arguments,
            },
            settings=dict(options),
            rounds=contender.rounds or asked.rounds,
            needs=contender.needs,
        )
        for options in contender.tries
    ]


def _places(asked: Reading, contender: Contender) -> Options:
    practice = {"practice": str(asked.practice / contender.folder)} if asked.practice else {}
    return {"root": str(asked.root / contender.folder), **practice}


def _tuned(tries: list[Job], asked: Reading, quick: bool) -> Job:
    """Each is tried once, and the best one kept, with what all of them gave in its settings."""
    if quick or len(tries) == 1 or not is_installed(tries[0].needs):
        return tries[0]
    shorter = {key: value / 2 for key, value in asked.arguments.items() if key == "seconds"}
    found = [
        in_a_process(replace(job, arguments={**job.arguments, **shorter}), asked.root)[asked.best] for job in tries
    ]
    shown = {", ".join(f"{k}={v}" for k, v in job.settings.items()): n for job, n in zip(tries, found, strict=True)}
    say(f"  tried  {asked.group}  {tries[0].contender}: {shown}")
    best = tries[found.index(max(found))]
    best.settings["tried"] = {asked.best: shown}
    return best


def warm_reading(group: str, kind: Kind, root: Path, count: int, batch_size: int, *, quick: bool) -> Reading:
    """Batches from files in the page cache, for a while."""
    arguments = {"samples": count, "sample_bytes": kind.sample_bytes, "batch_size": batch_size}
    return Reading(group, root, reading.warm, arguments | {"seconds": 0.05 if quick else 1.5})
