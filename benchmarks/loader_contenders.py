"""Which loaders are compared, on which files, with which settings? Contenders for the loader benchmarks."""

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
    """A kind of samples: their columns, size and values."""

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
    """A loader, the folder of the files it reads, and the settings to try, of which the fastest are measured."""

    name: str
    adapter: str
    folder: str
    tries: Sequence[Options] = ({},)
    needs: str = ""  # a module it needs
    rounds: int | None = None  # fewer rounds than the others, if set


@dataclass(frozen=True, slots=True)
class Reading:
    """The task of all contenders of a group."""

    group: str
    root: Path
    run: Callable[..., Numbers]
    arguments: Options = field(default_factory=dict)
    best: str = "samples_per_s"  # the number by which settings are chosen
    practice: Path | None = None  # small data of this kind to read before the measurement
    rounds: int | None = None


FORMATS = {
    "mds": "ours",
    "litdata": "lightning",
    "tar": "webds",
    "beton": "ffcv_beton",
}  # the adapter that writes each folder


def peers(counts: Sequence[int] = (0, 1, 2, 4)) -> list[Contender]:
    """The alternatives to our loader. Each delivers the bytes of a batch as one block of memory, as we do."""
    tries = [{"workers": count} for count in counts]
    per_item = [{**options, "batch_decode": 0} for options in tries]
    threads = [{"threads": count} for count in range(1, THREADS + 1)]
    return [
        Contender(MOSAIC, "mosaicml", "mds", tries, "streaming"),
        Contender(LIT, "lightning", "litdata", [*per_item, *tries[:1]], "litdata"),
        Contender(WEB, "webds", "tar", tries, "webdataset"),
        Contender(SPDL, "spdl_threads", "mds", threads, "spdl.pipeline"),
        Contender(FFCV, "ffcv_beton", "beton", threads[-1:], "ffcv", rounds=2),  # it compiles for 15 s
    ]


def peers_returning_lists() -> list[Contender]:
    """Two peers that return a list of values, which is cheapest for them, because the consumer has to copy."""
    return [
        Contender(MOSAIC_LIST, "mosaicml", "mds", [{"joined": False}], "streaming"),
        Contender(LIT_LIST, "lightning", "litdata", [{"joined": False, "batch_decode": 0}], "litdata"),
    ]


def memcpy(banks: int = BANKS) -> Contender:
    """Copying alone, as the upper bound."""
    return Contender(MEMCPY, "memcpy", "mds", [{"threads": THREADS, "banks": banks}])


def write(directory: Path, kind: Kind, count: int, contenders: Sequence[Contender]) -> None:
    """Write samples in every format that the installed contenders read."""
    directory.mkdir(parents=True, exist_ok=True)
    for folder in dict.fromkeys(contender.folder for contender in contenders if is_installed(contender.needs)):
        writer: Any = importlib.import_module(f"benchmarks.adapters.{FORMATS[folder]}")
        writer.write(directory / folder, kind.columns, kind.samples(count))


def jobs(asked: Reading, contenders: Sequence[Contender], *, quick: bool) -> list[Job]:
    """One job for each contender, with its fastest settings."""
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
                **_data_paths(asked, contender),
                **asked.arguments,
            },
            settings=dict(options),
            rounds=contender.rounds or asked.rounds,
            needs=contender.needs,
        )
        for options in contender.tries
    ]


def _data_paths(asked: Reading, contender: Contender) -> Options:
    practice = {"practice": str(asked.practice / contender.folder)} if asked.practice else {}
    return {"root": str(asked.root / contender.folder), **practice}


def _tuned(tries: list[Job], asked: Reading, quick: bool) -> Job:
    """Try each setting once and return the fastest job, with the results of all tries in its settings."""
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
    """The task of reading batches from files in the page cache for some seconds."""
    arguments = {"samples": count, "sample_bytes": kind.sample_bytes, "batch_size": batch_size}
    return Reading(group, root, reading.warm, arguments | {"seconds": 0.05 if quick else 1.5})
