"""Handmade picture files (decompression bombs) that cost far more to open or decode than their size suggests.

`scale` multiplies their cost: 1 is a little above the accepted limit.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.jpegs import segment


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
JPEG = encoded(SMALL, "JPEG")


def progressive(scans: int, side: int = 1024) -> bytes:
    """A valid grey progressive JPEG of up to 882 scans of two bytes each.

    All coefficients are 0, so a scan is a single code: an end-of-band run over all blocks.
    """
    assert side == 1024
    assert 2 <= scans <= 1 + 63 * 14
    run = 14  # 2**14 blocks
    frame = struct.pack(">BHHB", 8, side, side, 1) + bytes((1, 0x11, 0))
    one_code = bytes((1, *[0] * 15))
    parts = [
        *(b"\xff\xd8", segment(0xDB, bytes((0, *[1] * 64))), segment(0xC2, frame)),
        segment(0xC4, bytes((0x00,)) + one_code + bytes((0,))),
        segment(0xC4, bytes((0x10,)) + one_code + bytes((run << 4,))),
        *(segment(0xDA, bytes((1, 1, 0, 0, 0, 0))), bytes(2048)),
    ]
    wanted = [(k, high, high - 1 if high else 13) for k in range(1, 64) for high in (0, *range(13, 0, -1))]
    for k, high, low in wanted[: scans - 1]:
        parts += [segment(0xDA, bytes((1, 1, 0, k, k, high << 4 | low))), b"\0\1"]
    return b"".join((*parts, b"\xff\xd9"))


def sequential(scans: int) -> bytes:
    """A baseline JPEG with one scan per component, and the last one repeated."""
    frame = struct.pack(">BHHB", 8, 8, 8, 3) + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    one_code = bytes((1, *[0] * 15))
    parts = [
        *(b"\xff\xd8", segment(0xDB, bytes((0, *[1] * 64))), segment(0xC0, frame)),
        *(segment(0xC4, bytes((kind,)) + one_code + bytes((0,))) for kind in (0x00, 0x10)),
    ]
    for i in range(scans):
        parts += [segment(0xDA, bytes((1, min(i, 2) + 1, 0, 0, 63, 0))), b"\x3f"]
    return b"".join((*parts, b"\xff\xd9"))


def fill_bytes(scale: int) -> bytes:
    """A JPEG with many fill bytes before a marker."""
    return JPEG[:2] + b"\xff" * (scale * 70_000) + JPEG[2:]


def bytes_between_segments(scale: int) -> bytes:
    """A JPEG with meaningless bytes between its segments."""
    return JPEG[:2] + bytes(scale * 70_000) + JPEG[2:]


def empty_comments(scale: int) -> bytes:
    """A JPEG of empty comments."""
    return JPEG[:2] + b"\xff\xfe\0\2" * (scale * 4_500) + JPEG[2:]


def tag_bomb(size: int, *, first: int = 0x8000, order: str = "<") -> bytes:
    """A TIFF whose tags all have the whole file as their value."""
    tags = min((size - 14) // 12, 65_000)
    head = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, tags)
    entries = (struct.pack(order + "HHII", first + i & 0xFFFF, 7, size - 20, 10) for i in range(tags))
    body = head + b"".join(entries) + bytes(4)
    return body + bytes(max(0, size - len(body)))


def exif_bomb(scale: int) -> bytes:
    """A JPEG whose EXIF data are such a TIFF. Without a JFIF segment, Pillow reads the resolution from them."""
    exif = tag_bomb(min(65_000, 20_000 * scale))
    tables = JPEG.index(b"\xff\xdb")
    return JPEG[:2] + segment(0xE1, b"Exif\0\0" + exif) + JPEG[tables:]


def mpf_bomb(scale: int) -> bytes:
    """A JPEG with such tags in its MPF segment (index of further pictures)."""
    return JPEG[:2] + segment(0xE2, b"MPF\0" + tag_bomb(min(65_000, 20_000 * scale))) + JPEG[2:]


def webp_bomb(scale: int) -> bytes:
    """A WebP with such EXIF data."""
    return encoded(SMALL, "WEBP", exif=tag_bomb(20_000 * scale))


def avif_bomb(scale: int) -> bytes:
    """An AVIF with such EXIF data."""
    exif = tag_bomb(20_000 * scale)
    harmless = exif[:8].ljust(len(exif), b"\0")  # Pillow reads what it writes
    return encoded(SMALL, "AVIF", exif=harmless).replace(harmless, exif)


def directory_bomb(scale: int, *, pixels: bytes = b"", tags: tuple[tuple[int, int, int, int], ...] = ()) -> bytes:
    """A TIFF whose EXIF sub-directory repeats thousands of tags."""
    at = 8 + len(pixels) + 2 + 12 * (len(tags) + 1) + 4
    first = (*tags, (34665, 4, 1, at))
    count = 600 * scale
    below = struct.pack("<H", count)
    below += b"".join(struct.pack("<HHII", 40_000 + i, 3, 3_000, at + 6 + 12 * count) for i in range(count))
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(first))
    return head + b"".join(struct.pack("<HHII", *tag) for tag in first) + bytes(4) + below + bytes(4) + bytes(6_000)


def exif_directory_bomb(scale: int) -> bytes:
    """A JPEG with such EXIF data."""
    return JPEG[:2] + segment(0xE1, b"Exif\0\0" + directory_bomb(scale, tags=((0x112, 3, 1, 6),))) + JPEG[2:]


def tiff_directory_bomb(scale: int) -> bytes:
    """A grey TIFF of 8 x 8 with such EXIF data."""
    numbers = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    return directory_bomb(scale, pixels=bytes(64), tags=tuple((tag, 4, 1, value) for tag, value in numbers.items()))


def png_profile_bomb(scale: int) -> bytes:
    """A PNG with such EXIF data in a compressed hexadecimal text chunk, as old programs write them."""
    exif = tag_bomb(20_000 * scale)
    text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    return png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text, 9)))


def late_png_bomb(scale: int) -> bytes:
    """The same in a chunk after the pixels."""
    whole = png(b"")
    return whole[:-12] + chunk(b"eXIf", tag_bomb(20_000 * scale)) + whole[-12:]


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(between: bytes, *, width: int = 60, height: int = 40) -> bytes:
    """A grey PNG with these chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + chunk(b"IDAT", rows) + chunk(b"IEND")


def empty_chunks(scale: int) -> bytes:
    """A PNG of empty chunks."""
    return png(chunk(b"teSt") * (scale * 10_000))


def gif(between: bytes, frames: int = 1) -> bytes:
    whole = encoded(SMALL.convert("L"), "GIF")
    table = 13 + (3 << (whole[10] % 8 + 1))
    return whole[:table] + between + whole[table:-1] * frames + b";"


def tiny_comment_blocks(scale: int) -> bytes:
    """A GIF with a comment in blocks of one byte."""
    return gif(b"!\xfe" + b"\1x" * (scale * 70_000) + b"\0")


def commented_gif(scale: int) -> bytes:
    """A GIF of comments."""
    return gif(b"!\xfe\1x\0" * (scale * 20_000))


def frames(scale: int) -> bytes:
    """A GIF of thousands of frames."""
    return gif(b"", frames=1 + scale * 50)


def pages(scale: int) -> bytes:
    """A TIFF with a chain of empty pages after the first."""
    data = bytearray(encoded(SMALL, "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    at = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    end = len(data) + len(data) % 2
    data[at : at + 4] = end.to_bytes(4, "little")
    data += bytes(end - len(data))
    for i in range(scale * 5_000):
        data += struct.pack("<HI", 0, end + 6 * (i + 1))
    return bytes(data + bytes(6))


def strips(scale: int) -> bytes:
    """A TIFF that lists millions of strips."""
    data = encoded(SMALL.convert("L"), "TIFF")
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    values = scale * 150_000
    entries = []
    for i in range(count):
        tag, kind, n, value = struct.unpack_from("<HHII", data, first + 2 + 12 * i)
        entries.append((tag, 4, values, len(data)) if tag in (273, 279) else (tag, kind, n, value))
    body = struct.pack("<H", count) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    if len(body) + len(data) % 2 == 0:
        return data
    at = len(data) + 4 * values
    return data[:4] + at.to_bytes(4, "little") + data[8:] + bytes(4 * values) + body


def tag_file(scale: int) -> bytes:
    return tag_bomb(100_000 * scale)


def comment(scale: int) -> bytes:
    """A PPM with a long comment."""
    return b"P6\n#" + b"x" * (scale * 70_000) + b"\n4 4 255\n" + bytes(48)


def comment_in_number(scale: int) -> bytes:
    return b"P6 4 4 25#" + b"x" * (scale * 70_000) + b"\n5\n" + bytes(48)


def comments_in_text(scale: int) -> bytes:
    """A plain PPM with comments between its numbers."""
    return b"P3 4 4 255\n" + b"#\n" * (scale * 40_000) + b"1 " * 48


def text(scale: int) -> bytes:
    """A plain PPM, which Pillow reads number by number."""
    side = 1_000
    return b"P3 %d %d 255\n" % (side, side) + b"1 " * (scale * 100)


def run_lengths(scale: int) -> bytes:
    """A BMP of run-length codes that draw nothing."""
    codes = b"\0\2\0\0" * (scale * 600_000)
    palette = bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, 60, 40, 1, 8, 1, len(codes), 0, 0, 256, 0) + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(codes), 0, 0, 14 + len(head)) + head + codes


def wide_tiles(scale: int) -> bytes:
    """A TIFF whose only tile is far larger than the picture."""
    side = min(16_384, 2_048 + 1_024 * scale)
    data = zlib.compress(bytes(100), 9)
    numbers = {256: 4, 257: 4, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: len(data)}
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(numbers)) + body + bytes(4)
    return head + bytes(200 - len(head)) + data


# name → a function that makes the file, and the expected reason
HOSTILE: dict[str, tuple[Callable[[int], bytes], str]] = {
    "progressive scans": (lambda scale: progressive(min(882, 100 + scale)), "at most 100 scans"),
    "sequential scans": (lambda scale: sequential(100 + scale), "at most 100 scans"),
    "fill bytes": (fill_bytes, "fill bytes"),
    "bytes between segments": (bytes_between_segments, "fill bytes"),
    "empty comments": (empty_comments, "segments"),
    "EXIF bomb": (exif_bomb, "share their bytes"),
    "MPF bomb": (mpf_bomb, "share their bytes"),
    "WebP bomb": (webp_bomb, "share their bytes"),
    "AVIF bomb": (avif_bomb, "share their bytes"),
    "EXIF directory bomb": (exif_directory_bomb, "share their bytes"),
    "TIFF directory bomb": (tiff_directory_bomb, "share their bytes"),
    "empty chunks": (empty_chunks, "chunks"),
    "comment in tiny blocks": (tiny_comment_blocks, "GIF"),
    "many comments": (commented_gif, "GIF"),
    "frames": (frames, "several frames"),
    "pages": (pages, "several frames"),
    "strips": (strips, "numbers"),
    "tags": (tag_file, "share their bytes"),
    "PPM comment": (comment, "long comments"),
    "comment in a number": (comment_in_number, "long comments"),
    "comments in text": (comments_in_text, "comments in a plain PPM"),
    "plain text": (text, "samples"),
    "run lengths": (run_lengths, "samples"),
    "wide tiles": (wide_tiles, "tiles"),
}
