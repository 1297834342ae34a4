"""How are the items of a source converted in parallel, and resumed after a kill?

A part holds a fixed range of items, independent of the number of workers. It is a complete dataset below
`OUT/.mx8shards/parts/`, named by a hash of everything that its bytes depend on (`part_names`). Existing parts are not
written again. At the end all parts are merged and published, so the snapshot's id depends only on the source, the
options and, with `append`, the snapshot that is appended to. Then the parts of other options or of an older state of
the source are removed.

Every split is a dataset. The parts of all splits are written before the first split is published. After a kill between
two publications, the published splits are not converted again, and the others are converted from the same source. It is
an error if the source has changed since, because new files of a published split would be missing from all datasets.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mx8shards.convert.additions import (
    CLASSES,
    CONVERSION,
    PATH,
    SPLIT,
    Base,
    check_fits,
    find_base,
    new_items,
    with_labels_of,
    with_paths,
)
from mx8shards.convert.outcome import Conversion, Reject, summed
from mx8shards.convert.part_names import basis_of, part_name
from mx8shards.convert.part_writing import AGAIN, CHANGED, REJECTS, Job, Part, PartItems, Tell, write_part
from mx8shards.convert.source import Item, Recipe, Source, items_of, name_of, opened
from mx8shards.convert.workers import map_in_processes
from mx8shards.errors import DatasetExistsError, DiskError, SettingError, ShardsError, SourceError
from mx8shards.maintain.conversion import converted, keep_converted, only_conversion, remove_part, unused_parts
from mx8shards.maintain.merge import merge
from mx8shards.writer import Writer

PART_ITEMS = 2_000

_logger = logging.getLogger("mx8shards")

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A dataset to make or append to, and its new items.

    If a killed conversion has published it already, it is `finished`, and `items` are compared with those it recorded.
    """

    out: Path
    base: Base | None
    items: Sequence[Item]
    known: int
    split: Mapping[str, Any] | None
    finished: bool = False

    @property
    def part_items(self) -> list[PartItems]:
        """The items, divided into parts."""
        starts = range(0, len(self.items), PART_ITEMS)
        return [PartItems(self.out, self.items[start : start + PART_ITEMS]) for start in starts]


def convert(job: Job, *, workers: int = 1, progress: Progress | None = None) -> Conversion:
    """Convert a source to a new dataset, or to one for each split; with `append`, add the new items to existing ones.

    Items that cannot be converted are rejects. `progress` is called with the number of items done and in total.
    """
    begun = time.monotonic()
    bases = _find_bases(job)
    source = opened(job.source)
    if job.append:
        origin = with_labels_of(job.source, source, [base for base in bases.values() if base])
        if origin is not job.source:
            job = Job(origin, job.out, job.options, job.append, job.split)
            source = opened(origin)
    targets = _targets(job, source, bases)
    with contextlib.ExitStack() as held:
        for target in targets.values():
            held.enter_context(only_conversion(target.out))
        _require_same(job, bases)  # another conversion may have published before we got the lock
        finished = {name: _recorded(job, source, target) for name, target in targets.items() if target.finished}
        targets = {name: target for name, target in targets.items() if not target.finished}
        parts = _write_parts(job, source, targets, workers, progress)
        for target in targets.values():
            _check_not_all_rejected(target, parts[target.out])
        found = dict(finished)
        for name, target in targets.items():
            with _naming_published_splits(found):
                found[name] = _publish(job, source, target, parts[target.out])
        for out in job.outputs.values():
            _remove_unused_parts(out)
    return _combined(job, {name: found[name] for name in job.outputs}, time.monotonic() - begun)


# targets --------------------------------------------------------------------------------------------------------------


def _find_bases(job: Job) -> dict[str, Base | None]:
    """The existing dataset of each split, or None. DatasetExistsError if new datasets cannot be made."""
    for path in {job.out, *job.outputs.values()}:
        if path.is_symlink() and not path.exists():
            raise DiskError("a broken symlink", subject=str(path))
    bases = {name: find_base(path) for name, path in job.outputs.items()}
    if job.split is not None and (job.out / "index.json").exists():
        raise DatasetExistsError(
            "the directory already contains a dataset", subject=str(job.out), hint="the splits would lie inside it"
        )
    if not (job.append or job.resumes) and all(bases.values()):
        hint = "give another OUT, or append=True (--append) to add the new files"
        raise DatasetExistsError("the directory already contains a dataset", subject=str(job.out), hint=hint)
    return bases


def _targets(job: Job, source: Source, bases: Mapping[str, Base | None]) -> dict[str, Target]:
    """The Target of each split."""
    if job.append and source.columns.get(PATH) != "str":
        expected = f"a source with a column {PATH!r} of encoding str, which identifies converted items"
        raise SettingError(subject="append", expected=expected, found=f"the columns {dict(source.columns)}")
    items = items_of(source, job.subject)
    if not items:
        raise SourceError("there is nothing to convert", subject=job.subject)
    parted: dict[str, list[Item]] = {name: [] for name in bases}
    if job.split is not None:
        group_of = getattr(source, "group", lambda item: str(item[0]))  # optional in a source
        for item in items:
            parted[job.split.of(group_of(item))].append(item)
    targets = {}
    for name, base in bases.items():
        mine = items if job.split is None else parted[name]
        facts = None if job.split is None else job.split.facts(name)
        if base is not None:
            check_fits(base, source, facts)
        elif not mine:
            hint = "add files, give the split a larger share, or use another seed"
            raise SourceError(subject=name, expected="items for this split", found=f"none of {len(items)}", hint=hint)
        finished = base is not None and not job.append
        new = mine if finished else new_items(with_paths(base) if base else None, mine)
        targets[name] = Target(job.outputs[name], base, new, len(mine) - len(new), facts, finished)
    return targets


def _require_same(job: Job, bases: Mapping[str, Base | None]) -> None:
    """DatasetExistsError if a snapshot was published since the bases were read."""
    for name, path in job.outputs.items():
        now, base = find_base(path), bases[name]
        if (now.snapshot if now else None) != (base.snapshot if base else None):
            raise DatasetExistsError("another process has published a dataset here meanwhile", subject=str(path))


def _recorded(job: Job, source: Source, target: Target) -> Conversion:
    """The result of a split that a killed conversion published. SourceError if the source or the options differ."""
    assert target.base is not None
    basis = basis_of(job.source, job.options, source)
    names = [part_name(basis, source, each.items) for each in target.part_items]
    record = converted(target.out)
    if record is None or record[0] != names:
        hint = "use append=True (--append) to add new files to this split and make the others, or remove this split"
        if job.resumes:
            hint = "an interrupted upload has left this directory: remove it to convert anew"
        raise SourceError(
            subject=str(target.out),
            expected="the source, options and versions of packages that this split was published with",
            found="different ones, or no record of them",
            hint=hint,
        )
    again = tuple(Reject(*reject) for reject in record[1])
    return Conversion(target.out, target.base.snapshot, 0, again, known=target.base.samples)


# parts ----------------------------------------------------------------------------------------------------------------


def _write_parts(
    job: Job, source: Source, targets: Mapping[str, Target], workers: int, progress: Progress | None
) -> dict[Path, list[Part]]:
    """Write the parts of each target, and return them in order."""
    to_write = [each for target in targets.values() for each in target.part_items]
    parts: dict[Path, list[Part]] = {target.out: [] for target in targets.values()}
    counts, done, total = [0] * len(to_write), 0, sum(len(each.items) for each in to_write)

    def tell(number: int, items: int) -> None:
        nonlocal done
        done += items - counts[number]
        counts[number] = items
        if progress is not None:
            progress(done, total)

    with contextlib.closing(_parts(job, source, to_write, workers, tell)) as written:
        for number, (each, part) in enumerate(zip(to_write, written, strict=True)):
            parts[each.out].append(part)
            tell(number, len(each.items))
    return parts


def _parts(
    job: Job, source: Source, to_write: Sequence[PartItems], workers: int, tell: Callable[[int, int], None]
) -> Generator[Part, None, None]:
    """Write the parts, in this process if `workers` is 1, otherwise in worker processes; yields them in order.

    `tell` is called with the number of a part and how many of its items are done.
    """
    basis = basis_of(job.source, job.options, source)
    if workers <= 1:
        for number, each in enumerate(to_write):
            yield write_part(job, source, each, basis, partial(tell, number))
    elif to_write:
        pickled = source if getattr(source, "travels", False) else None
        start = partial(_open_in_worker, job, basis, pickled)
        yield from map_in_processes(start, to_write, workers, job.subject, tell)


def _open_in_worker(job: Job, basis: str, pickled: Source | None) -> Callable[[PartItems, Tell], Part]:
    """Open the source in a worker, unless it came along. SourceError if its labels or files differ from the first's."""
    source = opened(job.source) if pickled is None else pickled
    if pickled is None and isinstance(job.source, Recipe) and basis_of(job.source, job.options, source) != basis:
        raise SourceError(CHANGED, subject=job.subject, hint=AGAIN)
    return lambda each, tell: write_part(job, source, each, basis, tell)


# publishing -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _naming_published_splits(published: Mapping[str, Conversion]) -> Iterator[None]:
    """Add to an error which splits are already published."""
    try:
        yield
    except ShardsError as error:
        if published:
            what = f"already published: {', '.join(published)}; running the same command again converts the others"
            error.hint = f"{error.hint}; {what}" if error.hint else what
        raise


def _check_not_all_rejected(target: Target, parts: Sequence[Part]) -> None:
    """SourceError if a new dataset would have no samples."""
    rejects = [reject for part in parts for reject in part.rejects]
    if target.base is None and len(rejects) == len(target.items):
        raise SourceError(
            f"none of {len(rejects)} items could be converted: {rejects[0].reason}", subject=rejects[0].item
        )


def _publish(job: Job, source: Source, target: Target, parts: Sequence[Part]) -> Conversion:
    base, rejects = target.base, tuple(reject for part in parts for reject in part.rejects)
    counts = summed(part.counts for part in parts)
    samples = len(target.items) - len(rejects)
    provenance = _provenance(job, target, counts, len(rejects))
    if versions := getattr(source, "versions", None):  # optional in a source
        provenance["versions"] = dict(versions)
    metadata = {**source.metadata, CONVERSION: provenance}
    if base is None:
        if target.split is not None or job.resumes:
            keep_converted(target.out, [part.path.name for part in parts], rejects)
        snapshot = merge([part.path for part in parts], target.out, how="move", metadata=metadata)
    elif samples:
        metadata = {**base.metadata, **metadata}
        paths = [part.path for part in parts]
        snapshot = merge(paths, target.out, how="move", mode="append", metadata=metadata, onto=base.snapshot)
    else:
        snapshot = _with_classes(target.out, base, source)
    return Conversion(target.out, snapshot, samples, rejects, counts, target.known)


def _provenance(job: Job, target: Target, counts: Mapping[str, int], rejects: int) -> dict[str, Any]:
    """The metadata about the conversion. Counts cover all samples, `rejects` only this run."""
    ours = {"source": name_of(job.source), "mx8shards": version("mx8shards"), REJECTS: rejects}
    if target.split is not None:
        ours[SPLIT] = target.split
    before = target.base.conversion if target.base else {}
    old = {name: count for name, count in before.items() if name not in ours and isinstance(count, int)}
    return {**summed([old, counts]), **ours}  # our keys win over a source's count of that name


def _with_classes(out: Path, base: Base, source: Source) -> str:
    """Publish a longer list of classes without new samples, because all splits must have equal lists."""
    classes = source.metadata.get(CLASSES)
    if classes is None or list(classes) == base.classes:
        return base.snapshot
    with Writer(out, columns=dict(source.columns), mode="append") as writer:
        writer.set_metadata({**base.metadata, CLASSES: list(classes)})
    assert writer.snapshot is not None
    return writer.snapshot


def _remove_unused_parts(out: Path) -> None:
    for path in unused_parts(out):
        try:
            remove_part(path)
        except DiskError as error:  # only a warning, because the dataset is published
            _logger.warning("an unused part was not removed; gc will do it: %s", error)


def _combined(job: Job, found: Mapping[str, Conversion], seconds: float) -> Conversion:
    """The result of the whole conversion."""
    reports = list(found.values())
    if job.split is None:
        (one,) = reports
        return Conversion(one.out, one.snapshot, one.samples, one.rejects, one.counts, one.known, seconds=seconds)
    return Conversion(
        job.out,
        None,
        sum(report.samples for report in reports),
        tuple(reject for report in reports for reject in report.rejects),
        summed(report.counts for report in reports),
        sum(report.known for report in reports),
        splits=dict(found),
        seconds=seconds,
    )
