"""What becomes of samples that cannot be read or decoded, under on_error="skip" and "substitute"?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.format.randomness import integers
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.planning.batch_plan import Group, Plan
from mx8shards.loading.planning.shard_table import Ids
from mx8shards.loading.reporting.lost_samples import MOST_ATTEMPTS, Entry, reason_of


def reasons(filler: Filler, rows: Any) -> list[str]:
    """Why each of these rows is bad."""
    return [reason_of(filler.why(row)) for row in rows]


def entries(group: Group, bad: Ids, lost: Ids, why: Sequence[str], instead: Ids | None) -> tuple[Entry, ...]:
    """What is recorded of the samples that stood in these rows, and of those in their place."""
    others = [None] * len(bad) if instead is None else instead.tolist()
    positions = [group.step_of(row).position for row in bad.tolist()]
    return tuple(
        Entry(group.epoch, position, sample_id, reason, other)
        for position, sample_id, reason, other in zip(positions, lost.tolist(), why, others, strict=True)
    )


def substitutes(
    plan: Plan, group: Group, bad: Ids, lost: Ids, why: Sequence[str], tried: dict[int, tuple[int, int]]
) -> Ids:
    """Another position of the view for each bad row, drawn by the sample that stood there first and the attempt.

    `tried` keeps both for each row: they are counted up here.
    """
    positions = []
    for row, sample_id, reason in zip(bad.tolist(), lost.tolist(), why, strict=True):
        first, attempts = tried.get(row, (sample_id, 0))
        if attempts == MOST_ATTEMPTS:
            raise LoaderError(
                f"{MOST_ATTEMPTS} substitutes in a row were no better; of the last one: {reason}",
                subject=f"sample {first}",
            )
        tried[row] = first, attempts + 1
        most = min(len(plan.view), 1 << 32)
        drawn = integers(plan.seed, group.epoch, np.array([first]), "substitute", MOST_ATTEMPTS, most)
        positions.append(int(drawn[0, attempts]))
    return np.array(positions)
