"""Of which shards does an epoch of clips need so little that reading them in parts pays?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mx8shards.format.clip_times import NANOSECONDS, VideoColumns
from mx8shards.shards.open_shard import Shards
from mx8shards.views import View

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PART = 3  # ranges pay below about a third of the bytes of a shard
_GOP_FRAMES, _GOP_NS, _GOP_BYTES = 250, 10 * NANOSECONDS, 3 << 20  # at most: a guess, as no video is opened
_AT_ONCE = 1 << 20  # positions
_STEPS = (64, 1)  # of positions: every 64th one tells of most views that no shard is sparse


def sparse_shards(shards: Shards, view: View, epochs: float = 1.0, *, needs_whole: bool = False) -> Bools | None:
    """The shards of which a view of clips needs less than a third; None if there are none.

    `epochs`: how often an epoch of the order has each position of the view, on all ranks: they may share a mirror.
    `needs_whole`: whole videos are needed, not only GOPs.
    """
    is_local = all(opened.provider.parallel is None for opened in shards.opened)
    if is_local or view.videos is None or not len(view):
        return None
    sizes = np.concatenate([snapshot.index.raw.size_bytes for snapshot in shards.snapshots])
    means = sizes / np.maximum(np.diff(shards.starts), 1)
    blocks = shards.block_bytes
    gops = means if needs_whole else clip_bytes(view.videos, means)
    needed = epochs * np.minimum(means, gops + blocks)  # of each position
    enough = (sizes - blocks) / np.maximum(_PART * needed, 1)  # positions in a shard that is not sparse
    few, counts = _few_positions(shards, view, enough)
    sparse: Bools = (blocks > 0) & few
    if not shards.limited:  # a cache with a limit may have no room for whole shards
        saved = np.where(counts > 0, sizes - needed * counts, 0.0)
        sparse = with_cheap_digests(sparse, saved, shards.digest_bytes)
    return sparse if sparse.any() else None


def with_cheap_digests(sparse: Bools, saved: Floats, digests: Iterable[tuple[slice, int]]) -> Bools:
    """Those of these shards whose digests take fewer bytes than reading the shards in parts saves.

    Digests are only fetched for all shards of a side-car: of a large dataset they are more than a few whole shards.

    Args:
        sparse: Shards that may be read in parts.
        saved: The bytes that this saves in each shard.
        digests: The shards of each side-car with digests, and its bytes.
    """
    found = sparse.copy()
    for covered, size_bytes in digests:
        found[covered] &= saved[covered][sparse[covered]].sum() > size_bytes
    return found


def clip_bytes(videos: VideoColumns, sample_bytes: Floats) -> Floats:
    """A guess of the bytes of the GOPs that one clip needs, of samples of these mean sizes."""
    times = videos.times
    if times.at is not None:
        gops = min(len(times.at), 1 + (max(times.at) - min(times.at)) // _GOP_NS)
        return np.full(len(sample_bytes), float(gops * _GOP_BYTES))
    gop = _GOP_FRAMES if times.fps is None else max(1, int(_GOP_NS * times.fps) // NANOSECONDS)
    share = min(1.0, (times.span + gop) / videos.mean_length) if videos.mean_length else 1.0
    return np.minimum(_GOP_BYTES * (1 + times.span // gop), sample_bytes * share)


def _few_positions(shards: Shards, view: View, enough: Floats) -> tuple[Bools, Ints]:
    """The shards that have fewer than `enough` positions of the view, and how many: exactly, if there are such shards.

    Counts all positions only if it has to.
    """
    few, counts = np.ones(shards.count, np.bool_), np.zeros(shards.count, np.int64)
    for step in _STEPS:
        if few.any():
            counts = _positions(shards, view, step)
            few = counts < enough
    return few, counts


def _positions(shards: Shards, view: View, step: int) -> Ints:
    """The number of every `step`-th position of the view in each shard."""
    counts = np.zeros(shards.count, np.int64)
    for start in range(0, len(view), step * _AT_ONCE):
        ids, _ = view.resolve(np.arange(start, min(start + step * _AT_ONCE, len(view)), step))
        counts += np.bincount(np.searchsorted(shards.starts, ids, side="right") - 1, minlength=shards.count)
    return counts
