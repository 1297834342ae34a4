"""Are whole pictures in a batch those that Pillow decodes, whatever their sizes are or claim to be?"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.errors import DecodeError
from mx8shards.media.tiles import tile
from tests.loader.leak_checks import time_limit
from tests.loader.test_pictures import backend as backend
from tests.loader.test_pictures import loader_of, same
from tests.pictures import difference, draws_of, file_of, jpeg, write
from tests.pixels import picture

Array = npt.NDArray[Any]

SIZES = [(30, 40), (1, 1), (17, 33), (120, 200), (5, 90), (90, 5)]
WHOLE = mx8.Decode(layout="HWC")


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Pictures of many sizes and formats; two formats need other ways to find their size."""
    found = []
    for i, size in enumerate(SIZES):
        pixels = picture(*size, i, i % 2 == 0)
        found += [jpeg(pixels, "420"), tile(jpeg(pixels, "444")), jpeg(pixels, "Gray"), file_of(pixels, "PNG")]
        found += [file_of(pixels, "WEBP"), file_of(pixels, "BMP"), file_of(pixels, progressive=True)]
    return found


@pytest.fixture(scope="module")
def data(place: Path, files: list[bytes]) -> mx8.Dataset:
    return write(place / "whole", files)


def reference_pixels(file: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def whole(dataset: mx8.Dataset, spec: Any = WHOLE, **options: Any) -> dict[int, Array]:
    """Each sample's picture, copied out of the bank."""
    found: dict[int, Array] = {}
    with loader_of(dataset, spec, **options) as loader, time_limit(240):
        for batch in loader:
            assert batch["label"].tolist() == batch.sample_ids.tolist()
            assert len(batch["image"]) == len(batch.sample_ids)
            for row, sample_id in enumerate(batch.sample_ids.tolist()):
                found[sample_id] = np.array(batch["image"][row])
    return found


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_each_picture_has_its_own_size_and_pillows_pixels(
    io: Any, backend: str, files: list[bytes], data: mx8.Dataset
) -> None:
    found = whole(data, io=io)
    assert sorted(found) == list(range(len(files)))
    for i, file in enumerate(files):
        assert difference(found[i], reference_pixels(file))[1] <= 1


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_layouts_dtypes_and_flips_change_only_the_form(
    layout: Any, dtype: Any, backend: str, data: mx8.Dataset
) -> None:
    levels = whole(data)
    spec = mx8.Decode(layout=layout, dtype=dtype, flip=0.5)
    found = whole(data, spec)
    for i, pixels in levels.items():
        mirrored = pixels[:, ::-1] if draws_of(spec, "image", i)[-1] < 0.5 else pixels
        expected = (mirrored if layout == "HWC" else mirrored.transpose(2, 0, 1)) / (1 if dtype == "uint8" else 255)
        assert found[i].dtype == dtype
        assert found[i].shape == expected.shape
        assert np.allclose(found[i], expected, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"threads": 4, "batch_size": 30}, {"shuffle": True, "batch_size": 2}, {"memory": "30mb"}, {"threads": 1}],
    ids=str,
)
def test_the_result_does_not_depend_on_threads_batches_and_memory(options: dict[str, Any], data: mx8.Dataset) -> None:
    assert same(whole(data, **options), whole(data))


def test_the_result_does_not_depend_on_ranks(data: mx8.Dataset) -> None:
    found: dict[int, Array] = {}
    for rank in range(2):
        found |= whole(data, rank=rank, world_size=2, shuffle=True)
    assert same(found, whole(data))


@pytest.mark.parametrize("method", ["padded", "to_nested"])
def test_methods_for_rows_of_numbers_refuse_decoded_pictures(method: str, data: mx8.Dataset) -> None:
    options = {"batch_size": 4, "decode": {"image": mx8.Decode()}, "on_error": "skip", "output": "numpy"}
    with mx8.Loader(data, **options) as loader:
        rows = next(iter(loader))["image"]
        with pytest.raises(
            mx8.SchemaError, match=f"^{method}: expected rows of numbers, got pictures that were decoded"
        ):
            getattr(rows, method)()


def test_pictures_of_the_given_size_are_stacked(place: Path, backend: str) -> None:
    files = [file_of(picture(20, 30, i, True), kind) for i in range(6) for kind in ("JPEG", "PNG", "WEBP")]
    dataset = write(place / f"equal {backend}", files)
    with loader_of(dataset, mx8.Decode((20, 30), layout="HWC")) as loader:
        for batch in loader:
            assert batch["image"].shape == (len(batch.sample_ids), 20, 30, 3)
            for row, i in enumerate(batch.sample_ids.tolist()):
                assert difference(batch["image"][row], reference_pixels(files[i]))[1] <= 1


OTHER_SIZES = [(20, 31), (21, 30), (10, 10), (30, 20), (19, 30), (20, 60), (600, 30)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_of_another_size_is_refused_and_does_not_affect_others(place: Path, kind: str, backend: str) -> None:
    good = file_of(picture(20, 30, 0, True), kind)
    files = []
    for i, size in enumerate(OTHER_SIZES):
        files += [good, file_of(picture(*size, i, True), kind), good]
    dataset = write(place / f"other {kind} {backend}", files)
    for threads in (1, 3):
        with loader_of(dataset, mx8.Decode((20, 30), layout="HWC"), on_error="skip", threads=threads) as loader:
            found = [
                (i, batch["image"][row].copy()) for batch in loader for row, i in enumerate(batch.sample_ids.tolist())
            ]
        assert [i for i, _ in found] == [i for i in range(len(files)) if i % 3 != 1]
        assert all(difference(pixels, reference_pixels(good))[1] <= 1 for _, pixels in found)
    with loader_of(dataset, mx8.Decode((20, 30))) as loader, pytest.raises(mx8.LoaderError) as caught:
        list(loader)
    assert isinstance(caught.value.__cause__, DecodeError)
    told = str(caught.value)
    assert "sample 1 of this shard, column 'image'" in told
    assert "30" in told
    assert "20" in told


# hostile files --------------------------------------------------------------------------------------------------------


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(height: int, width: int) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")


def other_first_chunk() -> bytes:
    """A PNG of 200 × 200 for Pillow and of 8 × 8 for a careless reader."""
    good = file_of(picture(200, 200, 0, True), "PNG")
    return good[:8] + png_chunk(b"abCd", struct.pack(">II", 8, 8) + bytes(4)) + good[8:]


def sides_that_overflow(near: int) -> tuple[int, int]:
    """Width and height whose pixels have about this many bytes modulo 2**64."""
    pairs = []
    for height in range(2**32 - 1, 2**32 - 20_000, -2):
        width = (2**64 + near) // (3 * height)
        pairs.append((abs(3 * height * width - 2**64 - near), height, width))
    return min(pairs)[1:]


HOSTILE = {
    "as large as can be": png_of(2**31 - 1, 2**31 - 1),
    "beyond all": png_of(2**32 - 1, 2**32 - 1),
    "no height": png_of(0, 5),
    "no width": png_of(5, 0),
    "less than nothing, modulo": png_of(*sides_that_overflow(-3_000_000)),
    "little, modulo": png_of(*sides_that_overflow(20_000)),
    "planes that are less than nothing": b"mx8yuv\0\1"
    + struct.pack("<II", *sides_that_overflow(-20_500_000))
    + bytes(64),
    "planes that are little": b"mx8yuv\0\1" + struct.pack("<II", *sides_that_overflow(20_000)) + bytes(64),
    "planes without any": b"mx8yuv\0\1" + struct.pack("<II", 0, 0),
    "large, and short": png_of(3_000, 3_000),
    "a jpeg that is a bomb": jpeg(picture(9, 9, 0, True)).replace(b"\0\x09\0\x09", b"\xff\xf0\xff\xf0"),
    "nothing": b"",
    "garbage": bytes(range(200)),
    "half": file_of(picture(90, 90, 0, True), "PNG")[:4_000],
    "half a jpeg": jpeg(picture(90, 90, 0, True))[:1_500],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_pictures_with_false_sizes_do_not_affect_others(tmp_path: Path, kind: str, backend: str) -> None:
    good = [jpeg(picture(50, 60, i, True)) for i in range(7)]
    dataset = write(tmp_path / "data", [*good[:3], HOSTILE[kind], *good[3:]])
    expected = [reference_pixels(file) for file in good]
    for threads in (1, 3):
        found = whole(dataset, on_error="skip", memory="300mb", threads=threads)
        assert sorted(found) == [0, 1, 2, 4, 5, 6, 7]
        for i, pixels in enumerate(found[i] for i in sorted(found)):
            assert difference(pixels, expected[i])[1] <= 1
    with loader_of(dataset, WHOLE, memory="300mb") as loader, time_limit(240), pytest.raises(mx8.LoaderError) as caught:
        list(loader)
    assert isinstance(caught.value.__cause__, DecodeError)
    assert "sample 3 of this shard, column 'image': " in str(caught.value)


def test_a_size_that_only_the_decoder_finds_does_not_affect_others(tmp_path: Path, backend: str) -> None:
    """The picture is refused or complete."""
    good = [jpeg(picture(50, 60, i, True)) for i in range(5)]
    dataset = write(tmp_path / "data", [*good[:3], other_first_chunk(), *good[3:]])
    found = whole(dataset, on_error="skip", threads=1)
    assert sorted(set(found) | {3}) == list(range(6))
    for i, pixels in found.items():
        expected = picture(200, 200, 0, True) if i == 3 else reference_pixels(good[i - (i > 3)])
        assert difference(pixels, expected)[1] <= 1
