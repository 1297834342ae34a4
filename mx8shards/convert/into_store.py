"""How does a conversion go into a store? It is made in the cache directory, uploaded, and removed there.

The directory in the cache belongs to the URL, so that the same call resumes an interrupted conversion or upload.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mx8shards.convert.convert_in_parts import convert
from mx8shards.convert.outcome import Conversion
from mx8shards.convert.part_writing import Job
from mx8shards.disk import operations, publish
from mx8shards.errors import DatasetExistsError
from mx8shards.maintain.conversion import only_holder
from mx8shards.maintain.rejects import reject_lines, rejects_name
from mx8shards.maintain.sync import sync
from mx8shards.remote.conditions import require_conditions
from mx8shards.remote.mirror import default_directory
from mx8shards.remote.open_store import open_store
from mx8shards.remote.remote_snapshots import read_current
from mx8shards.shards.snapshots import current, current_bytes


def work_directory(url: str) -> Path:
    """The directory in which a conversion into this URL is made."""
    mirror = default_directory(url)
    return mirror.with_name(f"{mirror.name}-convert")


class Upload(NamedTuple):
    """Where a conversion goes, and how: see convert_from."""

    url: str
    single_writer: bool
    deadline_s: float


def convert_into_store(
    job: Job, upload: Upload, *, workers: int, progress: Callable[[int, int], object] | None
) -> Conversion:
    """Convert into `job.out`, the work directory of the URL, and upload every dataset that this makes."""
    url, single_writer, deadline_s = upload
    urls = {name: f"{url}/{name}" if name else url for name in job.outputs}
    with _only_conversion(job.out):  # until the directory is gone: `convert` holds its lock in it only while it runs
        for name, path in job.outputs.items():
            _require_free(urls[name], path, upload)
        report = convert(replace(job, resumes=True), workers=workers, progress=progress)
        for name, path in job.outputs.items():
            sync(path, urls[name], single_writer=single_writer, deadline_s=deadline_s)
        report = _reported(report, url, deadline_s)
        with operations.disk_errors("remove", job.out):
            publish.remove_tree(job.out)
    return report


@contextlib.contextmanager
def _only_conversion(work: Path) -> Iterator[None]:
    """Hold a lock beside the work directory. DiskError if another process converts into this URL."""
    path = work.with_name(f"{work.name}.lock")
    with operations.disk_errors("open", path):
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        publish.make_directories(path.parent, below=existing)
    with only_holder(path):
        yield


def _require_free(url: str, path: Path, upload: Upload) -> None:
    """DatasetExistsError if a dataset is at the URL, unless it is the one that was made in `path`.

    RemoteError if its store would refuse the upload, which comes after the conversion.
    """
    with contextlib.closing(open_store(url, deadline_s=upload.deadline_s)) as store:
        require_conditions(store, single_writer=upload.single_writer)
        found = read_current(store)
    if found is not None and (current_bytes(path) is None or current(path).id != found.id):
        hint = "sync it to a directory, append to it there, and sync that to the URL"
        raise DatasetExistsError("the URL already contains a dataset", subject=url, hint=hint)


def _reported(report: Conversion, url: str, deadline_s: float) -> Conversion:
    """The report with URLs, after storing the rejects of each dataset beside it."""
    if report.splits:
        splits = {name: _reported(split, f"{url}/{name}", deadline_s) for name, split in report.splits.items()}
        return replace(report, out=url, splits=splits)
    if not report.rejects or report.snapshot is None:
        return replace(report, out=url)
    with contextlib.closing(open_store(url, deadline_s=deadline_s)) as store:
        key = rejects_name(report.snapshot)
        store.put(key, reject_lines(report.rejects))
    return replace(report, out=url, rejects_file=f"{url}/{key}")
