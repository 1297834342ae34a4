"""How does on_error="skip" or "substitute" handle samples that cannot be read or decoded?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.format.randomness import occurrences_of
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.groups import Group
from mx8shards.loading.planning.shard_table import Ids
from mx8shards.loading.planning.work import Work
from mx8shards.loading.reporting.lost_samples import MAX_ATTEMPTS, LostSample, reason_of

# By row: its first sample, that sample's occurrence, and the number of substitutes tried.
Tried = dict[int, tuple[int, int, int]]


def reasons(filler: Filler, work: Work, bad: Ids) -> list[str]:
    """The reason of each bad row, as text."""
    return [reason_of(filler.error_of(work, row)) for row in bad.tolist()]


def entries(group: Group, bad: Ids, lost: Ids, why: Sequence[str], instead: Ids | None) -> tuple[LostSample, ...]:
    """The log entries of the samples lost in these rows, and of their substitutes."""
    others = [None] * len(bad) if instead is None else instead.tolist()
    positions = [group.step_of(row).position for row in bad.tolist()]
    return tuple(
        LostSample(group.epoch, position, sample_id, reason, other)
        for position, sample_id, reason, other in zip(positions, lost.tolist(), why, others, strict=True)
    )


def with_substitutes(
    before: tuple[LostSample, ...], group: Group, bad: Ids, lost: Ids, why: Sequence[str], instead: Ids, tried: Tried
) -> tuple[LostSample, ...]:
    """The log entries with the current substitutes. A bad substitute adds no entry: the next one replaces it."""
    attempts = [tried[row][-1] for row in bad.tolist()]
    found = [*before, *compress(entries(group, bad, lost, why, instead), (count == 1 for count in attempts))]
    numbers = {row: number for number, row in enumerate(tried)}  # entries and `tried` list rows in the same order
    for row, other in zip(bad.tolist(), instead.tolist(), strict=True):
        found[numbers[row]] = replace(found[numbers[row]], substitute=other)
    return tuple(found)


def substitutes(plan: Plan, group: Group, bad: Ids, lost: Ids, why: Sequence[str], tried: Tried) -> Ids:
    """A view position to substitute for each bad row; counts the attempts in `tried`."""
    occurrences = occurrences_of(group.extras)
    positions = []
    for row, sample_id, reason in zip(bad.tolist(), lost.tolist(), why, strict=True):
        occurrence = 0 if occurrences is None else int(occurrences[row])
        first, occurrence, attempts = tried.get(row, (sample_id, occurrence, 0))
        if attempts == MAX_ATTEMPTS:
            raise LoaderError(
                f"{MAX_ATTEMPTS} substitutes in a row were bad, too; the last one: {reason}",
                subject=f"sample_id {first}",
            )
        tried[row] = first, occurrence, attempts + 1
        positions.append(plan.substitute(group.epoch, first, occurrence, attempts))
    return np.array(positions)
