"""Which sample does each row of an epoch have, after shuffling?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.resampling import resampled
from mx8shards.order.mosaicml.shuffles import shuffle_rows
from mx8shards.order.mosaicml.swaps import AnyIds, id_dtype
from mx8shards.order.permutation import Ids


class Samples(Protocol):
    """The samples of an epoch, row by row."""

    def __len__(self) -> int:
        """The number of rows."""

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows."""


@dataclass(frozen=True, eq=False, slots=True)
class Shuffled:
    """The id of each row, in as few bytes as it needs."""

    ids: AnyIds

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows."""
        return self.ids[rows].astype(np.int64)


def epoch_samples(settings: EpochSettings, epoch: int, streams: range, block_size: int) -> Samples:
    """The samples of these streams in an epoch: shuffled if the settings say so, or else in order, without an array.

    Args:
        settings: The settings of the dataset.
        epoch: The epoch.
        streams: The streams.
        block_size: Over how many rows py1e and py1br shuffle.
    """
    rows = resampled(settings, epoch, streams)
    if not settings.shuffle:
        return rows
    ids = np.empty(len(rows), id_dtype(int(settings.samples_per_shard.sum())))
    shuffle_rows(
        settings.shuffle_algo,
        rows,
        ids,
        nodes=settings.num_canonical_nodes,
        seed=settings.shuffle_seed,
        epoch=epoch,
        block_size=block_size,
    )
    return Shuffled(ids)
