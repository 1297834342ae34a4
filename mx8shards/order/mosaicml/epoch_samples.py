"""Which sample does each row of an epoch have, after shuffling?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.id_chunks import AnyIds, collected, id_dtype, picked
from mx8shards.order.mosaicml.resampling import resampled
from mx8shards.order.mosaicml.shuffles import Shuffling, shuffled
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


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """The ids of some rows, which are in ascending order."""

    rows: AnyIds
    ids: AnyIds

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows; IndexError if one of them was not kept."""
        where = np.searchsorted(self.rows, rows.astype(self.rows.dtype))
        if where.max(initial=-1) >= len(self.rows) or not np.array_equal(self.rows[where], rows):
            raise IndexError("these samples are read by another rank or worker than this plan was made for")
        return self.ids[where].astype(np.int64)


def samples_per_partition(settings: EpochSettings, epoch: int, kept: Sequence[AnyIds] | None = None) -> list[Samples]:
    """The samples of all streams together, or of each stream if batches are made by stream.

    Args:
        settings: The settings of the dataset.
        epoch: The epoch.
        kept: The rows of each of them that are needed, in ascending order; None if all are.
    """
    streams, together = range(settings.streams), settings.batching_method == "random"
    parts = [streams] if together else [streams[stream : stream + 1] for stream in streams]
    blocks = [settings.shuffle_block_size] if together else [_block_size(settings, stream) for stream in streams]
    return [
        _samples(settings, epoch, part, block_size, None if kept is None else kept[index])
        for index, (part, block_size) in enumerate(zip(parts, blocks, strict=True))
    ]


def _block_size(settings: EpochSettings, stream: int) -> int:
    """A stream's part of the block size is its part of the epoch."""
    block_size = int(settings.shuffle_block_size * settings.shares.proportion[stream])
    if settings.batching_method == "device_per_stream" and settings.shuffle and not block_size:
        expected = f"a part of shuffle_block_size, {settings.shuffle_block_size}"
        found = f"none: its proportion is {settings.shares.proportion[stream]:.2g}"
        raise SettingError(subject=f"stream {stream}", expected=expected, found=found)
    return block_size


def _samples(settings: EpochSettings, epoch: int, streams: range, block_size: int, kept: AnyIds | None) -> Samples:
    """The samples of these streams: shuffled if the settings say so, or else in order, without an array."""
    rows = resampled(settings, epoch, streams)
    if not settings.shuffle:
        return rows
    how = Shuffling(nodes=settings.num_canonical_nodes, seed=settings.shuffle_seed, epoch=epoch, block_size=block_size)
    chunks = shuffled(settings.shuffle_algo, rows, how)
    if kept is None:
        return Shuffled(collected(chunks, len(rows), id_dtype(rows.count)))
    return Kept(kept, picked(chunks, kept, id_dtype(rows.count)))
