"""How are the items of a source written in parallel, and gone on with after a kill?

A part is a fixed run of items, whatever the number of workers: a complete dataset below `OUT/.mx8shards/parts/`, named
by a hash of all that its bytes depend on (`part_names`). A part that is there already is not written again. In the end
all parts are published as one, so the snapshot's id depends on nothing but the source and the options. Parts that a
changed source or other options have left are removed then.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.convert.part_names import basis_of, part_name
from mx8shards.convert.source import Item, Source, open_source
from mx8shards.convert.workers import in_order
from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetExistsError, DatasetNotFoundError, DiskError, SourceError
from mx8shards.maintain.conversion import only_conversion, part_path, remove_part, unused_parts
from mx8shards.maintain.merge import merge
from mx8shards.writer import Writer

PART_ITEMS = 2_000
REJECTS, COUNTS = "rejects", "counts"  # keys of a part's metadata
_CHANGED = "the source changed while it was converted"
_AGAIN = "the same command goes on with what has not changed"
_PATIENCE_S = 30  # for a worker of a conversion that was killed: it ends as soon as it notices

_logger = logging.getLogger("mx8shards")

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
    counts: Mapping[str, int] = field(default_factory=dict)  # of what else the source counts, such as turned pictures


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
    counts: Mapping[str, int]


def convert(job: Job, *, workers: int = 1, progress: Progress | None = None) -> Outcome:
    """Write all samples of a source into a new dataset.

    What cannot be made a sample is a reject. `progress` is told how many items are done, and how many there are.
    """
    _require_no_dataset(job.out)
    source = open_source(job.source, job.args)
    items = source.items()
    if not items:
        raise SourceError("there is nothing to convert", subject=job.source)
    with only_conversion(job.out):
        _require_no_dataset(job.out)  # another conversion may have just ended
        parts = _write_parts(job, source, items, workers, progress)
        outcome = _publish(job, source, parts, len(items))
        for path in unused_parts(job.out):
            try:
                remove_part(path)
            except DiskError as error:  # the dataset is there and sound: that is the news
                _logger.warning("left to gc: %s", error)
    return outcome


def _require_no_dataset(out: Path) -> None:
    if out.is_symlink() and not out.exists():
        raise DiskError("a symlink that leads nowhere, or to itself", subject=str(out))
    if (out / "index.json").exists():
        raise DatasetExistsError("a dataset is here already", subject=str(out), hint="convert makes a new one")


def _write_parts(
    job: Job, source: Source, items: Sequence[Item], workers: int, progress: Progress | None
) -> list[Part]:
    runs = [items[start : start + PART_ITEMS] for start in range(0, len(items), PART_ITEMS)]
    parts: list[Part] = []
    done = 0
    with contextlib.closing(_parts(job, source, runs, workers)) as written:
        for run, part in zip(runs, written, strict=True):
            parts.append(part)
            done += len(run)
            if progress is not None:
                progress(done, len(items))
    return parts


def _publish(job: Job, source: Source, parts: Sequence[Part], items: int) -> Outcome:
    rejects = tuple(reject for part in parts for reject in part.rejects)
    if len(rejects) == items:
        raise SourceError(f"none of {items} items could be converted: {rejects[0].reason}", subject=rejects[0].item)
    counts = dict(sorted(sum((Counter(part.counts) for part in parts), Counter[str]()).items()))
    ours = {"source": Path(job.source).name, "mx8shards": version("mx8shards"), REJECTS: len(rejects)}
    provenance = {**counts, **ours}  # a count of the source's own that has the name of one of ours is left out
    metadata = {**source.metadata, "conversion": provenance}
    snapshot = merge([part.path for part in parts], job.out, how="move", metadata=metadata)
    return Outcome(snapshot, items - len(rejects), rejects, counts)


def _parts(job: Job, source: Source, runs: Sequence[Sequence[Item]], workers: int) -> Generator[Part, None, None]:
    """The part of every run, in order, made by so many processes; by this one if it is alone."""
    basis = basis_of(job.source, vars(job.args), job.options, source)
    if workers <= 1:
        yield from (write_part(job, source, run, basis) for run in runs)
    else:
        yield from in_order(partial(_opened, job, basis), runs, workers, job.source)


def _opened(job: Job, basis: str) -> Callable[[Sequence[Item]], Part]:
    """What a worker does. It opens the source itself, and has to find the labels and options of the first process."""
    source = open_source(job.source, job.args)
    if basis_of(job.source, vars(job.args), job.options, source) != basis:
        raise SourceError(_CHANGED, subject=job.source, hint=_AGAIN)
    return partial(write_part, job, source, basis=basis)


def write_part(job: Job, source: Source, run: Sequence[Item], basis: str) -> Part:
    """The part of these items, written unless it is there. SourceError if their files change meanwhile."""
    path = part_path(job.out, part_name(basis, source, run))
    try:
        with Dataset(path) as there:
            found = there.metadata
            return Part(path, tuple(Reject(*reject) for reject in found[REJECTS]), found.get(COUNTS, {}))
    except DatasetNotFoundError:
        pass
    before = Counter(_counts(source))
    rejects: list[Reject] = []
    with _part_writer(path, source, job.options) as writer:
        for item in run:
            try:
                writer.write(source.sample(item))
            except SourceError as error:
                rejects.append(Reject(str(item[0]), str(error)))
            except MemoryError as error:
                hint = "the same command goes on with what is missing; fewer workers need less"
                raise MemoryError(f"{item[0]}: there is not enough memory to convert it ({hint})") from error
        if part_name(basis, source, run) != path.name:
            raise SourceError(_CHANGED, subject=job.source, place=_range_text(run), hint=_AGAIN)
        counts = dict(Counter(_counts(source)) - before)
        writer.set_metadata({REJECTS: rejects, COUNTS: counts})
    return Part(path, tuple(rejects), counts)


def _range_text(run: Sequence[Item]) -> str:
    return f"between {run[0][0]} and {run[-1][0]}"


def _counts(source: Source) -> Mapping[str, int]:
    return getattr(source, "counts", {})  # not every source counts something


def _part_writer(path: Path, source: Source, options: Mapping[str, Any]) -> Writer:
    """A Writer of a part. Only a worker that has not yet noticed the end of its conversion can have the part's lock."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return Writer(path, columns=dict(source.columns), threads=1, **options)
        except DiskError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > give_up:
                raise
        time.sleep(0.05)
