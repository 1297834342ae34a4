"""The functions of Streaming that compute parts of an order: get_shuffle, get_partitions, get_sampling, generate_work.

A StreamingDataset does not call them: it computes only the ids that its rank reads. Programs import them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import one_of, whole_number
from mx8shards.order.mosaicml.epoch_plan import epoch_ids
from mx8shards.order.mosaicml.id_chunks import collected
from mx8shards.order.mosaicml.partitions import ALGORITHMS as PARTITIONS
from mx8shards.order.mosaicml.partitions import partition
from mx8shards.order.mosaicml.resampling import whole_rows
from mx8shards.order.mosaicml.shard_sampling import chosen_per_shard
from mx8shards.order.mosaicml.shuffles import ALGORITHMS as SHUFFLES
from mx8shards.order.mosaicml.shuffles import Shuffling, shuffled
from mx8shards.order.mosaicml.training_world import World as Processes

if TYPE_CHECKING:
    from mx8shards.streaming.streaming_dataset import StreamingDataset
    from mx8shards.streaming.world import World

Ids = npt.NDArray[np.int64]


def get_shuffle(
    algo: str, shard_sizes: Ids, num_canonical_nodes: int, seed: int, epoch: int, block_size: int = 1 << 18
) -> Ids:
    """The samples of an epoch in shuffled order, by number.

    Args:
        algo: The `shuffle_algo`.
        shard_sizes: The number of samples of each shard.
        num_canonical_nodes: The number of canonical nodes.
        seed: The seed of the run.
        epoch: The epoch.
        block_size: Over how many samples py1e and py1br shuffle.
    """
    rows = whole_rows(np.asarray(shard_sizes, np.int64))
    how = Shuffling(nodes=num_canonical_nodes, seed=seed, epoch=epoch, block_size=block_size)
    return collected(shuffled(algo, rows, how), len(rows), np.dtype(np.int64)).astype(np.int64, copy=False)


def get_partitions(
    algo: str,
    num_samples: int,
    num_canonical_nodes: int,
    num_physical_nodes: int,
    ranks_per_node: int,
    workers_per_rank: int,
    batch_size: int,
    drop_first: int = 0,
    initial_physical_nodes: int | None = None,
) -> Ids:
    """The samples divided among processes: int64[nodes, ranks per node, workers per rank, batches, batch size].

    -1 is padding.

    Args:
        algo: The `partition_algo`.
        num_samples: The number of samples.
        num_canonical_nodes: The number of canonical nodes.
        num_physical_nodes: The number of nodes.
        ranks_per_node: The number of ranks of each node.
        workers_per_rank: The number of workers of each rank.
        batch_size: The number of samples in a batch of one rank.
        drop_first: How many samples were already read.
        initial_physical_nodes: The number of nodes that the run was started with, if it was resumed.
    """
    world = Processes(nodes=num_physical_nodes, ranks_per_node=ranks_per_node, workers_per_rank=workers_per_rank)
    found = partition(
        algo,
        num_samples,
        num_canonical_nodes,
        world,
        batch_size,
        drop=drop_first,
        initial_nodes=initial_physical_nodes,
    )
    shape = (workers_per_rank, num_physical_nodes, ranks_per_node, batch_size)
    in_training_order = found.at(np.arange(len(found))).reshape(-1, *shape)
    return in_training_order.transpose(2, 3, 1, 0, 4)


def get_sampling(samples_per_shard: Ids, choose: int, granularity: int, seed: int, epoch: int, use_epoch: bool) -> Ids:
    """How many samples an epoch takes from each shard of a stream.

    Args:
        samples_per_shard: The number of samples of each shard.
        choose: How many samples are taken in all.
        granularity: How many samples at a time are taken from a shard.
        seed: The seed of the run.
        epoch: The epoch.
        use_epoch: Whether the samples depend on the epoch.
    """
    whole_number("choose", choose, 0)
    whole_number("granularity", granularity, 1)
    whole_number("epoch", epoch, 0)
    seed = whole_number("seed", seed, 0) + (epoch if use_epoch else 0)
    return chosen_per_shard(np.asarray(samples_per_shard, np.int64), choose, granularity, seed)


def generate_work(
    batching_method: Any, dataset: StreamingDataset, world: World, epoch: int, sample_in_epoch: int
) -> Ids:
    """The samples that each worker reads: int64[nodes, ranks per node, workers per rank, batches, batch size].

    Args:
        batching_method: The `batching_method`.
        dataset: The dataset.
        world: The nodes, ranks and workers.
        epoch: The epoch.
        sample_in_epoch: How many samples of it were already read.
    """
    one_of("batching_method", batching_method, tuple(batching_methods))
    dataset._resume(None)
    settings = replace(dataset._epoch_settings(dataset.batch_size or 1), batching_method=batching_method)
    nodes = dataset.initial_physical_nodes
    return epoch_ids(settings, world.counts, epoch, sample_in_epoch, initial_nodes=nodes)


get_shuffle_py1e = partial(get_shuffle, "py1e")
get_shuffle_py1br = partial(get_shuffle, "py1br")
get_shuffle_py1s = partial(get_shuffle, "py1s")
get_shuffle_py2s = partial(get_shuffle, "py2s")
get_shuffle_naive = partial(get_shuffle, "naive")
get_partitions_orig = partial(get_partitions, "orig")
get_partitions_relaxed = partial(get_partitions, "relaxed")
generate_work_random_batching = partial(generate_work, "random")
generate_work_stratified_batching = partial(generate_work, "stratified")
generate_work_per_stream_batching = partial(generate_work, "per_stream")
generate_work_device_per_stream_batching = partial(generate_work, "device_per_stream")

shuffle_algos: dict[str, Callable[..., Ids]] = {algo: partial(get_shuffle, algo) for algo in SHUFFLES}
partition_algos: dict[str, Callable[..., Ids]] = {algo: partial(get_partitions, algo) for algo in PARTITIONS}
batching_methods: dict[str, Callable[..., Ids]] = {
    "random": generate_work_random_batching,
    "stratified": generate_work_stratified_batching,
    "per_stream": generate_work_per_stream_batching,
    "device_per_stream": generate_work_device_per_stream_batching,
}
