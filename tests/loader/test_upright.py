"""Are crops with upright=True those of the picture that Pillow's exif_transpose makes, whatever the orientation?"""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

import mx8shards as mx8
from mx8shards.errors import SettingError
from mx8shards.format.picture_files import orientation_in
from mx8shards.kernels import boxes
from mx8shards.kernels import cuts as kernels
from mx8shards.kernels import jpeg as heads
from mx8shards.media import rotated_jpegs
from mx8shards.media.exif_rotation import Part, in_raster, in_upright, rotate, rotated_size
from mx8shards.media.tiles import is_tiled, tile
from tests.jpegs import segment
from tests.loader.test_pictures import backend as backend
from tests.loader.test_pictures import crops
from tests.pictures import difference, file_of, write
from tests.pixels import picture

Array = npt.NDArray[Any]

ORIENTATIONS = range(1, 9)
EXACT = {
    "random": mx8.RandomResizedCrop(32, exact=True, upright=True, layout="HWC"),
    "wide": mx8.RandomResizedCrop((20, 44), flip=1.0, exact=True, upright=True, layout="HWC"),
    "within": mx8.CenterCrop((24, 40), resize=48, exact=True, upright=True, layout="HWC"),
    "native": mx8.CenterCrop(32, exact=True, upright=True, layout="HWC"),
    "cover": mx8.ResizeCrop((30, 17), exact=True, upright=True, layout="HWC"),
}
FAST = mx8.RandomResizedCrop(32, scale=(0.05, 0.3), upright=True, layout="HWC")


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x010F], found[0x0112] = "a camera", orientation
    return found.tobytes()


@functools.cache
def files_of(kind: str, height: int = 90, width: int = 151) -> list[bytes]:
    """One picture in each orientation."""
    made = []
    for orientation in ORIENTATIONS:
        image = Image.fromarray(picture(height, width, orientation, True))
        if kind in ("JPEG", "tiled", "4:4:4", "progressive", "grey"):
            image = image.convert("L") if kind == "grey" else image
            sampling = "4:4:4" if kind == "4:4:4" else "4:2:0"
            made.append(file_of(image, subsampling=sampling, progressive=kind == "progressive", exif=exif(orientation)))
            made[-1] = tile(made[-1]) if kind == "tiled" else made[-1]
        else:
            made.append(file_of(image, kind, exif=exif(orientation)))
    return made


@functools.cache
def upright(file: bytes) -> bytes:
    """The same picture, rotated losslessly."""
    with Image.open(io.BytesIO(file)) as image:
        return file_of(ImageOps.exif_transpose(image).convert("RGB"), "PNG")


@pytest.mark.parametrize("kind", ["JPEG", "tiled", "4:4:4", "progressive", "grey", "PNG", "WEBP", "TIFF"])
def test_exact_crops_equal_those_of_the_rotated_picture(kind: str, place: Path, backend: str) -> None:
    files = files_of(kind)
    dataset = write(place / f"turned {kind} {backend}", files)
    plain = write(place / f"plain {kind} {backend}", map(upright, files))
    for name, spec in EXACT.items():
        found, expected = crops(dataset, spec), crops(plain, spec)
        for i, orientation in enumerate(ORIENTATIONS):
            assert np.array_equal(found[i], expected[i]), (name, orientation)


@pytest.mark.parametrize("way", ["mmap", "pread"])
@pytest.mark.parametrize("kind", ["JPEG", "tiled", "grey"])
def test_default_crops_are_close_to_those_of_the_rotated_picture(
    kind: str, way: Any, place: Path, backend: str
) -> None:
    files = files_of(kind, 403, 602)
    assert is_tiled(files[5]) is (kind == "tiled")
    found = crops(write(place / f"large {kind} {way} {backend}", files, size_limit="1mb"), FAST, io=way)
    plain = [upright(file) for file in files]
    expected = crops(write(place / f"small {kind} {way} {backend}", plain, size_limit="2mb"), FAST, io=way)
    for i in range(8):
        assert difference(found[i], expected[i])[0] < 3, i


def test_whole_pictures_are_rotated_too(place: Path, backend: str) -> None:
    files = files_of("JPEG")
    dataset = write(place / f"whole {backend}", files)
    found = crops(dataset, mx8.Decode(upright=True, layout="HWC"))
    for i, file in enumerate(files):
        expected = np.asarray(Image.open(io.BytesIO(upright(file))))
        assert found[i].shape == expected.shape
        assert np.array_equal(found[i], expected)
    sides = (151, 90)
    turned_ones = write(place / f"some {backend}", files[4:])
    stacked = crops(turned_ones, mx8.Decode(size=sides, upright=True, layout="HWC"))
    assert all(np.array_equal(stacked[i], found[i + 4]) for i in range(4))


def test_without_upright_pictures_are_not_rotated(place: Path, backend: str) -> None:
    files = files_of("JPEG")
    bare = [file_of(Image.open(io.BytesIO(file)), "PNG") for file in files]
    spec = mx8.CenterCrop(32, exact=True, layout="HWC")
    found = crops(write(place / f"raster {backend}", files), spec)
    expected = crops(write(place / f"bare {backend}", bare), spec)
    assert all(np.array_equal(found[i], expected[i]) for i in range(8))


def test_upright_works_with_layouts_dtypes_and_several_crops(place: Path, backend: str) -> None:
    files = files_of("tiled")
    dataset = write(place / f"several {backend}", files)
    plain = write(place / f"several plain {backend}", map(upright, files))
    options: dict[str, Any] = {"dtype": "float32", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "exact": True}
    spec = mx8.MultiCrop(
        {"a": mx8.RandomResizedCrop(24, upright=True, **options), "b": mx8.CenterCrop(16, upright=True, exact=True)}
    )
    both = []
    for data in (dataset, plain):
        with mx8.Loader(data, batch_size=8, decode={"image": spec}) as loader:
            both.append(next(iter(loader)).copy())
    assert both[0]["a"].shape == (8, 3, 24, 24)
    for name in ("a", "b"):
        assert np.array_equal(np.asarray(both[0][name]), np.asarray(both[1][name]))


def test_crops_of_one_picture_must_agree_on_upright() -> None:
    with pytest.raises(SettingError, match="agree on upright"):
        mx8.MultiCrop({"a": mx8.CenterCrop(8, upright=True), "b": mx8.CenterCrop(8)})
    with pytest.raises(SettingError, match="upright: expected True or False"):
        mx8.CenterCrop(8, upright=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_only_the_tiles_that_a_crop_touches_are_decoded(orientation: int) -> None:
    """A crop of a tenth of the picture's sides in a corner, which the orientation moves to another corner."""
    width, height = 1024, 768
    file = tile(file_of(Image.fromarray(picture(height, width, 3, True)), subsampling="4:2:0", exif=exif(orientation)))
    head, cut = np.zeros(1, heads.HEAD), np.zeros(1, kernels.CUT)
    assert rotated_jpegs.orientation_of(file, head[0]) == orientation
    across, down = rotated_size(width, height, orientation)
    found = np.zeros(1, boxes.BOX)
    found[0] = (0.0, 0.0, across / 10, down / 10, 0, 0, across // 10, down // 10, 64, 64, 0)
    taken: list[tuple[int, int, int]] = []
    pixels = rotated_jpegs.decode_rotated(
        file, head[0], orientation, found, False, cut[0], lambda *asked: taken.append(asked)
    )
    assert pixels.shape[0] * pixels.shape[1] < 0.1 * width * height
    assert taken[0][:2] == pixels.shape[:2]
    whole = rotate(np.asarray(Image.open(io.BytesIO(file))), orientation)
    left, top = int(cut[0]["left"]), int(cut[0]["top"])
    beside = whole[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    rows, columns = down // 10, across // 10  # chroma smoothing at the part's edge stays outside the box
    assert difference(pixels[:rows, :columns], beside[:rows, :columns])[1] <= 1
    assert (
        rotated_jpegs.decode_rotated(file, head[0], orientation, found, True, cut[0], lambda *_: None).shape
        == whole.shape
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_parts_and_pixels_are_rotated_as_pillow_does(orientation: int) -> None:
    pixels = picture(6, 9, 1, True)
    file = file_of(Image.fromarray(pixels), "PNG", exif=exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    assert np.array_equal(rotate(pixels, orientation), expected)
    part = Part(1, 2, 5, 4)
    lies = in_raster(part, 9, 6, orientation)
    assert in_upright(lies, 9, 6, orientation) == part
    raster = pixels[lies.top : lies.bottom, lies.left : lies.right]
    assert np.array_equal(rotate(raster, orientation), expected[part.top : part.bottom, part.left : part.right])


@pytest.mark.filterwarnings("ignore")  # Pillow warns about unusual tags
def test_the_orientation_equals_pillows_and_hostile_bytes_are_safe() -> None:
    random = np.random.default_rng(0)
    plain = file_of(Image.fromarray(picture(8, 8, 1, True)))
    seen = set()
    for number in range(3_000):
        order = "<>"[number % 2]
        tags = random.choice([0x10F, 0x112, 0x112, 0x8769], int(random.integers(5)), replace=True).tolist()
        entries = b"".join(
            struct.pack(f"{order}HHI", tag, int(random.choice([3, 3, 3, 4, 1])), int(random.choice([1, 1, 1, 2])))
            + struct.pack(f"{order}HH", *random.integers(0, 10, 2).tolist())
            for tag in tags
        )
        body = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags)) + entries + bytes(4)
        data = bytearray(body)
        if number % 3 == 0 and number > 300:
            for at in random.integers(0, len(data), 2).tolist():
                data[at] = int(random.integers(256))
            data = data[: int(random.integers(8, len(data) + 1))]
        file = plain[:2] + segment(0xE1, b"Exif\0\0" + bytes(data)) + plain[2:]
        head = np.zeros(1, heads.HEAD)
        found = rotated_jpegs.orientation_of(file, head[0])
        assert found == orientation_in(bytes(data))
        assert found in ORIENTATIONS
        if number <= 300 and len(set(tags)) == len(tags):
            image_exif = Image.Exif()
            image_exif.load(b"Exif\0\0" + bytes(data))
            said = image_exif.get(0x0112, 1)
            assert found == (said if said in ORIENTATIONS else 1)
            seen.add(found)
    assert len(seen) > 4
