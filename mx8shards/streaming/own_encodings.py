"""How do programs add encodings to Streaming's `_encodings`, or replace built-in ones, and encode single values?"""

from __future__ import annotations

from collections import UserDict
from functools import partial
from typing import Any

from mx8shards.errors import FormatError, SettingError
from mx8shards.format import codec
from mx8shards.format.encodings import get_encoding, replace_encoding
from mx8shards.streaming.encoding_classes import CLASSES, Adapted, encoded
from mx8shards.streaming.payload_decoders import decoder_of

_unsafe_encodings = {"pkl"}


class Encodings(UserDict[str, Any]):
    """Classes of encodings by name. Assigning one makes it valid for all columns of that name, also built-in ones."""

    def __setitem__(self, name: str, encoding: Any) -> None:
        super().__setitem__(name, encoding)
        replace_encoding(name, None if encoding is CLASSES.get(name) else partial(_adapted, name, encoding))

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        replace_encoding(name, None)


def _adapted(name: str, encoding: Any, text: str) -> Adapted:
    made = encoding.from_str(text) if text else encoding() if isinstance(encoding, type) else encoding
    return Adapted(name, made, unsafe=name in _unsafe_encodings)


_encodings = Encodings(CLASSES)


def get_mds_encodings() -> set[str]:
    """The names of all encodings."""
    return set(_encodings)


def is_mds_encoding(encoding: str) -> bool:
    """Whether there is an encoding of this name.

    Args:
        encoding: The name, with the text after its colon.
    """
    try:
        get_encoding(encoding)
    except FormatError:
        return False
    return True


def is_mds_encoding_safe(encoding: str) -> bool:
    """Whether decoding runs no code of the payload.

    Args:
        encoding: The name.
    """
    return encoding not in _unsafe_encodings


def get_mds_encoded_size(encoding: str) -> int | None:
    """The size of every payload; None if they differ.

    Args:
        encoding: The name.
    """
    return _known(encoding).size_bytes


def mds_encode(encoding: str, obj: Any) -> bytes:
    """The payload of a value; bytes unchanged.

    Args:
        encoding: The name of the encoding.
        obj: The value.
    """
    if isinstance(obj, bytes):
        return obj
    return encoded(_known(encoding), obj)


def mds_decode(encoding: str, data: bytes) -> Any:
    """The value of a payload.

    Args:
        encoding: The name of the encoding.
        data: The payload.
    """
    return decoder_of(_known(encoding))(data)


def _known(encoding: str) -> codec.Encoding:
    try:
        return get_encoding(encoding)
    except FormatError as error:
        raise SettingError(
            subject="encoding", expected=error.expected, found=error.found, hint=error.hint
        ) from error.__cause__
