"""Are decompression bombs refused before they cost memory and time, and are normal files accepted?"""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.convert.picture_checks import check_kept, check_picture
from mx8shards.errors import DecodeError, FormatError
from mx8shards.format import picture_cost
from mx8shards.format.encodings import get_encoding
from mx8shards.format.picture_cost import MOST_SCANS, check_cost, walk_jpeg
from mx8shards.format.picture_files import MOST_DECODED_BYTES, checked_orientation, open_picture
from mx8shards.kernels import jpeg, turbo
from mx8shards.kernels.cuts import CUT, REGION
from mx8shards.kernels.decompress import decode_rgb
from mx8shards.media import decoding, tally, yuv420
from tests.decompression_bombs import (
    HOSTILE,
    JPEG,
    SMALL,
    chunk,
    encoded,
    fill_bytes,
    frames,
    gif,
    late_png_bomb,
    pages,
    png,
    png_profile_bomb,
    progressive,
    sequential,
)
from tests.jpegs import segment

KNOWN = (
    "progressive scans",
    "sequential scans",
    "fill bytes",
    "bytes between segments",
    "empty comments",
    "EXIF bomb",
    "MPF bomb",
)


def converted(data: bytes) -> None:
    with open_picture(data) as picture:
        check_picture(picture)
        check_kept(picture, data)
        picture.load()


READERS: dict[str, Any] = {
    "convert": converted,
    "planes": yuv420.encode,
    "summary": lambda data: tally.pixels_of(memoryview(data), "bytes", ExitStack()),
    "loader": lambda data: (
        decoding.check_pillow_jpeg(data, MOST_DECODED_BYTES),
        decoding.decode(data, lambda *_: None),
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_decompression_bombs_are_refused_cheaply_with_the_reason(name: str, reader: str) -> None:
    make, reason = HOSTILE[name]
    data = make(1)
    READERS[reader](JPEG)  # import what it needs before memory is measured
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=reason):
            READERS[reader](data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [png_profile_bomb, late_png_bomb])
def test_exif_data_are_checked_before_pillow_reads_their_orientation(make: Any) -> None:
    with open_picture(make(1)) as picture:  # Pillow has not read them
        picture.load()
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError, match="share their bytes"):
                checked_orientation(picture)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_tag_directories_that_refer_to_each_other_are_read_once() -> None:
    ring = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHIII", 1, 34665, 4, 1, 8, 0)
    check_cost(ring)


@pytest.mark.parametrize("name", [*KNOWN, "empty chunks"])
def test_dataset_decoding_refuses_decompression_bombs(name: str) -> None:
    make, reason = HOSTILE[name]
    with pytest.raises(FormatError, match=reason):
        get_encoding("jpeg").decode(make(1))


def test_a_jpeg_with_the_largest_allowed_number_of_scans_is_decoded() -> None:
    for make in (progressive, sequential):
        data = make(MOST_SCANS)
        check_cost(data)
        assert (decoding.decode(data, lambda *_: None) == 128).all()
        with pytest.raises(DecodeError, match=f"at most {MOST_SCANS} scans, got {MOST_SCANS + 1}"):
            check_cost(make(MOST_SCANS + 1))


@pytest.mark.parametrize("scans", [2, MOST_SCANS, MOST_SCANS + 1, 882])
def test_kernels_count_scans_like_python(scans: int) -> None:
    assert jpeg.MOST_SCANS == MOST_SCANS
    for data in (progressive(scans), sequential(max(3, scans)), progressive(scans) + b"\xff\xda" * 900):
        head = np.zeros(1, jpeg.HEAD)
        assert jpeg.read_head(np.frombuffer(data, np.uint8), head[0]) == jpeg.OK
        assert jpeg.has_too_many_scans(np.frombuffer(data, np.uint8), head[0]) == (scans > MOST_SCANS)
        for end in range(len(data) - 2_000, len(data), 97):  # truncated data are not read beyond the end either
            jpeg.has_too_many_scans(np.frombuffer(data[:end], np.uint8), head[0])
            walk_jpeg(data[:end])


def hidden(scans: int, marker: int) -> bytes:
    """A parser that expects a length after such a marker would skip 65,498 bytes, with all other scans."""
    first, scan, rest = progressive(scans).partition(b"\xff\xda")
    return first + scan + rest.replace(b"\xff\xda", bytes((0xFF, marker)) + b"\xff\xda")


@pytest.mark.parametrize("marker", [0x01, 0x02, 0xBF])
def test_a_marker_without_a_length_hides_no_scans(marker: int) -> None:
    for scans in (MOST_SCANS, MOST_SCANS + 1):
        data, head = hidden(scans, marker), np.zeros(1, jpeg.HEAD)
        assert jpeg.read_head(np.frombuffer(data, np.uint8), head[0]) == jpeg.OK
        assert jpeg.has_too_many_scans(np.frombuffer(data, np.uint8), head[0]) == (scans > MOST_SCANS)
    check_cost(hidden(MOST_SCANS, marker))
    with pytest.raises(DecodeError, match=f"at most {MOST_SCANS} scans, got {MOST_SCANS + 1}"):
        check_cost(hidden(MOST_SCANS + 1, marker))
    if marker == 0x01:  # libjpeg refuses the other markers
        assert (decoding.decode(hidden(MOST_SCANS, marker), lambda *_: None) == 128).all()


@pytest.mark.parametrize("marker", [0x01, 0xD0, 0xD7])
def test_a_marker_without_a_length_hides_no_head(marker: int) -> None:
    """A parser that expects a length after it would skip 65,519 bytes, the whole file."""
    data = encoded(SMALL, "JPEG", progressive=True)
    bare = bytes((0xFF, marker)) + segment(0xEF, b"")
    plain, found = walk_jpeg(data), walk_jpeg(data[:2] + bare + data[2:])
    assert (found.frame, found.scan) == (plain.frame + len(bare), plain.scan + len(bare))
    assert found.coefficient_bytes(data[:2] + bare + data[2:]) == plain.coefficient_bytes(data) > 0
    scans = progressive(MOST_SCANS + 1)
    with pytest.raises(DecodeError, match="scans"):
        check_cost(scans[:2] + bare + scans[2:])


def test_scan_markers_in_metadata_and_after_the_end_are_not_counted() -> None:
    """Markers in metadata, such as a thumbnail's, and after the end, where phones append videos."""
    data = encoded(SMALL, "JPEG", progressive=True)
    thumbnail = segment(0xE3, b"\xff\xda\0\4" * 10_000)
    for file in (data + b"\xff\xda\0\4" * 5_000, data[:2] + thumbnail + data[2:], data[:-2] + thumbnail + data[-2:]):
        assert file.count(b"\xff\xda") > MOST_SCANS
        check_cost(file)
        assert np.array_equal(decoding.decode(file, lambda *_: None), decoding.decode(data, lambda *_: None))


def exif() -> bytes:
    found = Image.Exif()
    found[0x0112], found[0x010F], found[0x9286] = 6, "a camera", b"x" * 30_000
    return found.tobytes()


def directories() -> bytes:
    """EXIF data as cameras write them, with sub-directories."""
    found = Image.Exif()
    found[0x0112] = 6
    found[0x8769] = {0x829A: 0.01, 0x927C: b"maker" * 2_000, 0xA005: {1: "R98"}}
    found[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return found.tobytes()


HONEST = {
    "JPEG": JPEG,
    "progressive": encoded(SMALL, "JPEG", progressive=True),
    "EXIF": encoded(SMALL, "JPEG", exif=exif(), icc_profile=bytes(200_000)),
    "EXIF, GPS and Interop": encoded(SMALL, "JPEG", exif=directories()),
    "AVIF with EXIF": encoded(SMALL, "AVIF", exif=directories()),
    "several": encoded(SMALL, "MPO", save_all=True, append_images=[SMALL, SMALL]),
    "some filling": fill_bytes(0) + JPEG[-2:] + bytes(100_000),
    "PNG": encoded(SMALL, "PNG", exif=exif()),
    "PNG of small chunks": png(b"".join(chunk(b"teSt", bytes(600)) for _ in range(9_000))),
    "GIF": encoded(SMALL, "GIF", comment=b"x" * 100_000),
    "large GIF": encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (600, 600), np.uint8)), "GIF"),
    "TIFF": encoded(SMALL, "TIFF"),
    "TIFF of many strips": encoded(SMALL.resize((60, 9_000)), "TIFF", compression="tiff_lzw", strip_size=180),
    "PPM": b"P6 # a comment\n 4#another\n 4 255\n" + bytes(48) + b" " * 100_000,
    "PPM of blanks": b"P6 200 200 255\n" + b" " * 120_000,
    "plain": b"P3 2 1 255 # ends\n 1 2 3 # so\n 4 5 6\n",
    "bitmap": b"P4 8 1 \n\n",
    "BMP": encoded(SMALL, "BMP"),
    "WebP": encoded(SMALL, "WEBP", exif=exif()),
    "AVIF": encoded(SMALL, "AVIF"),
}


@pytest.mark.parametrize("name", HONEST)
def test_ordinary_files_are_accepted(name: str) -> None:
    check_cost(HONEST[name])
    assert decoding.decode(HONEST[name], lambda *_: None).size
    converted(HONEST[name])


@pytest.mark.parametrize("name", [*HOSTILE, *HONEST])
def test_damaged_files_are_accepted_or_refused_and_raise_no_other_error(name: str) -> None:
    """A truncated or changed file is accepted or refused; no other exception is raised."""
    data = HONEST[name] if name in HONEST else HOSTILE[name][0](1)
    random = np.random.default_rng(len(data))
    for i in range(150):
        changed = bytearray(data[: 400 + int(random.integers(3_000))])
        for at in random.integers(0, min(300, len(changed)), 3).tolist():
            changed[at] = int(random.integers(256))
        for part in (bytes(changed), data[: int(random.integers(min(len(data), 600)))]):
            try:
                check_cost(part)
                if i % 10 == 0:
                    walk_jpeg(part).coefficient_bytes(part)
            except DecodeError:
                continue


# claimed sizes --------------------------------------------------------------------------------------------------------


def webp(side: int) -> bytes:
    """A WebP of a few bytes that claims a large picture."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    assert data[12:16] == b"VP8L"
    struct.pack_into("<I", data, 21, (side - 1) | (side - 1) << 14)
    return bytes(data)


LARGE = {
    "WebP": webp(9_000),
    "PNG": png(b"", width=6_000, height=6_000),
    "PPM": b"P5 9000 9000 255\n" + bytes(100),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", LARGE)
def test_one_memory_limit_applies_to_all_decoding(name: str, reader: str) -> None:
    read = READERS[reader]
    if reader == "loader":
        read = lambda data: decoding.decode(data, lambda *found: decoding.check_fits(*found, MOST_DECODED_BYTES))  # noqa: E731
    with pytest.raises(DecodeError, match=f"at most {MOST_DECODED_BYTES} bytes of memory"):
        read(LARGE[name])


def test_a_jpeg_of_several_scans_takes_memory_for_all_coefficients() -> None:
    data = encoded(SMALL, "JPEG", progressive=True, subsampling="4:4:4")
    at = walk_jpeg(data).frame
    large = data[: at + 5] + struct.pack(">HH", 9_000, 9_000) + data[at + 9 :]
    assert walk_jpeg(large).coefficient_bytes(large) == 1_125 * 1_125 * 3 * 128
    for read in (converted, READERS["summary"], yuv420.encode):
        with pytest.raises(DecodeError, match="bytes of memory"):
            read(large)


def test_pages_and_frames_are_not_enumerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow counts frames one by one, so only the second one is requested."""
    from PIL import GifImagePlugin, TiffImagePlugin

    for module, name, data in (
        (GifImagePlugin, "GifImageFile", frames(1)),
        (TiffImagePlugin, "TiffImageFile", pages(1)),
    ):
        sought: list[int] = []
        plugin: Any = getattr(module, name)
        real = plugin._seek

        def seek(self: Any, frame: int, *rest: Any, real: Any = real, sought: list[int] = sought) -> Any:
            sought.append(frame)
            return real(self, frame, *rest)

        monkeypatch.setattr(plugin, "_seek", seek)
        with pytest.raises(DecodeError, match="several frames"):
            decoding.decode(data, lambda *_: None)
        assert len(sought) <= 4, name


def test_the_limits_are_far_above_the_output_of_encoders() -> None:
    with open_picture(encoded(SMALL, "JPEG", progressive=True)) as picture:
        assert picture.info["progressive"]
    assert encoded(SMALL, "JPEG", progressive=True).count(b"\xff\xda") * 5 < picture_cost.MOST_SCANS
    assert io.BytesIO(gif(b"")).read(4) == b"GIF8"


@pytest.mark.skipif(turbo.library is None, reason="needs libturbojpeg")
def test_libturbojpeg_limits_scans_itself_in_case_bytes_change_during_decoding() -> None:
    handle = turbo.Handle()
    try:
        assert handle.find_error(progressive(MOST_SCANS), 1024, 1024) == ""
        said = handle.find_error(progressive(882), 1024, 1024)
    finally:
        handle.close()
    assert "scans" in said


@pytest.mark.skipif(not turbo.HAS_REGIONS, reason="needs libturbojpeg 3")
def test_the_region_decoder_limits_scans_itself() -> None:
    cut = np.zeros(1, CUT)
    cut["width"], cut["height"], cut["scale"], cut["how"] = 64, 64, 1, REGION
    pixels = np.zeros(3 * 64 * 64, np.uint8)
    for scans, good in ((MOST_SCANS, True), (MOST_SCANS + 1, False)):
        data = np.frombuffer(progressive(scans), np.uint8)
        assert bool(decode_rgb(data, cut[0], 64, 64, pixels)) is good
