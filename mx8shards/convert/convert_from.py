"""How does Python code convert a folder, a tar or a recipe to a dataset (`mx8.convert_from`)?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from mx8shards.convert.additions import check_place, shard_options
from mx8shards.convert.convert_in_parts import convert
from mx8shards.convert.into_store import Upload, convert_into_store, work_directory
from mx8shards.convert.outcome import Conversion
from mx8shards.convert.part_writing import Job
from mx8shards.convert.remote_sources import reads_fail_after
from mx8shards.convert.source import Recipe, Source, pickled, recipe_of
from mx8shards.convert.source_files import user_path
from mx8shards.convert.splits import parse_split
from mx8shards.convert.workers import check_importable, require_no_worker
from mx8shards.errors import SettingError, finite_seconds, shown, true_or_false, whole_number
from mx8shards.format import compression as compressions
from mx8shards.format.sizes import parse_size_limit
from mx8shards.maintain.rejects import keep_rejects
from mx8shards.shards.links import is_url, parse_any, parse_any_target

MOST_WORKERS = 1 << 12


def convert_from(
    source: str | os.PathLike[str] | Source,
    src: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    append: bool = False,
    split: Mapping[str, float] | str | None = None,
    seed: int = 0,
    workers: int = 1,
    size_limit: int | str | None = "auto",
    compression: str | None = "auto",
    single_writer: bool = False,
    deadline_s: float = 300.0,
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> Conversion:
    """Convert a source to a new dataset, or append to one, and report the result.

    A source is the name of a built-in source, the path of a recipe, or an object (`mx8shards.convert.source.Source`):

        mx8.convert_from("imagefolder", "photos/", "data/photos", workers=8, max_side=512)
        mx8.convert_from("converters/imagenet.py", "ILSVRC2012_img_train.tar", "data/train", workers=8)
        mx8.convert_from(MyRecipe("scans/"), out="data/scans")

    Args:
        source: The name of a built-in source (`"imagefolder"`), the path of a recipe's .py file, or an object.
        src: The source's first argument, such as a folder. None if the source is an object, which has its arguments.
        out: The directory or URL of the dataset to create, or with append the directory to extend.
        append: Add new files in SRC to the dataset in OUT, as a new snapshot. Files are identified by their paths: a
            file that was converted is not converted again, even if it changed, and samples of removed files stay.
            Rejects are tried again. New classes are added after the existing ones, so labels keep their meaning.
        split: Divide the files into datasets, with shares that add up to 1: `train=0.9,val=0.1` writes about 90 % of
            them to OUT/train. A hash of a file's path selects its split, so it stays there when others are added.
        seed: Only with split: another number assigns the files to the splits differently.
        workers: Number of worker processes. The dataset is identical for any number.
        size_limit: Maximum size of a shard. auto: 64mb, or with append the limit of the existing dataset.
        compression: Compression of shards: zstd, zstd:9, gz … auto: none, or with append that of the existing dataset.
        single_writer: Also upload to a store without conditional puts. No other process may write there then.
        deadline_s: Where SRC or OUT is a URL, how many seconds its store may fail to answer before that is an error.
        progress: Called with the number of items done and the total number of items.
        options: Options of the source. `help(mx8shards.convert.imagefolder.ImageFolder)` lists those of imagefolder.

    A file that cannot be converted is a reject, listed in the report. To resume an interrupted conversion, make the
    same call again. Every split is published completely or not at all. If one was published and the source has changed
    since, the same call raises SourceError; then use `append=True` to add the new files.

    Workers are new processes. They import the script only if `source` is an object whose class is defined there; the
    script then needs `if __name__ == "__main__":` around the call. A class in a notebook needs `workers=1`.
    """
    require_no_worker()
    workers = whole_number("workers", workers, 1, MOST_WORKERS)
    parts = parse_split(split, seed)
    target, upload = _target(out, append, single_writer, deadline_s)
    origin = _origin(source, src, options, workers)
    _check_outside(src, target if upload is None else upload.url)
    check_place(target, parts)
    job = _with_shard_options(Job(origin, target, _given(size_limit, compression), bool(append), parts))
    with reads_fail_after(deadline_s):
        return _converted(job, upload, workers, progress)


def _converted(
    job: Job, upload: Upload | None, workers: int, progress: Callable[[int, int], object] | None
) -> Conversion:
    """Convert in a directory, and upload what was made if it is for a store."""
    if upload is not None:
        return convert_into_store(job, upload, workers=workers, progress=progress)
    return _with_files(convert(job, workers=workers, progress=progress))


def _target(out: Any, append: bool, single_writer: bool, deadline_s: float) -> tuple[Path, Upload | None]:
    """The directory to make the dataset in, and where to upload it, if `out` is a URL."""
    true_or_false("append", append)
    true_or_false("single_writer", single_writer)
    deadline_s = finite_seconds("deadline_s", deadline_s)
    if out is None:
        raise SettingError(subject="out", expected="the directory of the dataset", found="none")
    if isinstance(out, str | os.PathLike) and not is_url(os.fspath(out)):
        user_path(out)  # an error for a path that cannot be one, in the words for paths
    where = parse_any_target(out)
    if isinstance(where, Path):
        return user_path(out), None
    if append:
        hint = "sync the dataset to a directory, append there, and sync that to the URL"
        raise SettingError(subject="append", expected="False where OUT is a URL", found="True", hint=hint)
    return work_directory(where), Upload(where, single_writer, deadline_s)


def _given(size_limit: int | str | None, compression: str | None) -> dict[str, Any]:
    """The options that are not "auto". SettingError for a value that is not allowed."""
    if size_limit != "auto":
        parse_size_limit(size_limit)
    if compression != "auto":
        compressions.check(compression)
    options = {"size_limit": size_limit, "compression": compression}
    return {name: value for name, value in options.items() if value != "auto"}


def _with_shard_options(job: Job) -> Job:
    """The job with its missing options filled in: with append those of the dataset, otherwise the defaults."""
    before = shard_options(job.outputs.values()) if job.append else {}
    return replace(job, options={"size_limit": "64mb", "compression": None, **before, **job.options})


def _origin(source: Any, src: Any, options: Mapping[str, Any], workers: int) -> Recipe | Source:
    """The recipe or the source object; SettingError if workers could not import the object's class."""
    if isinstance(source, str | os.PathLike):
        return recipe_of(os.fspath(source), src, options)
    missing = [name for name in ("columns", "metadata", "items", "stamp", "sample") if not hasattr(source, name)]
    if missing or isinstance(source, type):
        expected = "a source's name, a recipe's file, or an object with columns, metadata, items, stamp and sample"
        raise SettingError(subject="source", expected=expected, found=shown(source))
    if src is not None or options:
        given = {**({} if src is None else {"src": src}), **options}
        name, value = next(iter(given.items()))
        hint = "an object has its arguments already; pass out= as a keyword"
        raise SettingError(subject=name, expected="nothing", found=shown(value), hint=hint)
    check_importable(pickled(source), type(source).__name__, workers)
    origin: Source = source
    return origin


def _check_outside(src: Any, out: Path | str) -> None:
    """SettingError if `out` lies in the source's folder, because the conversion would change its own input."""
    if not isinstance(src, str | os.PathLike) or is_url(os.fspath(src)) != isinstance(out, str):
        return
    if isinstance(out, str):
        source, target = PurePosixPath(str(parse_any(src))), PurePosixPath(out)
    else:
        source, target = (PurePosixPath(os.path.realpath(path)) for path in (user_path(src), out))
    if source == target or source in target.parents:
        raise SettingError(subject="out", expected=f"a directory outside of SRC ({os.fspath(src)})", found=str(out))


def _with_files(report: Conversion) -> Conversion:
    """The report, after writing the rejects of each dataset to a file."""
    if report.splits:
        return replace(report, splits={name: _with_files(split) for name, split in report.splits.items()})
    if not report.rejects or report.snapshot is None:
        return report
    return replace(report, rejects_file=keep_rejects(Path(report.out), report.snapshot, report.rejects))
