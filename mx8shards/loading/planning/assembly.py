"""How is a loader assembled from its dataset and settings: plan, stages, filler, memory budget, prefetch depth?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mx8shards.dataset import Dataset
from mx8shards.errors import SettingError
from mx8shards.format.randomness import OCCURRENCE
from mx8shards.kernels.feistel import walk
from mx8shards.kernels.records import ROW, SPAN
from mx8shards.loading.budget.banks import Budget, bank_bytes
from mx8shards.loading.budget.batch_layout import max_bytes
from mx8shards.loading.execution.device import Mover
from mx8shards.loading.execution.filling import Filler
from mx8shards.loading.execution.gather_stage import Gather, array_checks
from mx8shards.loading.execution.provisions import ProviderThreads
from mx8shards.loading.execution.run_state import Assembly
from mx8shards.loading.output_kinds import converter
from mx8shards.loading.planning.batch_plan import Plan
from mx8shards.loading.planning.cache_room import require_room
from mx8shards.loading.planning.loaded_columns import LoadedColumns, column_of, loaded_columns
from mx8shards.loading.planning.mds_spans import MdsSpanFinder
from mx8shards.loading.planning.partial_shards import PartialShards
from mx8shards.loading.planning.payload_finder import PayloadFinder
from mx8shards.loading.planning.settings import Settings
from mx8shards.loading.planning.shard_table import ShardTable
from mx8shards.loading.planning.sparse_shards import sparse_shards
from mx8shards.loading.pool import Pool
from mx8shards.order.blocks import BlockOrder
from mx8shards.order.checked_order import CheckedOrder
from mx8shards.order.keys import Key
from mx8shards.order.orders import Order, Sequential, Shuffle
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.shard_lookup import ShardLookup
from mx8shards.order.shard_uses import ShardUses, follow_from_structure, shard_uses
from mx8shards.order.steps import Steps
from mx8shards.shards.open_shard import Shards
from mx8shards.stages import DecoderContext, Stage
from mx8shards.views import View, Whole

_DEPTH_BYTES = 48 << 20  # small batches are prefetched further ahead, so that threads have enough work
_MAX_DEPTH = 64
_GROUP_BYTES = 8 << 20  # for batches that are only copied
_RECORDS_PART = 4  # at most a quarter of the memory is for the rows and spans of batches ahead
_PARTS_PART = 6  # at most a sixth of the memory is for parts of shards that are not local
_SCRATCH_PART = 4  # at most a quarter of the memory is for decoders' scratch


def order_of(dataset: Dataset, settings: Settings) -> Order:
    """The user's order, or the order that `shuffle` and `seed` define for this dataset."""
    count, shuffle = len(dataset), settings.shuffle
    if settings.order is not None:
        return CheckedOrder(settings.order, count)
    if shuffle is False:
        return Sequential(count)
    key = Key(dataset.snapshot, dataset.view.digest, settings.seed)
    if shuffle is True:
        return Shuffle(count, key, walk)
    return BlockOrder(shard_lookup_of(dataset, settings.seed), key, shuffle)


def shard_lookup_of(dataset: Dataset, seed: int) -> ShardLookup:
    """The mapping from view positions to shards."""
    view = dataset.view
    resolve = None if isinstance(view, Whole) else lambda positions, epoch: view.resolve(positions, epoch, seed)[0]
    return ShardLookup(len(view), dataset.shards.starts, resolve)


def uses_of(order: Order, lookup: ShardLookup, *, varies: bool) -> Callable[[int], ShardUses]:
    """A function of the epoch: when the order uses each shard. The last two epochs are remembered."""
    known = PerEpoch[ShardUses]()
    return lambda epoch: known.get(epoch, partial(shard_uses, order, lookup, varies=varies))


def assemble(
    dataset: Dataset, settings: Settings, order: Order, steps: Steps, rank: int, pool: Pool, budget: Budget
) -> Assembly:
    """The parts that all runs of a loader share. SettingError if three batches of mean size do not fit its budget."""
    columns = loaded_columns(dataset, settings)
    mover = None if settings.device == "cpu" else Mover(settings.device)
    convert = converter(settings.output)
    pool.memory.pins = mover or pool.memory.pins
    lookup, varies = shard_lookup_of(dataset, settings.seed), dataset.view.varies_by_epoch
    uses = uses_of(order, lookup, varies=varies)
    budget.join()
    try:
        finder = payload_finder(dataset, settings, order, columns, pool, budget)
        require_room(dataset.shards, settings, steps, uses, finder.shard_table.parts.sparse)
        depth = reserve_fixed_memory(dataset, settings, finder, steps, pool, budget)
    except BaseException:
        budget.leave()
        raise
    plan = Plan(
        order=order,
        repeats=settings.order is not None,
        view=dataset.view,
        shards=dataset.shards,
        seed=settings.seed,
        samples=dataset.shards.samples,
        steps=steps,
        rank=rank,
        shard_table=finder.shard_table,
        finder=finder,
        group_bytes=0 if finder.decodes or settings.transform is not None else _GROUP_BYTES,
        limit_bytes=lambda: budget.limit_bytes,
        memory_for=budget.memory_for,
        uses=uses,
        uses_are_quick=follow_from_structure(order, lookup, varies=varies),
    )
    return Assembly(
        provider_threads=ProviderThreads(dataset.shards, pool.submit),
        plan=plan,
        filler=Filler(finder, convert=convert, seed=settings.seed, max_ranges=4 * pool.threads),
        budget=budget,
        pool=pool,
        transform=settings.transform,
        on_error=settings.on_error,
        depth=depth,
        read_timeout_s=settings.read_timeout_s,
        mover=mover,
    )


def payload_finder(
    dataset: Dataset, settings: Settings, order: Order, columns: LoadedColumns, pool: Pool, budget: Budget
) -> PayloadFinder:
    """The stages of a loader, and what finds their payloads in the shards of its dataset."""
    picked, copied = columns.picked, columns.copied
    decoders = [
        decoder.stage(decoder_context(columns, name, settings.seed, pool))
        for name, decoder in sorted(settings.decode.items())
    ]
    shard_table = ShardTable(
        dataset.shards,
        settings.io,
        pool.each,
        tolerates_damage=settings.on_error != "raise",
        partial_shards=partial_shards(dataset, order, decoders, columns, budget),
    )
    gather = Gather(picked, copied, at_once=settings.transform is not None)
    stages = [gather, *array_checks(picked, copied), *decoders]
    return PayloadFinder(shard_table, picked.names, stages, MdsSpanFinder(shard_table.kinds, picked.names))


def partial_shards(
    dataset: Dataset, order: Order, decoders: Sequence[Stage], columns: LoadedColumns, budget: Budget
) -> PartialShards:
    """The shards of a dataset; shards of which clips need little are read in parts."""
    view, sparse = dataset.view, None
    videos = () if view.videos is None else view.videos.names
    if decoders and all(stage.narrows_to_parts for stage in decoders) and not set(videos) & set(columns.copied):
        needs_whole = any(stage.needs_whole for stage in decoders)
        sparse = sparse_shards(dataset.shards, view, len(order) / max(1, len(view)), needs_whole=needs_whole)
    return PartialShards(dataset.shards, sparse, budget.limit_bytes // _PARTS_PART)


def reserve_fixed_memory(
    dataset: Dataset, settings: Settings, finder: PayloadFinder, steps: Steps, pool: Pool, budget: Budget
) -> int:
    """Reserve memory for tables and for the rows and spans of batches; the prefetch depth, in batches.

    SettingError if three batches of mean size do not fit into the rest.
    """
    rows = steps.batch_size if steps.uneven == "pad" else min(steps.batch_size, max(1, steps.length))
    mean = mean_batch_bytes(dataset.shards, finder, rows)
    row_bytes = 2 * ROW.itemsize + len(finder.wanted) * (SPAN.itemsize + 8)  # 8: offsets of a batch
    row_bytes += sum(stage.note_bytes for stage in finder.stages)
    record_bytes = rows * (row_bytes + 2 * extras_bytes(dataset.view, repeats=settings.order is not None))
    min_depth = 2 * pool.threads + 2
    max_depth = max(min_depth, min(_MAX_DEPTH, _DEPTH_BYTES // (mean + record_bytes)))
    depth = max(min_depth, min(max_depth, budget.limit_bytes // _RECORDS_PART // record_bytes))
    budget.growth_bytes = (max_depth - depth) * record_bytes
    budget.scratch_bytes = max(stage.scratch_bytes for stage in finder.stages)
    fixed = finder.shard_table.held_bytes + finder.shard_table.parts.most_bytes + depth * record_bytes
    # if sample lengths are a loose bound, check the fixed part now, and the rest when steps are planned
    least = mean if finder.bound == "tight" else bank_bytes(max_bytes(finder.outputs, rows, 0))
    require_three_batches(least, fixed, budget)
    budget.set_fixed(fixed)
    return depth


def extras_bytes(view: View, *, repeats: bool) -> int:
    """The bytes of a row's extras: those of the view, and the occurrence if the order may repeat positions."""
    _, known = view.resolve(np.zeros(0, np.int64))
    sizes = {name: array.itemsize * math.prod(array.shape[1:]) for name, array in known.items()}
    return sum((sizes | ({OCCURRENCE: 8} if repeats else {})).values())


def decoder_context(columns: LoadedColumns, name: str, seed: int, pool: Pool) -> DecoderContext:
    """The context of a column's decoder."""
    name = column_of(name, columns.picked)
    number = columns.picked.names.index(name)
    return DecoderContext(
        column=name,
        number=number,
        encoding=columns.picked.encodings[number],
        seed=seed,
        threads=pool.threads,
        scratch_bytes=pool.memory.limit_bytes // _SCRATCH_PART,
        shared=pool.memory.shared,
        clips=columns.clips.get(name),
    )


def mean_batch_bytes(shards: Shards, finder: PayloadFinder, rows: int) -> int:
    """The bytes of a bank for a batch of samples of mean size."""
    raw = sum(int(snapshot.index.raw.size_bytes.sum()) for snapshot in shards.snapshots)
    payload = max(0, raw // max(1, shards.samples) - 4 - finder.overhead)
    ragged = any(output.shape is None for output in finder.outputs.values())
    return bank_bytes(max_bytes(finder.outputs, rows, rows * payload if ragged else 0))


def require_three_batches(mean: int, fixed: int, budget: Budget) -> None:
    """SettingError if the budget cannot hold three batches beside its fixed part: two held, and one being filled.

    The hint takes into account that decoders' scratch grows with the memory.
    """
    room = budget.limit_bytes - fixed
    if 3 * mean > room:
        enough = budget.memory_for(3 * mean + fixed)
        if budget.scratch_bytes:
            enough = -(-(enough - budget.scratch_bytes) * _SCRATCH_PART // (_SCRATCH_PART - 1))
        raise SettingError(
            subject="memory",
            expected=f"room for three batches of about {mean} bytes: two that you hold, and one that a thread fills",
            found=f"{max(0, room)} bytes, after {fixed} for tables and {budget.scratch_bytes} for decoders' scratch",
            hint=f"memory={enough} or a smaller batch_size",
        )
