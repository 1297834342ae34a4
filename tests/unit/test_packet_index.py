"""Is a packet index read as it was written, and are damaged ones refused?"""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.errors import FormatError
from mx8shards.format.packet_index import (
    HEAD_BYTES,
    MOST_PACKETS,
    MOST_TIME,
    PacketIndex,
    VideoFacts,
    encode_packet_index,
    parse_packet_index,
    parsing_bytes,
)

ARRAYS = ("pts", "dts", "position", "size", "keyframe", "disposable", "shown")
FACTS = VideoFacts(
    codec="h264",
    pixel_format="yuv420p",
    width=64,
    height=48,
    rotation=90,
    time_base=(1, 12_800),
    sample_aspect=(4, 3),
    matrix=1,
    range=2,
    siting=1,
    reorder=2,
    end=1 << 59,
    stream=3,
    slices=True,
    decoded=True,
)


def made(pts, dts, position, size, keyframe=None, shown=None, **facts):
    count = len(pts)
    ints = [np.array(values, np.int64) for values in (pts, dts, position, size)]
    first = np.arange(count) == 0
    return PacketIndex(
        replace(FACTS, **facts),
        b"extra",
        *ints,
        first if keyframe is None else np.array(keyframe, bool),
        np.arange(count) % 2 == 1,
        np.ones(count, bool) if shown is None else np.array(shown, bool),
    )


def simple(**facts):
    return made([0, 1024, 512], [-512, 0, 512], [48, 1048, 1148], [1000, 100, 90], **facts)


def assert_equal(found, index):
    assert (found.facts, found.extradata) == (index.facts, index.extradata)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(index, name))


times = st.integers(-(1 << 40), 1 << 40)


@st.composite
def indices(draw):
    count = draw(st.integers(1, 40))
    size = draw(st.lists(st.integers(0, 1 << 30), min_size=count, max_size=count))
    position = draw(st.lists(st.integers(0, 1 << 40), min_size=count, max_size=count))
    pts = draw(st.lists(times, min_size=count, max_size=count, unique=True))
    dts = draw(st.lists(times, min_size=count, max_size=count))
    return made(pts, dts, position, size)


@given(indices())
def test_an_index_is_read_as_it_was_written(index):
    assert_equal(parse_packet_index(encode_packet_index(index)), index)


def test_frames_are_the_shown_packets_in_the_order_of_presentation():
    index = made([0, 1024, 512], [-512, 0, 512], [48, 1048, 1148], [1000, 100, 90], shown=[True, True, False])
    assert index.frames.tolist() == [0, 1]
    assert simple().frames.tolist() == [0, 2, 1]


def test_equal_steps_take_no_bytes_per_packet():
    count = 10_000
    at = np.arange(count)
    data = encode_packet_index(made(512 * at, 512 * at, 48 + 100 * at, np.full(count, 100)))
    assert len(data) < count + 300


def test_packets_beyond_the_payload_are_refused():
    data = encode_packet_index(simple())
    parse_packet_index(data, 1238)
    with pytest.raises(FormatError, match="packets inside the payload"):
        parse_packet_index(data, 1237)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"width": 0}, "width and height"),
        ({"height": 1 << 17}, "width and height"),
        ({"time_base": (1, 0)}, "time base"),
        ({"sample_aspect": (0, 1)}, "sample aspect"),
        ({"rotation": 45}, "rotation"),
        ({"range": 3}, "range"),
        ({"reorder": 17}, "at most 16 frames"),
        ({"codec": ""}, "a name"),
        ({"codec": "../x"}, "a name"),
        ({"pixel_format": "Ä"}, "a name"),
        ({"end": 1024}, "an end after"),
        ({"end": MOST_TIME + 1}, "an end after"),
    ],
)
def test_facts_that_cannot_be_are_not_written(change, rule):
    with pytest.raises(FormatError, match=rule):
        encode_packet_index(simple(**change))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"pts": [0, 5, 5]}, "a time of its own"),
        ({"pts": [0, 5, MOST_TIME + 1]}, "times up to"),
        ({"size": [1000, -1, 3]}, "packets with a size"),
        ({"position": [48, -5, 100]}, "inside the payload"),
        ({"keyframe": [False, True, True]}, "a keyframe first"),
        ({"shown": [False, False, False]}, "a packet that is shown"),
    ],
)
def test_packets_that_cannot_be_are_not_written(arguments, rule):
    usual = {"pts": [0, 1024, 512], "dts": [-512, 0, 512], "position": [48, 1048, 1148], "size": [1000, 100, 90]}
    with pytest.raises(FormatError, match=rule):
        encode_packet_index(made(**{**usual, **arguments}))


def test_every_truncated_index_is_refused():
    data = encode_packet_index(simple())
    for end in range(len(data)):
        with pytest.raises(FormatError):
            parse_packet_index(data[:end])
    with pytest.raises(FormatError):
        parse_packet_index(data + b"\0")


@given(st.data())
def test_changed_bytes_give_a_format_error_or_a_valid_index(data):
    whole = bytearray(encode_packet_index(simple()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        index = parse_packet_index(bytes(whole), 5_000)
    except FormatError:
        return
    assert (index.position + index.size).max() <= 5_000 or not index.facts.slices
    assert np.abs(index.pts).max() <= MOST_TIME
    assert_equal(parse_packet_index(encode_packet_index(index)), index)


def test_the_vectors_of_the_specification_hold(repository):
    vectors = json.loads((repository / "format_spec/vectors/packets.json").read_text(encoding="utf-8"))
    for vector in vectors["indices"]:
        data = bytes.fromhex(vector["index"])
        index = parse_packet_index(data, vectors["video_bytes"])
        for name, value in vector["facts"].items():
            found = getattr(index.facts, name)
            assert (list(found) if isinstance(found, tuple) else found) == value
        assert index.extradata.hex() == vector["extradata"]
        for name in ("pts", "dts", "position", "size"):
            assert getattr(index, name).tolist() == vector[name]
        flags = index.keyframe + 2 * index.disposable + 4 * index.shown
        assert flags.tolist() == vector["flags"]
        assert encode_packet_index(index) == data
    for vector in vectors["refused"]:
        with pytest.raises(FormatError):
            parse_packet_index(bytes.fromhex(vector["index"]), vectors["video_bytes"])


def test_a_step_beyond_the_largest_time_is_refused_also_from_a_low_base():
    whole = encode_packet_index(simple())
    old = struct.pack("<qQB", 512, 1, 0)  # of the times of decoding
    assert whole.count(old) == 1
    new = struct.pack("<qQB", -MOST_TIME, 2 * MOST_TIME, 1) + b"\0\1"
    with pytest.raises(FormatError, match="dts: expected a step"):
        parse_packet_index(whole.replace(old, new))


@pytest.mark.parametrize("unit", [1, 1 << 30])
def test_parsing_takes_no_more_memory_than_the_header_tells(unit: int) -> None:
    count, rng = 20_000, np.random.default_rng(2)
    pts, dts, position = (rng.permutation(count) * unit for _ in range(3))
    data = encode_packet_index(made(pts, dts, position, rng.integers(0, 1 << 30, count)))
    tracemalloc.start()
    try:
        assert len(parse_packet_index(data).frames) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + len(data) <= parsing_bytes(data[:HEAD_BYTES], len(data))


def test_an_index_of_too_many_packets_is_refused() -> None:
    head = encode_packet_index(simple())
    data = head[:66] + struct.pack("<I", MOST_PACKETS + 1) + head[70:] + bytes(MOST_PACKETS)
    with pytest.raises(FormatError, match="expected known flags and packets"):
        parse_packet_index(data)
    with pytest.raises(FormatError, match="expected b'MX8PKT1"):
        parsing_bytes(data[1:], 100)
