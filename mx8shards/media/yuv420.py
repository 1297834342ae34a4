"""How are pictures stored as yuv420 planes, which need no decoding? (spec §15)

One byte of luma per pixel and two bytes of chroma per four pixels: several times as large as a JPEG, and several times
faster to read. The planes of a JPEG are taken from its decoder before the conversion to RGB.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DecodeError, require
from mx8shards.format.picture_cost import check_cost
from mx8shards.format.picture_files import MOST_DECODED_BYTES, check_size
from mx8shards.kernels import jpeg, turbo
from mx8shards.kernels.cuts import CUT
from mx8shards.kernels.decompress import coefficient_bytes, decode_planes, decoded_planes, has_planes, planes_bytes
from mx8shards.kernels.yuv420_planes import MAGIC, is_yuv420, planes_of, size_of
from mx8shards.media import decoding

Plane = npt.NDArray[np.uint8]

_GREY = 128


def encode(picture: bytes) -> bytes:
    """Encode a picture file as a yuv420 payload. DecodeError for a file that is not a picture."""
    check_cost(picture)
    luma, blue, red = _planes_of_jpeg(picture) or _planes_by_pillow(picture)
    height, width = luma.shape
    parts = (_padded(luma), blue, red)
    return MAGIC + struct.pack("<II", height, width) + b"".join(part.tobytes() for part in parts)


def planes(payload: bytes | memoryview) -> tuple[Plane, Plane, Plane]:
    """Y, Cb and Cr as arrays over a payload; Y without the padding of odd sides."""
    data = np.frombuffer(payload, np.uint8)
    height, width = size_of(data) if is_yuv420(data) else (0, 0)
    if not height:
        raise DecodeError(expected="a yuv420 payload", found=f"{len(payload)} other bytes")
    luma, blue, red = planes_of(data, height, width)
    return luma[:height, :width], blue, red


def _planes_of_jpeg(picture: bytes) -> tuple[Plane, Plane, Plane] | None:
    """The planes from a JPEG's decoder, with chroma converted to 4:2:0; None without TurboJPEG or for other files."""
    data, head = np.frombuffer(picture, np.uint8), np.zeros(1, jpeg.HEAD)
    if turbo.library is None or jpeg.read_head(data, head[0]) != jpeg.OK or not has_planes(head[0]):
        return None
    cut = np.zeros(1, CUT)
    width, height = int(head[0]["width"]), int(head[0]["height"])
    check_size(width, height, 3 * width * height + int(coefficient_bytes(head[0])))
    cut["width"], cut["height"], cut["scale"] = width, height, 1
    scratch, layout = decoding.aligned_scratch(int(planes_bytes(head[0], cut[0]))), np.zeros((3, 3), np.int64)
    if not decode_planes(data, head[0], cut[0], layout, scratch):
        raise DecodeError(expected="a whole JPEG", found="a damaged one")
    h, v = int(head[0]["h"][0]), int(head[0]["v"][0])
    luma, blue, red = decoded_planes(layout, scratch)
    luma = luma[:height, :width]
    if len(blue) == 0:
        grey = np.full((-(-height // 2), -(-width // 2)), _GREY, np.uint8)
        return luma, grey, grey
    chroma = (plane[: -(-height // v), : -(-width // h)] for plane in (blue, red))
    blue, red = (_halve(np.repeat(plane, max(1, h // 2), axis=1), h == 1, v == 1) for plane in chroma)
    half = -(-width // 2)
    return luma, blue[:, :half], red[:, :half]


def _planes_by_pillow(picture: bytes) -> tuple[Plane, Plane, Plane]:
    decoding.check_pillow_jpeg(picture, MOST_DECODED_BYTES)
    pixels = decoding.decode(picture, _reserve)
    pillow = require("PIL.Image", "images")
    ycbcr = np.asarray(pillow.fromarray(pixels).convert("YCbCr"))
    return ycbcr[..., 0], _halve(ycbcr[..., 1], True, True), _halve(ycbcr[..., 2], True, True)


def _reserve(width: int, height: int, size_bytes: int) -> None:
    check_size(width, height, size_bytes)


def _halve(plane: Plane, across: bool, down: bool) -> Plane:
    """Halve the columns or rows of a plane, by the mean of two; the last of an odd number is kept."""
    sums = _padded(plane, across=across, down=down).astype(np.uint16)
    count = 1
    if across:
        sums, count = sums[:, ::2] + sums[:, 1::2], 2 * count
    if down:
        sums, count = sums[::2] + sums[1::2], 2 * count
    return ((sums + count // 2) // count).astype(np.uint8)


def _padded(plane: Plane, *, across: bool = True, down: bool = True) -> Plane:
    """Repeat the last column or row of a plane with an odd number of them, if `across` or `down`."""
    more = ((0, down and plane.shape[0] % 2), (0, across and plane.shape[1] % 2))
    return np.pad(plane, more, mode="edge")
