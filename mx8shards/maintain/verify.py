"""Is a dataset damaged (`mx8shards verify`)?"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

from mx8shards.errors import DatasetNotFoundError, SettingError, finite_seconds, real_number, shown, true_or_false
from mx8shards.maintain.kept_snapshots import find_snapshots, is_still_there
from mx8shards.maintain.parallel import Progress
from mx8shards.maintain.report import Mode, Report
from mx8shards.maintain.seal import seal_current
from mx8shards.maintain.verify_run import check_snapshots
from mx8shards.shards.links import Link, RemoteLink, parse_any
from mx8shards.shards.snapshots import INDEX, MIRROR, STATE

_MOST_TRIES = 3  # if snapshots are removed while they are verified


def verify(
    link: str | os.PathLike[str],
    *,
    data: bool = False,
    subset: str | float | None = None,
    seal: bool = False,
    repair: bool = False,
    deadline_s: float = 300.0,
    progress: Progress | None = None,
) -> Report:
    """Check a dataset, and report every damaged file and the samples it affects.

    Args:
        link: The dataset's directory or URL, or `path@sha256:9f2c…` to check only that snapshot.
        data: Also check every byte of every kept snapshot: shards, side-cars, the raw bytes of compressed shards, and
            unpacked copies.
        subset: Check every byte of a random fraction of the shards, `"5%"` or 0.05, drawn anew by each call. Excludes
            `data`.
        seal: If the current snapshot lacks content hashes, or was changed by another program, check all its bytes and
            publish it with content hashes.
        repair: For the mirror of a remote dataset (`local=` of Dataset): check every byte, or those of `subset`, and
            replace damaged and missing files by those of the store. Of a damaged shard, only the damaged blocks are
            fetched if the dataset has a side-car with their digests. Jobs may use the mirror meanwhile.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.
        progress: A function, called with the number of bytes done and the total number of bytes.

    By default only the structure is checked: index.json and every kept index against their ids, the size of every file
    of the current snapshot, and the offsets of its uncompressed shards. If a compressed shard exists only as a raw
    file, as in a cache of Streaming, that file is checked. Only `seal=True` and `repair=True` change files. A file that
    gc removes while verify runs is not damage, and neither is a shard that is not in a mirror with a `cache_limit`.

    With `repair=True`, `repaired` in the report lists the files that were replaced, and `damage` those that could not
    be, for example because the store's own copy is damaged. RemoteError if the store cannot be reached: what was
    repaired until then stays so, and the next call does the rest.
    """
    where = parse_any(link)
    mode, fraction = _mode(data, subset)
    deadline_s = finite_seconds("deadline_s", deadline_s)
    if true_or_false("repair", repair):
        return _repaired(where, seal, *(("data", 1.0) if subset is None else (mode, fraction)), deadline_s, progress)
    if isinstance(where, RemoteLink):
        from mx8shards.maintain.remote_verify import verify_store  # only for URLs

        if true_or_false("seal", seal):
            hint = "sync the dataset to a directory, seal it there, and upload it to another prefix"
            raise SettingError(subject="seal", expected="False for a URL", found="True", hint=hint)
        return verify_store(where, mode, fraction, deadline_s, progress)
    if true_or_false("seal", seal) and (sealed := seal_current(where, progress)):
        return sealed
    return _checked(where, mode, fraction, progress)


def _repaired(
    where: Link | RemoteLink, seal: bool, mode: Mode, fraction: float, deadline_s: float, progress: Progress | None
) -> Report:
    from mx8shards.maintain.repair import repaired  # only for mirrors

    if true_or_false("seal", seal):
        raise SettingError(subject="seal and repair", expected="one of them", found="both")
    if isinstance(where, RemoteLink):
        from mx8shards.remote.mirror import default_directory

        hint = f"the default one is {default_directory(where.url)}"
        expected = "the directory of a mirror, which is repaired from its URL"
        raise SettingError(subject="repair", expected=expected, found=str(where), hint=hint)
    return repaired(where, partial(_checked, where, mode, fraction, progress), deadline_s, progress)


def _checked(where: Link, mode: Mode, fraction: float, progress: Progress | None) -> Report:
    for _ in range(_MOST_TRIES):
        snapshots = find_snapshots(where)
        try:
            report = check_snapshots(where.root, snapshots, mode, fraction, progress)
        except DatasetNotFoundError:
            if all(is_still_there(where.root, name) for name in snapshots.intact):
                raise
        else:
            if all(is_still_there(where.root, name) for name in {damage.snapshot for damage in report.damage}):
                return _without_absent(where, report)
    raise DatasetNotFoundError(
        f"changed {_MOST_TRIES} times while it was verified, so there is no result",
        subject=str(where),
        hint="run verify again while no other process runs gc or writes there",
    )


def _without_absent(where: Link, report: Report) -> Report:
    """The report without the shards that a mirror with a limit does not have, which is no damage."""
    if not (where.root / STATE / MIRROR).exists():
        return report
    from mx8shards.remote.ledger import has_had_limit

    if not has_had_limit(where.root):
        return report
    found = [each for each in report.damage if each.reason != "missing" or each.file.startswith((f"{STATE}/", INDEX))]
    return replace(report, damage=tuple(found), absent=len(report.damage) - len(found))


def _mode(data: bool, subset: str | float | None) -> tuple[Mode, float]:
    if true_or_false("data", data) and subset is not None:
        raise SettingError(subject="data and subset", expected="one of them", found="both")
    if subset is None:
        return ("data", 1.0) if data else ("structure", 0.0)
    return "subset", parse_fraction(subset)


def parse_fraction(text: str | float) -> float:
    """Parse a fraction such as "5%" or 0.05. SettingError unless it is above 0 and at most 1."""
    fraction: Any = text
    if isinstance(text, str):
        try:
            fraction = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            fraction = None
    try:
        return real_number("subset", fraction, "", lambda fraction: 0 < fraction <= 1)
    except SettingError:
        expected = "a fraction above 0, up to 1, such as 5% or 0.05"
        raise SettingError(subject="subset", expected=expected, found=shown(text)) from None
