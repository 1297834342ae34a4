"""Which samples does an epoch have, before they are shuffled?

A shard from which c of its m samples are chosen becomes c // m *units* with all its samples and, if a rest is left, one
unit with as many random ones. Units, not shards, are shuffled. The samples of all units in order are the *rows* of the
epoch (Streaming calls their numbers big ids).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mx8shards.errors import SettingError
from mx8shards.order.mosaicml.epoch_settings import EpochSettings
from mx8shards.order.mosaicml.id_chunks import AnyIds
from mx8shards.order.mosaicml.shard_sampling import chosen_per_shard
from mx8shards.order.permutation import Ids

_WHOLE = -1


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """The rows of an epoch: unit u has those from starts[u] to before starts[u + 1], from the shard at `first[u]`.

    A unit with all samples of its shard has no picks (`picks[u]` is -1). Those of any other unit begin there in
    `picked`: the numbers of its samples within the shard, in ascending order. All ids are below `count`.
    """

    starts: Ids
    first: Ids
    picks: Ids
    picked: AnyIds
    count: int

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def sizes(self) -> Ids:
        """The number of rows of each unit."""
        return np.diff(self.starts)

    def ids(self, unit: int, offset: int, size: int) -> Ids:
        """The ids of `size` rows of a unit, from row `offset` on."""
        first, picks = int(self.first[unit]), int(self.picks[unit])
        if picks == _WHOLE:
            return np.arange(first + offset, first + offset + size)
        return self.picked[picks + offset : picks + offset + size].astype(np.int64) + first

    def at(self, rows: Ids) -> Ids:
        """The ids of these rows."""
        units = np.searchsorted(self.starts, rows, side="right") - 1
        within = rows - self.starts[units]
        picks = self.picks[units]
        if len(self.picked):
            partial = picks != _WHOLE
            within[partial] = self.picked[picks[partial] + within[partial]]
        ids: Ids = self.first[units] + within
        return ids


def whole_rows(sizes: Ids) -> Rows:
    """The rows of an epoch that reads each sample of shards of these sizes once."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return Rows(starts, starts[:-1], np.full(len(sizes), _WHOLE), np.empty(0, np.int64), int(starts[-1]))


def resampled(settings: EpochSettings, epoch: int, streams: range) -> Rows:
    """The rows of these streams in an epoch. One generator draws the samples of all of them."""
    shard_ends = np.cumsum(settings.shards_per_stream)
    first = int(shard_ends[streams[0]] - settings.shards_per_stream[streams[0]])
    shards = slice(first, int(shard_ends[streams[-1]]))
    sizes = settings.samples_per_shard[shards]
    begins = np.cumsum(settings.samples_per_shard)[shards] - sizes
    chosen = np.concatenate([_chosen(settings, epoch, stream, shard_ends) for stream in streams])
    if not chosen.any():
        raise SettingError(subject=f"stream {streams[0]}", expected="at least one sample per epoch", found="none")
    by_epoch = settings.sampling_method == "balanced"  # also without shuffling: not `seed_of`
    seed = settings.shuffle_seed + epoch if by_epoch else settings.shuffle_seed
    return _rows(sizes, begins, chosen, seed, settings.samples)


def _chosen(settings: EpochSettings, epoch: int, stream: int, shard_ends: Ids) -> Ids:
    stop = int(shard_ends[stream])
    sizes = settings.samples_per_shard[stop - int(settings.shards_per_stream[stream]) : stop]
    choose = int(settings.shares.choose[stream])
    return chosen_per_shard(sizes, choose, settings.sampling_granularity, settings.seed_of(epoch))


def _rows(sizes: Ids, begins: Ids, chosen: Ids, seed: int, count: int) -> Rows:
    times, rest = np.divmod(chosen, np.maximum(sizes, 1))  # nothing is chosen from an empty shard
    shard = np.repeat(np.arange(len(sizes)), times + (rest > 0))
    partial = np.append(shard[1:] != shard[:-1], True) & (rest[shard] > 0)
    unit_sizes = np.where(partial, rest[shard], sizes[shard])
    picks = np.full(len(shard), _WHOLE)
    picks[partial] = np.cumsum(rest[rest > 0]) - rest[rest > 0]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(unit_sizes)])
    return Rows(starts, begins[shard], picks, _picked(sizes, rest, seed), count)


def _picked(sizes: Ids, rest: Ids, seed: int) -> AnyIds:
    """`rest` samples of each shard, drawn without replacement, as numbers within the shard."""
    rng = np.random.default_rng(seed)
    picked = np.empty(int(rest.sum()), np.min_scalar_type(int(sizes.max())))
    start = 0
    for size, count in zip(sizes[rest > 0].tolist(), rest[rest > 0].tolist(), strict=True):
        picked[start : start + count] = np.sort(rng.choice(size, count, replace=False))
        start += count
    return picked
