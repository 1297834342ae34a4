"""How does a StreamingDataset become a Loader with the same order and state, so that users can move in two steps?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mx8shards.dataset import Dataset
from mx8shards.errors import SettingError, shown
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.streaming_order import StreamingOrder
from mx8shards.shards.open_shard import Shards
from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.mds_samples import MdsSamples
from mx8shards.streaming.world import World

if TYPE_CHECKING:
    from mx8shards.loading.loader import Loader

_DECIDED = ("dataset", "order", "shuffle", "seed", "uneven", "rank", "world_size")


def native_loader(
    samples: AllSamples,
    order: EpochSettings,
    world: World,
    begin: tuple[int, int],
    *,
    allow_pickle: bool,
    settings: Mapping[str, Any],
) -> Loader:
    """A Loader over the samples of all streams.

    Args:
        samples: The samples.
        order: What the order depends on.
        world: The ranks, and which of them this process is.
        begin: The epoch and the sample in it where the loader begins.
        allow_pickle: Also read columns whose decoding runs code.
        settings: Further arguments of the Loader.
    """
    from mx8shards.loading.loader import Loader  # it imports numba

    decided = sorted(set(settings) & set(_DECIDED))
    if decided:
        expected = f"none of {', '.join(_DECIDED)}, which follow from the dataset"
        raise SettingError(subject="loader", expected=expected, found=", ".join(decided))
    loader = Loader(
        _joined(samples, settings.get("columns"), allow_pickle=allow_pickle),
        batch_size=order.batch_size,
        order=StreamingOrder(order, world.counts),
        seed=order.shuffle_seed,
        rank=world.rank,
        world_size=world.num_ranks,
        **settings,
    )
    epoch, position = begin
    loader._go_to(*((epoch, position) if position < order.shares.epoch_size else (epoch + 1, 0)))
    return loader


def loader_batch_size(of_dataset: int | None, given: int | None) -> int:
    """The batch size of the loader; SettingError unless it is that of the dataset, if the dataset has one."""
    if of_dataset is None and given is None:
        raise SettingError(subject="batch_size", expected="a number, as the dataset has none", found="None")
    if of_dataset is not None and given not in (None, of_dataset):
        raise SettingError(subject="batch_size", expected=f"{of_dataset}, that of the dataset", found=shown(given))
    return of_dataset or given or 1


def _joined(samples: AllSamples, columns: Any, *, allow_pickle: bool) -> Dataset:
    """The streams as one Dataset."""
    shards = []
    for stream in samples.streams:
        if not isinstance(stream, MdsSamples):
            found = f"another format in {stream.root}"
            raise SettingError(subject="loader", expected="streams of MDS shards", found=found)
        shards.append(stream.shards)
    return Dataset._of(Shards.joined(shards), columns, allow_pickle=allow_pickle)
