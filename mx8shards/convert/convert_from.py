"""How is a dataset made of a folder, a tar, or a source of one's own, from Python?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mx8shards.convert.outcome import Conversion
from mx8shards.convert.part_writing import Job
from mx8shards.convert.run import convert
from mx8shards.convert.source import Recipe, Source, pickled, recipe_of
from mx8shards.convert.source_files import user_path
from mx8shards.convert.splits import parse_split
from mx8shards.convert.workers import check_importable, require_no_worker
from mx8shards.errors import SettingError, shown, true_or_false, whole_number
from mx8shards.format import compression as compressions
from mx8shards.format.sizes import parse_size_limit
from mx8shards.maintain.rejects import keep_rejects

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
    size_limit: int | str | None = "64mb",
    compression: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> Conversion:
    """Write the samples of a source into a new dataset, and report what came of it.

    A source has a name if it is built in, or a recipe's file, or it is an object (`mx8shards.convert.source.Source`):

        mx8.convert_from("imagefolder", "photos/", "data/photos", workers=8, max_side=512)
        mx8.convert_from("converters/imagenet.py", "ILSVRC2012_img_train.tar", "data/train", workers=8)
        mx8.convert_from(MyRecipe("scans/"), out="data/scans")

    Args:
        source: The name of a built-in source (`"imagefolder"`), the path of a recipe's .py file, or an object.
        src: What the source reads: its first argument. An object has it already.
        out: The directory of the dataset.
        append: Add what is new in SRC to the dataset in OUT, as a new snapshot. A file is known by its path. One that
            changed since is not converted again, and the sample of one that was removed stays; rejects are tried again.
            New classes come behind those that are there, so labels keep their meaning.
        split: Shares of datasets that are made side by side, OUT/train and OUT/val of `train=0.9,val=0.1`. A hash of a
            file's path decides, so a file stays in its split when others are added.
        seed: Another number splits in another way.
        workers: Number of processes. The result does not depend on it.
        size_limit: Largest size of a shard.
        compression: Compression of shards: zstd, zstd:9, gz … (default: none)
        progress: Called with the number of items that are done, and of all.
        options: Those of the source; `help(mx8shards.convert.imagefolder.ImageFolder)` explains the built-in ones.

    A file that cannot be converted is a reject, listed in the report. A conversion that was interrupted goes on where
    it stopped when the same call is made again; every split is a dataset that is published whole or not at all.

    Works in scripts and notebooks. Workers are fresh processes: only if `source` is an object whose class is defined in
    the script itself do they import the script, which then needs `if __name__ == "__main__":` around the call. A class
    that is defined in a notebook can be used with `workers=1`; put it into a module for more.
    """
    require_no_worker()
    true_or_false("append", append)
    workers = whole_number("workers", workers, 1, MOST_WORKERS)
    parts = parse_split(split, seed)
    parse_size_limit(size_limit)
    compressions.check(compression)
    if out is None:
        raise SettingError(subject="out", expected="the directory of the dataset", found="none")
    target = user_path(out)
    origin = _origin(source, src, options)
    _check_outside(src, target)
    if not isinstance(origin, Recipe):
        check_importable(pickled(origin), type(origin).__name__, workers)
    job = Job(origin, target, {"size_limit": size_limit, "compression": compression}, bool(append), parts)
    return _with_files(convert(job, workers=workers, progress=progress))


def _origin(source: Any, src: Any, options: Mapping[str, Any]) -> Recipe | Source:
    if isinstance(source, str | os.PathLike):
        return recipe_of(os.fspath(source), src, options)
    missing = [name for name in ("columns", "metadata", "items", "stamp", "sample") if not hasattr(source, name)]
    if missing or isinstance(source, type):
        expected = "a source's name, a recipe's file, or an object with columns, metadata, items, stamp and sample"
        raise SettingError(subject="source", expected=expected, found=shown(source))
    if src is not None or options:
        given = {**({} if src is None else {"src": src}), **options}
        name, value = next(iter(given.items()))
        hint = "a source that is an object has its arguments already; give out= by its name"
        raise SettingError(subject=name, expected="nothing", found=shown(value), hint=hint)
    origin: Source = source
    return origin


def _check_outside(src: Any, out: Path) -> None:
    """SettingError for a dataset among the files that it is made of, which it would change."""
    if not isinstance(src, str | os.PathLike):
        return
    source, target = (Path(os.path.realpath(path)) for path in (user_path(src), out))
    if source == target or source in target.parents:
        raise SettingError(subject="out", expected=f"a directory outside of SRC ({os.fspath(src)})", found=str(out))


def _with_files(report: Conversion) -> Conversion:
    """The report with files that list the rejects of each dataset."""
    if report.splits:
        return replace(report, splits={name: _with_files(split) for name, split in report.splits.items()})
    if not report.rejects or report.snapshot is None:
        return report
    return replace(report, rejects_file=keep_rejects(report.out, report.snapshot, report.rejects))
