"""How is every clip of a video a position of a view? Its extras say which clip of the video it is, and where it begins.

The clips of one video follow each other. Their number depends only on the lengths of the videos, so that no video is
opened to count them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property

import numpy as np

from mx8shards.format.clip_times import CLIP, CLIP_ID, START, VideoColumns, count_clips
from mx8shards.format.randomness import Words, occurrences_of, words
from mx8shards.views import Extras, Ids, View, with_occurrences

NO_LENGTHS: Ids = np.zeros(0, np.int64)  # for clips around anchors

_HALF = np.uint64(32)
_PURPOSE = "clip"


class ClipView:
    """Every clip of the videos at the positions of another view.

    `lengths` are the lengths of these videos in frames or moments, `anchors` the starts of their clips in nanoseconds:
    for each video, its first anchor, and behind the last video the number of anchors.
    """

    def __init__(self, base: View, columns: VideoColumns, lengths: Ids, anchors: tuple[Ids, Ids] | None = None) -> None:
        self.videos = replace(columns, mean_length=float(lengths.mean())) if len(lengths) else columns
        self._base = base
        self._lengths = lengths
        self._anchors = None if anchors is None else anchors[0]
        times = columns.times
        self._starts = (
            np.concatenate([[0], np.cumsum(count_clips(times, lengths))]) if anchors is None else anchors[1]
        ).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def digest(self) -> str:
        """A hash of the columns, the settings and the base view."""
        names, settings = list(self.videos.names), self.videos.times.settings()
        return hashlib.sha256(json.dumps(["clips", self._base.digest, names, *settings]).encode()).hexdigest()

    @cached_property
    def occurrences(self) -> int:
        """The base view's bound, times the largest number of clips of a video."""
        return self._base.occurrences * int(np.diff(self._starts).max(initial=1))

    @property
    def varies_by_epoch(self) -> bool:
        """False: the videos are the same in every epoch, and only the starts of random clips are drawn anew."""
        return False

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        """The videos of these clips. Two clips of one video differ in their occurrence, and so in their draws."""
        video = np.searchsorted(self._starts, positions, side="right") - 1
        number = positions - self._starts[video]
        sample_ids, extras = self._base.resolve(video, epoch, seed)
        extras = with_occurrences(extras, number, self._base.occurrences)
        if self._anchors is not None:
            start = self._anchors[positions]
        elif self.videos.times.random is not None:
            drawn = words(seed, epoch, sample_ids, _PURPOSE, 1, occurrences_of(extras))[:, 0]
            start = _scaled(drawn, np.maximum(self._lengths[video] - self.videos.times.span, 0) + 1)
        else:
            start = number * self.videos.times.every
        return sample_ids, {**extras, CLIP_ID: positions, CLIP: number, START: start.astype(np.int64)}


def _scaled(drawn: Words, most: Ids) -> Ids:
    """Random integers from 0 to before `most`, from random words, as `randomness.integers` draws them."""
    return (((drawn >> _HALF) * most.astype(np.uint64)) >> _HALF).astype(np.int64)
