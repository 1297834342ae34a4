"""Are stored planes equal to the decoder's, and do they give a batch equal pixels?"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.errors import DecodeError, LoaderError
from mx8shards.kernels import turbo
from mx8shards.media import yuv420

MAGIC = b"mx8yuv\x00\x01"
WRAPPING = MAGIC + struct.pack("<II", 3_456_352_642, 3_558_036_652) + bytes(260)  # right modulo 2 ** 64

SIZES = [(1, 1), (2, 2), (3, 5), (16, 16), (17, 33), (64, 48)]


def pixels(height: int, width: int) -> Any:
    """A smooth picture, which subsampled chroma changes little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 5) % 256, (y * 3) % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def file(picture: Any, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return out.getvalue()


def ycbcr(jpeg: bytes) -> Any:
    """The YCbCr pixels of libjpeg, with upsampled chroma."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("YCbCr", picture.size)
        return np.asarray(picture.convert("YCbCr")).astype(int)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_planes_equal_those_of_the_decoder(height: int, width: int, subsampling: str) -> None:
    jpeg = file(pixels(height, width), quality=95, subsampling=subsampling)
    luma, blue, red = yuv420.planes(yuv420.encode(jpeg))
    wanted = ycbcr(jpeg)
    assert luma.shape == (height, width)
    assert blue.shape == red.shape == (-(-height // 2), -(-width // 2))
    assert np.abs(luma - wanted[..., 0]).max() <= (0 if turbo.library is not None else 2)
    near = wanted[::2, ::2, 1:]
    assert np.abs(np.stack([blue, red], -1) - near).mean() < 8  # a chroma sample covers four pixels; this is one


def test_a_grey_picture_has_neutral_chroma() -> None:
    luma, blue, red = yuv420.planes(yuv420.encode(file(pixels(9, 7)[..., 0], quality=95)))
    assert luma.shape == (9, 7)
    assert set(np.unique(blue)) | set(np.unique(red)) == {128}


def test_any_picture_can_be_converted_to_planes() -> None:
    luma, blue, red = yuv420.planes(yuv420.encode(file(pixels(9, 7), "PNG")))
    wanted = np.asarray(Image.fromarray(pixels(9, 7)).convert("YCbCr"))
    assert np.array_equal(luma, wanted[..., 0])
    assert blue[0, 0] == (wanted[:2, :2, 1].sum() + 2) // 4
    assert red[-1, -1] == wanted[-1, -1, 2]  # at an odd edge it covers only this pixel


def test_the_planes_of_the_spec_vectors_are_found(repository: Path) -> None:
    for vector in json.loads((repository / "format_spec/vectors/planes.json").read_text())["pictures"]:
        found = yuv420.planes(bytes.fromhex(vector["payload"]))
        assert [plane.tobytes().hex() for plane in found] == [vector[name] for name in ("y", "cb", "cr")]
        assert found[0].shape == (vector["height"], vector["width"])


def test_the_invalid_payloads_of_the_spec_vectors_are_refused(repository: Path) -> None:
    refused = json.loads((repository / "format_spec/vectors/planes.json").read_text())["refused"]
    assert len(refused) > 3
    for vector in refused:
        with pytest.raises(DecodeError, match="yuv420"):
            yuv420.planes(bytes.fromhex(vector["payload"]))


@pytest.mark.parametrize("payload", [b"", b"mx8yuv", file(pixels(9, 7)), MAGIC + struct.pack("<II", 4, 4), WRAPPING])
def test_bytes_of_other_formats_have_no_planes(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="yuv420"):
        yuv420.planes(payload)


@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_payload_of_wrong_size_is_an_error_that_names_it(change: bytes, tmp_path: Path) -> None:
    good = yuv420.encode(file(pixels(32, 32)))
    bad = good + change if change else good[:-1]
    with mx8.Writer(tmp_path, columns={"image": "bytes"}) as writer:
        for payload in (good, bad):
            writer.write({"image": payload})
    loader = mx8.Loader(mx8.Dataset(tmp_path), batch_size=1, decode={"image": mx8.ResizeCrop(16)}, output="numpy")
    batches = iter(loader)
    next(batches)
    with pytest.raises(LoaderError, match=r"DecodeError: .*sample 1 of this shard, column 'image'"):
        next(batches)
    loader.close()


@pytest.mark.skipif(turbo.library is None, reason="planes of JPEGs come from libturbojpeg")
@pytest.mark.parametrize(
    "crop", [mx8.RandomResizedCrop(48, flip=0.5), mx8.CenterCrop(64, resize=70), mx8.ResizeCrop((50, 80))]
)
def test_planes_and_unscaled_jpegs_give_equal_batches(crop: Any, tmp_path: Path) -> None:
    jpegs = [file(pixels(90 + 7 * i, 130 - 9 * i), quality=90, subsampling="4:2:0") for i in range(8)]
    found = []
    for name, payloads in (("jpegs", jpegs), ("planes", [yuv420.encode(jpeg) for jpeg in jpegs])):
        with mx8.Writer(tmp_path / name, columns={"image": "bytes"}) as writer:
            for payload in payloads:
                writer.write({"image": payload})
        with mx8.Loader(mx8.Dataset(tmp_path / name), batch_size=8, decode={"image": crop}, output="numpy") as loader:
            found.append(next(iter(loader))["image"].copy())
    if turbo.HAS_REGIONS:  # libturbojpeg 3.x may decode a region of a JPEG to RGB instead
        assert np.abs(np.subtract(*found, dtype=np.int16)).mean() < 3
    else:
        assert np.array_equal(*found)
