"""Is it estimated sensibly how much of a shard an epoch of clips needs?"""

from __future__ import annotations

from pathlib import Path

import pytest

import mx8shards as mx8
from mx8shards.format.clip_times import NANOSECONDS, ClipTimes
from mx8shards.loading.planning.sparse_shards import clip_bytes, sparse_shards
from tests.clip_data import write_videos
from tests.videos import video

MIB = 1 << 20


@pytest.mark.parametrize(
    ("times", "mib"),
    [
        (ClipTimes(frames=16, random=1), 4),
        (ClipTimes(frames=16, stride=30, every=1), 7),  # over two GOPs
        (ClipTimes(frames=3, at=(-NANOSECONDS, 0, NANOSECONDS), anchors="a"), 4),
        (ClipTimes(frames=3, at=(0, NANOSECONDS, 90 * NANOSECONDS), anchors="a"), 10),  # never more GOPs than frames
    ],
)
def test_a_clip_needs_its_gops_and_what_its_sample_has_beside_the_video(times: ClipTimes, mib: int) -> None:
    assert clip_bytes(times) == mib * MIB


def test_local_shards_are_never_read_in_parts(tmp_path: Path) -> None:
    with write_videos(tmp_path / "data", [video("h264").data]) as dataset:
        assert sparse_shards(dataset.shards, dataset.clips("video", frames=4, random=1).view) is None
        with mx8.Loader(dataset.clips("video", frames=4), batch_size=2, decode={"video": mx8.Clip(8)}) as loader:
            assert not loader._assembly.plan.shard_table.parts.are_possible
