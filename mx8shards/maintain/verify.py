"""Is a dataset what it was when it was published?"""

from __future__ import annotations

import os
import random
from functools import partial
from typing import Any

from mx8shards.errors import DatasetNotFoundError, SettingError, real_number, shown, true_or_false
from mx8shards.maintain.check import check_shard, check_threads
from mx8shards.maintain.parallel import Progress, Ticker, in_order
from mx8shards.maintain.report import Mode, Report
from mx8shards.maintain.seal import seal_current
from mx8shards.maintain.states import States, find_states, is_there
from mx8shards.maintain.verify_plan import Job, Plan
from mx8shards.shards.links import Link, parse_link

_MOST_TRIES = 3  # where others remove what is being verified


def verify(
    link: str | os.PathLike[str],
    *,
    data: bool = False,
    subset: str | float | None = None,
    seal: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check a dataset, and report every damaged file and the samples in it.

    Args:
        link: The dataset's directory. A pinned one, `path@sha256:9f2c…`, asks for that snapshot alone.
        data: Also check every byte of every kept snapshot: shards, side-cars, the raw form of compressed shards, and
            unpacked copies.
        subset: Check every byte of a share of the shards, drawn anew each time: `"5%"` or 0.05. Not with `data`.
        seal: If the current snapshot lacks content hashes, or was changed outside mx8shards, check its every byte and
            publish it with content hashes.
        progress: A function, called with the number of bytes done and of all bytes.

    Without options it checks the structure: index.json and every kept index against their ids, the size of every file
    of the current snapshot, and the offsets of its uncompressed shards. Where only the raw file is left of a compressed
    shard, as in a cache of Streaming, that file is checked. Only `seal=True` changes anything. Files that
    gc removes meanwhile are not damage.
    """
    where = parse_link(link)
    mode, share = _mode(data, subset)
    if true_or_false("seal", seal) and (sealed := seal_current(where, progress)):
        return sealed
    for _ in range(_MOST_TRIES):
        states = find_states(where)
        try:
            report = _check(where, states, mode, share, progress)
        except DatasetNotFoundError:
            if all(is_there(where.root, name) for name in states.sound):
                raise
        else:
            if all(is_there(where.root, name) for name in {damage.snapshot for damage in report.damage}):
                return report
    raise DatasetNotFoundError(
        f"changed while it was verified, {_MOST_TRIES} times: nothing can be said about it",
        subject=str(where),
        hint="run it again while nobody runs gc or writes there",
    )


def _check(where: Link, states: States, mode: Mode, share: float, progress: Progress | None) -> Report:
    plan = Plan(data=mode != "structure")
    if states.asked is not None:
        plan.add(states.asked)
    if mode != "structure" or states.asked is None:
        for other in states.others(where.root):
            plan.add(other)
    choose(plan.jobs, share)
    return _run(states, plan, mode, progress)


def _mode(data: bool, subset: str | float | None) -> tuple[Mode, float]:
    if true_or_false("data", data) and subset is not None:
        raise SettingError(subject="data and subset", expected="one of them", found="both")
    if subset is None:
        return ("data", 1.0) if data else ("structure", 0.0)
    return "subset", parse_share(subset)


def parse_share(text: str | float) -> float:
    """The share that "5%" or 0.05 names; SettingError for one that is not above 0 and at most 1."""
    share: Any = text
    if isinstance(text, str):
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = None
    try:
        return real_number("subset", share, "", lambda share: 0 < share <= 1)
    except SettingError:
        expected = "a share above 0, up to 1, such as 5% or 0.05"
        raise SettingError(subject="subset", expected=expected, found=shown(text)) from None


def choose(jobs: list[Job], share: float) -> None:
    """Mark that share of the jobs, and at least one, for a check of every byte."""
    count = min(len(jobs), max(1, round(share * len(jobs)))) if share else 0
    for job in random.SystemRandom().sample(jobs, count):
        job.data = True


def _run(states: States, plan: Plan, mode: Mode, progress: Progress | None) -> Report:
    ticker = Ticker(progress, sum(job.cost_bytes for job in plan.jobs))
    damage = states.damage + plan.damage
    unchecked = 0
    with in_order(partial(check_shard, tick=ticker.tick), plan.jobs, check_threads(plan.jobs)) as results:
        for checked in results:
            damage += checked.damage
            unchecked += not checked.vouched
    index = states.asked.index if states.asked else None
    return Report(
        snapshot=states.id,
        sealed=index is not None and index.sealed,
        mode=mode,
        snapshots=states.checked,
        shards=len(plan.jobs),
        data_shards=sum(job.data for job in plan.jobs),
        unchecked=unchecked,
        samples=int(index.samples.sum()) if index else 0,
        bytes_checked=ticker.done + plan.sidecar_bytes,
        damage=tuple(damage),
    )
