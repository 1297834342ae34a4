"""How are the packets of a stretch of video decoded, and the wanted frames cropped into a batch, in few calls?

Frames are cropped as soon as they are decoded, from the decoder's own memory.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels import libavcodec
from mx8shards.kernels.boxes import BOX
from mx8shards.kernels.jit import ADDRESS, BOOL, INT, MEMORY, array, helper, inner_kernel, kernel, record
from mx8shards.kernels.memory import load_int64, load_uint32, memcpy, store_int64, view_bytes
from mx8shards.kernels.payloads import payload_at
from mx8shards.kernels.records import ROW, SHARD
from mx8shards.kernels.resample import carve
from mx8shards.kernels.video_frames import FRAME, crop_frame, crop_frame_planes

Array = npt.NDArray[Any]
Record = Any

# A video and its decoder: the addresses of the decoder, of its packet and of its frame; how many frames the decoder
# reorders; which pixel format, and how many rows of chroma, frames should have; where the payload begins in its shard,
# and its size.
SOURCE = np.dtype(
    [
        ("decoder", "u8"),
        ("packet", "u8"),
        ("frame", "u8"),
        ("reorder", "i8"),
        ("format", "i8"),
        ("chroma_rows", "i8"),
        ("begin", "i8"),
        ("size", "i8"),
    ]
)

# One packet: its number, where it lies in the payload, and whether it is a keyframe.
PACKET = np.dtype([("number", "i8"), ("position", "i8"), ("size", "i8"), ("keyframe", "i8")])

# Where the frame of a packet goes: the index of its box, and the addresses of its pixels, or of luma and chroma. Places
# are sorted by packet and box. `done`: it has its frame.
PLACE = np.dtype([("packet", "i8"), ("box", "i8"), ("to", "u8"), ("chroma", "u8"), ("done", "i8")])

# How frames are written: as RGB or as `planes`; the bytes of RGB or luma, and of chroma. If the channels of a frame do
# not follow each other, `step` is the distance between them in bytes, else 0.
WRITING = np.dtype([("planes", "i8"), ("last", "i8"), ("bytes", "i8"), ("chroma_bytes", "i8"), ("step", "i8")])

# The numbers of decoded packets and frames, and the box of the last crop. If a frame has another size or pixel format
# than expected: its size and format.
TALLY = np.dtype(
    [("packets", "i8"), ("frames", "i8"), ("box", "i8"), ("width", "i8"), ("height", "i8"), ("format", "i8")]
)

# What `decode_packets` returns, if not an error of FFmpeg, which is below 0.
DONE, UNREADABLE, OTHER_FRAME, UPSIDE_DOWN = 0, 1, 2, 3

_AGAIN = -errno.EAGAIN
_CHANNELS = 3
_PLACES, _TABLE = array(PLACE), array(np.uint32, 2)


@kernel(
    INT,
    record(SOURCE),
    array(SHARD),
    record(ROW),
    array(PACKET),
    BOOL,
    record(FRAME),
    array(BOX),
    record(WRITING),
    _TABLE,
    MEMORY,
    _PLACES,
    record(TALLY),
)
def decode_packets(
    source: Record,
    shards: Array,
    row: Record,
    packets: Array,
    ends: Any,
    frame: Record,
    boxes: Array,
    writing: Record,
    table: Array,
    scratch: Array,
    places: Array,
    tally: Record,
) -> Any:
    """Decode the next packets of a stretch, and crop the frames that have places. Returns how it ended.

    The first packet that a new decoder gets, or one that was reset, is a keyframe. `ends`: no packets follow.
    Places that are done keep their frames. Of several frames of one packet the first one counts; damaged frames are
    left out. `scratch` has `crop_bytes`.
    """
    _store_int32(source["decoder"] + np.uint64(libavcodec.CONTEXT_REORDER), source["reorder"])
    tally["box"] = -1
    for k in range(len(packets) + (1 if ends else 0)):
        if k == len(packets):
            status = libavcodec.send_packet(source["decoder"], np.uint64(0))
        else:
            tally["packets"] += 1
            status = _send(source, shards, row, packets[k])
        while status == 0:
            status = libavcodec.receive_frame(source["decoder"], source["frame"])
            if status == 0:
                tally["frames"] += 1
                status = _take(source, frame, boxes, writing, table, scratch, places, tally)
                libavcodec.unref_frame(source["frame"])
        if status != _AGAIN and status != libavcodec.END:
            return status
    return DONE


@helper
def crop_bytes(box_bytes: int, writing: Record) -> Any:
    """Bytes of scratch for crops of boxes that need `box_bytes` themselves."""
    return box_bytes + (writing["bytes"] + 64 if writing["step"] else 0)


@inner_kernel(INT, record(SOURCE), array(SHARD), record(ROW), record(PACKET))
def _send(source: Record, shards: Array, row: Record, packet: Record) -> Any:
    """Copy a packet from its payload, and give it to the decoder."""
    at, size = packet["position"], packet["size"]
    if at < 0 or size < 0 or at > source["size"] - size:
        return UNREADABLE
    status: Any = np.int64(libavcodec.new_packet(source["packet"], np.int32(size)))
    if status == 0:
        to = np.uint64(load_int64(source["packet"] + np.uint64(libavcodec.PACKET_DATA)))
        found = payload_at(shards, row, source["begin"] + at, size, to)
        if found == 0:
            status = UNREADABLE
        else:
            if found != to:
                memcpy(to, found, np.uint64(size))
            store_int64(source["packet"] + np.uint64(libavcodec.PACKET_PTS), packet["number"])
            store_int64(source["packet"] + np.uint64(libavcodec.PACKET_DTS), packet["number"])
            _store_int32(source["packet"] + np.uint64(libavcodec.PACKET_FLAGS), packet["keyframe"] * libavcodec.KEY)
            status = np.int64(libavcodec.send_packet(source["decoder"], source["packet"]))
        libavcodec.unref_packet(source["packet"])
    return status


@inner_kernel(
    INT,
    record(SOURCE),
    record(FRAME),
    array(BOX),
    record(WRITING),
    _TABLE,
    MEMORY,
    _PLACES,
    record(TALLY),
)
def _take(
    source: Record,
    frame: Record,
    boxes: Array,
    writing: Record,
    table: Array,
    scratch: Array,
    places: Array,
    tally: Record,
) -> Any:
    """Crop the decoded frame into the places that want it."""
    at = source["frame"]
    number = load_int64(at + np.uint64(libavcodec.FRAME_PTS))
    k = _first_place(places, number)
    is_damaged = _int32(at, libavcodec.FRAME_FLAGS) & libavcodec.CORRUPT or _int32(at, libavcodec.FRAME_ERRORS) != 0
    if k == len(places) or is_damaged:
        return DONE
    width, height = _int32(at, libavcodec.FRAME_SIZE), _int32(at, libavcodec.FRAME_SIZE + 4)
    form = _int32(at, libavcodec.FRAME_FORMAT)
    if width != frame["width"] or height != frame["height"] or form != source["format"]:
        tally["width"], tally["height"], tally["format"] = width, height, form
        return OTHER_FRAME
    rows = source["chroma_rows"]
    for plane in range(3 if rows else 1):
        if _int32(at, libavcodec.FRAME_STRIDES + 4 * plane) <= 0:
            return UPSIDE_DOWN
    luma, blue, red = _stride(at, 0, height), _stride(at, 1, rows), _stride(at, 2, rows)
    planes = (
        view_bytes(_address(at, 0), height * luma).reshape((height, luma)),
        view_bytes(_address(at, 1), rows * blue).reshape((rows, blue)),
        view_bytes(_address(at, 2), rows * red).reshape((rows, red)),
    )
    while k < len(places) and places[k]["packet"] == number:
        if places[k]["done"] == 0:
            if k and places[k - 1]["packet"] == number and places[k - 1]["box"] == places[k]["box"]:
                _repeat(places[k - 1], places[k], writing)
            else:
                again = tally["box"] == places[k]["box"]
                _crop(planes, frame, boxes[places[k]["box"]], writing, table, again, scratch, places[k])
                tally["box"] = places[k]["box"]
            places[k]["done"] = 1
        k += 1
    return DONE


@helper
def _first_place(places: Array, number: Any) -> Any:
    """The index of the first place for a packet; len(places) if there is none."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if places[middle]["packet"] < number:
            low = middle + 1
        else:
            high = middle
    return low if low < len(places) and places[low]["packet"] == number else len(places)


@helper
def _address(at: Any, plane: Any) -> Any:
    """The address of a plane of a frame."""
    return np.uint64(load_int64(at + np.uint64(libavcodec.FRAME_PLANES + 8 * plane)))


@helper
def _stride(at: Any, plane: Any, rows: Any) -> Any:
    """The bytes from row to row of a plane; 1 if it has no rows."""
    return _int32(at, libavcodec.FRAME_STRIDES + 4 * plane) if rows else np.int64(1)


@helper
def _crop(
    planes: Any, frame: Record, box: Record, writing: Record, table: Array, again: Any, scratch: Array, place: Record
) -> None:
    """Crop a frame into one place."""
    out = view_bytes(place["to"], writing["bytes"])
    if writing["planes"]:
        crop_frame_planes(planes, frame, box, scratch, out, view_bytes(place["chroma"], writing["chroma_bytes"]))
    elif writing["step"] == 0:
        crop_frame(planes, frame, box, table, writing["last"] == 1, again, scratch, out)
    else:
        pixels, scratch = carve(scratch, writing["bytes"])
        crop_frame(planes, frame, box, table, False, again, scratch, pixels)
        _copy_channels(np.uint64(pixels.ctypes.data), writing["bytes"] // _CHANNELS, place["to"], writing)


@helper
def _repeat(done: Record, place: Record, writing: Record) -> None:
    """Copy the crop of one place to another one."""
    if writing["step"]:
        _copy_channels(done["to"], writing["step"], place["to"], writing)
    else:
        memcpy(place["to"], done["to"], np.uint64(writing["bytes"]))
    memcpy(place["chroma"], done["chroma"], np.uint64(writing["chroma_bytes"]))


@inner_kernel(BOOL, ADDRESS, INT, ADDRESS, record(WRITING))
def _copy_channels(source: Any, step: Any, to: Any, writing: Record) -> Any:
    """Copy the channels of a crop, which lie `step` bytes apart, to where they lie apart in the batch."""
    size = writing["bytes"] // _CHANNELS
    for channel in range(_CHANNELS):
        memcpy(to + np.uint64(channel * writing["step"]), source + np.uint64(channel * step), np.uint64(size))
    return True


@helper
def _int32(address: Any, at: Any) -> Any:
    """A signed 32-bit integer in memory."""
    return np.int64(np.int32(load_uint32(address + np.uint64(at))))


@helper
def _store_int32(address: Any, value: Any) -> None:
    """Write a 32-bit integer."""
    view = view_bytes(address, 4)
    for k in range(4):
        view[k] = np.uint8((value >> (8 * k)) & 255)
