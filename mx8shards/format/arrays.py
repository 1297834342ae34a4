"""How are NumPy arrays encoded as payloads (ndarray encodings)?"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mx8shards.errors import FormatError
from mx8shards.format.codec import Codec

CODES = {
    "uint8": 8,
    "int8": 9,
    "uint16": 16,
    "int16": 17,
    "float16": 18,
    "uint32": 32,
    "int32": 33,
    "float32": 34,
    "uint64": 64,
    "int64": 65,
    "float64": 66,
}
_NAMES = {code: name for name, code in CODES.items()}
_LITTLE = {name: np.dtype(np.dtype(name).newbyteorder("<").str) for name in CODES}
_BY_KIND = {(dtype.kind, dtype.itemsize): name for name, dtype in _LITTLE.items()}  # for any byte order
_DIMS = "BHIQ"  # struct formats of a dimension in 1, 2, 4 or 8 bytes …
_POWERS = (0, 0, 1, 2, 2, 3, 3, 3, 3)  # … and the index of the format, by the number of significant bytes
MAX_DIMS = 63
HEADER_BYTES = 2 + 8 * MAX_DIMS  # the largest header

_SIDE = re.compile(r" *[0-9]+ *")  # Python's int() also accepts signs, underscores and digits of other scripts
MAX_BYTES = (1 << 32) - 1

Array = NDArray[Any]


class DynamicArray(Codec):
    """`ndarray` and `ndarray:<dtype>`: [dtype code, unless fixed] [ndim and width of a dim] [dims] [values, C order].

    Values are little-endian: a big-endian array is byte-swapped when it is encoded. (Streaming stores it unchanged and
    decodes wrong values.) Decoded arrays are read-only views of the payload, possibly unaligned.
    """

    takes = "an array of numbers with 1 to 63 dimensions, each of at least 1"

    def __init__(self, name: str, fixed: str | None = None) -> None:
        super().__init__(name)
        self._fixed = fixed
        if fixed:
            self.takes = f"{self.takes}, as {fixed}"

    @property
    def dtype_name(self) -> str | None:
        """The dtype of all its arrays; None if each payload names its own."""
        return self._fixed

    def pack(self, value: Any) -> bytes:
        name, array = _numbers(self, value, self._fixed)
        if self._fixed not in (None, name):
            self.refuse(value, hint=f"use .astype({self._fixed!r})")
        if array.size == 0 or not 1 <= array.ndim <= MAX_DIMS:
            self.refuse(
                value, hint="for a single number, use an encoding such as int or float32" if array.ndim == 0 else ""
            )
        code = b"" if self._fixed else bytes((CODES[name],))
        return code + _shape_bytes(array.shape) + array.astype(_LITTLE[name], copy=False).tobytes()

    def unpack(self, payload: bytes | memoryview) -> Array:
        dtype, shape, begin = self.header(payload, len(payload))
        return _view(payload, shape, dtype, begin)

    def header(self, head: bytes | memoryview, size_bytes: int) -> tuple[np.dtype[Any], tuple[int, ...], int]:
        """Dtype, shape and offset of the values in a payload of `size_bytes`; FormatError if they do not fit its size.

        head  the first HEADER_BYTES of the payload, or all of a shorter one
        """
        name, begin = (self._fixed, 0) if self._fixed else (self._dtype_of(head), 1)
        shape, begin = self._shape_of(head, begin)
        dtype = _LITTLE[name]
        wanted = math.prod(shape) * dtype.itemsize
        if wanted != size_bytes - begin:
            raise self.damaged(f"{size_bytes - begin} bytes of values for the {_count_text(wanted)} of its shape")
        return dtype, shape, begin

    def count(self, head: bytes | memoryview, size_bytes: int) -> int:
        """The number of values in a payload of `size_bytes` bytes, from its first two bytes."""
        name, begin = (self._fixed, 0) if self._fixed else (self._dtype_of(head), 1)
        if len(head) <= begin:
            raise self.damaged("no shape")
        ndim, width = head[begin] >> 2, 1 << (head[begin] & 3)
        values, rest = divmod(size_bytes - begin - 1 - ndim * width, _LITTLE[name].itemsize)
        if ndim == 0 or values < 0 or rest:
            raise self.damaged(f"{size_bytes} bytes, which do not fit its {ndim} dimensions of {name}")
        return values

    def _dtype_of(self, payload: bytes | memoryview) -> str:
        if not payload:
            raise self.damaged("no bytes")
        name = _NAMES.get(payload[0])
        if name is None:
            raise self.damaged(f"dtype code {payload[0]}")
        return name

    def _shape_of(self, payload: bytes | memoryview, begin: int) -> tuple[tuple[int, ...], int]:
        if len(payload) <= begin:
            raise self.damaged("no shape")
        ndim, width = payload[begin] >> 2, 1 << (payload[begin] & 3)
        end = begin + 1 + ndim * width
        if ndim == 0 or len(payload) < end:
            raise self.damaged(f"{len(payload)} bytes, which do not hold its {ndim} dimensions")
        shape = struct.unpack_from(f"<{ndim}{_DIMS[payload[begin] & 3]}", payload, begin + 1)
        if 0 in shape:
            raise self.damaged("a dimension of 0")
        return shape, end


class FixedArray(Codec):
    """`ndarray:<dtype>:<d0,d1,…>`: the values alone, in C order."""

    size_bytes: int
    dtype: str
    shape: tuple[int, ...]

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(name)
        self.dtype, self.shape = dtype, shape
        self._dtype = _LITTLE[dtype]
        self.size_bytes = math.prod(shape) * self._dtype.itemsize
        self.takes = f"{dtype} array of shape {shape}"

    def encode(self, value: Any, /) -> bytes:
        if isinstance(value, np.ndarray) and value.dtype == self._dtype and value.shape == self.shape:
            return value.tobytes()
        return super().encode(value)

    def pack(self, value: Any) -> bytes:
        name, array = _numbers(self, value, self.dtype)
        if name != self.dtype:
            self.refuse(value, hint=f"use .astype({self.dtype!r})")
        if array.shape != self.shape:
            self.refuse(value)
        return array.astype(self._dtype).tobytes()

    def decode(self, payload: bytes | memoryview, /) -> Any:
        if len(payload) == self.size_bytes:
            return _view(payload, self.shape, self._dtype, 0)
        return super().decode(payload)


class ArrayOfFixed(Codec):
    """The encoding of a fixed size `item` in a column whose payloads differ in size: one array of all items in each.

    Such columns come from code that replaced an encoding of Streaming under its own name, and stored arrays in it.
    """

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(name)
        self._dtype, self._shape = np.dtype(dtype).newbyteorder("<"), shape
        self._item_bytes = math.prod(shape) * self._dtype.itemsize
        self.takes = f"one or more {name} as an array"

    def pack(self, value: Any) -> bytes:
        array = np.asarray(value)
        if array.dtype != self._dtype or array.shape[1:] != self._shape or not array.size:
            self.refuse(value)
        return array.astype(self._dtype).tobytes()

    def unpack(self, payload: bytes | memoryview) -> Array:
        count, rest = divmod(len(payload), self._item_bytes)
        if rest or not count:
            expected = f"a multiple of {self._item_bytes} bytes, the size of {self.name}"
            hint = "its writer replaced this encoding by one of its own: _encodings of mx8shards.streaming does so, too"
            raise FormatError(expected=expected, found=f"{len(payload)}", hint=hint)
        return _view(payload, (count, *self._shape), self._dtype, 0)


def parse_array(name: str, text: str) -> Codec:
    """The encoding named `ndarray:<text>`; ValueError if there is none."""
    dtype, colon, dims = text.partition(":")
    if not text:
        return DynamicArray(name)
    if dtype not in CODES:
        raise ValueError(f"dtype {dtype[:20]!r} is not one of {', '.join(CODES)}")
    if not colon:
        return DynamicArray(name, dtype)
    sides = dims.split(",")
    if len(sides) > MAX_DIMS or not all(map(_SIDE.fullmatch, sides)):
        raise ValueError(f"a shape is at most {MAX_DIMS} numbers in ASCII digits, joined by commas")
    shape = tuple(map(int, sides))
    if min(shape) < 1 or math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise ValueError("dimensions start at 1, and a sample is shorter than 4 GiB")
    return FixedArray(name, dtype, shape)


def _numbers(codec: Codec, value: Any, wanted: str | None) -> tuple[str, Array]:
    """The name of the array's dtype, and the array; SchemaError if it is not an array of a supported dtype.

    `wanted` is the dtype in the encoding's name, for the hint, as numpy.asarray of a list of ints gives int64.
    """
    if not isinstance(value, np.ndarray):
        codec.refuse(value, hint=f"use numpy.asarray(value, {wanted!r})" if wanted else "use numpy.asarray(value)")
    name = _BY_KIND.get((value.dtype.kind, value.dtype.itemsize))
    if name is None:
        codec.refuse(
            value, hint="use .astype('uint8')" if value.dtype == bool else f"the dtypes are {', '.join(CODES)}"
        )
    return name, value


def _shape_bytes(shape: tuple[int, ...]) -> bytes:
    """The encoded shape: the number of dimensions, and all dimensions in the width that the largest needs."""
    power = _POWERS[(max(shape).bit_length() + 7) // 8]
    return struct.pack(f"<B{len(shape)}{_DIMS[power]}", len(shape) << 2 | power, *shape)


def _view(payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], begin: int) -> Array:
    array: Array = np.ndarray(shape, dtype, payload, begin)
    array.setflags(False)  # read-only even if the payload is writable
    return array


def _count_text(count: int) -> str:
    return str(count) if count <= MAX_BYTES else "more than 4 GiB"
