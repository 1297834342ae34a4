"""Is the kind of a payload (JPEG, PNG, text …) recognised from its first bytes?"""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mx8shards.kernels import jpeg as jpeg_kernel
from mx8shards.kernels import yuv420_planes as yuv420_kernel
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
def test_formats_are_recognised_by_their_first_bytes(payload: bytes, wanted: str) -> None:
    assert sniff(payload) == wanted


def box(*brands: bytes) -> bytes:
    major, *compatible = brands
    data = major + bytes(4) + b"".join(compatible)
    return (8 + len(data)).to_bytes(4, "big") + b"ftyp" + data


@pytest.mark.parametrize(
    ("brands", "wanted"),
    [
        ((b"heic", b"mif1", b"heic"), "HEIC"),
        ((b"mif1", b"mif1", b"heic"), "HEIC"),
        ((b"mif1", b"avif", b"miaf"), "AVIF"),
        ((b"avis",), "AVIF"),
        ((b"isom", b"iso2", b"avc1"), "MP4"),
        ((b"M4V ",), "MP4"),
        ((b"",), "MP4"),
    ],
)
def test_pictures_and_videos_in_iso_containers_are_recognised_by_their_brands(
    brands: tuple[bytes, ...], wanted: str
) -> None:
    assert sniff(box(*brands)) == wanted
    for end in range(8, len(box(*brands))):
        sniff(box(*brands)[:end])


def test_other_riff_files_are_not_taken_for_webp() -> None:
    assert sniff(b"RIFF\x24\0\0\0WAVEfmt ") == "WAV"
    assert sniff(b"RIFF\x24\0\0\0AVI LIST") == "RIFF"


@pytest.mark.parametrize(
    ("stuffing", "wanted"),
    [
        (b"\xff" * 100, "JPEG 500×375"),
        (b"\xff" * 10_000, "JPEG"),
        (b"\xff" * 20_000_000, "JPEG"),
        (b"\xff\xfe\0\2" * 300, "JPEG 500×375"),
        (b"\xff\xfe\0\2" * 1_000, "JPEG"),
    ],
    ids=["some fill bytes", "more fill bytes", "very many fill bytes", "many segments", "more segments"],
)
def test_a_jpeg_with_an_oversized_head_is_recognised_without_its_size(stuffing: bytes, wanted: str) -> None:
    whole = file("JPEG")
    assert sniff(whole[:2] + stuffing + whole[2:]) == wanted


def test_our_own_formats_are_recognised() -> None:
    assert sniff(tiles.tile(file("JPEG"))) == "JPEG 500×375, tiled"
    assert sniff(yuv420.encode(file("PNG", size=(7, 5)))) == "planes 7×5 (yuv420)"


def test_magic_numbers_equal_those_of_the_kernels() -> None:
    assert sniff_module._TILES == jpeg_kernel.TILES_MAGIC
    assert sniff_module._TILES_MARKER == jpeg_kernel.TILES_MARKER
    assert sniff_module._PLANES == yuv420_kernel.MAGIC


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_every_truncated_picture_is_handled_without_an_error(kind: str) -> None:
    payload = file(kind, "P" if kind == "GIF" else "RGB", (40, 30))
    for end in range(min(len(payload), 700)):
        sniff(payload[:end])


@given(
    st.sampled_from([b"", *(begin for begin, _ in sniff_module._PICTURES), *(b for b, _ in sniff_module._BEGINNINGS)]),
    st.binary(max_size=200),
)
def test_random_bytes_are_handled_without_an_error(begin: bytes, rest: bytes) -> None:
    assert len(sniff(begin + rest)) < 100
