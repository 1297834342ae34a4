"""The registry of encodings: which encoding does a name such as "int" or "ndarray:uint8" denote? (spec §3.3)"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from mx8shards.errors import FormatError, SettingError, shown
from mx8shards.format import arrays, images, scalars
from mx8shards.format.codec import Encoding, brief, describe

__all__ = ["Encoding", "get_encoding", "register_encoding"]

# name → encoding, or family → function of (whole name, text after the colon)
_BUILT_IN: dict[str, Encoding] = {
    encoding.name: encoding
    for encoding in (
        scalars.Bytes("bytes"),
        scalars.Str("str"),
        scalars.Int("int"),
        *(scalars.Integer(name) for name in scalars.NUMBERS if "int" in name),
        *(scalars.Float(name) for name in scalars.NUMBERS if "float" in name),
        scalars.TextNumber("str_int", int, (np.integer,)),
        scalars.TextNumber("str_float", float, (np.floating,)),
        scalars.TextNumber("str_decimal", Decimal, ()),
        scalars.Json("json"),
        scalars.Pickle("pkl"),
        arrays.DynamicArray("ndarray"),
        images.Pil("pil"),
        images.Jpeg("jpeg"),
        images.Picture("png"),
        images.JpegArray("jpegarray", images.Jpeg("jpeg")),
        images.JpegArray("jpeg_array", images.Jpeg("jpeg")),
        images.Items("list[pil]", images.Pil("pil")),
        images.Items("list[jpeg]", images.Jpeg("jpeg")),
        images.Items("list[png]", images.Picture("png")),
    )
}
_KNOWN = (
    "bytes, str, int, int8 to int64, uint8 to uint64, float16 to float64, str_int, str_float, str_decimal, json, pkl, "
    "ndarray[:dtype[:shape]], pil, jpeg, png, jpegarray, list[pil], list[jpeg], list[png]"
)

# Names that other libraries use, with the encoding to suggest.
_ALIASES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bool": "uint8",
    "boolean": "uint8",
    "long": "int64",
    "integer": "int",
    "string": "str",
    "text": "str",
    "utf8": "str",
    "byte": "bytes",
    "binary": "bytes",
    "image": "jpeg",
    "jpg": "jpeg",
    "list": "json",
    "dict": "json",
    "object": "json",
    "pickle": "pkl",
    "array": "ndarray",
    "numpy": "ndarray",
    "tensor": "ndarray",
    "decimal": "str_decimal",
}
_registered: dict[str, Encoding | Callable[[str], Encoding]] = {}


def get_encoding(name: str, *, varies: bool = False) -> Encoding:
    """The encoding with this name, as it is written in an index; FormatError if there is none.

    `varies`: the column's payloads differ in size. For an encoding of fixed size, each is an array of its items then.
    """
    if not isinstance(name, str):
        raise FormatError(expected="the name of an encoding", found=type(name).__name__)
    found = _parse(name)
    if not varies or found.size_bytes is None:
        return found
    if found.dtype is None or found.shape is None:
        expected = f"payloads of {found.size_bytes} bytes, the size of {name}"
        raise FormatError(expected=expected, found="payloads that differ in size")
    return arrays.ArrayOfFixed(name, found.dtype, found.shape)


def fits_size(name: str, size: int | None) -> bool:
    """Whether a column with this encoding may have this size in an index; FormatError for an unknown encoding.

    None also fits encodings of numbers, and a built-in encoding keeps its size if it was replaced.
    """
    encoding = get_encoding(name)
    known = {encoding.size_bytes}
    with suppress(ValueError):  # the text after the colon of an array that was replaced
        known |= {found.size_bytes for found in _built_in(name)}
    return (size is None and encoding.shape is not None) or size in known


def register_encoding(name: str, encoding: Encoding | Callable[[str], Encoding]) -> None:
    """Register an encoding of your own for use in columns.

    Args:
        name: The name in the index and in `columns`: without a colon, and not a built-in name.
        encoding: An object with the attributes of `Encoding`: `name`, `size_bytes` (None: payloads differ in size),
            `dtype` and `shape` (if all payloads are arrays of one dtype and shape, otherwise None), `unsafe` (whether
            decoding runs code), and the methods `encode(value) -> bytes` and `decode(payload) -> value`. Or a function
            that makes such an object from the text after the colon, for columns with the encoding `name:text`.

    Other readers of the format do not know the encoding: every program that reads the dataset must register it under
    this name. Registering a name again replaces its encoding.
    """
    given: Any = name
    if not isinstance(given, str) or not name or ":" in name or name in _BUILT_IN:
        raise SettingError(subject="name", expected="a name of your own without a colon", found=shown(name))
    if not callable(encoding) and not isinstance(encoding, Encoding):
        raise SettingError(
            subject="encoding", expected="an Encoding, or a function that returns one", found=shown(encoding)
        )
    _registered[name] = encoding
    _parse.cache_clear()


def replace_encoding(name: str, encoding: Callable[[str], Encoding] | None) -> None:
    """Replace an encoding, also a built-in one, by that of a function of the text after the colon; None restores it."""
    if encoding is None:
        _registered.pop(name, None)
    else:
        _registered[name] = encoding
    _parse.cache_clear()


@lru_cache(maxsize=8192)
def _parse(name: str) -> Encoding:
    family, colon, text = name.partition(":")
    try:
        if family in _registered:
            return _registered_encoding(family, colon, text)
        for found in _built_in(name):
            return found
    except (TypeError, ValueError) as error:
        raise FormatError(expected="a known encoding", found=repr(name[:80]), hint=brief(error)) from error
    raise FormatError(expected="a known encoding", found=repr(name[:80]), hint=_advice(name))


def _built_in(name: str) -> list[Encoding]:
    """The built-in encoding of this name, if there is one; ValueError for an invalid array."""
    family, _, text = name.partition(":")
    if name in _BUILT_IN:
        return [_BUILT_IN[name]]
    return [arrays.parse_array(name, text)] if family == "ndarray" else []


def built_in_encoding(name: str) -> Encoding:
    """The built-in encoding of this name, also if another one replaces it; ValueError if there is none."""
    for found in _built_in(name):
        return found
    raise ValueError(f"no built-in encoding: {name}")


def _advice(name: str) -> str:
    """A hint with the encoding that was probably meant, and the known names."""
    plain = name[:80].strip().lower()
    close = [_ALIASES[plain]] if plain in _ALIASES else difflib.get_close_matches(plain, [*_BUILT_IN, *_registered], 2)
    question = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    known = ", ".join([_KNOWN, *sorted(_registered)[:8]])
    return f"{question}The encodings are {known}; mx8shards.register_encoding adds others"


def _registered_encoding(family: str, colon: str, text: str) -> Encoding:
    found = _registered[family]
    if isinstance(found, Encoding) and not isinstance(found, type):  # a class also satisfies the protocol
        if colon:
            raise ValueError(f"{family} takes no text after it")
        return found
    made = found(text)
    if not isinstance(made, Encoding):
        raise TypeError(f"{family} returned {describe(made)} for {text[:20]!r}, not an Encoding")
    return made
