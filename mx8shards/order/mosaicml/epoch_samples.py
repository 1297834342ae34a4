"""Which sample does each row of an epoch have, after shuffling?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.resampling import resampled
from mx8shards.order.mosaicml.shuffles import shuffle_rows
from mx8shards.order.mosaicml.swaps import AnyIds, id_dtype
from mx8shards.order.permutation import Ids


class Samples(Protocol):
    """The samples of an epoch, row by row."""

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows."""


@dataclass(frozen=True, eq=False, slots=True)
class Shuffled:
    """The id of each row, in as few bytes as it needs."""

    ids: AnyIds

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows."""
        return self.ids[rows].astype(np.int64)


def samples_per_partition(settings: EpochSettings, epoch: int) -> list[Samples]:
    """The samples of all streams together, or of each stream if batches are made by stream."""
    if settings.batching_method == "random":
        return [_samples(settings, epoch, range(settings.streams), settings.shuffle_block_size)]
    return [
        _samples(settings, epoch, range(stream, stream + 1), _block_size(settings, stream))
        for stream in range(settings.streams)
    ]


def _block_size(settings: EpochSettings, stream: int) -> int:
    """A stream's part of the block size is its part of the epoch."""
    block_size = int(settings.shuffle_block_size * settings.shares.proportion[stream])
    if settings.batching_method == "device_per_stream" and settings.shuffle and not block_size:
        expected = f"a part of shuffle_block_size, {settings.shuffle_block_size}"
        found = f"none: its proportion is {settings.shares.proportion[stream]:.2g}"
        raise SettingError(subject=f"stream {stream}", expected=expected, found=found)
    return block_size


def _samples(settings: EpochSettings, epoch: int, streams: range, block_size: int) -> Samples:
    """The samples of these streams: shuffled if the settings say so, or else in order, without an array."""
    rows = resampled(settings, epoch, streams)
    if not settings.shuffle:
        return rows
    ids = np.empty(len(rows), id_dtype(settings.samples))
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
