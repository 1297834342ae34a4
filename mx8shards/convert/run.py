"""How are the items of a source written in parallel, and gone on with after a kill?

A part is a fixed run of items, never of workers: a complete dataset below `OUT/.mx8shards/parts/`, named by a hash of
its items, of the state of their files and of all options. A part that is there already is not written again. In the end
all parts are published as one, so the snapshot's id depends on nothing but the source and the options.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.convert.source import Item, Source, open_source
from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetExistsError, DatasetNotFoundError, SourceError
from mx8shards.maintain.merge import merge
from mx8shards.writer import Writer

PART_ITEMS = 2_000
REJECTS = "rejects"  # the key of a part's metadata

Progress = Callable[[int, int], object]


class Reject(NamedTuple):
    """An item that no sample could be made of, and why."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a conversion."""

    snapshot: str
    samples: int
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker must know: it opens the source itself. `options` are the Writer's."""

    source: str
    args: argparse.Namespace
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)


class Part(NamedTuple):
    """A part that is there."""

    path: Path
    rejects: tuple[Reject, ...]


def convert(job: Job, *, workers: int = 1, progress: Progress | None = None) -> Outcome:
    """Write all samples of a source into a new dataset.

    What cannot be made a sample is a reject. `progress` is told how many items are done, and how many there are.
    """
    if (job.out / "index.json").exists():
        raise DatasetExistsError("a dataset is here already", subject=str(job.out), hint="convert makes a new one")
    source = open_source(job.source, job.args)
    items = source.items()
    if not items:
        raise SourceError("there is nothing to convert", subject=job.source)
    runs = [items[start : start + PART_ITEMS] for start in range(0, len(items), PART_ITEMS)]
    parts: list[Part] = []
    done = 0
    for run, part in zip(runs, _parts(job, source, runs, workers), strict=True):
        parts.append(part)
        done += len(run)
        if progress is not None:
            progress(done, len(items))
    rejects = tuple(reject for part in parts for reject in part.rejects)
    if len(rejects) == len(items):
        raise SourceError(
            f"none of {len(items)} items could be converted: {rejects[0].reason}", subject=rejects[0].item
        )
    provenance = {"source": Path(job.source).name, "mx8shards": version("mx8shards"), REJECTS: len(rejects)}
    metadata = {**source.metadata, "conversion": provenance}
    snapshot = merge([part.path for part in parts], job.out, how="move", metadata=metadata)
    return Outcome(snapshot, len(items) - len(rejects), rejects)


def _parts(job: Job, source: Source, runs: Sequence[Sequence[Item]], workers: int) -> Iterator[Part]:
    """The part of every run, in order, made by so many processes; by this one if it is alone."""
    if workers <= 1:
        yield from (write_part(job, source, run) for run in runs)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit threads that do not run in it
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_open, initargs=(job,))
    try:
        yield from pool.map(_write, runs)
    except BrokenProcessPool as error:
        hint = "the same command goes on with what is missing; fewer workers need less memory"
        raise SourceError("a worker was killed", subject=job.source, hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


_of_this_process: tuple[Job, Source] | None = None  # a worker opens the source once


def _open(job: Job) -> None:
    global _of_this_process  # noqa: PLW0603 - an initializer has no other way to leave something
    _of_this_process = job, open_source(job.source, job.args)


def _write(run: Sequence[Item]) -> Part:
    assert _of_this_process is not None
    return write_part(*_of_this_process, run)


def write_part(job: Job, source: Source, run: Sequence[Item]) -> Part:
    """The part of these items, written unless it is there."""
    path = job.out / ".mx8shards/parts" / part_name(job, source, run)
    try:
        with Dataset(path) as there:
            return Part(path, tuple(Reject(*reject) for reject in there.metadata[REJECTS]))
    except DatasetNotFoundError:
        pass
    rejects: list[Reject] = []
    with Writer(path, columns=dict(source.columns), threads=1, **job.options) as writer:
        for item in run:
            try:
                writer.write(source.sample(item))
            except SourceError as error:
                rejects.append(Reject(str(item[0]), str(error)))
        writer.set_metadata({REJECTS: rejects})
    return Part(path, tuple(rejects))


def part_name(job: Job, source: Source, run: Sequence[Item]) -> str:
    """A hash of all that the part's bytes depend on."""
    state = [[item, source.stamp(item)] for item in run]
    facts = [version("mx8shards"), source.metadata, dict(source.columns), dict(job.options), state]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
