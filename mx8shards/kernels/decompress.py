"""How does libturbojpeg decode a part of a JPEG, to YCbCr planes or to RGB pixels in scratch?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import turbo
from mx8shards.kernels.cuts import CUT, REGION, scaled
from mx8shards.kernels.jit import BOOL, BYTES, INT, MEMORY, array, helper, inner_kernel, kernel, record
from mx8shards.kernels.jpeg import GREY, HEAD, MOST_SCANS, SEQUENTIAL, YCBCR
from mx8shards.kernels.memory import typed

Array = npt.NDArray[Any]
Record = Any

_BLOCK_BYTES = 2 * 64
_ROW = 64  # strides of planes are multiples of this

# Columns of `planes`, which has one row per plane.
_BEGIN = 0  # offset in scratch
_STRIDE = 1  # bytes from row to row
_ROWS = 2


@helper
def has_planes(head: Record) -> Any:
    """Whether TurboJPEG can decode this JPEG to planes: grey, or YCbCr with chroma subsampled by 1, 2 or 4."""
    if head["colours"] == GREY:
        return True
    if head["colours"] != YCBCR:
        return False
    for i in range(1, 3):
        if head["h"][i] != 1 or head["v"][i] != 1:
            return False
    h, v = head["h"][0], head["v"][0]
    return (v == 1 and (h == 1 or h == 2 or h == 4)) or (v == 2 and h <= 2)


@kernel(INT, BYTES, record(HEAD), record(CUT), array(np.int64, 2), MEMORY)
def decode_planes(jpeg: Array, head: Record, cut: Record, planes: Array, scratch: Array) -> Any:
    """Decode Y, Cb and Cr to scratch; return the number of bytes used, or 0 if decoding failed.

    `scratch` has at least `planes_bytes` bytes. `planes` receives the offset, stride and number of rows of each plane.
    """
    width, height = scaled(cut["width"], cut["scale"]), scaled(cut["height"], cut["scale"])
    h, v = head["h"][0], head["v"][0]
    grey = head["colours"] == GREY
    used = _lay_out_plane(planes[0], width, height, h, v, 0)
    for k in range(1, 3):
        used = _lay_out_plane(planes[k], 0 if grey else scaled(width, h), 0 if grey else scaled(height, v), 1, 1, used)
    addresses, strides = typed(scratch[used : used + 24], np.uint64), typed(scratch[used + 24 : used + 36], np.int32)
    for k in range(3):
        addresses[k] = np.uint64(scratch.ctypes.data) + np.uint64(planes[k, _BEGIN])
        strides[k] = planes[k, _STRIDE]
    handle = turbo.open_handle()  # a new handle is cheap, and keeps no tables of another picture
    if handle == 0:
        return 0
    failed = turbo.decompress_to_planes(
        handle,
        np.uint64(jpeg.ctypes.data),
        np.uint64(len(jpeg)),
        np.uint64(addresses.ctypes.data),
        np.int32(width),
        np.uint64(strides.ctypes.data),
        np.int32(height),
        np.int32(turbo.STRICT),
    )
    turbo.close_handle(handle)
    return 0 if failed else used


@helper
def _lay_out_plane(plane: Array, width: Any, height: Any, h: Any, v: Any, begin: Any) -> Any:
    """Set offset, stride and rows of a plane, padded as TurboJPEG pads it; return the offset after it."""
    plane[_BEGIN] = begin
    plane[_STRIDE] = (width + h + _ROW - 1) // _ROW * _ROW
    plane[_ROWS] = (height + v - 1) // v * v
    return begin + plane[_STRIDE] * plane[_ROWS]


@helper
def decoded_planes(planes: Array, scratch: Array) -> Any:
    """Y, Cb and Cr as arrays over scratch, after `decode_planes`. Cb and Cr of a grey picture have no rows."""
    blue, red, end = planes[1, _BEGIN], planes[2, _BEGIN], planes[2, _BEGIN] + planes[2, _STRIDE] * planes[2, _ROWS]
    return (
        scratch[:blue].reshape((planes[0, _ROWS], planes[0, _STRIDE])),
        scratch[blue:red].reshape((planes[1, _ROWS], planes[1, _STRIDE])),
        scratch[red:end].reshape((planes[2, _ROWS], planes[2, _STRIDE])),
    )


@helper
def planes_bytes(head: Record, cut: Record) -> Any:
    """Bytes of scratch for `decode_planes`.

    Enough for 4:4:4, because a mapped file may change, with its sampling, between this call and decoding.
    """
    width, height = scaled(cut["width"], cut["scale"]), scaled(cut["height"], cut["scale"])
    return 3 * ((width + 4 + _ROW) * (height + 4) + _ROW) + 64


@helper
def coefficient_bytes(head: Record) -> Any:
    """Bytes that libjpeg allocates for a JPEG in several scans: it keeps all coefficients, at any output scale."""
    if head["kind"] == SEQUENTIAL and head["one_scan"] == 1:
        return 0
    blocks = 0
    for i in range(head["components"]):
        blocks += head["h"][i] * head["v"][i]
    return blocks * head["columns"] * head["rows"] * _BLOCK_BYTES


@inner_kernel(BOOL, BYTES, record(CUT), INT, INT, MEMORY)
def decode_rgb(jpeg: Array, cut: Record, width: Any, height: Any, pixels: Array) -> Any:
    """Decode to RGB pixels; False if decoding failed."""
    handle = turbo.open_handle()
    if handle == 0:
        return False
    source, size = np.uint64(jpeg.ctypes.data), np.uint64(len(jpeg))
    to, stride, form = np.uint64(pixels.ctypes.data), np.int32(3 * width), np.int32(turbo.RGB)
    if cut["how"] != REGION:
        across, down, flags = np.int32(width), np.int32(height), np.int32(turbo.STRICT)
        good = turbo.decompress(handle, source, size, to, across, stride, down, form, flags) == 0
    else:
        corner = np.int64(cut["left"] // cut["scale"] | (cut["top"] // cut["scale"]) << 32)
        turbo.set_parameter(handle, np.int32(turbo.STOP_ON_WARNINGS), np.int32(1))
        turbo.set_parameter(handle, np.int32(turbo.SCAN_LIMIT), np.int32(MOST_SCANS))
        good = turbo.read_header(handle, source, size) == 0
        good = good and turbo.set_scale(handle, np.int64(1 | cut["scale"] << 32)) == 0
        good = good and turbo.set_region(handle, corner, np.int64(width | height << 32)) == 0
        good = good and turbo.decompress_region(handle, source, size, to, stride, form) == 0
    turbo.close_handle(handle)
    return good
