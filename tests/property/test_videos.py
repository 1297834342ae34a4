"""Do damaged videos give a result or a reject and nothing else, and are parts between any frames exact?"""

from __future__ import annotations

import io
import random

import pytest

from mx8shards.convert.video_changes import VideoChanges
from mx8shards.errors import SourceError
from mx8shards.format.packet_index import parse_packet_index
from mx8shards.media.remuxing import remuxed
from mx8shards.media.video_index import index_video
from tests.videos import CELLS, encoded, planes_of, video

av = pytest.importorskip("av")

CHANGES = (VideoChanges(), VideoChanges(decode=False), VideoChanges(remux=True), VideoChanges(gop=8, max_side=48))


def sources() -> list[bytes]:
    made = [video(*cell).data for cell in CELLS]
    made += [encoded("h264", range(12), range(12), suffix=suffix) for suffix in ("avi", "flv", "mov", "asf")]
    return [*made, encoded("h264", range(12), range(12), audio=True)]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with some changed, removed or added, or cut short."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 2, 5, 20))):
        at = draw.randrange(max(1, len(found)))
        match draw.choice(("change", "change", "change", "head", "remove", "add", "cut")):
            case "change":
                found[at : at + 1] = draw.randbytes(1)
            case "head":
                found[at % 600 : at % 600 + 1] = bytes((draw.choice((0, 128, 255)),))
            case "remove":
                del found[at : at + draw.randrange(50)]
            case "add":
                found[at:at] = draw.randbytes(draw.randrange(20))
            case "cut":
                del found[max(9, at) :]
    return bytes(found)


def convert_damaged(seed: int, count: int) -> tuple[int, int]:
    """Convert damaged videos; how many were accepted, and how many rejected."""
    draw, made, accepted = random.Random(seed), sources(), 0
    for _ in range(count):
        data = damaged(draw.choice(made), draw)
        try:
            sample = draw.choice(CHANGES).applied(data)
        except SourceError:
            continue
        index = parse_packet_index(sample["packets"], len(sample["video"]))
        assert len(index.frames) == sample["frames"] > 0
        accepted += 1
    return accepted, count - accepted


def test_damaged_videos_are_accepted_or_rejected():
    accepted, rejected = convert_damaged(1, 300)
    assert accepted > 20
    assert rejected > 100


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(8))
def test_many_damaged_videos_are_accepted_or_rejected(seed):
    assert all(convert_damaged(seed, 10_000))


@pytest.mark.hunt
@pytest.mark.parametrize(("codec", "form"), CELLS)
def test_parts_between_any_two_frames_have_just_these(codec, form):
    data, draw = video(codec, form).data, random.Random(f"{codec} {form}")
    index = index_video(data).packets
    frames = all_planes(data)
    times = [*index.pts[index.frames].tolist(), index.facts.end]
    for _ in range(100):
        begin, end = sorted(draw.sample(range(len(times)), 2))
        part = remuxed(data, index, span=(times[begin], times[end]))
        assert all_planes(part) == frames[begin:end]
        assert len(index_video(part).packets.frames) == end - begin


def all_planes(data: bytes) -> list[list[bytes]]:
    with av.open(io.BytesIO(data)) as container:
        return [planes_of(frame) for frame in container.decode(video=0)]
