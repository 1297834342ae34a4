"""How are numbers, text, bytes, JSON and pickles encoded as payloads?"""

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
    """`bytes`: stored unchanged."""

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
    """`int`: eight bytes, little-endian, signed; decoded to a Python int."""

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
            self.refuse(value, hint="use int(value)" if np.isscalar(value) else "")
        return self.encode(int(value))


class Number(Codec):
    """`uint8` … `float64`: the number's bytes, little-endian; decoded to a Python int or float.

    Python numbers represent every value of these types exactly, and code that expects them (json, isinstance, dict
    keys) needs no `.item()`. The array of a whole column has the dtype.

    Streaming casts any value. Here a value that the cast would change is refused: a fraction or too large a number for
    an integer, a finite number that would become infinite, text. Rounding to the nearest float is allowed.
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
            self.refuse(value)  # NumPy would cast these too: None to nan, text to numbers, complex to real
        try:
            with np.errstate(over="raise"):
                number = self._dtype.type(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            self.refuse(value, cause=error)
        if not isinstance(number, np.generic):
            self.refuse(value)
        return number.tobytes()


# Python also accepts `1_0`, `٣` and ` 1 ` as numbers, which readers in other languages refuse.
_DIGITS = r"[+-]?[0-9]+"
_FLOAT = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)"
_GRAMMARS: dict[type, re.Pattern[str]] = {
    int: re.compile(_DIGITS),
    float: re.compile(_FLOAT, re.ASCII | re.IGNORECASE),
    Decimal: re.compile(rf"{_FLOAT}|[+-]?s?nan[0-9]*", re.ASCII | re.IGNORECASE),
}


class TextNumber(Codec):
    """`str_int`, `str_float`, `str_decimal`: the number as text, as Python formats it, with all its digits."""

    def __init__(self, name: str, kind: type, like: tuple[type, ...]) -> None:
        super().__init__(name)
        self._kind: Any = kind
        self._grammar = _GRAMMARS[kind]
        self._like = (kind, *like)
        self.takes = kind.__name__

    def pack(self, value: Any) -> bytes:
        if not isinstance(value, self._like) or isinstance(value, bool):  # 'True' could not be decoded
            self.refuse(value, hint=f"use {self.takes}(value)")
        try:
            return str(self._kind(value)).encode()
        except ValueError as error:  # Python does not convert an int of more than 4300 digits
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

    takes = "a JSON value"

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
    """`pkl`: a pickle in Python's default protocol. Decoding may run any code that the payload contains."""

    takes = "a value that pickle supports"
    unsafe = True

    def pack(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - an object's own __reduce__ may raise anything
            self.refuse(value, cause=error)

    def unpack(self, payload: bytes | memoryview) -> Any:
        try:
            return pickle.loads(payload)  # noqa: S301 - `unsafe` is set, so readers need allow_pickle=True
        except Exception as error:
            raise FormatError(expected="a pickle", found=brief(error) or describe(error)) from error
