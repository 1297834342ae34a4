"""Is it estimated sensibly how much of a shard an epoch of clips needs?"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.clip_times import NANOSECONDS, ClipTimes, VideoColumns
from mx8shards.loading.planning.sparse_shards import _few_positions, clip_bytes, sparse_shards, with_cheap_digests
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Extras, Ids, View
from tests.clip_data import write_videos
from tests.videos import video

MIB = 1 << 20


@pytest.mark.parametrize(
    ("times", "mib"),
    [
        (ClipTimes(frames=16, random=1), 3),
        (ClipTimes(frames=16, stride=30, every=1), 6),  # over two GOPs
        (ClipTimes(frames=16, fps=Fraction(1), random=1), 6),
        (ClipTimes(frames=3, at=(-NANOSECONDS, 0, NANOSECONDS), anchors="a"), 3),
        (ClipTimes(frames=3, at=(0, NANOSECONDS, 90 * NANOSECONDS), anchors="a"), 9),  # never more GOPs than frames
    ],
)
def test_a_clip_needs_its_gops(times: ClipTimes, mib: int) -> None:
    videos = VideoColumns(names=("video",), packets=("packets",), times=times)
    assert clip_bytes(videos, np.array([64.0 * MIB, 1.0 * MIB])).tolist() == [mib * MIB, (mib if times.at else 1) * MIB]


def test_a_clip_of_a_long_video_needs_its_part_of_the_bytes() -> None:
    videos = VideoColumns(
        names=("video",), packets=("packets",), times=ClipTimes(frames=16, random=1), mean_length=26_600
    )
    assert clip_bytes(videos, np.array([100.0 * MIB])).tolist() == [1.0 * MIB]


def test_local_shards_are_never_read_in_parts(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [video("h264").data]) as dataset:
        assert sparse_shards(dataset.shards, dataset.clips("video", frames=4, random=1).view) is None
        with mx8.Loader(dataset.clips("video", frames=4), batch_size=2, decode={"video": mx8.Clip(8)}) as loader:
            assert not loader._assembly.plan.shard_table.parts.are_possible


def test_digests_of_a_large_dataset_are_not_fetched_for_a_few_shards() -> None:
    """The first side-car covers 1,000 shards of 64 MiB, the second one 10."""
    digests = [(slice(0, 1_000), 125 * MIB), (slice(1_000, 1_010), 2 * MIB)]
    sparse, saved = np.ones(1_010, np.bool_), np.zeros(1_010)
    saved[[7, 1_001]] = 60.0 * MIB
    assert np.flatnonzero(with_cheap_digests(sparse, saved, digests)).tolist() == list(range(1_000, 1_010))
    saved[[70, 700]] = 60.0 * MIB
    assert with_cheap_digests(sparse, saved, digests).all()


class CountingView:
    """A view that counts the positions that are resolved."""

    def __init__(self, view: View) -> None:
        self._view, self.resolved = view, 0

    def __len__(self) -> int:
        return len(self._view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def resolve(self, positions: Ids, epoch: int = 0, seed: int = 0) -> tuple[Ids, Extras]:
        self.resolved += len(positions)
        return self._view.resolve(positions, epoch, seed)


def counted(shards: Shards, view: View, enough: int) -> tuple[list[int], int]:
    """The shards with fewer positions than that, and how many positions were resolved to find them."""
    counting = CountingView(view)
    few, _ = _few_positions(shards, counting, np.full(shards.count, float(enough)))
    return np.flatnonzero(few).tolist(), counting.resolved


def test_positions_are_counted_only_as_far_as_needed(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [video("h264").data] * 12) as dataset:
        shards, view = dataset.shards, dataset.select(np.arange(12).repeat(640)).view
        positions = np.diff(shards.starts) * 640
        assert shards.count > 2
        assert counted(shards, view, positions.min() // 64) == ([], len(view) // 64)
        assert counted(shards, view, positions.min()) == ([], len(view) // 64 + len(view))
        some = dataset.select(np.arange(int(shards.starts[1])).repeat(640)).view
        assert counted(shards, some, 1)[0] == list(range(1, shards.count))
