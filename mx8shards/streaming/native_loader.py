"""How does a StreamingDataset become a Loader with the same order and state, so that users can move in two steps?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mx8shards.dataset import Dataset
from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.streaming_order import StreamingOrder
from mx8shards.shards.open_shard import Shards
from mx8shards.streaming.mds_samples import MdsSamples

if TYPE_CHECKING:
    from mx8shards.loading.loader import Loader
    from mx8shards.streaming.streaming_dataset import StreamingDataset

_DECIDED = ("dataset", "order", "shuffle", "seed", "uneven", "rank", "world_size")


def native_loader(dataset: StreamingDataset, **settings: Any) -> Loader:
    """A Loader over the samples of a StreamingDataset, from where its next iteration would begin."""
    from mx8shards.loading.loader import Loader  # it imports numba

    decided = sorted(set(settings) & set(_DECIDED))
    if decided:
        expected = f"none of {', '.join(_DECIDED)}, which follow from the dataset"
        raise SettingError(subject="loader", expected=expected, found=", ".join(decided))
    batch_size = settings.pop("batch_size", dataset.batch_size)
    if batch_size is None or dataset.batch_size not in (None, batch_size):
        expected = "the batch size of the dataset" if dataset.batch_size else "a batch size, as the dataset has none"
        raise SettingError(subject="batch_size", expected=expected, found=f"{batch_size}")
    epoch, position = dataset._upcoming()
    world = dataset._parallel_rank_world
    order = StreamingOrder(dataset._epoch_settings(batch_size), world.counts)
    opened = _joined(dataset, settings.get("columns"))
    seed, ranks = dataset.shuffle_seed, world.num_ranks
    loader = Loader(
        opened, batch_size=batch_size, order=order, seed=seed, rank=world.rank, world_size=ranks, **settings
    )
    loader._go_to(*((epoch, position) if position < dataset.epoch_size else (epoch + 1, 0)))
    return loader


def _joined(dataset: StreamingDataset, columns: Any) -> Dataset:
    """The streams as one Dataset."""
    shards = []
    for stream in dataset._samples.streams:
        if not isinstance(stream, MdsSamples):
            raise SettingError(
                subject="loader", expected="streams of MDS shards", found=f"another format in {stream.root}"
            )
        shards.append(stream.shards)
    return Dataset._of(Shards.joined(shards), columns, allow_pickle=dataset.allow_unsafe_types)
