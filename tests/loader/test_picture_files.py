"""Are damaged picture files reported, without crashes, partial pictures or pixels of other pictures?"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.convert.picture_checks import checked_picture
from mx8shards.errors import DecodeError, SourceError
from mx8shards.kernels import turbo
from mx8shards.media.tiles import is_tiled, tile
from tests.decompression_bombs import HOSTILE, progressive
from tests.jpegs import segments
from tests.loader.leak_checks import time_limit
from tests.loader.test_pictures import backend as backend
from tests.loader.test_pictures import crops, loader_of, rows
from tests.pictures import difference, file_of, jpeg, reference_crop, write
from tests.pixels import picture

Array = npt.NDArray[Any]

SPEC = mx8.RandomResizedCrop(32, exact=True, layout="HWC", flip=0.5)
FAST = mx8.RandomResizedCrop(32, scale=(0.05, 0.3), layout="HWC", flip=0.5)
GOOD = jpeg(picture(200, 300, 1, True))


# other formats --------------------------------------------------------------------------------------------------------


def modes() -> dict[str, bytes]:
    """Valid pictures of many formats and pixel modes."""
    image = Image.fromarray(picture(60, 70, 2, True))
    clear = image.convert("RGBA")
    clear.putalpha(100)
    palette = image.quantize(40)
    return {
        "png": file_of(image, "PNG"),
        "grey png": file_of(image.convert("L"), "PNG"),
        "grey png with alpha": file_of(image.convert("LA"), "PNG"),
        "1 bit": file_of(image.convert("1"), "PNG"),
        "rgba": file_of(clear, "PNG"),
        "palette": file_of(palette, "PNG"),
        "palette with one clear colour": file_of(palette, "PNG", transparency=3),
        "palette with clear colours": file_of(palette, "PNG", transparency=bytes(range(40))),
        "rgb with a clear colour": file_of(image, "PNG", transparency=(1, 2, 3)),
        "interlaced gif": file_of(palette, "GIF", interlace=1),
        "webp": file_of(image, "WEBP"),
        "lossless webp": file_of(clear, "WEBP", lossless=True),
        "bmp": file_of(image, "BMP"),
        "tiff": file_of(image, "TIFF", compression="tiff_lzw"),
        "ppm": file_of(image, "PPM"),
        "avif": file_of(image, "AVIF"),
        "rgb jpeg": file_of(image, "JPEG", keep_rgb=True),
        "jpeg with a profile": file_of(image, "JPEG", icc_profile=bytes(3000), exif=bytes(3000)),
        "turned jpeg": turned(image),
    }


def turned(image: Image.Image) -> bytes:
    """A picture with an EXIF rotation, which is ignored by default, as in torchvision."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(image, "JPEG", exif=exif)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_other_formats_are_decoded_by_pillow(place: Path, io: Any, backend: str) -> None:
    files = modes()
    dataset = write(place / f"formats {io} {backend}", files.values())
    found = crops(dataset, SPEC, io=io, batch_size=4)
    for i, (name, file) in enumerate(files.items()):
        assert difference(found[i], reference_crop(file, SPEC, "image", i))[1] <= 1, name


# files that are not pictures ------------------------------------------------------------------------------------------


def with_size(file: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = next(i for i in range(len(file)) if file[i] == 0xFF and file[i + 1] in (0xC0, 0xC2))
    return file[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + file[at + 9 :]


def apng() -> bytes:
    frames = [Image.fromarray(picture(20, 20, i, True)) for i in range(3)]
    return file_of(frames[0], "PNG", save_all=True, append_images=frames[1:])


def moving(kind: str) -> bytes:
    frames = [Image.fromarray(picture(20, 20, i, True)) for i in range(3)]
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:])


def png_bomb() -> bytes:
    """A blank picture of a hundred megapixels in a few kilobytes."""
    return file_of(Image.new("1", (12_000, 12_000)), "PNG")


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "expected a picture .*, got no bytes"),
    "text": (lambda: b"<html>404</html>", r"expected a picture .*, got 16 bytes that begin with b'<html>40'"),
    "garbage": (lambda: bytes(np.random.default_rng(0).integers(0, 256, 5_000, dtype=np.uint8)), "expected a picture"),
    "zeros": (lambda: bytes(9_000), "expected a picture"),
    "only a marker": (lambda: b"\xff\xd8", "expected a"),
    "only a head": (lambda: GOOD[: GOOD.index(b"\xff\xda")], "expected a"),
    "16 bits": (
        lambda: file_of(Image.new("I;16", (9, 9)), "PNG"),
        "expected a picture of 8 bits .*16 bits .mode I;16",
    ),
    "floats": (lambda: file_of(Image.new("F", (9, 9)), "TIFF"), "expected a picture of 8 bits .*, got 32 bits .mode F"),
    "cmyk": (lambda: file_of(Image.new("CMYK", (9, 9)), "JPEG"), "expected a picture of .* RGB or grey, got mode CMYK"),
    "gif": (lambda: moving("GIF"), "expected one picture, got several frames"),
    "webp": (lambda: moving("WEBP"), "expected one picture, got several frames"),
    "apng": (apng, "expected one picture, got several frames"),
    "bomb": (lambda: with_size(GOOD, 65_535, 65_535), "65535 x 65535 pixels"),
    "grey bomb": (
        lambda: with_size(jpeg(picture(20, 20, 0, True), "Gray"), 65_000, 60_000),
        "60000 x 65000 pixels",
    ),
    "progressive bomb": (
        lambda: with_size(file_of(picture(20, 20, 0, True), progressive=True), 65_500, 65_500),
        "65500 x 65500 pixels",
    ),
    "png bomb": (png_bomb, "144000000 pixels"),
    "half a jpeg": (lambda: GOOD[: len(GOOD) // 2], "expected a whole JPEG, got Premature end of JPEG file"),
    "half a png": (lambda: (lambda f: f[: len(f) // 2])(file_of(picture(90, 90, 1, True), "PNG")), "a whole picture"),
    "too many scans": (lambda: progressive(101), "expected a JPEG of at most 100 scans, got 101"),
    "pages": (lambda: HOSTILE["pages"][0](1), "expected one picture, got several frames"),
    "too much": (lambda: with_size(GOOD, 200, 200), "expected a whole JPEG, got .*extraneous bytes"),
}


@pytest.mark.parametrize("spec", [SPEC, FAST], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", BAD)
def test_an_undecodable_payload_is_an_error_with_its_place_and_the_reason(
    tmp_path: Path, kind: str, spec: Any, backend: str
) -> None:
    if kind in ("half a jpeg", "too much") and ends_early(spec, backend):
        pytest.skip("what is wrong lies behind all crops")
    make, reason = BAD[kind]
    dataset = write(tmp_path / "data", [GOOD, GOOD, make(), GOOD], size_limit="1mb")
    with (
        loader_of(dataset, spec, batch_size=4, memory="500mb") as loader,
        time_limit(240),
        pytest.raises(mx8.LoaderError) as caught,
    ):
        list(loader)
    error = caught.value.__cause__
    assert isinstance(error, DecodeError)
    assert re.search(rf"data/shard.00000.mds: sample 2 of this shard, column 'image': .*({reason})", str(error)), str(
        error
    )
    found = crops(dataset, spec, batch_size=4, on_error="skip", memory="500mb")
    good = crops(write(tmp_path / "good", [GOOD] * 4), spec)
    assert sorted(found) == [0, 1, 3]
    assert all(np.array_equal(found[i], good[i]) for i in found)


def test_on_error_substitute_replaces_undecodable_payloads(place: Path, backend: str) -> None:
    files = [b"no picture" if i % 4 == 1 else jpeg(picture(40, 50, i, True)) for i in range(40)]
    dataset = write(place / f"substitutes {backend}", files)
    with loader_of(dataset, SPEC, on_error="substitute") as loader:
        batches = [batch.copy() for batch in loader]
        lost = loader.stats()["lost_last"]
    assert [len(batch.sample_ids) for batch in batches] == [9, 9, 9, 9, 4]
    assert {entry["sample_id"] for entry in lost} >= {i for i in range(40) if i % 4 == 1}
    assert all("column 'image': expected a picture" in entry["reason"] for entry in lost)
    for batch in batches:
        for row, i in enumerate(batch["label"].tolist()):
            assert i % 4 != 1
            assert difference(batch["image"][row], reference_crop(files[i], SPEC, "image", i))[1] <= 1


def without(file: bytes, marker: int) -> bytes:
    """Remove all segments with this marker from the head of a JPEG."""
    found = list(segments(file))
    kept = b"".join(file[begin:end] for begin, kind, end in found if kind != marker)
    return file[:2] + kept + file[found[-1][2] :]


def test_decoding_tables_do_not_carry_over_to_the_next_picture(place: Path, backend: str) -> None:
    """libjpeg keeps tables. Missing Huffman tables mean the standard ones; missing quantisation tables are an error."""
    other, usual = file_of(picture(90, 80, 5, False), quality=20, optimize=True), jpeg(picture(90, 80, 4, True))
    slow = file_of(picture(90, 80, 6, True), progressive=True)
    bare = [without(usual, 0xC4), without(usual, 0xDB), without(slow, 0xC4), without(slow, 0xDB)]
    dataset = write(place / f"tables {backend}", [file for each in bare for file in (other, slow, each)])
    found = crops(dataset, SPEC, on_error="skip", threads=1, batch_size=12)
    assert sorted(found) == [0, 1, 2, 3, 4, 6, 7, 9, 10]
    assert difference(found[2], reference_crop(usual, SPEC, "image", 2))[1] <= 1


# damage ---------------------------------------------------------------------------------------------------------------

WHOLE = {
    "jpeg": jpeg(picture(120, 160, 3, True), "420"),
    "tiled": tile(jpeg(picture(160, 256, 3, True), "420")),
    "grey": jpeg(picture(120, 160, 3, True), "Gray"),
    "progressive": file_of(picture(120, 160, 3, True), progressive=True),
    "png": file_of(picture(60, 80, 3, True), "PNG"),
    "webp": file_of(picture(60, 80, 3, True), "WEBP"),
}


def crops_of_accepted(root: Path, files: list[bytes], spec: Any, **options: Any) -> dict[int, Array]:
    """The crops of the files that are not refused. A stale row would contain a crop of an earlier batch."""
    with write(root, files, mode="overwrite") as dataset, time_limit(240):
        with loader_of(dataset, spec, on_error="skip", batch_size=16, **options) as loader:
            found = rows(loader)
            lost = loader.state_dict()["lost"]["count"]
            assert len(found) + lost == len(files)
            assert all(
                "DecodeError" in entry["reason"] or "expected" in entry["reason"]
                for entry in loader.stats()["lost_last"]
            )
        return found


def ends_early(spec: Any, backend: str) -> bool:
    """Does decoding stop at the end of the crop? Then damage after it is neither detected nor visible."""
    return turbo.HAS_REGIONS and backend == "libturbojpeg" and not spec.exact


@pytest.mark.parametrize("spec", [SPEC, FAST], ids=["exact", "fast"])
@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_files_are_refused(kind: str, spec: Any, place: Path, backend: str) -> None:
    assert is_tiled(WHOLE[kind]) == (kind == "tiled")
    whole = WHOLE[kind]
    files = [whole[: len(whole) * i // 20] for i in range(20)] + [whole]
    found = crops_of_accepted(place / "early", files, spec)
    if ends_early(spec, backend):
        expected = crops(write(place / "late", [whole] * 21, mode="overwrite"), spec)
        assert all(difference(found[i], expected[i])[0] <= 7 for i in found)
    else:
        assert sorted(found) == [20]


def changed(file: bytes, count: int, seed: int, *, first: int = 0, most: int = 4) -> list[bytes]:
    """Copies of a file with one bit, one byte or a few bytes changed."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(count):
        data = bytearray(file)
        for at in random.integers(first, len(file), most if i % 4 == 3 else 1).tolist():
            data[at] = data[at] ^ 1 << int(random.integers(8)) if i % 2 else int(random.integers(256))
        found.append(bytes(data))
    return found


def accepted_by_pillow(file: bytes) -> bool:
    try:
        Image.open(io.BytesIO(file)).convert("RGB")
    except Exception:  # noqa: BLE001 - whatever it is
        return False
    return True


@pytest.mark.parametrize("count", [60, pytest.param(2_000, id="hunt", marks=pytest.mark.hunt)])
@pytest.mark.parametrize("kind", WHOLE)
def test_mutated_files_are_refused_or_decoded_as_pillow_does(kind: str, count: int, place: Path, backend: str) -> None:
    """An accepted file has the pixels that Pillow decodes from these bytes."""
    files = changed(WHOLE[kind], count, 1) + changed(WHOLE[kind][:700], count // 3, 2) + [WHOLE[kind]]
    found = crops_of_accepted(place / "changed", files, SPEC)
    assert len(files) - 1 in found
    for i, crop in found.items():
        assert accepted_by_pillow(files[i])
        assert difference(crop, reference_crop(files[i], SPEC, "image", i))[1] <= 2, i


@pytest.mark.parametrize("count", [60, pytest.param(2_000, id="hunt", marks=pytest.mark.hunt)])
def test_crops_of_mutated_tiles_are_refused_or_correct(count: int, place: Path, backend: str) -> None:
    """Damage in other tiles is not seen, so crops equal those of the original or of the changed file."""
    files = changed(WHOLE["tiled"], count, 4, most=1) + changed(WHOLE["tiled"], count, 5, first=600, most=1)
    found = crops_of_accepted(place / "tiles", files, FAST)
    assert found
    whole = crops(write(place / "whole", [WHOLE["tiled"]] * len(files), mode="overwrite"), FAST)
    for i, crop in found.items():
        if not np.array_equal(crop, whole[i]):
            assert accepted_by_pillow(files[i])
            mean, most = difference(crop, reference_crop(files[i], FAST, "image", i))
            assert mean <= 16, (i, mean, most)


def with_unusual_heads(file: bytes) -> list[bytes]:
    """JPEGs with unusual heads."""
    tables, scan = file.index(b"\xff\xdb"), file.index(b"\xff\xda")
    first = (b"\0", b"\0\xff", b"\xff\xd0", b"\xff\x01", b"\xff\xff\xff")
    later = (b"\0", b"ab", b"\xff\0", b"\xff\xd3", b"\xff\x02\0\2")
    places = [(2, odd) for odd in first] + [(at, odd) for at in (tables, scan) for odd in later]
    return [file[:at] + odd + file[at:] for at, odd in places]


@pytest.mark.parametrize("spec", [SPEC, FAST], ids=["exact", "fast"])
def test_half_a_picture_with_an_unusual_head_is_refused(spec: Any, place: Path, backend: str) -> None:
    """Pillow, which decodes pictures that the other decoders do not support, accepts half a picture."""
    noise = jpeg(picture(200, 250, 3, False), "420")
    half = noise[: noise.index(b"\xff\xda") + 3_000] + b"\xff\xd9"
    files = [*with_unusual_heads(half), *with_unusual_heads(noise)]
    found = crops_of_accepted(place / "odd", files, spec)
    assert ends_early(spec, backend) or not [i for i in found if i < len(files) // 2]
    whole = crops(write(place / "even", [noise] * len(files), mode="overwrite"), spec)
    for i, crop in found.items():
        assert difference(crop, whole[i])[0] <= 14


def accepted_by_convert(files: list[bytes], *, tiles: bool) -> list[bytes]:
    kept = []
    for file in files:
        with contextlib.suppress(SourceError):
            kept.append(checked_picture(file, tiles=tiles)[0])
    return kept


@pytest.mark.parametrize("count", [150, pytest.param(5_000, id="hunt", marks=pytest.mark.hunt)])
@pytest.mark.parametrize("tiles", [True, False], ids=["tiled", "as they are"])
def test_every_jpeg_that_convert_accepts_is_decoded(tiles: bool, count: int, place: Path, backend: str) -> None:
    """The checks of convert are at least as strict as each decoder, so that no accepted picture fails in training."""
    whole = jpeg(picture(60, 100, 3, True), "420"), file_of(picture(60, 100, 3, True), quality=90, progressive=True)
    files = [
        file[:at] + bytes((0xFF, marker)) + length + file[at:]
        for file in whole
        for marker in range(0x01, 0xFF)
        for at in (2, *(at for at, found, _ in segments(file) if found in (0xC0, 0xC2, 0xDA)))
        for length in (b"", b"\0\4\x20\1")
    ]
    random = np.random.default_rng(9)
    for i in range(count):  # bytes that decoding depends on: tables, and the headers of the frame and the first scan
        data = bytearray(whole[i % 2])
        parts = [range(at + 4, end) for at, found, end in segments(data) if found in (0xC0, 0xC2, 0xC4, 0xDA, 0xDB)]
        at = int(random.choice(parts[int(random.integers(len(parts)))]))
        data[at] = int(random.choice((data[at] | 0x80, data[at] ^ 1 << int(random.integers(8)), random.integers(256))))
        files.append(bytes(data))
    kept = accepted_by_convert(files, tiles=tiles)
    assert len(files) // 20 < len(kept) < len(files) // 2
    dataset = write(place / f"kept {backend} {tiles}", kept)
    for spec in (FAST, SPEC, mx8.CenterCrop(32, upright=True), mx8.Decode()):
        with loader_of(dataset, spec, batch_size=64) as loader, time_limit(240):
            assert sum(len(batch.sample_ids) for batch in loader) == len(kept)


def test_the_error_has_the_message_of_the_strict_decoder(place: Path, backend: str) -> None:
    """Pillow ignores damage of which libjpeg warns."""
    data = bytearray(jpeg(picture(120, 160, 3, True), "420"))
    at = data.index(b"\xff\xda") + 14 + 200
    data[at : at + 2] = b"\xff\xd3"
    assert accepted_by_pillow(bytes(data))
    dataset = write(place / f"strict {backend}", [bytes(data)])
    with (
        loader_of(dataset, SPEC) as loader,
        pytest.raises(mx8.LoaderError, match=r"column 'image': expected a whole JPEG, got .*Corrupt JPEG data"),
    ):
        list(loader)


@pytest.mark.parametrize("progressive", [False, True])
def test_the_error_names_the_libjpeg_warning_that_refused_a_jpeg(progressive: bool, tmp_path: Path) -> None:
    """A JPEG of unknown JFIF revision is refused by some crops, with the reason."""
    data = bytearray(file_of(picture(300, 400, 0, True), progressive=progressive))
    data[data.index(b"JFIF\0") + 5] = 3
    with mx8.Writer(tmp_path / "data", columns={"image": "bytes"}) as writer:
        for _ in range(40):
            writer.write({"image": bytes(data)})
    spec = mx8.RandomResizedCrop(32)
    options: dict[str, Any] = {"batch_size": 4, "decode": {"image": spec}, "on_error": "skip", "output": "numpy"}
    with mx8.Loader(mx8.Dataset(tmp_path / "data"), **options) as loader:
        samples = sum(len(batch.sample_ids) for batch in loader)
        lost = loader.stats()["lost_last"]
    assert samples + len(lost) == 40
    assert all("unknown JFIF revision number 3" in sample["reason"] for sample in lost)
