"""Which encoding does a name in the index stand for? (spec §3.3, registry)"""

from __future__ import annotations

import difflib
from collections.abc import Callable
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
        scalars.Written("str_int", int, (np.integer,)),
        scalars.Written("str_float", float, (np.floating,)),
        scalars.Written("str_decimal", Decimal, ()),
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

# What other libraries call them.
_MEANT = {
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


def get_encoding(name: str) -> Encoding:
    """The encoding that `name` stands for, as it is written in an index; FormatError where it stands for none."""
    if not isinstance(name, str):
        raise FormatError(expected="the name of an encoding", found=type(name).__name__)
    return _parse(name)


def register_encoding(name: str, encoding: Encoding | Callable[[str], Encoding]) -> None:
    """Let columns use an encoding of your own.

    Args:
        name: How the index and `columns` name it: without a colon, and none of the built-in names.
        encoding: An object with the attributes of `Encoding`: `name`, `size_bytes` (None: payloads differ in size),
            `dtype` and `shape` (of payloads that are the bytes of equally shaped arrays, else None), `unsafe` (decoding
            runs code), and the methods `encode(value) -> bytes` and `decode(payload) -> value`. Or a function of the
            text after the colon that makes such an object, for columns of the encoding `name:text`.

    No other reader of the format knows it, so whoever reads such a dataset has to register it as well, under the same
    name. A name of yours may be registered again, with another encoding.
    """
    given: Any = name
    if not isinstance(given, str) or not name or ":" in name or name in _BUILT_IN:
        raise SettingError(subject="name", expected="a name of your own without a colon", found=shown(name))
    if not callable(encoding) and not isinstance(encoding, Encoding):
        raise SettingError(
            subject="encoding", expected="an Encoding, or a function that gives one", found=shown(encoding)
        )
    _registered[name] = encoding
    _parse.cache_clear()


@lru_cache(maxsize=8192)
def _parse(name: str) -> Encoding:
    family, colon, text = name.partition(":")
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    try:
        if family == "ndarray":
            return arrays.parse_array(name, text)
        if family in _registered:
            return _own(family, colon, text)
    except (TypeError, ValueError) as error:
        raise FormatError(expected="a known encoding", found=repr(name[:80]), hint=brief(error)) from error
    raise FormatError(expected="a known encoding", found=repr(name[:80]), hint=_advice(name))


def _advice(name: str) -> str:
    """Which encoding was probably meant, and which there are."""
    plain = name[:80].strip().lower()
    close = [_MEANT[plain]] if plain in _MEANT else difflib.get_close_matches(plain, [*_BUILT_IN, *_registered], 2)
    question = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    known = ", ".join([_KNOWN, *sorted(_registered)[:8]])
    return f"{question}Known are {known}; mx8shards.register_encoding makes others known"


def _own(family: str, colon: str, text: str) -> Encoding:
    found = _registered[family]
    if isinstance(found, Encoding) and not isinstance(found, type):  # the class itself looks like one as well
        if colon:
            raise ValueError(f"{family} takes no text after it")
        return found
    made = found(text)
    if not isinstance(made, Encoding):
        raise TypeError(f"{family} gave {describe(made)} for {text[:20]!r}, not an Encoding")
    return made
