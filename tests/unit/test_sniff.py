"""Is it told from a payload's first bytes what it is?"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mx8shards.kernels import jpeg as jpeg_kernel
from mx8shards.kernels import yuv420 as yuv420_kernel
from mx8shards.media import sniff as sniff_module
from mx8shards.media import tiles, yuv420
from mx8shards.media.sniff import sniff


def file(kind: str, mode: str = "RGB", size: tuple[int, int] = (500, 375), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(out, format=kind, **options)
    return out.getvalue()


PAYLOADS = {
    "jpeg": (file("JPEG"), "JPEG 500×375"),
    "progressive": (file("JPEG", progressive=True), "JPEG 500×375, progressive"),
    "grey": (file("JPEG", "L"), "JPEG 500×375, grey"),
    "cmyk": (file("JPEG", "CMYK"), "JPEG 500×375, CMYK"),
    "png": (file("PNG"), "PNG 500×375"),
    "gif": (file("GIF", "P"), "GIF 500×375"),
    "bmp": (file("BMP"), "BMP 500×375"),
    "webp": (file("WEBP"), "WebP 500×375"),
    "lossless webp": (file("WEBP", lossless=True), "WebP 500×375"),
    "webp with EXIF": (file("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"), "WebP 500×375"),
    "tiff": (file("TIFF"), "TIFF"),
    "text": (b"caf\xc3\xa9\n", "UTF-8 text"),
    "text like a bmp": (b"BMW", "UTF-8 text"),
    "json": (b'{"a": [1]}', "JSON"),
    "text like json": (b"[not json", "UTF-8 text"),
    "long text": (("é" * 5000).encode(), "UTF-8 text"),
    "long text cut in a character": (("." + "é" * 5000).encode(), "UTF-8 text"),
    "escapes": (b"\x1b[31m", ""),
    "nothing": (b"", ""),
    "zeros": (bytes(10), ""),
    "no text": (b"\xff\xfe", ""),
    "cut jpeg": (b"\xff\xd8\xff\xe0", "JPEG, cut short"),
    "cut png": (b"\x89PNG\r\n\x1a\n", "PNG, cut short"),
}


@pytest.mark.parametrize(("payload", "wanted"), PAYLOADS.values(), ids=PAYLOADS.keys())
def test_payloads_are_told_by_their_beginning(payload: bytes, wanted: str) -> None:
    assert sniff(payload) == wanted


def test_our_own_kinds_are_told() -> None:
    assert sniff(tiles.tile(file("JPEG"))) == "JPEG 500×375, tiled"
    assert sniff(yuv420.encode(file("PNG", size=(7, 5)))) == "planes 7×5 (yuv420)"


def test_the_marks_are_those_of_the_kernels() -> None:
    assert sniff_module._TILES == jpeg_kernel.TILES_MAGIC
    assert sniff_module._TILES_MARKER == jpeg_kernel.TILES_MARKER
    assert sniff_module._PLANES == yuv420_kernel.MAGIC


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_every_cut_of_a_picture_is_told_without_an_error(kind: str) -> None:
    payload = file(kind, "P" if kind == "GIF" else "RGB", (40, 30))
    for end in range(min(len(payload), 700)):
        sniff(payload[:end])


@given(
    st.sampled_from([b"", *(begin for begin, _ in sniff_module._PICTURES), *(b for b, _ in sniff_module._BEGINNINGS)]),
    st.binary(max_size=200),
)
def test_garbage_is_told_without_an_error(begin: bytes, rest: bytes) -> None:
    assert len(sniff(begin + rest)) < 100
