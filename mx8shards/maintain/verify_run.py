"""How are the shards of several snapshots checked in threads, and what is the report?"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from mx8shards.maintain.kept_snapshots import SnapshotsToCheck
from mx8shards.maintain.parallel import Progress, Ticker, map_in_threads
from mx8shards.maintain.report import Mode, Report
from mx8shards.maintain.shard_check import Checked, Tick, check_shard, check_threads
from mx8shards.maintain.verify_plan import ShardCheck, VerifyPlan


def check_snapshots(
    root: Path,
    snapshots: SnapshotsToCheck,
    mode: Mode,
    fraction: float,
    progress: Progress | None,
    check: Callable[[ShardCheck, Tick], Checked] = check_shard,
) -> Report:
    """Check these snapshots of the dataset in `root`, each shard with `check`."""
    plan = VerifyPlan(data=mode != "structure")
    if snapshots.requested is not None:
        plan.add(snapshots.requested)
    if mode != "structure" or snapshots.requested is None:
        for other in snapshots.others(root):
            plan.add(other)
    choose_for_data(plan.checks, fraction)
    return _run(snapshots, plan, mode, progress, check)


def choose_for_data(checks: list[ShardCheck], fraction: float) -> None:
    """Mark a random fraction of the shards, at least one, for a check of every byte."""
    count = min(len(checks), max(1, round(fraction * len(checks)))) if fraction else 0
    for task in random.SystemRandom().sample(checks, count):
        task.data = True


def _run(
    snapshots: SnapshotsToCheck,
    plan: VerifyPlan,
    mode: Mode,
    progress: Progress | None,
    check: Callable[[ShardCheck, Tick], Checked],
) -> Report:
    ticker = Ticker(progress, sum(task.cost_bytes for task in plan.checks))
    damage = snapshots.damage + plan.damage
    unchecked = 0
    with map_in_threads(lambda task: check(task, ticker.tick), plan.checks, check_threads(plan.checks)) as results:
        for checked in results:
            damage += checked.damage
            unchecked += not checked.has_hash
    index = snapshots.requested.index if snapshots.requested else None
    return Report(
        snapshot=snapshots.id,
        sealed=index is not None and index.sealed,
        mode=mode,
        snapshots=snapshots.checked,
        shards=len(plan.checks),
        data_shards=sum(task.data for task in plan.checks),
        unchecked=unchecked,
        samples=int(index.samples.sum()) if index else 0,
        bytes_checked=ticker.done + plan.sidecar_bytes,
        damage=tuple(damage),
    )
