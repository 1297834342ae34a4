"""How is one part of a conversion written, so that it is complete or absent?"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.convert.additions import PATH
from mx8shards.convert.outcome import Reject
from mx8shards.convert.part_names import part_name
from mx8shards.convert.source import Item, Recipe, Source, exit_is_an_error, name_of
from mx8shards.convert.splits import Split
from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetNotFoundError, DiskError, SchemaError, SettingError, ShardsError, SourceError
from mx8shards.maintain.conversion import part_path
from mx8shards.writer import Writer

Tell = Callable[[int], object]

REJECTS, COUNTS = "rejects", "counts"  # keys of a part's metadata
CHANGED = "the source changed while it was converted"
AGAIN = "running the same command again converts the changed files and reuses the rest"
_LOCK_TIMEOUT_S = 30  # time for a worker of a killed conversion to notice and exit


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs: a source object or a Recipe that it opens, and `options` for the Writer."""

    source: Recipe | Source
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    append: bool = False
    split: Split | None = None
    resumes: bool = False  # accept datasets that an earlier call has published, if it had this source and these options

    @property
    def outputs(self) -> dict[str, Path]:
        """The output directory of each split by name; without splits, `out` under the name ""."""
        return {"": self.out} if self.split is None else {name: self.out / name for name in self.split.names}

    @property
    def subject(self) -> str:
        """The source's name, for errors."""
        return self.source.name if isinstance(self.source, Recipe) else name_of(self.source)


class Part(NamedTuple):
    """A written part."""

    path: Path
    rejects: tuple[Reject, ...]
    counts: Mapping[str, int]


class PartItems(NamedTuple):
    """The items of a part, and the dataset they belong to."""

    out: Path
    items: Sequence[Item]


def write_part(job: Job, source: Source, part_items: PartItems, basis: str, tell: Tell = lambda _: None) -> Part:
    """Write the part with these items, unless it exists. SourceError if their files change meanwhile.

    `tell` is called with the number of items done.
    """
    path = part_path(part_items.out, part_name(basis, source, part_items.items))
    try:
        with Dataset(path) as there:
            found = there.metadata
            return Part(path, tuple(Reject(*reject) for reject in found[REJECTS]), found.get(COUNTS, {}))
    except DatasetNotFoundError:
        pass
    getattr(source, "expect", lambda _: None)(part_items.items)
    before = Counter(_counts(source))
    rejects: list[Reject] = []
    with _part_writer(path, source, job.options) as writer:
        for number, item in enumerate(part_items.items):
            tell(number)
            with _naming(job, item):
                try:
                    sample = source.sample(item)
                    if job.append and sample.get(PATH) != item[0]:
                        raise _misnamed(job, item, sample)
                    writer.write(sample)
                except SourceError as error:
                    rejects.append(Reject(str(item[0]), str(error)))
                except MemoryError as error:
                    hint = "running the same command again resumes; fewer workers need less memory"
                    raise MemoryError(f"{item[0]}: there is not enough memory to convert it ({hint})") from error
        if part_name(basis, source, part_items.items) != path.name:
            raise SourceError(CHANGED, subject=job.subject, place=_range_text(part_items.items), hint=AGAIN)
        counts = dict(Counter(_counts(source)) - before)
        writer.set_metadata({REJECTS: rejects, COUNTS: counts})
    return Part(path, tuple(rejects), counts)


@contextlib.contextmanager
def _naming(job: Job, item: Item) -> Iterator[None]:
    """Add the name of the item to an error of its conversion."""
    with exit_is_an_error(job.subject, f"item {item[0]}"):
        try:
            yield
        except SchemaError as error:
            # the Writer gives the number of the sample in this part, which the user does not know
            column = re.sub(r"^sample \d+(, )?", "", error.subject)
            error.subject = f"item {item[0]}" + (f", {column}" if column else "")
            raise
        except Exception as error:
            if not isinstance(error, ShardsError | MemoryError):
                error.add_note(f"while item {item[0]} of {job.subject} was converted")
            raise


def _misnamed(job: Job, item: Item, sample: Mapping[str, Any]) -> SettingError:
    expected = f"a source that stores the name of the item, {item[0]!r}, in the column {PATH!r}"
    return SettingError(subject="append", place=job.subject, expected=expected, found=repr(sample.get(PATH)))


def _range_text(items: Sequence[Item]) -> str:
    return f"between {items[0][0]} and {items[-1][0]}"


def _counts(source: Source) -> Mapping[str, int]:
    return getattr(source, "counts", {})  # optional in a source


def _part_writer(path: Path, source: Source, options: Mapping[str, Any]) -> Writer:
    """A Writer for a part. Waits for the part's lock, which a worker of a killed conversion may hold briefly."""
    give_up = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return Writer(path, columns=dict(source.columns), metadata=source.metadata, threads=1, **options)
        except DiskError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > give_up:
                raise
        time.sleep(0.05)
