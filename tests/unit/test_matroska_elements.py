"""Are damaged Matroska files found whose demuxer ends early without an error?"""

from __future__ import annotations

import io

import pytest

from mx8shards.errors import DecodeError
from mx8shards.media.container_ends import check_whole
from mx8shards.media.video_index import index_video
from tests.videos import FRAMES, video

av = pytest.importorskip("av")


@pytest.fixture
def data() -> bytes:
    return video("vp9", "wrong rate").data


def blocks_of(data: bytes) -> list[int]:
    """Where the demuxer finds the data of blocks: behind their ids and sizes."""
    with av.open(io.BytesIO(data)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size]


def test_a_whole_file_passes_as_bytes_and_as_a_file(data):
    check_whole(data)
    check_whole(io.BytesIO(data))


def test_a_damaged_head_of_a_block_is_found_where_the_demuxer_finds_nothing(data):
    at = blocks_of(data)[FRAMES // 2] - 3
    damaged = data[:at] + bytes(byte ^ 0x33 for byte in data[at : at + 60]) + data[at + 60 :]
    assert 0 < len(blocks_of(damaged)) < FRAMES
    for source in (damaged, io.BytesIO(damaged)):
        with pytest.raises(DecodeError, match="a damaged element at byte"):
            check_whole(source)
    with pytest.raises(DecodeError, match="a damaged element at byte"):
        index_video(damaged)


def test_a_file_that_is_cut_short_is_found(data):
    with pytest.raises(DecodeError, match=f"expected {len(data)} bytes \\(its head\\), got {len(data) - 100}"):
        check_whole(data[:-100])


@pytest.mark.parametrize("element", [b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"])
def test_elements_of_unknown_size_are_not_checked(element, data):
    at = data.index(element) + 4
    length = 9 - data[at].bit_length()
    unknown = ((1 << (7 * length + 1)) - 1).to_bytes(length, "big")
    check_whole(data[:at] + unknown + data[at + length :])


def test_every_byte_may_be_wrong_and_the_error_is_ours(data):
    for at in range(len(data)):
        try:
            check_whole(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        except DecodeError:
            continue
