"""StreamingOrder: how does a Loader read samples in the order of MosaicML Streaming?"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields

import numpy as np

from mx8shards.order.mosaicml.epoch_division import divide_epoch
from mx8shards.order.mosaicml.epoch_plan import EpochPlan, plan_epoch
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.training_world import World
from mx8shards.order.orders import Description
from mx8shards.order.per_epoch import PerEpoch
from mx8shards.order.permutation import Ids

_ARRAYS = ("samples_per_shard", "shards_per_stream", "shares")


class StreamingOrder:
    """The order of a StreamingDataset, over the samples of its streams in sequence (`mx8.concat`).

    A Loader with the batch size of the settings, on the ranks of the world, delivers the batches of Streaming, with the
    padding at their ends, but without batches of padding only. The order is that of the world it was made for: on any
    other number of ranks, and after resuming there, a Loader divides the same sequence anew. An epoch's order is
    computed when it is first used, and takes 4 bytes per sample.

    Args:
        settings: The settings of the dataset.
        world: The world that the run was started with, replicated if there is a `replication`.
    """

    def __init__(self, settings: EpochSettings, world: World) -> None:
        self._settings = settings
        self._world = world
        self._plans = PerEpoch[EpochPlan]()
        division = divide_epoch(settings, world, 0, 0, None)
        self._length = division.filled * division.global_batch  # equal in all epochs

    def __len__(self) -> int:
        return self._length

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The ids at these order positions (`counts`); PADDING where there is no sample."""
        return self._plans.get(epoch, self._plan).at(counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The ids at the order positions from start to before stop."""
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    @property
    def description(self) -> Description:
        """The order's name, the world, and the settings; those of shards and streams as a hash."""
        scalars = {
            field.name: getattr(self._settings, field.name)
            for field in fields(self._settings)
            if field.name not in _ARRAYS
        }
        return {"name": "mosaicml_streaming", **asdict(self._world), **scalars, "streams": _digest(self._settings)}

    def _plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(self._settings, self._world, epoch)


def _digest(settings: EpochSettings) -> str:
    """A hash of the sizes of shards and streams, and of what each stream contributes."""
    shares = settings.shares
    arrays = (settings.samples_per_shard, settings.shards_per_stream, shares.choose, shares.proportion)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
