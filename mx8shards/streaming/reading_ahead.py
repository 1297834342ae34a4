"""How are samples read from the disk before they are needed? The operating system is asked for many at once.

A disk that is asked for one sample after the other answers a fraction of the requests that it could, and training waits
for each. In memory, asking would only cost time: a few samples of a run tell whether its others are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from mx8shards.disk.map import ReadFile
from mx8shards.errors import ShardsError
from mx8shards.format.shard_bytes import read_table
from mx8shards.order.orders import PADDING
from mx8shards.order.permutation import Ids
from mx8shards.streaming.all_samples import AllSamples

AHEAD_BYTES = 64 << 20  # of the samples of a run, about
_PROBES, _PER_PROBE = 8, 16  # if half of a run's samples are not in memory, this goes unnoticed once in 256 times
# Whole windows are read, as orders that shuffle blocks of samples soon need the neighbours, too. Measured: if only the
# samples of 4 KiB are asked for, an epoch takes twice as long; with windows of 1 MiB, its beginning does.
_WINDOW_BYTES = 128 << 10  # Linux silently limits a longer request to the read-ahead size of the device
_MOST_WINDOWS = 1 << 11  # of one run, whatever its samples are


def with_next_read_ahead(samples: AllSamples, runs: Iterator[Ids]) -> Iterator[Ids]:
    """The runs of an iteration, each after the disk was asked for the next one.

    Args:
        samples: The samples of all streams.
        runs: The ids of samples in order, in arrays.
    """
    waiting: Ids | None = None
    for run in runs:
        read_ahead(samples, run)
        if waiting is not None:
            yield waiting
        waiting = run
    if waiting is not None:
        yield waiting


def read_ahead(samples: AllSamples, ids: Ids) -> None:
    """Have the disk begin to read these samples, unless they are in memory.

    An error is left to the reader of the sample.

    Args:
        samples: The samples of all streams.
        ids: Their numbers; -1 is padding.
    """
    ids = ids[ids != PADDING]
    with suppress(ShardsError, OSError, ValueError):
        few = ids[:: max(_PER_PROBE, -(-len(ids) // _PROBES))]
        if all(_is_cached(samples, sample_id) for sample_id in few.tolist()):
            return
        left = _MOST_WINDOWS
        for file, begins, ends in _spans(samples, ids):
            for window in _windows(begins, ends)[:left].tolist():
                file.prefetch(window * _WINDOW_BYTES, _WINDOW_BYTES)
                left -= 1


def _is_cached(samples: AllSamples, sample_id: int) -> bool:
    """Whether the first byte of a sample is in memory, or cannot be read ahead."""
    number, row = samples.place_of(sample_id)
    shard = samples.lasting(number)
    if shard is None:
        return True
    if shard.kept_offsets is not None:
        return shard.open_file().is_cached(shard.kept_offsets[row])
    shard.check_size()  # its table is mapped
    return shard.open_file().is_cached(int(shard.table[row]))


def _spans(samples: AllSamples, ids: Ids) -> Iterator[tuple[ReadFile, Ids, Ids]]:
    """Where these samples begin and end in the files of shards that are here and stay, file by file."""
    shards = samples.locate(ids)
    for i in np.unique(shards).tolist():
        shard = samples.lasting(i)
        if shard is not None:
            shard.check_size()  # its table may be mapped
            rows = ids[shards == i] - samples.starts[i]
            table = read_table(shard.head(mapped=True), shard.samples)
            yield shard.open_file(), table[rows].astype(np.int64), table[rows + 1].astype(np.int64)


def _windows(begins: Ids, ends: Ids) -> Ids:
    """The windows with bytes of these spans, each once, in ascending order."""
    first = begins // _WINDOW_BYTES
    counts = np.maximum(-(-ends // _WINDOW_BYTES) - first, 0)
    before = np.cumsum(counts) - counts
    found: Ids = np.unique(np.repeat(first - before, counts) + np.arange(counts.sum()))
    return found
