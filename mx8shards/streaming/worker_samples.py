"""Which samples does this worker read, in runs: an epoch's plan, cut into arrays of ids."""

from __future__ import annotations

from collections.abc import Iterator

from mx8shards.order.mosaicml.epoch_plan import EpochPlan
from mx8shards.order.permutation import Ids
from mx8shards.streaming.world import World

_RUN = 1 << 10  # samples


def worker_runs(plan: EpochPlan, world: World, run: int = _RUN) -> Iterator[Ids]:
    """The ids of a worker in order, in arrays of about `run` ids. -1 is padding.

    Args:
        plan: The epoch's plan.
        world: The world of the plan, and the worker.
        run: The number of ids of an array.
    """
    batches = plan.division.batches_of(world.worker_of_rank)
    step = max(1, run // plan.batch_size)
    for start in range(0, len(batches), step):
        positions = plan.division.positions(world.node, world.rank_of_node, batches[start : start + step])
        yield plan.at(positions.ravel())
