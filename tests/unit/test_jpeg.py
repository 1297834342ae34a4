"""Is a JPEG's header parsed like Pillow does, and does a broken one get the right status?"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.kernels import jpeg
from mx8shards.kernels.jpeg import HEAD
from tests import jpegs

PICTURE = jpegs.noise(61, 37)
EXIF = Image.Exif()
EXIF[0x0112] = 6

FILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "4:2:0": ({"subsampling": 2}, {"mcu_width": 16, "mcu_height": 16, "columns": 4, "rows": 3}),
    "4:2:2": ({"subsampling": 1}, {"mcu_width": 16, "mcu_height": 8, "columns": 4, "rows": 5}),
    "4:4:4": ({"subsampling": 0}, {"mcu_width": 8, "mcu_height": 8, "columns": 8, "rows": 5}),
    "grey": ({"mode": "L"}, {"components": 1, "colours": jpeg.GREY, "mcu_width": 8, "columns": 8, "rows": 5}),
    "CMYK": ({"mode": "CMYK"}, {"components": 4, "colours": jpeg.CMYK, "adobe": 0, "columns": 8, "rows": 5}),
    "RGB": ({"keep_rgb": True}, {"colours": jpeg.RGB, "adobe": 0, "columns": 8}),
    "progressive": ({"progressive": True}, {"kind": jpeg.PROGRESSIVE, "one_scan": 0}),
    "restart markers": ({"restart_marker_rows": 2}, {"restart_interval": 8}),
    "EXIF": ({"exif": EXIF}, {}),
}


def read(data: bytes) -> tuple[int, Any]:
    """Status and head, from the compiled and the plain Python function."""
    heads: Any = np.full(2, -5, "i1").repeat(HEAD.itemsize).view(HEAD)  # the function must overwrite everything
    view = np.frombuffer(data, np.uint8)
    statuses = [jpeg.read_head(view, heads[0]), jpeg.read_head.py_func(view, heads[1])]  # type: ignore[attr-defined]
    assert statuses[0] == statuses[1]
    assert heads[0] == heads[1]
    return statuses[0], heads[0]


def picture(name: str) -> bytes:
    options = dict(FILES[name][0])
    return jpegs.encoded(PICTURE.convert(options.pop("mode", "RGB")), **options)


@pytest.mark.parametrize("name", FILES)
def test_a_head_has_the_settings_of_the_encoder(name: str) -> None:
    data = picture(name)
    status, head = read(data)
    assert status == jpeg.OK
    usual = {"kind": jpeg.SEQUENTIAL, "one_scan": 1, "colours": jpeg.YCBCR, "components": 3, "tiles": 0, "width": 61}
    for field, value in {**usual, "adobe": -1, "restart_interval": 0, "height": 37, **FILES[name][1]}.items():
        assert head[field] == value, field
    assert head["size"] == len(data)


@pytest.mark.parametrize("name", FILES)
def test_offsets_in_a_head_point_to_the_segments(name: str) -> None:
    data = picture(name)
    _, head = read(data)
    found = {marker: (at, end) for at, marker, end in jpegs.segments(data)}
    assert data[head["sof"] + 1] in (0xC0, 0xC1, 0xC2)
    assert (head["sos"], head["entropy"]) == found[0xDA]
    assert head["dri"] == found.get(0xDD, (0, 0))[0]


@pytest.mark.parametrize("name", FILES)
def test_a_head_truncated_anywhere_gets_the_status_truncated(name: str) -> None:
    data = picture(name)
    _, head = read(data)
    for size in (0, 1, *range(2, int(head["entropy"]), 7), int(head["entropy"]) - 1):
        assert read(data[:size])[0] == jpeg.CUT_SHORT
    assert read(data[: head["entropy"]])[0] == jpeg.OK


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def of(marker: int) -> int:
    """The offset of a segment in a normal file."""
    return next(at for at, found, _ in jpegs.segments(picture("4:2:0")) if found == marker)


BROKEN: dict[str, tuple[int, int, bytes]] = {
    "another first byte": (jpeg.NO_JPEG, 0, b"\xfe"),
    "a PNG": (jpeg.NO_JPEG, 0, b"\x89PNG"),
    "no marker behind the first one": (jpeg.BAD_SEGMENT, 2, b"\x12"),
    "an end before the scan": (jpeg.BAD_SEGMENT, 3, b"\xd9"),
    "a restart before the scan": (jpeg.BAD_SEGMENT, 3, b"\xd3"),
    "a marker that libjpeg refuses": (jpeg.BAD_SEGMENT, 3, b"\xf0"),
    "conditions of arithmetic codes": (jpeg.UNSUPPORTED, 3, b"\xcc"),
    "a segment of one byte": (jpeg.BAD_SEGMENT, 4, b"\0\1"),
    "a segment beyond the end": (jpeg.CUT_SHORT, 4, b"\xff\xff"),
    "no width": (jpeg.BAD_SEGMENT, of(0xC0) + 7, b"\0\0"),
    "a height that comes later": (jpeg.UNSUPPORTED, of(0xC0) + 5, b"\0\0"),
    "a sampling factor of none": (jpeg.BAD_SEGMENT, of(0xC0) + 11, b"\x02"),
    "a sampling factor of five": (jpeg.BAD_SEGMENT, of(0xC0) + 11, b"\x52"),
    "two components": (jpeg.BAD_SEGMENT, of(0xC0) + 9, b"\2"),
    "12 bits": (jpeg.UNSUPPORTED, of(0xC0) + 4, b"\x0c"),
    "lossless": (jpeg.UNSUPPORTED, of(0xC0) + 1, b"\xc3"),
    "arithmetic": (jpeg.UNSUPPORTED, of(0xC0) + 1, b"\xc9"),
    "hierarchical": (jpeg.UNSUPPORTED, of(0xC0) + 1, b"\xde"),
    "no frame": (jpeg.BAD_SEGMENT, of(0xC0) + 1, b"\xe5"),
    "a scan of four components": (jpeg.BAD_SEGMENT, of(0xDA) + 4, b"\4"),
    "a scan of no components": (jpeg.BAD_SEGMENT, of(0xDA) + 4, b"\0"),
    "a table beyond the fourth": (jpeg.BAD_SEGMENT, of(0xDA) + 6, b"\x40"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_head_gets_the_matching_status(name: str) -> None:
    status, at, new = BROKEN[name]
    assert read(changed(picture("4:2:0"), at, new))[0] == status


def test_the_size_of_an_unsupported_picture_is_found() -> None:
    _, head = read(changed(picture("4:2:0"), of(0xC0) + 1, b"\xc9"))
    assert (head["width"], head["height"], head["kind"]) == (61, 37, jpeg.OTHER)


def test_a_second_frame_and_a_long_restart_interval_are_refused() -> None:
    data = picture("4:2:0")
    frame = data[of(0xC0) : of(0xC0) + 19]
    assert read(data[: of(0xDA)] + frame + data[of(0xDA) :])[0] == jpeg.BAD_SEGMENT
    assert read(data[:2] + b"\xff\xdd\0\5\0\0\0" + data[2:])[0] == jpeg.BAD_SEGMENT


def test_fill_bytes_before_a_marker_are_accepted() -> None:
    data = picture("4:2:0")
    status, head = read(data[:2] + b"\xff\xff\xff" + data[2:])
    assert status == jpeg.OK
    assert head["sof"] == of(0xC0) + 3


@pytest.mark.parametrize(("order", "scan"), [((0, 1, 2), 1), ((1, 0, 2), 0), ((0, 1), 0)], ids=str)
def test_a_scan_with_missing_or_reordered_components_is_not_a_full_scan(order: tuple[int, ...], scan: int) -> None:
    data = picture("4:2:0")
    components = b"".join(data[of(0xDA) + 5 + 2 * i :][:2] for i in order)
    new = jpegs.segment(0xDA, bytes([len(order)]) + components + b"\0\x3f\0")
    status, head = read(data[: of(0xDA)] + new)
    assert (status, head["one_scan"]) == (jpeg.OK, scan)


def adobe(transform: int) -> bytes:
    return jpegs.segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform]))


COLOURS = {
    "JFIF wins over Adobe": (jpegs.segment(0xE0, b"JFIF\0" + bytes(9)) + adobe(0), b"\1\2\3", jpeg.YCBCR),
    "Adobe says RGB": (adobe(0), b"\1\2\3", jpeg.RGB),
    "Adobe says YCbCr": (adobe(1), b"RGB", jpeg.YCBCR),
    "names say RGB": (b"", b"RGB", jpeg.RGB),
    "nobody says anything": (b"", b"\4\5\6", jpeg.YCBCR),
    "an APP0 of another kind": (jpegs.segment(0xE0, b"JFXX\0" + bytes(9)), b"RGB", jpeg.RGB),
    "an APP14 cut short": (jpegs.segment(0xEE, b"Adobe" + bytes(4)), b"RGB", jpeg.RGB),
}


def coloured(before: bytes, names: bytes) -> bytes:
    """A small JPEG with these segments and component ids, and no other hint at its colour model."""
    data = bytearray(jpegs.random_jpeg(3, 16, 16, [0x11] * 3, dense=0.3))
    found = {marker: at for at, marker, _ in jpegs.segments(bytes(data))}
    for i, name in enumerate(names):
        data[found[0xC0] + 10 + 3 * i] = data[found[0xDA] + 5 + 2 * i] = name
    return bytes(data[:2]) + before + bytes(data[2:])


@pytest.mark.parametrize("name", COLOURS)
def test_colour_models_are_determined_as_in_libjpeg(name: str) -> None:
    before, names, colours = COLOURS[name]
    data = coloured(before, names)
    assert read(data)[1]["colours"] == colours
    as_ycbcr = jpegs.pixels(coloured(jpegs.segment(0xE0, b"JFIF\0" + bytes(9)), b"\1\2\3"))
    assert np.array_equal(jpegs.pixels(data), as_ycbcr) == (colours == jpeg.YCBCR)


@pytest.mark.parametrize(("transform", "colours"), [(0, jpeg.CMYK), (2, jpeg.YCCK)])
def test_the_adobe_segment_says_what_four_components_are(transform: int, colours: int) -> None:
    data = picture("CMYK")
    at = data.index(b"Adobe") + 11
    assert read(changed(data, at, bytes([transform])))[1]["colours"] == colours


def test_pillow_agrees_on_the_size_of_any_mutated_head() -> None:
    random = np.random.default_rng(0)
    agreed = 0
    for _ in range(300):
        data = bytearray(picture("4:2:0"))
        for at in random.integers(0, 620, random.integers(1, 4)):
            data[at] = random.integers(0, 256)
        status, head = read(bytes(data))
        try:
            with Image.open(io.BytesIO(data)) as opened:
                size = opened.size
        except Exception:  # noqa: BLE001 - Pillow raises whatever it meets
            continue
        if status == jpeg.OK:
            assert (head["width"], head["height"]) == size
            agreed += 1
    assert agreed > 100
