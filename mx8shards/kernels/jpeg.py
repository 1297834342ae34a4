"""What does the head of a JPEG say: size, sampling, colours, EXIF orientation, tables, restart interval, tiles?

The head is everything before the entropy-coded data of the first scan. It is untrusted input: lengths and offsets are
checked against the segment and the data before they are used, and no byte beyond `data` is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BOOL, BYTES, INT, MEMORY, NOTHING, helper, inner_kernel, kernel, record

Array = npt.NDArray[Any]
Record = Any  # one element of a structured array: compiled and plain code access its fields by name

# The fields of a head. Offsets count from the start of the data; a segment's is that of its marker, or 0 if absent.
HEAD = np.dtype(
    [
        ("size", "i8"),  # of the whole file; callers that read only its beginning set it
        ("width", "i8"),
        ("height", "i8"),
        ("kind", "i8"),
        ("colours", "i8"),
        ("adobe", "i8"),  # the transform that an Adobe segment names, or -1
        ("components", "i8"),
        ("h", "i8", (4,)),  # sampling factors of each component, 1 to 4; component 0 is luma
        ("v", "i8", (4,)),
        ("mcu_width", "i8"),  # pixels
        ("mcu_height", "i8"),
        ("columns", "i8"),  # MCUs per row
        ("rows", "i8"),
        ("restart_interval", "i8"),  # MCUs, or 0
        ("one_scan", "i8"),  # 1 if the first scan has all components, in order, and all coefficients
        ("dc_table", "i8", (4,)),  # Huffman table of each component, 0 to 3
        ("ac_table", "i8", (4,)),
        ("sof", "i8"),
        ("dri", "i8"),  # the last one
        ("sos", "i8"),
        ("entropy", "i8"),  # where the entropy-coded data begins
        ("exif", "i8"),  # the first segment of EXIF data
        ("tiles", "i8"),  # the tile index (spec §14)
        ("tiles_size", "i8"),  # with its marker
    ]
)

# kinds of frames; those that are decoded have 8 bits per sample
SEQUENTIAL = 0  # baseline, or extended with Huffman codes
PROGRESSIVE = 1
OTHER = 2  # arithmetic, lossless, hierarchical, 12 bits …: the status is UNSUPPORTED

# colour models, by libjpeg's rules
GREY = 0
YCBCR = 1
RGB = 2
CMYK = 3
YCCK = 4

# statuses, also of jpeg_tiles and recoding
OK = 0
NO_JPEG = 1  # no SOI marker
CUT_SHORT = 2  # the data ends before the entropy-coded data begins
UNSUPPORTED = 3  # a rare kind of JPEG; width and height are set if the frame header has the usual form
BAD_SEGMENT = 4  # an invalid marker or segment
NOT_TILED = 5  # no tile index
BAD_TILES = 6  # the tile index does not match the picture or the data
BAD_ENTROPY = 7  # the entropy-coded data does not match the head, or has a form that no encoder writes
NO_CODE = 8  # the Huffman tables have no code for a value, and no room for one
NO_ROOM = 9  # `out` or scratch is too small

# No encoder writes more scans. A decoder walks over all blocks of the picture for each of them, so a small file of
# thousands of scans would take minutes. Equal to the limit in format/picture_cost.py, which kernels cannot import.
MOST_SCANS = 100

TILES_MARKER = 0xE9  # APP9
TILES_MAGIC = b"mx8tiles"

_MAGIC = np.frombuffer(TILES_MAGIC, np.uint8)
_JFIF = np.frombuffer(b"JFIF\0", np.uint8)
_ADOBE = np.frombuffer(b"Adobe", np.uint8)
_EXIF = np.frombuffer(b"Exif\0\0", np.uint8)
_ORIENTATION = 0x0112  # EXIF's tag


@kernel(INT, BYTES, record(HEAD))
def read_head(data: Array, head: Record) -> int:
    """Set all fields of `head` and return a status. If that is not OK, fields found before the error are set."""
    _clear(head)
    head["size"] = len(data)
    if len(data) < 2:
        return CUT_SHORT
    if data[0] != 0xFF or data[1] != 0xD8:
        return NO_JPEG
    jfif = False
    at = np.int64(2)
    while True:
        at = skip_fill(data, at)
        if at + 4 > len(data):
            return CUT_SHORT
        marker = data[at + 1]
        if data[at] != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9 or 0xF0 <= marker <= 0xFD:
            return BAD_SEGMENT  # libjpeg refuses 0xF0 to 0xFD
        length = np.int64(uint16(data, at + 2))
        if length < 2:
            return BAD_SEGMENT
        if at + 2 + length > len(data):
            return CUT_SHORT
        status = OK
        if marker == 0xDA:
            status = _read_scan(data, at, head)
            if status == OK:
                head["colours"] = _colours(jfif, data, head)
            return status
        if is_frame(marker):
            status = _read_frame(data, at, head)
        elif marker == 0xDD:
            status = OK if length == 4 else BAD_SEGMENT
            if status == OK:
                head["dri"] = at
                head["restart_interval"] = uint16(data, at + 4)
        elif marker == 0xDE or marker == 0xDF or marker == 0xC8 or marker == 0xCC:  # 0xCC: for arithmetic codes
            head["kind"] = OTHER
            status = UNSUPPORTED
        elif is_jfif(data, at):
            jfif = True
        elif is_adobe(data, at):
            head["adobe"] = data[at + 15]
        elif is_exif(data, at) and head["exif"] == 0:
            head["exif"] = at
        elif is_tiles(data, at):
            head["tiles"] = at
            head["tiles_size"] = length + 2
        if status != OK:
            return status
        at += 2 + length


@helper
def _clear(head: Record) -> None:
    head["width"] = head["height"] = head["kind"] = head["colours"] = head["components"] = 0
    head["adobe"] = -1
    for i in range(4):
        head["h"][i] = head["v"][i] = head["dc_table"][i] = head["ac_table"][i] = 0
    head["mcu_width"] = head["mcu_height"] = head["columns"] = head["rows"] = 0
    head["restart_interval"] = head["one_scan"] = 0
    head["sof"] = head["dri"] = head["sos"] = head["entropy"] = 0
    head["exif"] = head["tiles"] = head["tiles_size"] = 0


@helper
def skip_fill(data: Array, at: Any) -> Any:
    """The offset of a marker, after any number of fill bytes (0xFF)."""
    while at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
        at += 1
    return at


@helper
def uint16(data: Array, at: Any) -> Any:
    """Read a big-endian uint16."""
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@helper
def is_frame(marker: int) -> bool:
    """Whether a marker is that of a frame header (SOF)."""
    return 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC


@helper
def _begins(data: Array, at: Any, marker: int, least: int, magic: Array) -> bool:
    """Whether a segment has this marker, at least `least` bytes of content, and begins with `magic`."""
    if data[at + 1] != marker or uint16(data, at + 2) < 2 + least or at + 4 + least > len(data):
        return False
    same = True
    for i in range(len(magic)):
        same = same and data[at + 4 + i] == magic[i]
    return same


@helper
def is_jfif(data: Array, at: Any) -> bool:
    """Whether this is a JFIF segment, which implies YCbCr."""
    return _begins(data, at, 0xE0, 14, _JFIF)


@helper
def is_adobe(data: Array, at: Any) -> bool:
    """Whether this is an Adobe segment, which names the colour transform."""
    return _begins(data, at, 0xEE, 12, _ADOBE)


@helper
def is_exif(data: Array, at: Any) -> bool:
    """Whether this is an EXIF segment, whose content is a TIFF directory."""
    return _begins(data, at, 0xE1, 14, _EXIF)


@helper
def is_tiles(data: Array, at: Any) -> bool:
    """Whether this is a tile index (spec §14)."""
    return _begins(data, at, TILES_MARKER, len(_MAGIC), _MAGIC)


@kernel(INT, BYTES, record(HEAD))
def orientation(data: Array, head: Record) -> Any:
    """The EXIF orientation, from 1 (upright) to 8; 1 if there is none, or an invalid one."""
    if head["exif"] == 0:
        return 1
    begin = head["exif"] + 10
    end = min(len(data), head["exif"] + 2 + uint16(data, head["exif"] + 2))
    little = data[begin] == 0x49
    if data[begin] != data[begin + 1] or not (little or data[begin] == 0x4D):
        return 1
    at = begin + _number(data, begin + 4, 4, little)
    if at + 2 > end:
        return 1
    count = _number(data, at, 2, little)
    at += 2
    for i in range(min(count, (end - at) // 12)):
        entry = at + 12 * i
        if _number(data, entry, 2, little) == _ORIENTATION:
            kind, values = _number(data, entry + 2, 2, little), _number(data, entry + 4, 4, little)
            size = 2 if kind == 3 else 4
            found = _number(data, entry + 8, size, little)  # the first entry counts
            return found if (kind == 3 or kind == 4) and 1 <= values <= 4 // size and 1 <= found <= 8 else 1
    return 1


@helper
def _number(data: Array, at: Any, size: int, little: bool) -> Any:
    """Read an integer of `size` bytes in the byte order of the EXIF data."""
    number = np.int64(0)
    for i in range(size):
        number = number << 8 | np.int64(data[at + (size - 1 - i if little else i)])
    return number


@helper
def _read_frame(data: Array, at: Any, head: Record) -> int:
    length = uint16(data, at + 2)
    if head["sof"] != 0 or length < 11:
        return BAD_SEGMENT
    count = np.int64(data[at + 9])
    head["sof"] = at
    head["height"] = uint16(data, at + 5)
    head["width"] = uint16(data, at + 7)
    head["components"] = count
    marker = data[at + 1]
    head["kind"] = OTHER
    if data[at + 4] == 8 and marker <= 0xC2:
        head["kind"] = PROGRESSIVE if marker == 0xC2 else SEQUENTIAL
    if length != 8 + 3 * count or head["width"] == 0:
        return BAD_SEGMENT
    # the height is in a DNL segment after the first scan, or no encoder writes this number of components
    if head["kind"] == OTHER or head["height"] == 0 or not (count == 1 or count == 3 or count == 4):
        head["kind"] = OTHER
        return UNSUPPORTED
    for i in range(count):
        sampling = np.int64(data[at + 11 + 3 * i])
        head["h"][i] = sampling >> 4
        head["v"][i] = sampling & 15
        if not (1 <= sampling >> 4 <= 4 and 1 <= sampling & 15 <= 4):
            return BAD_SEGMENT
    _measure(head)
    return OK


@helper
def _measure(head: Record) -> None:
    """Compute the size and number of MCUs. With a single component, an MCU is one block."""
    h = 1
    v = 1
    if head["components"] > 1:
        for i in range(head["components"]):
            h = max(h, head["h"][i])
            v = max(v, head["v"][i])
    head["mcu_width"] = 8 * h
    head["mcu_height"] = 8 * v
    head["columns"] = (head["width"] + 8 * h - 1) // (8 * h)
    head["rows"] = (head["height"] + 8 * v - 1) // (8 * v)


@helper
def _read_scan(data: Array, at: Any, head: Record) -> int:
    length = uint16(data, at + 2)
    if head["sof"] == 0 or length < 8:
        return BAD_SEGMENT
    count = np.int64(data[at + 4])
    if not 1 <= count <= head["components"] or length != 6 + 2 * count:
        return BAD_SEGMENT
    complete = count == head["components"]
    for i in range(count):
        tables = np.int64(data[at + 6 + 2 * i])
        head["dc_table"][i] = tables >> 4
        head["ac_table"][i] = tables & 15
        if tables >> 4 > 3 or tables & 15 > 3:
            return BAD_SEGMENT
        complete = complete and data[at + 5 + 2 * i] == data[head["sof"] + 10 + 3 * i]
    last = at + 5 + 2 * count
    complete = complete and data[last] == 0 and data[last + 1] == 63 and data[last + 2] == 0
    head["one_scan"] = 1 if complete else 0
    head["sos"] = at
    head["entropy"] = at + 2 + length
    return OK


@helper
def _colours(jfif: bool, data: Array, head: Record) -> int:
    if head["components"] == 1:
        return GREY
    if head["components"] == 4:
        return CMYK if head["adobe"] <= 0 else YCCK
    if jfif or head["adobe"] > 0:
        return YCBCR
    at = head["sof"] + 10
    named = data[at] == 82 and data[at + 3] == 71 and data[at + 6] == 66
    return RGB if head["adobe"] == 0 or named else YCBCR


@helper
def has_too_many_scans(data: Array, head: Record) -> bool:
    """Whether a JPEG has more than MOST_SCANS scans. `data` must be the whole file."""
    return not (head["kind"] == SEQUENTIAL and head["one_scan"] == 1) and _too_many_scans(data, head)


@inner_kernel(BOOL, BYTES, record(HEAD))
def _too_many_scans(data: Array, head: Record) -> bool:
    if _scan_markers(data, head["sos"]) <= MOST_SCANS:
        return False
    at = head["sos"]
    scans = 0
    while at + 4 <= len(data) and data[at + 1] != 0xD9 and scans <= MOST_SCANS:
        scans += 1 if data[at + 1] == 0xDA else 0
        at += 2 + uint16(data, at + 2)
        while at + 1 < len(data) and not (data[at] == 0xFF and _ends_scan(data[at + 1])):
            at += 1
    return scans > MOST_SCANS


@helper
def _scan_markers(data: Array, begin: Any) -> Any:
    """Count the bytes that look like SOS markers, also inside of other segments. The loop is vectorised."""
    start = np.uint64(begin)
    found = np.int64(0)
    for i in range(np.uint64(max(0, len(data) - 1 - begin))):
        found += (data[start + i] == 0xFF) & (data[start + i + np.uint64(1)] == 0xDA)
    return found


@helper
def _ends_scan(marker: int) -> bool:
    """Whether a byte after 0xFF begins a segment: not a stuffed zero, a fill byte or a marker without a length.

    Restart markers have no length. libjpeg refuses markers below 0xC0, or treats them as markers without a length.
    """
    return 0xC0 <= marker < 0xFF and not 0xD0 <= marker <= 0xD7


@inner_kernel(NOTHING, BYTES, INT, INT, MEMORY, INT)
def copy(source: Array, begin: Any, end: Any, out: Array, at: Any) -> None:
    """Copy source[begin:end] to `out` at `at`. The indices are unsigned, so that LLVM vectorises the loop."""
    to = np.uint64(at)
    start = np.uint64(begin)
    for i in range(np.uint64(end - begin)):
        out[to + i] = source[start + i]
