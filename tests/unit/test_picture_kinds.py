"""Are 16-bit and CMYK pictures recognised, and how does `--rgb8` convert them?"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.convert.picture_checks import check_kept, check_picture, in_rgb8
from mx8shards.errors import DecodeError
from mx8shards.format.picture_files import bits_of, can_be_rgb8, check_kind, open_picture
from mx8shards.media import decoding
from tests.decompression_bombs import SMALL, chunk, encoded

GREY16 = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
COLOURS16 = np.random.default_rng(0).integers(0, 1 << 16, (40, 60, 3), np.uint16)


def png(bits: int, kind: int, pixels: Any = None) -> bytes:
    """A 16-bit PNG of this colour type (0 grey, 2 RGB, 4 grey and alpha, 6 RGBA); Pillow writes none in colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    pixels = np.zeros((40, 60, channels)) if pixels is None else pixels
    rows = np.asarray(pixels).astype(">u2" if bits == 16 else "u1").reshape(40, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 60, 40, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND")


def tiff(pixels: Any, photometric: int, bits: int = 16) -> bytes:
    """An uncompressed little-endian TIFF."""
    height, width, samples = pixels.shape
    data = pixels.tobytes()
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, bits if samples == 1 else 200), (259, 3, 1, 1)),
        *((262, 3, 1, photometric), (273, 4, 1, 250), (277, 3, 1, samples), (278, 3, 1, height)),
        (279, 4, 1, len(data)),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    return (head + bytes(200 - len(head)) + struct.pack("<4H", *[bits] * 4)).ljust(250, b"\0") + data


def bmp(masks: tuple[int, ...] = ()) -> bytes:
    """A BMP of 16 bits per pixel: 5 bits per colour, or as the masks say."""
    data = np.arange(60 * 40, dtype=np.uint16).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 60, 40, 1, 16, 3 if masks else 0, len(data), 0, 0, 0, 0)
    head += struct.pack(f"<{len(masks)}I", *masks)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def pnm(magic: bytes, white: int, samples: int) -> bytes:
    return magic + b" 60 40 %d\n" % white + bytes(60 * 40 * samples * (2 if white > 255 else 1))


EIGHT: dict[str, bytes] = {
    "PPM": pnm(b"P6", 255, 3),
    "PGM": pnm(b"P5", 255, 1),
    "PPM of 100": pnm(b"P6", 100, 3),
    "PBM": b"P4 60 40\n" + bytes(8 * 40),
    "plain PGM": b"P2 2 1 255 0 255\n",
    **{f"PNG {kind}": png(8, kind) for kind in (0, 2, 4, 6)},
    "1-bit PNG": encoded(SMALL.convert("1"), "PNG"),
    "palette": encoded(SMALL.quantize(9), "PNG"),
    "BMP 555": bmp(),
    "BMP 565": bmp((0xF800, 0x7E0, 0x1F)),
    "BMP": encoded(SMALL, "BMP"),
    "TIFF": encoded(SMALL, "TIFF"),
    "LZW TIFF": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "fax": encoded(SMALL.convert("1"), "TIFF", compression="group4"),
    "GIF": encoded(SMALL.quantize(9), "GIF"),
    "WebP": encoded(SMALL, "WEBP"),
    "AVIF": encoded(SMALL, "AVIF"),
    "JPEG": encoded(SMALL, "JPEG"),
}
DEEP: dict[str, tuple[bytes, Any]] = {
    # a file, and the result of converting it with --rgb8
    "PPM 16": (pnm(b"P6", 65_535, 0) + COLOURS16.astype(">u2").tobytes(), np.rint(COLOURS16 / 257)),
    "PPM of 1000": (pnm(b"P6", 1_000, 3), np.zeros((40, 60, 3))),
    "PGM 16": (pnm(b"P5", 65_535, 0) + GREY16.astype(">u2").tobytes(), GREY16 >> 8),
    "PGM of 1000": (pnm(b"P5", 1_000, 1), np.zeros((40, 60))),
    "plain PGM 16": (b"P2 2 1 65535 0 65535\n", np.array([[0, 255]])),
    "grey PNG 16": (png(16, 0, GREY16), GREY16 >> 8),
    "RGB PNG 16": (png(16, 2, COLOURS16), COLOURS16 >> 8),
    "grey and alpha PNG 16": (png(16, 4), None),
    "RGBA PNG 16": (png(16, 6), np.zeros((40, 60, 4))),
    "I;16 TIFF": (encoded(Image.fromarray(GREY16), "TIFF", compression="tiff_lzw"), GREY16 >> 8),
    "grey TIFF 16": (tiff(GREY16[..., None], 1), GREY16 >> 8),
    "TIFF 16 whose white is 0": (tiff(GREY16[..., None], 0), 255 - (GREY16 >> 8)),
    "RGB TIFF 16": (tiff(COLOURS16, 2), COLOURS16 >> 8),
}
INKS = {
    "CMYK JPEG": encoded(SMALL.convert("CMYK"), "JPEG"),
    "CMYK TIFF": encoded(SMALL.convert("CMYK"), "TIFF"),
}
NEVER = {
    "floats": encoded(Image.new("F", (9, 9)), "TIFF"),
    "PFM": b"Pf 1 1 -1.0\n" + bytes(4),
    "32 bits": encoded(Image.new("I", (9, 9)), "TIFF"),
    "LAB": encoded(Image.new("LAB", (9, 9)), "TIFF"),
}


def check_all(picture: Any, data: bytes) -> None:
    """All checks of a conversion that stores a picture unchanged."""
    check_picture(picture)
    check_kept(picture, data)


@pytest.mark.parametrize("name", EIGHT)
def test_eight_bit_pictures_are_accepted_by_loader_and_convert(name: str) -> None:
    with open_picture(EIGHT[name]) as picture:
        assert bits_of(picture) <= 8
        assert not can_be_rgb8(picture)
        check_kind(picture)
        check_all(picture, EIGHT[name])


@pytest.mark.parametrize("name", [*DEEP, *INKS, *NEVER])
def test_other_pictures_are_refused_with_a_hint_to_the_option_that_converts_them(name: str) -> None:
    data = DEEP[name][0] if name in DEEP else (INKS | NEVER)[name]
    with pytest.raises(DecodeError, match="expected a picture of 8 bits per channel, in RGB or grey") as refused:
        decoding.decode(data, lambda *_: None)
    with open_picture(data) as picture, pytest.raises(DecodeError) as rejected:
        check_all(picture, data)
    assert ("--rgb8" in str(rejected.value)) is (name not in NEVER)
    assert ("convert imagefolder --rgb8" in str(refused.value)) is (name not in NEVER)


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bit_pictures_keep_the_upper_eight_bits(name: str) -> None:
    data, expected = DEEP[name]
    with open_picture(data) as picture:
        assert can_be_rgb8(picture)
        found = in_rgb8(picture, data, 95)
    with Image.open(io.BytesIO(found)) as made:
        assert made.format == "PNG"
        check_kind(made)
        if expected is not None:
            assert np.array_equal(np.asarray(made), expected)


def test_cmyk_pictures_become_rgb_jpegs_or_pngs() -> None:
    for name, form in (("CMYK JPEG", "JPEG"), ("CMYK TIFF", "PNG")):
        with open_picture(INKS[name]) as picture:
            assert can_be_rgb8(picture)
            found = in_rgb8(picture, INKS[name], 95)
        with Image.open(io.BytesIO(found)) as made:
            assert (made.format, made.mode, made.size) == (form, "RGB", SMALL.size)
            difference = np.abs(np.asarray(made).astype(int) - np.asarray(SMALL))
            assert difference.mean() < 12 if form == "JPEG" else difference.max() <= 1


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x0cjP  \r\n\x87\n", encoded(SMALL, "JPEG2000"), encoded(SMALL, "ICO"), b"8BPS"]
)
def test_parsers_of_unsupported_formats_are_not_called(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"expected a picture \(JPEG, PNG, WEBP"):
        decoding.decode(data, lambda *_: None)
