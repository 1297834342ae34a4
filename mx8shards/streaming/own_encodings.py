"""How do programs add encodings to Streaming's `_encodings`, or replace built-in ones, and encode single values?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import UserDict
from functools import partial
from typing import Any, Self

from mx8shards.errors import FormatError, SchemaError, SettingError, shown
from mx8shards.format import codec
from mx8shards.format.encodings import BUILT_IN_NAMES, get_encoding, replace_encoding
from mx8shards.streaming.compatible_errors import WrongTypeError
from mx8shards.streaming.payload_decoders import decoder_of

_unsafe_encodings = {"pkl"}


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


class BuiltInEncoding(Encoding):
    """A built-in encoding as a class, which `_encodings[name]` is. Subclasses set `name`."""

    name = ""

    def __init__(self, text: str = "") -> None:
        self._encoding = f"{self.name}:{text}" if text else self.name
        self.size = get_encoding(self._encoding).size_bytes

    @classmethod
    def from_str(cls, text: str) -> Self:
        """The encoding with this text after the colon.

        Args:
            text: The text, such as `uint8:2,3` of `ndarray:uint8:2,3`.
        """
        return cls(text)

    def encode(self, obj: Any) -> bytes:
        """The payload of a value.

        Args:
            obj: The value.
        """
        return mds_encode(self._encoding, obj)

    def decode(self, data: bytes) -> Any:
        """The value of a payload.

        Args:
            data: The payload.
        """
        return mds_decode(self._encoding, data)


class Encodings(UserDict[str, Any]):
    """Classes of encodings by name. Assigning one makes it valid for all columns of that name, also built-in ones."""

    def __setitem__(self, name: str, encoding: Any) -> None:
        super().__setitem__(name, encoding)
        is_built_in = isinstance(encoding, type) and issubclass(encoding, BuiltInEncoding) and encoding.name == name
        replace_encoding(name, None if is_built_in else partial(_Adapted, name, encoding))

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        replace_encoding(name, None)


class _Adapted:
    """An encoding in Streaming's form as one of ours."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __init__(self, name: str, encoding: Any, text: str) -> None:
        self.name = name
        made = encoding.from_str(text) if text else encoding() if isinstance(encoding, type) else encoding
        self.size_bytes: int | None = made.size
        self.unsafe = name in _unsafe_encodings
        self._encode = made.encode
        self._decode = made.decode

    def encode(self, value: Any, /) -> bytes:
        """The payload of a value; bytes unchanged."""
        data = value if isinstance(value, bytes) else self._encode(value)
        if not isinstance(data, bytes):
            raise SchemaError(expected=f"bytes from the encoding {self.name!r}", found=shown(data))
        return data

    def decode(self, payload: bytes | memoryview, /) -> Any:
        """The value of a payload."""
        return self._decode(bytes(payload))


_encodings = Encodings()
for _name in BUILT_IN_NAMES:
    _encodings[_name] = type(_name, (BuiltInEncoding,), {"name": _name, "__doc__": f"The encoding {_name!r}."})


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
    try:
        return _known(encoding).encode(obj)
    except SchemaError as error:
        raise WrongTypeError(expected=error.expected, found=error.found, hint=error.hint) from error


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
