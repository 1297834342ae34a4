"""Are random JPEGs tiled and untiled without loss, and do kernels stay within their arrays?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mx8shards.errors import DecodeError
from mx8shards.kernels import huffman_tables, jpeg, jpeg_tiles, recoding
from mx8shards.kernels.jpeg import HEAD
from mx8shards.kernels.jpeg_tiles import TILES
from mx8shards.media.tiles import is_tiled, tile, untile
from tests import jpegs

Array = np.ndarray[Any, Any]

FACTORS = st.sampled_from(
    [
        *([0x11], [0x22], [0x11] * 3, [0x21, 0x11, 0x11], [0x22, 0x11, 0x11], [0x12, 0x11, 0x11], [0x41, 0x11, 0x11]),
        *([0x22, 0x21, 0x12], [0x11, 0x21, 0x11], [0x31, 0x11, 0x11], [0x12, 0x21, 0x11]),
    ]
)
RANDOM_JPEGS = st.builds(
    jpegs.random_jpeg,
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.integers(1, 50),
    FACTORS,
    interval=st.sampled_from([0, 0, 1, 2, 7, 40]),
    padding=st.sampled_from([127, 0, 85]),
    dense=st.sampled_from([0.0, 0.3, 0.8, 0.95]),
)
SOURCES = [
    jpegs.encoded(jpegs.noise(150, 40), quality=60),
    jpegs.encoded(jpegs.noise(150, 40).convert("L"), optimize=True),
    jpegs.encoded(jpegs.noise(150, 40), quality=60, restart_marker_blocks=3, subsampling=0),
    jpegs.random_jpeg(9, 190, 60, [0x21, 0x11, 0x11], interval=5),
]
TILED = [tile(source) for source in SOURCES]


@settings(max_examples=60)
@given(RANDOM_JPEGS)
def test_tiling_random_jpegs_keeps_their_coefficients_and_is_reversible(data: bytes) -> None:
    found = tile(data)
    assert untile(found) == data
    if found != data:
        assert jpegs.coefficients(found) == jpegs.coefficients(data)


@settings(max_examples=30)
@given(RANDOM_JPEGS, st.data())
def test_splices_of_random_jpegs_have_the_coefficients_of_their_tiles(data: bytes, draw: st.DataObject) -> None:
    found = tile(data)
    if found == data:
        return
    head, view, rectangle = head_of(found), np.frombuffer(found, np.uint8), record(TILES)
    xs = sorted(draw.draw(st.lists(st.integers(0, int(head["width"])), min_size=2, max_size=2, unique=True)))
    ys = sorted(draw.draw(st.lists(st.integers(0, int(head["height"])), min_size=2, max_size=2, unique=True)))
    assert jpeg_tiles.tiles_for(view, head, xs[0], ys[0], xs[1], ys[1], rectangle) == jpeg.OK
    out = np.empty(len(found), np.uint8)
    size = jpeg_tiles.splice(view, head, view, 0, rectangle, out)
    columns, per_tile = head["columns"] // head["restart_interval"], int(head["restart_interval"]) * per_mcu(head)
    blocks = jpegs.coefficients(found)
    wanted: list[list[int]] = []
    for row in range(rectangle["row_begin"], rectangle["row_end"]):
        start, stop = ((row * columns + rectangle[name]) * per_tile for name in ("column_begin", "column_end"))
        wanted += blocks[start:stop]
    assert jpegs.coefficients(out[:size].tobytes()) == wanted


def per_mcu(head: Any) -> int:
    return int((head["h"] * head["v"]).sum()) if head["components"] > 1 else 1


def record(dtype: np.dtype[Any]) -> Any:
    return np.zeros(1, dtype)[0]


def head_of(data: bytes) -> Any:
    head = record(HEAD)
    assert jpeg.read_head(np.frombuffer(data, np.uint8), head) == jpeg.OK
    return head


# hostile bytes -------------------------------------------------------------------------------------------------------


def call_everything(data: bytes, seed: int) -> None:
    """Call everything that takes a JPEG with these bytes. Any result is allowed, but no crash and no write outside.

    Guard bytes around the buffers are checked afterwards. Reads outside are found by bounds checking in
    tests/integration/test_bounds_checks.py.
    """
    random = np.random.default_rng(seed)
    head, rectangle = record(HEAD), record(TILES)
    view = np.frombuffer(data, np.uint8)
    status = jpeg.read_head(view, head)
    again = tile(data)
    assert untile_or_none(again) in (data, None) if again != data else True
    untile_or_none(data)
    if status != jpeg.OK:
        assert not is_tiled(data)
        return
    assert 0 < head["sos"] < head["entropy"] <= len(data)
    assert 0 < head["sof"] < head["sos"]
    assert 0 < head["width"] < 65_536 > head["height"] > 0
    left, top = random.integers(0, head["width"]), random.integers(0, head["height"])
    right, bottom = random.integers(left, head["width"]) + 1, random.integers(top, head["height"]) + 1
    status = jpeg_tiles.tiles_for(view, head, int(left), int(top), int(right), int(bottom), rectangle)
    if status != jpeg.OK:
        assert not is_tiled(data)
        rectangle = any_rectangle(random, len(data))
    room = int(random.integers(0, len(data) + 9))
    out = np.full(room + 16, 171, np.uint8)
    begin = int(random.choice([0, rectangle["begin"], random.integers(0, 2 * len(data) + 2)]))
    size = jpeg_tiles.splice(view, head, view[begin:], begin, rectangle, out[8 : 8 + room])
    assert size <= room
    assert (out[:8] == 171).all()
    assert (out[8 + room :] == 171).all()
    if size > 0 and status == jpeg.OK:
        part = head_of(out[8 : 8 + size].tobytes())
        assert (part["width"], part["height"]) == (rectangle["width"], rectangle["height"])


def any_rectangle(random: np.random.Generator, size: int) -> Any:
    """An unchecked rectangle."""
    rectangle = record(TILES)
    for name in TILES.names or ():
        rectangle[name] = random.choice([-1, 0, 1, 2, size, 1 << 40, random.integers(-size, size + 1)])
    return rectangle


def untile_or_none(data: bytes) -> bytes | None:
    try:
        return untile(data)
    except DecodeError:
        return None


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Change, remove, repeat or truncate bytes, mostly in the head."""
    new = bytearray(data)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(0, max(len(new) // int(random.choice([1, 1, 6])), 1)))
        match random.integers(0, 6):
            case 0:
                new[at : at + 1] = bytes([random.integers(0, 256)])
            case 1:
                new[at : at + 1] = bytes([random.choice([0, 1, 2, 17, 127, 255, 0xD0, 0xD9])])
            case 2:
                new[at : at + 2] = int(random.choice([0, 1, 2, 255, 256, 65_535, len(new)]) & 65_535).to_bytes(2, "big")
            case 3:
                del new[at : at + int(random.integers(1, 9))]
            case 4:
                new[at:at] = new[at : at + int(random.integers(1, 30))]
            case _:
                if random.random() < 0.3:
                    del new[at:]
    return bytes(new)


@settings(max_examples=300)
@given(st.integers(0, len(SOURCES) * 2 - 1), st.integers(0, 2**32 - 1))
def test_mutated_jpegs_are_tiled_correctly_or_refused(number: int, seed: int) -> None:
    call_everything(mutated((SOURCES + TILED)[number], np.random.default_rng(seed)), seed)


@settings(max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 99))
def test_random_bytes_are_tiled_correctly_or_refused(data: bytes, seed: int) -> None:
    call_everything(data, seed)
    call_everything(b"\xff\xd8" + data, seed)


@pytest.mark.parametrize("number", range(len(SOURCES)))
def test_truncated_jpegs_are_tiled_correctly_or_refused(number: int) -> None:
    for size in range(0, len(TILED[number]), 97):
        call_everything(TILED[number][:size], size)


@settings(max_examples=100)
@given(st.integers(0, len(SOURCES) - 1), st.integers(0, 2**32 - 1), st.integers(0, 3000))
def test_recoding_writes_only_inside_its_buffer(number: int, seed: int, room: int) -> None:
    """Also with buffers of wrong sizes."""
    data = mutated(SOURCES[number], np.random.default_rng(seed))
    view, head = np.frombuffer(data, np.uint8), record(HEAD)
    tables, lookups = np.zeros(8, huffman_tables.HUFFMAN), np.zeros((12, 1 << huffman_tables.PEEK), np.uint32)
    if jpeg.read_head(view, head) != jpeg.OK or huffman_tables.prepare(view, head, tables, lookups) != jpeg.OK:
        return
    if head["columns"] * head["rows"] > 1 << 16 or head["components"] > 3 or not head["one_scan"]:
        return
    sizes, found = np.zeros(head["columns"] * head["rows"], np.int64), np.zeros(recoding.FOUND, np.int64)
    rooms = [np.full(size + 16, 171, np.uint8) for size in (len(data) + recoding.SPARE, room, 2 * room)]
    inner = tuple(one[8:-8] for one in rooms)
    recoding.recode(view, head, (tables, lookups), 1 + seed % 5, 127, inner, sizes, found)
    assert all((one[:8] == 171).all() and (one[-8:] == 171).all() for one in rooms)


@pytest.mark.hunt
def test_a_hundred_thousand_mutations_are_tiled_correctly_or_refused() -> None:
    random = np.random.default_rng()
    for _ in range(100_000):
        seed = int(random.integers(1 << 32))
        data = mutated((SOURCES + TILED)[seed % 8], np.random.default_rng(seed))
        try:
            call_everything(data, seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
