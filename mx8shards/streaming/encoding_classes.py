"""The classes of encodings that programs import from Streaming and subclass: Encoding, UInt8, NDArray, JPEG and others.

A class encodes and decodes as this package does, whatever `_encodings` has under its name. So a subclass that replaces
the encoding of a name can call the methods of its base class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np

from mx8shards.errors import SchemaError, SettingError, shown
from mx8shards.format import codec, scalars
from mx8shards.format.encodings import built_in_encoding
from mx8shards.format.images import Items
from mx8shards.streaming.compatible_errors import OutOfRangeError, WrongTypeError
from mx8shards.streaming.payload_decoders import decoder_of


class Encoding(ABC):
    """The base class of encodings. Subclasses define `encode` and `decode`, and may define `size` and `from_str`."""

    size: int | None = None

    @abstractmethod
    def encode(self, obj: Any) -> bytes:
        """The payload of a value."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """The value of a payload."""

    @staticmethod
    def _validate(data: Any, expected_type: Any) -> None:
        if not isinstance(data, expected_type):
            raise AttributeError(f"expected {expected_type}, got {type(data)}")


class Adapted:
    """An encoding in Streaming's form as one of ours."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __init__(self, name: str, encoding: Encoding, *, unsafe: bool = False) -> None:
        self.name = name
        self.size_bytes: int | None = encoding.size
        self.unsafe = unsafe
        self._encode = encoding.encode
        self._decode = encoding.decode

    def encode(self, value: Any, /) -> bytes:
        """The payload of a value; bytes unchanged."""
        data = value if isinstance(value, bytes) else self._encode(value)
        if not isinstance(data, bytes):
            raise SchemaError(expected=f"bytes from the encoding {self.name!r}", found=shown(data))
        return data

    def decode(self, payload: bytes | memoryview, /) -> Any:
        """The value of a payload."""
        return self._decode(bytes(payload))


def encoded(coder: codec.Encoding, value: Any) -> bytes:
    """The payload of a value. For one that does not fit: an AttributeError or, if it is too large, an OverflowError."""
    try:
        return coder.encode(value)
    except SchemaError as error:
        is_int = isinstance(value, int | np.integer) and isinstance(coder, scalars.Int | scalars.Number)
        kind = OutOfRangeError if is_int else WrongTypeError
        raise kind(expected=error.expected, found=error.found, hint=error.hint) from error


class _BuiltIn(Encoding):
    """An encoding with a name in this package. No state is set by a constructor, which a subclass need not call."""

    _name = ""

    def _coder(self) -> codec.Encoding:
        return built_in_encoding(self._name)

    def encode(self, obj: Any) -> bytes:
        """The payload of a value.

        Args:
            obj: The value.
        """
        return encoded(self._coder(), obj)

    def decode(self, data: bytes) -> Any:
        """The value of a payload.

        Args:
            data: The payload.
        """
        return decoder_of(self._coder())(data)


class Bytes(_BuiltIn):
    """`bytes`: any bytes."""

    _name = "bytes"


class Str(_BuiltIn):
    """`str`: text as UTF-8."""

    _name = "str"


class Int(_BuiltIn):
    """`int`: a Python int of 64 bits."""

    _name = "int"
    size = 8


class NDArray(_BuiltIn):
    """`ndarray`: an array. A dtype, or a dtype and a shape, need not be stored with each value.

    Args:
        dtype: The name of the dtype of all arrays.
        shape: The shape of all arrays.
    """

    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __init__(self, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> None:
        self.dtype = None if dtype is None else np.dtype(dtype).name
        self.shape = None if shape is None else tuple(shape)
        self.size = self._coder().size_bytes

    @classmethod
    def from_str(cls, text: str) -> Self:
        """The encoding with this text after the colon.

        Args:
            text: The text, such as `uint8:2,3` of `ndarray:uint8:2,3`.
        """
        dtype, _, shape = text.partition(":")
        return cls(dtype or None, tuple(map(int, shape.split(","))) if shape else None)

    def _coder(self) -> codec.Encoding:
        if self.dtype is None and self.shape is not None:
            raise SettingError(subject="shape", expected="None without a dtype", found=shown(self.shape))
        shape = None if self.shape is None else ",".join(map(str, self.shape))
        return built_in_encoding(":".join(["ndarray", *filter(None, (self.dtype, shape))]))


class Scalar(_BuiltIn):
    """A NumPy scalar.

    Args:
        dtype: Its class, such as `numpy.uint8`.
    """

    dtype: Any

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.size = np.dtype(dtype).itemsize

    def _coder(self) -> codec.Encoding:
        return built_in_encoding(np.dtype(self.dtype).name)


class _Number(Scalar):
    """A scalar of one dtype, which the class has."""

    def __init__(self) -> None:
        super().__init__(self.dtype)


class UInt8(_Number):
    """`uint8`: a NumPy scalar."""

    dtype = np.uint8
    size = 1


class UInt16(_Number):
    """`uint16`: a NumPy scalar."""

    dtype = np.uint16
    size = 2


class UInt32(_Number):
    """`uint32`: a NumPy scalar."""

    dtype = np.uint32
    size = 4


class UInt64(_Number):
    """`uint64`: a NumPy scalar."""

    dtype = np.uint64
    size = 8


class Int8(_Number):
    """`int8`: a NumPy scalar."""

    dtype = np.int8
    size = 1


class Int16(_Number):
    """`int16`: a NumPy scalar."""

    dtype = np.int16
    size = 2


class Int32(_Number):
    """`int32`: a NumPy scalar."""

    dtype = np.int32
    size = 4


class Int64(_Number):
    """`int64`: a NumPy scalar."""

    dtype = np.int64
    size = 8


class Float16(_Number):
    """`float16`: a NumPy scalar."""

    dtype = np.float16
    size = 2


class Float32(_Number):
    """`float32`: a NumPy scalar."""

    dtype = np.float32
    size = 4


class Float64(_Number):
    """`float64`: a NumPy scalar."""

    dtype = np.float64
    size = 8


class StrEncoding(_BuiltIn):
    """A number as its digits."""


class StrInt(StrEncoding):
    """`str_int`: an int as its digits."""

    _name = "str_int"


class StrFloat(StrEncoding):
    """`str_float`: a float as its digits."""

    _name = "str_float"


class StrDecimal(StrEncoding):
    """`str_decimal`: a Decimal as its digits."""

    _name = "str_decimal"


class PIL(_BuiltIn):
    """`pil`: the pixels of a PIL image."""

    _name = "pil"


class JPEG(_BuiltIn):
    """`jpeg`: a PIL image as a JPEG file."""

    _name = "jpeg"


class PNG(_BuiltIn):
    """`png`: a PIL image as a PNG file."""

    _name = "png"


class Pickle(_BuiltIn):
    """`pkl`: a pickled object. Decoding it runs code of the payload."""

    _name = "pkl"


class JSON(_BuiltIn):
    """`json`: an object as JSON."""

    _name = "json"


class List(Encoding):
    """A list of values of one encoding. Subclasses define `underlying_encoder`."""

    @abstractmethod
    def underlying_encoder(self) -> Encoding:
        """The encoding of the items."""

    def _coder(self) -> codec.Encoding:
        return Items("list", Adapted("item", self.underlying_encoder()))

    def encode(self, obj: Any) -> bytes:
        """The payload of a list.

        Args:
            obj: The list.
        """
        return encoded(self._coder(), obj)

    def decode(self, data: bytes) -> Any:
        """The list of a payload.

        Args:
            data: The payload.
        """
        return self._coder().decode(data)


class PILList(List):
    """`list[pil]`: the pixels of PIL images."""

    def underlying_encoder(self) -> Encoding:
        """The encoding of the items."""
        return PIL()


class JPEGList(List):
    """`list[jpeg]`: PIL images as JPEG files."""

    def underlying_encoder(self) -> Encoding:
        """The encoding of the items."""
        return JPEG()


class PNGList(List):
    """`list[png]`: PIL images as PNG files."""

    def underlying_encoder(self) -> Encoding:
        """The encoding of the items."""
        return PNG()


class JPEGArray(_BuiltIn):
    """`jpegarray`: JPEG files, which are decoded to PIL images."""

    _name = "jpegarray"


CLASSES: dict[str, type[Encoding]] = {
    **{kind._name: kind for kind in (Bytes, Str, Int, StrInt, StrFloat, StrDecimal, PIL, JPEG, PNG, Pickle, JSON)},
    **{kind.__name__.lower(): kind for kind in (UInt8, UInt16, UInt32, UInt64, Int8, Int16, Int32, Int64)},
    **{kind.__name__.lower(): kind for kind in (Float16, Float32, Float64)},
    "ndarray": NDArray,
    "jpegarray": JPEGArray,
    "jpeg_array": JPEGArray,
    "list[pil]": PILList,
    "list[jpeg]": JPEGList,
    "list[png]": PNGList,
}
