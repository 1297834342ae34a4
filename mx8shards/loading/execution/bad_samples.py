"""What becomes of samples that cannot be read or decoded, under on_error="skip" and "substitute"?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.format.randomness import occurrences_of
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.groups import Group
from mx8shards.loading.planning.shard_table import Ids
from mx8shards.loading.reporting.lost_samples import MOST_ATTEMPTS, LostSample, reason_of

# By row, the sample that stood there first and its occurrence, and how many others stood there since.
Tried = dict[int, tuple[int, int, int]]


def reasons(filler: Filler, rows: Any) -> list[str]:
    """Why each of these rows is bad."""
    return [reason_of(filler.why(row)) for row in rows]


def entries(group: Group, bad: Ids, lost: Ids, why: Sequence[str], instead: Ids | None) -> tuple[LostSample, ...]:
    """What is recorded of the samples that stood in these rows, and of those in their place."""
    others = [None] * len(bad) if instead is None else instead.tolist()
    positions = [group.step_of(row).position for row in bad.tolist()]
    return tuple(
        LostSample(group.epoch, position, sample_id, reason, other)
        for position, sample_id, reason, other in zip(positions, lost.tolist(), why, others, strict=True)
    )


def with_substitutes(
    before: tuple[LostSample, ...], group: Group, bad: Ids, lost: Ids, why: Sequence[str], instead: Ids, tried: Tried
) -> tuple[LostSample, ...]:
    """The record with what stands in these rows now. A bad substitute is no further loss: another one replaces it."""
    attempts = [tried[row][-1] for row in bad.tolist()]
    found = [*before, *compress(entries(group, bad, lost, why, instead), (count == 1 for count in attempts))]
    numbers = {row: number for number, row in enumerate(tried)}  # rows come into both in the same order
    for row, other in zip(bad.tolist(), instead.tolist(), strict=True):
        found[numbers[row]] = replace(found[numbers[row]], substitute=other)
    return tuple(found)


def substitutes(plan: Plan, group: Group, bad: Ids, lost: Ids, why: Sequence[str], tried: Tried) -> Ids:
    """Another position of the view for each bad row; `tried` is counted up."""
    occurrences = occurrences_of(group.extras)
    positions = []
    for row, sample_id, reason in zip(bad.tolist(), lost.tolist(), why, strict=True):
        occurrence = 0 if occurrences is None else int(occurrences[row])
        first, occurrence, attempts = tried.get(row, (sample_id, occurrence, 0))
        if attempts == MOST_ATTEMPTS:
            raise LoaderError(
                f"{MOST_ATTEMPTS} substitutes in a row were no better; of the last one: {reason}",
                subject=f"sample {first}",
            )
        tried[row] = first, occurrence, attempts + 1
        positions.append(plan.substitute(group.epoch, first, occurrence, attempts))
    return np.array(positions)
