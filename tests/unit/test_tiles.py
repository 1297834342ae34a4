"""Do tiled JPEGs have equal pixels, does untiling restore the bytes, and are spliced tiles correct?"""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.errors import DecodeError
from mx8shards.kernels import huffman_tables, jpeg, jpeg_tiles
from mx8shards.kernels.jpeg import HEAD
from mx8shards.kernels.jpeg_tiles import TILES
from mx8shards.media.decoding import decode_jpeg
from mx8shards.media.tiles import is_tiled, is_whole, tile, untile
from tests import jpegs
from tests.jpegs import SAMPLINGS, TURBO_SAMPLINGS, encoded, noise

NEEDS_TURBO = pytest.mark.skipif(not jpegs.HAS_TURBO, reason="there is no libturbojpeg")

ODD_SAMPLINGS = {  # samplings that Pillow does not write, made from ones with as many blocks per MCU
    "4:4:0": (1, [0x12, 0x11, 0x11]),
    "4:1:1": (2, [0x41, 0x11, 0x11]),
    "1:4": (2, [0x14, 0x11, 0x11]),
}


def tiled(data: bytes) -> bytes:
    """The tiled picture. Asserts its properties and that it is reversible."""
    found = tile(data)
    assert found != data
    assert is_tiled(found)
    assert not is_tiled(data)
    assert untile(found) == data
    assert tile(found) == found
    assert np.array_equal(jpegs.pixels(found), jpegs.pixels(data))
    if jpegs.HAS_TURBO and head_of(found)["components"] == 3:
        assert all(map(np.array_equal, jpegs.planes(found), jpegs.planes(data)))
    return found


def head_of(data: bytes) -> Any:
    head: Any = np.zeros(1, HEAD)[0]
    assert jpeg.read_head(np.frombuffer(data, np.uint8), head) == jpeg.OK
    return head


def tiles_of(data: bytes, left: int, top: int, right: int, bottom: int) -> Any:
    """Find the tiles of a rectangle from the head only, by the compiled and the plain code."""
    head, found = head_of(data), np.zeros(2, TILES)
    view = np.frombuffer(data[: head["entropy"]], np.uint8)
    for kernel, out in zip((jpeg_tiles.tiles_for, jpeg_tiles.tiles_for.py_func), found, strict=True):  # type: ignore[attr-defined]
        assert kernel(view, head, left, top, right, bottom, out) == jpeg.OK
    assert found[0] == found[1]
    return found[0]


def spliced(data: bytes, rectangle: Any, *, plain: bool = True) -> bytes:
    """Splice a rectangle by the compiled (and the plain) code, which gets only the head and the bytes of the tiles."""
    head = head_of(data)
    view = np.frombuffer(data[: head["entropy"]], np.uint8)
    begin, end = int(rectangle["begin"]), int(rectangle["end"])
    payload = np.frombuffer(data[begin:end], np.uint8)
    found = []
    kernels = (jpeg_tiles.splice, jpeg_tiles.splice.py_func)  # type: ignore[attr-defined]
    for kernel in kernels if plain else kernels[:1]:
        out = np.full(head["entropy"] + end - begin + 3, 171, np.uint8)
        size = kernel(view, head, payload, begin, rectangle, out[:-1])
        assert size > 0
        assert out[-1] == 171
        found.append(out[:size].tobytes())
    assert found[0] == found[-1]
    return found[0]


# equal pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
@pytest.mark.parametrize("size", [(64, 17), (65, 33), (127, 99), (200, 40), (257, 130)], ids=str)
def test_tiling_changes_no_pixel_and_is_reversible(sampling: str, size: tuple[int, int]) -> None:
    picture = noise(*size)
    if sampling == "grey":
        tiled(encoded(picture.convert("L")))
    else:
        tiled(encoded(picture, subsampling=SAMPLINGS[sampling]))


@pytest.mark.parametrize("sampling", ODD_SAMPLINGS)
def test_rare_samplings_are_tiled_too(sampling: str) -> None:
    written, factors = ODD_SAMPLINGS[sampling]
    data = jpegs.resampled(encoded(noise(128, 128), subsampling=written), factors)
    found = tile(data)
    assert found != data
    assert untile(found) == data
    assert jpegs.coefficients(found) == jpegs.coefficients(data)


@pytest.mark.parametrize("quality", [1, 2, 10, 50, 75, 95, 100])
@pytest.mark.parametrize("optimize", [False, True], ids=["usual tables", "tables of its own"])
def test_jpegs_of_every_quality_are_tiled(quality: int, optimize: bool) -> None:
    data = encoded(noise(150, 70, quality), quality=quality, optimize=optimize)
    assert jpegs.coefficients(tiled(data)) == jpegs.coefficients(data)


@pytest.mark.parametrize("grain", [0, 255], ids=["flat", "nothing but noise"])
@pytest.mark.parametrize("optimize", [False, True], ids=["usual tables", "tables of its own"])
def test_flat_and_noisy_pictures_are_tiled(grain: int, optimize: bool) -> None:
    picture = noise(150, 70, grain=grain) if grain else Image.new("RGB", (150, 70), (250, 3, 9))
    data = encoded(picture, quality=100, optimize=optimize)
    assert jpegs.coefficients(tiled(data)) == jpegs.coefficients(data)


def test_missing_categories_are_added_at_the_end_of_huffman_tables() -> None:
    """In a flat bright picture only the first DC difference is large, but every tile begins with one as large."""
    data = encoded(Image.new("L", (512, 64), 140).point(lambda _: 140), optimize=True, quality=90)
    ramp = Image.linear_gradient("L").resize((512, 64))
    found = tiled(encoded(ramp, optimize=True, quality=90))
    assert len(jpegs.code_tables(found)[0]) > len(jpegs.code_tables(untile(found))[0])
    tiled(data)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_restart_markers_of_the_source_are_restored(rows: int) -> None:
    data = encoded(noise(150, 70), restart_marker_rows=rows)
    assert head_of(tiled(data))["restart_interval"] == 5


def test_restart_markers_at_every_block_are_restored() -> None:
    tiled(encoded(noise(70, 50), restart_marker_blocks=1))


@pytest.mark.parametrize("padding", [0, 127, 85, 42])
@pytest.mark.parametrize("interval", [0, 1, 7])
def test_padding_bits_of_intervals_are_restored(padding: int, interval: int) -> None:
    data = jpegs.random_jpeg(padding, 130, 40, [0x22, 0x11, 0x11], interval=interval, padding=padding)
    assert untile(tile(data)) == data
    assert tile(data) != data


@pytest.mark.parametrize("tail", [b"a tail", b"\xff\xd9", b"\0" * 70_000], ids=["text", "another end", "zeros"])
def test_bytes_after_the_picture_are_restored(tail: bytes) -> None:
    assert tiled(encoded(noise(100, 50)) + tail).endswith(b"\xff\xd9" + tail)


def test_segments_of_other_programs_keep_their_position() -> None:
    data = encoded(noise(100, 50), comment=b"by hand", icc_profile=b"profile" * 20_000, exif=b"Exif\0\0" + bytes(99))
    found = tiled(data)
    before = [data[at:end] for at, marker, end in jpegs.segments(data) if marker != 0xDA]
    after = [found[at:end] for at, marker, end in jpegs.segments(found) if marker != 0xDA]
    assert after[: len(before)] == before
    assert [segment[1] for segment in after[len(before) :]] == [jpeg.TILES_MARKER, 0xDD]


@pytest.mark.parametrize(
    ("width", "across", "sampling"),
    [
        *((500, 64, 2), (380, 64, 0), (375, 376, 0), (496, 496, 2), (992, 32, 2), (90, 48, 2), (48, 48, 2)),
        *((1040, 80, 2), (1009, 1016, 0)),
    ],
)
def test_tiles_are_about_64_pixels_wide_or_whole_rows(width: int, across: int, sampling: int) -> None:
    head = head_of(tile(encoded(noise(width, 40), subsampling=sampling)))
    assert head["restart_interval"] * head["mcu_width"] == across


def test_a_typical_picture_grows_by_less_than_one_per_cent() -> None:
    data = encoded(noise(500, 375, grain=20), quality=90)
    assert 90_000 < len(data) < 130_000
    assert len(tile(data)) < 1.01 * len(data)


def test_tiles_of_large_pictures_are_wider_so_that_all_sizes_fit_one_segment() -> None:
    data = encoded(Image.new("L", (3200, 11_000), 7))
    head = head_of(tiled(data))
    assert head["restart_interval"] * 8 == 160
    assert head["tiles_size"] <= 65_537


def test_large_tiles_have_sizes_of_three_bytes() -> None:
    width = 8 * 2503  # a prime number
    picture = Image.frombytes("RGB", (width, 16), np.random.default_rng(0).bytes(width * 16 * 3))
    found = tiled(encoded(picture, quality=100, subsampling=0))
    assert found[head_of(found)["tiles"] + jpeg_tiles.WIDTH_AT] == 3
    part = spliced(found, tiles_of(found, 0, 8, width, 16), plain=False)
    assert np.array_equal(jpegs.pixels(part), jpegs.pixels(found)[8:])


def test_memory_is_not_allocated_for_a_size_that_only_the_head_claims() -> None:
    data = bytearray(encoded(noise(100, 50)))
    at = next(at for at, marker, _ in jpegs.segments(bytes(data)) if marker == 0xC0)
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    small = bytes(data)
    tile(small)
    tracemalloc.start()
    try:
        assert tile(small) == small
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_several_threads_can_tile_at_once() -> None:
    sources = [encoded(noise(200 + 20 * i, 80, i), quality=40 + 10 * i, optimize=True) for i in range(6)]
    alone = [tile(source) for source in sources]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tile, sources * 8)) == alone * 8
        assert list(pool.map(untile, alone * 8)) == sources * 8


# untiled pictures ----------------------------------------------------------------------------------------------------


def table_15() -> bytes:
    data = jpegs.random_jpeg(1, 200, 30, [0x11] * 3)
    at = next(at for at, marker, _ in jpegs.segments(data) if marker == 0xC4)
    return data[: at + 4] + b"\x0f" + data[at + 5 :]


def dc_table(change: Callable[[bytes], bytes]) -> bytes:
    """Change the first DC table of a file, so that libjpeg refuses it."""
    data = encoded(noise(100, 50))
    at, _, end = next(segment for segment in jpegs.segments(data) if segment[1] == 0xC4)
    table = change(data[at + 4 : end])
    data = data[:at] + b"\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table + data[end:]
    with pytest.raises(OSError, match="broken data stream"):
        Image.open(io.BytesIO(data)).load()
    return data


def other_padding() -> bytes:
    """A file with restart markers, one of them padded with zeros, the others with ones."""
    data = bytearray(jpegs.random_jpeg(1, 200, 60, [0x11] * 3, interval=9))
    at = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] == 0xD1 and data[at - 1] & 1)
    data[at - 1] &= 0xFE
    return bytes(data)


KEPT: dict[str, Any] = {
    "nothing": lambda: b"",
    "no JPEG": lambda: b"\x89PNG and so on",
    "progressive": lambda: encoded(noise(100, 50), progressive=True),
    "CMYK": lambda: encoded(noise(100, 50).convert("CMYK")),
    "one tile": lambda: encoded(noise(64, 16)),
    "one pixel": lambda: encoded(noise(1, 1)),
    "cut short": lambda: encoded(noise(100, 50))[:-9],
    "without an end": lambda: encoded(noise(100, 50))[:-2],
    "zeros before the end": lambda: encoded(noise(100, 50))[:-2] + b"\0\0\xff\xd9",
    "fill before the end": lambda: encoded(noise(100, 50))[:-2] + b"\xff\xff\xd9",
    "a table of an impossible number": table_15,
    "a DC category above 15": lambda: dc_table(lambda table: table[:18] + bytes((table[18] | 0x80,)) + table[19:]),
    "a code of ones alone": lambda: dc_table(lambda table: table[:9] + b"\2" + table[10:29] + b"\x0c" + table[29:]),
    "a reserved marker": lambda: encoded(noise(100, 50))[:2] + b"\xff\xf0\0\4ab" + encoded(noise(100, 50))[2:],
    "conditions of arithmetic codes": lambda: b"\xff\xd8\xff\xcc\0\4\x20\1" + encoded(noise(100, 50))[2:],
    "a marker in the midst": lambda: encoded(noise(100, 50))[:-900] + b"\xff\xd0" + encoded(noise(100, 50))[-900:],
    "paddings that differ": other_padding,
    "twice": lambda: encoded(noise(100, 50))[:-2] + encoded(noise(100, 50))[2:],
}


@pytest.mark.parametrize("name", KEPT)
def test_jpegs_that_cannot_be_tiled_stay_unchanged(name: str) -> None:
    data = KEPT[name]()
    assert tile(data) == data
    assert untile(data) == data
    assert not is_tiled(data)


EXTENDED = {  # the number of codes of each length, and the length of the added ones
    (1,): 5,
    (0, 1): 4,
    (0, 0, 7): 6,
    (1, 1, 1, 1, 1, 1, 1, 1, 1): 11,
    (*[0] * 15, 9): 16,
    (2,): None,  # no room
    (0, 0, 8): None,
    (*[1] * 15, 1): None,
    (*[0] * 9, 256): None,  # free codes, but no free symbols
}


@pytest.mark.parametrize("counts", EXTENDED, ids=str)
def test_tables_get_all_categories_after_their_own_codes_if_there_is_room(counts: tuple[int, ...]) -> None:
    """The code of only ones stays unused, as the standard requires."""
    length, given = EXTENDED[counts], sum(counts)
    table: Any = np.zeros(1, huffman_tables.HUFFMAN)[0]
    table["counts"][1 : len(counts) + 1] = counts
    table["total"] = given
    table["symbols"][:given] = range(20, 20 + given) if length is None else range(given)
    wanted = table["counts"].copy()
    if length is not None:
        wanted[length] += 12 - given
    huffman_tables.extend(table)
    assert table["counts"].tolist() == wanted.tolist()
    assert table["total"] == (given if length is None else 12)


# parts of a picture --------------------------------------------------------------------------------------------------


def every_rectangle(data: bytes) -> list[tuple[int, int, int, int]]:
    """A rectangle of whole tiles, in pixels."""
    head = head_of(data)
    across, down = int(head["restart_interval"] * head["mcu_width"]), int(head["mcu_height"])
    xs = [*range(0, int(head["width"]), across), int(head["width"])]
    ys = [*range(0, int(head["height"]), down), int(head["height"])]
    return [
        (left, top, right, bottom)
        for i, left in enumerate(xs)
        for right in xs[i + 1 :]
        for k, top in enumerate(ys)
        for bottom in ys[k + 1 :]
    ]


@NEEDS_TURBO
@pytest.mark.parametrize("sampling", TURBO_SAMPLINGS)
def test_planes_of_every_splice_equal_those_of_the_whole_picture(sampling: str) -> None:
    data = tile(jpegs.turbo_encoded(noise(189, 61), sampling, 90))
    whole = jpegs.planes(data)
    rectangles = every_rectangle(data)
    assert len(rectangles) in (6 * 10, 6 * 36)  # three columns of tiles, and four or eight rows
    for left, top, right, bottom in rectangles:
        part = spliced(data, tiles_of(data, left, top, right, bottom), plain=False)
        for full, plane in zip(whole, jpegs.planes(part), strict=True):
            across, down = round(189 / full.shape[1]), round(61 / full.shape[0])
            assert plane.shape[0] >= (bottom - top) / down
            assert plane.shape[1] >= (right - left) / across
            x, y = left // across, top // down
            assert np.array_equal(plane, full[y : y + plane.shape[0], x : x + plane.shape[1]])


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_pixels_of_every_splice_equal_the_whole_picture_except_near_borders(sampling: str) -> None:
    """At an inner border libjpeg has no neighbouring chroma to smooth with."""
    picture = noise(189, 61).convert("L" if sampling == "grey" else "RGB")
    data = tile(encoded(picture, **({"subsampling": SAMPLINGS[sampling]} if sampling in SAMPLINGS else {})))
    whole = jpegs.pixels(data)
    margin = 0 if sampling in ("grey", "4:4:4") else 2
    for left, top, right, bottom in every_rectangle(data):
        part = jpegs.pixels(spliced(data, tiles_of(data, left, top, right, bottom), plain=False))
        assert part.shape[:2] == (bottom - top, right - left)
        inner = (slice(margin, bottom - top - margin), slice(margin, right - left - margin))
        assert np.array_equal(part[inner], whole[top:bottom, left:right][inner])


@pytest.mark.parametrize("rectangle", [(0, 0, 1, 1), (63, 15, 65, 17), (64, 16, 128, 32), (5, 3, 149, 61)], ids=str)
def test_a_rectangle_is_covered_by_the_fewest_tiles(rectangle: tuple[int, int, int, int]) -> None:
    data = tile(encoded(noise(256, 61)))
    left, top, right, bottom = rectangle
    found = tiles_of(data, *rectangle)
    assert found["left"] == left // 64 * 64
    assert found["top"] == top // 16 * 16
    assert found["left"] + found["width"] == min(-(-right // 64) * 64, 256)
    assert found["top"] + found["height"] == min(-(-bottom // 16) * 16, 61)
    assert (found["column_begin"], found["column_end"]) == (left // 64, -(-right // 64))
    assert (found["row_begin"], found["row_end"]) == (top // 16, -(-bottom // 16))


def test_all_tiles_concatenated_are_the_entropy_coded_data() -> None:
    data = tile(encoded(noise(256, 61)) + b"a tail")
    found = tiles_of(data, 0, 0, 256, 61)
    assert found["begin"] == head_of(data)["entropy"]
    assert data[found["end"] :] == b"\xff\xd9a tail"


def test_a_splice_has_only_segments_that_affect_its_pixels() -> None:
    data = tile(encoded(noise(256, 61), comment=b"by hand", icc_profile=bytes(999), exif=b"Exif\0\0" + bytes(99)))
    part = spliced(data, tiles_of(data, 70, 20, 80, 30))
    assert {marker for _, marker, _ in jpegs.segments(part)} == {0xE0, 0xDB, 0xC4, 0xC0, 0xDD, 0xDA}
    assert part.endswith(b"\xff\xd9")
    assert not is_tiled(part)


def test_a_splice_keeps_the_colour_model() -> None:
    data = tile(encoded(noise(256, 61), keep_rgb=True))
    part = jpegs.pixels(spliced(data, tiles_of(data, 64, 16, 128, 32)))
    assert np.array_equal(part, jpegs.pixels(data)[16:32, 64:128])


@pytest.mark.parametrize("missing", [1, 30, 200])
def test_a_splice_larger_than_its_buffer_is_refused(missing: int) -> None:
    data = tile(encoded(noise(256, 61)))
    view, head, rectangle = np.frombuffer(data, np.uint8), head_of(data), tiles_of(data, 64, 16, 128, 32)
    size = len(spliced(data, rectangle))
    out = np.full(size, 171, np.uint8)
    assert jpeg_tiles.splice(view, head, view, 0, rectangle, out[: size - missing]) == -jpeg.NO_ROOM
    assert (out[size - missing :] == 171).all()


@pytest.mark.parametrize("rectangle", [(-1, 0, 5, 5), (5, 5, 5, 9), (0, 0, 257, 5), (0, 60, 5, 62)], ids=str)
def test_rectangles_outside_the_picture_are_refused(rectangle: tuple[int, int, int, int]) -> None:
    data = tile(encoded(noise(256, 61)))
    found: Any = np.zeros(1, TILES)[0]
    view = np.frombuffer(data, np.uint8)
    assert jpeg_tiles.tiles_for(view, head_of(data), *rectangle, found) == jpeg.BAD_TILES


def test_a_picture_without_tiles_has_no_tile_index() -> None:
    data = encoded(noise(256, 61), restart_marker_rows=1)
    assert jpeg_tiles.check_tiles(np.frombuffer(data, np.uint8), head_of(data)) == jpeg.NOT_TILED


# inconsistent tile indices -------------------------------------------------------------------------------------------

AT = jpeg_tiles.SIZES_AT
LIES = {
    "another version": (jpeg_tiles.VERSION_AT, b"\2"),
    "sizes of one byte": (jpeg_tiles.WIDTH_AT, b"\1"),
    "sizes of three bytes": (jpeg_tiles.WIDTH_AT, b"\3"),
    "a longer rest": (jpeg_tiles.REST_AT + 3, b"\3"),
    "a rest beyond all bounds": (jpeg_tiles.REST_AT, b"\xff\xff\xff\xff"),
    "a longer tile": (AT, b"\xff\xff"),
    "no tile": (AT + 6, b"\0\0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_inconsistent_tile_index_is_ignored(lie: str) -> None:
    data = tile(encoded(noise(256, 61)))
    at, new = LIES[lie]
    at += int(head_of(data)["tiles"])
    broken = data[:at] + new + data[at + len(new) :]
    assert not is_tiled(broken)
    assert untile(broken) == broken == tile(broken)
    assert np.array_equal(jpegs.pixels(broken), jpegs.pixels(data))  # nothing else reads the segment


def test_tiles_with_wrong_sizes_of_the_right_sum_are_not_spliced() -> None:
    data = tile(encoded(noise(256, 61)))
    at = int(head_of(data)["tiles"]) + AT
    first, second = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (0, 2))
    sizes = (first + 1).to_bytes(2, "big") + (second - 1).to_bytes(2, "big")
    broken = data[:at] + sizes + data[at + 4 :]
    rectangle = tiles_of(broken, 0, 0, 256, 61)
    out = np.zeros(len(data), np.uint8)
    view = np.frombuffer(broken, np.uint8)
    assert jpeg_tiles.splice(view, head_of(broken), view, 0, rectangle, out) == -jpeg.BAD_TILES


def test_truncated_payloads_are_not_spliced() -> None:
    data = tile(encoded(noise(256, 61)))
    rectangle, head, out = tiles_of(data, 64, 0, 256, 61), head_of(data), np.zeros(len(data), np.uint8)
    view = np.frombuffer(data, np.uint8)
    payload = view[rectangle["begin"] : rectangle["end"] - 1]
    assert jpeg_tiles.splice(view, head, payload, int(rectangle["begin"]), rectangle, out) == -jpeg.BAD_TILES
    assert jpeg_tiles.splice(view, head, view[100:], 20_000, rectangle, out) == -jpeg.BAD_TILES


def test_a_tiled_picture_that_was_damaged_is_not_untiled() -> None:
    data = bytearray(tile(encoded(noise(256, 61))))
    head = head_of(bytes(data))
    at = next(at for at in range(int(head["entropy"]), len(data)) if data[at] == 0xFF and data[at + 1] == 0xD2)
    data[at + 1] = 0xD3
    with pytest.raises(DecodeError, match="damaged"):
        untile(bytes(data))


# compilation ---------------------------------------------------------------------------------------------------------


def test_a_picture_that_we_find_intact_is_intact_for_libjpeg() -> None:
    good = encoded(noise(70, 50), quality=80)
    assert is_whole(good)
    assert is_whole(encoded(noise(70, 50), quality=80, restart_marker_rows=1))
    assert not is_whole(encoded(noise(70, 50), progressive=True))
    entropy = int(head_of(good)["entropy"])
    assert not any(is_whole(good[:end]) for end in range(entropy, len(good), 7))
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(300):
        damaged = bytearray(good)
        damaged[random.integers(entropy, len(good) - 2)] ^= 1 << int(random.integers(8))
        if is_whole(bytes(damaged)):
            decode_jpeg(bytes(damaged), 50, 70)  # raises on any warning
            passed += 1
    assert 0 < passed < 300  # changed coefficients are valid
