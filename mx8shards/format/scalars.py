"""How do numbers, texts and other plain values become payloads?"""

from __future__ import annotations

import json
import operator
import pickle
import re
import struct
from decimal import Decimal
from typing import Any

import numpy as np

from mx8shards.errors import FormatError
from mx8shards.format.codec import Codec, brief, describe

_LETTERS = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
NUMBERS = tuple(_LETTERS)


class Bytes(Codec):
    """`bytes`: as they are."""

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (bytearray, memoryview)):
            self.refuse(value, hint="encode text as str" if isinstance(value, str) else "")
        return bytes(value)

    def decode(self, payload: bytes | memoryview, /) -> bytes:
        return bytes(payload)


class Str(Codec):
    """`str`: UTF-8."""

    takes = "str"

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, str):
            self.refuse(value)
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            self.refuse(value, cause=error)

    def unpack(self, payload: bytes | memoryview) -> str:
        try:
            return str(payload, "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(expected="UTF-8", found=brief(error)) from None


class Int(Codec):
    """`int`: eight bytes, little-endian, signed; comes back as a Python int."""

    takes = "int from -2**63 to 2**63 - 1"
    size_bytes = 8
    dtype = "int64"
    shape = ()
    _struct = struct.Struct("<q")

    def encode(self, value: Any, /, *, _pack: Any = _struct.pack) -> bytes:
        if type(value) is int:
            try:
                return _pack(value)  # type: ignore[no-any-return]
            except struct.error:
                self.refuse(value)
        return super().encode(value)

    def decode(self, payload: bytes | memoryview, /, *, _unpack: Any = _struct.unpack) -> int:
        try:
            return _unpack(payload)[0]  # type: ignore[no-any-return]
        except struct.error:
            return super().decode(payload)  # type: ignore[no-any-return]

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, (int, np.integer)):
            self.refuse(value, hint="use int(value)")
        return self.encode(int(value))


class Number(Codec):
    """`uint8` … `float64`: the number's own bytes, little-endian; comes back as a Python int or float.

    Every value of these types is a Python number exactly, so nothing is lost, and code that takes Python numbers (json,
    isinstance, dict keys) needs no `.item()`. The array of a whole column keeps the dtype.

    Streaming casts what it is given; here a value that would change (a fraction or too large a number for an integer,
    a finite number that becomes infinite, text) is refused. Rounding to the nearest float is not.
    """

    shape = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._dtype = np.dtype(name).newbyteorder("<")
        self.dtype = name
        self.size_bytes = self._dtype.itemsize
        self.takes = f"a number that fits {name}"
        self._struct = struct.Struct("<" + _LETTERS[name])
        self._unpack = self._struct.unpack

    def decode(self, payload: bytes | memoryview, /) -> Any:
        try:
            return self._unpack(payload)[0]
        except struct.error:
            return super().decode(payload)


class Integer(Number):
    """`uint8` … `int64`."""

    def encode(self, value: Any, /) -> bytes:
        if type(value) is int:
            try:
                return self._struct.pack(value)
            except struct.error:
                self.refuse(value)
        return super().encode(value)

    def pack(self, value: Any) -> bytes:
        whole = isinstance(value, np.bool_) or (isinstance(value, (float, np.floating)) and value.is_integer())
        try:
            return self.encode(int(value) if whole else operator.index(value))
        except TypeError as error:
            self.refuse(value, cause=error)


class Float(Number):
    """`float16` … `float64`."""

    def encode(self, value: Any, /) -> bytes:
        if type(value) is float and value == value:  # NumPy keeps the payload bits of a NaN, struct does not
            try:
                return self._struct.pack(value)
            except OverflowError:
                self.refuse(value)
        return super().encode(value)

    def pack(self, value: Any) -> bytes:
        if value is None or isinstance(value, (str, bytearray, memoryview, complex, np.complexfloating)):
            self.refuse(value)  # the rest of what NumPy would cast: None to nan, text to numbers, complex to real
        try:
            with np.errstate(over="raise"):
                number = self._dtype.type(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            self.refuse(value, cause=error)
        if not isinstance(number, np.generic):
            self.refuse(value)
        return number.tobytes()


# What Python reads as a number is more: `1_0`, `٣` and ` 1 ` are, and other readers refuse them.
_DIGITS = r"[+-]?[0-9]+"
_FLOAT = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)"
_GRAMMARS: dict[type, re.Pattern[str]] = {
    int: re.compile(_DIGITS),
    float: re.compile(_FLOAT, re.ASCII | re.IGNORECASE),
    Decimal: re.compile(rf"{_FLOAT}|[+-]?s?nan[0-9]*", re.ASCII | re.IGNORECASE),
}


class Written(Codec):
    """`str_int`, `str_float`, `str_decimal`: the number as Python writes it, so with as many digits as it has."""

    def __init__(self, name: str, kind: type, like: tuple[type, ...]) -> None:
        super().__init__(name)
        self._kind: Any = kind
        self._grammar = _GRAMMARS[kind]
        self._like = (kind, *like)
        self.takes = kind.__name__

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, self._like) or isinstance(value, bool):  # 'True' could not be read back
            self.refuse(value, hint=f"use {self.takes}(value)")
        try:
            return str(self._kind(value)).encode()
        except ValueError as error:  # Python writes no int of more than 4300 digits
            self.refuse(value, cause=error)

    def unpack(self, payload: bytes | memoryview) -> Any:
        text = str(payload, "utf-8", "replace")
        if not self._grammar.fullmatch(text):
            raise FormatError(expected=f"the digits of a {self.takes}", found=repr(text[:40]))
        try:
            return self._kind(text)
        except (ValueError, ArithmeticError) as error:  # more digits than Python converts
            raise FormatError(expected=f"the digits of a {self.takes}", found=brief(error) or "none") from None


class Json(Codec):
    """`json`: ASCII JSON with default separators; an array becomes nested lists."""

    takes = "what JSON can hold"

    def pack(self, value: Any) -> bytes:
        try:
            return json.dumps(value.tolist() if isinstance(value, np.ndarray) else value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            self.refuse(value, cause=error)

    def unpack(self, payload: bytes | memoryview) -> Any:
        try:
            return json.loads(str(payload, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise FormatError(expected="JSON", found=brief(error)) from None


class Pickle(Codec):
    """`pkl`: a pickle in Python's default protocol. Decoding runs whatever code the payload asks for."""

    takes = "what pickle can hold"
    unsafe = True

    def pack(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - an object's own __reduce__ may raise anything
            self.refuse(value, cause=error)

    def unpack(self, payload: bytes | memoryview) -> Any:
        try:
            return pickle.loads(payload)  # noqa: S301 - `unsafe` says so, and readers ask for leave
        except Exception as error:
            raise FormatError(expected="a pickle", found=brief(error) or describe(error)) from error
