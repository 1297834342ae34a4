"""The interface of column encodings: how is a value encoded as bytes, and decoded again? (spec §3.6)"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from mx8shards.errors import FormatError, SchemaError


@runtime_checkable
class Encoding(Protocol):
    """Encodes the values of one column to bytes, and decodes them.

    `encode` raises SchemaError for a value that does not fit, and returns `bytes` unchanged (for a fixed-size column,
    only if they have that size). `decode` raises only FormatError, whatever the payload, and allocates memory in
    proportion to the payload. The decoded value may be a view of the payload.
    """

    name: str = ""  # the name in the index
    size_bytes: int | None = None  # None: payloads differ in size
    dtype: str | None = (
        None  # set, with `shape`, if all payloads are arrays of one dtype and shape, which can be stacked
    )
    shape: tuple[int, ...] | None = None
    unsafe: bool = False  # whether decoding runs code from the payload

    def encode(self, value: Any, /) -> bytes:
        """The payload that holds `value`."""
        ...

    def decode(self, payload: bytes | memoryview, /) -> Any:
        """The value that `payload` holds."""
        ...


class Codec(Encoding):
    """Base class of the built-in encodings. Handles bytes and wrong sizes; subclasses define `pack` and `unpack`."""

    takes = "bytes"  # a description of the values that `encode` accepts

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: Any, /) -> bytes:
        if not isinstance(value, bytes):
            return self.pack(value)
        if self.size_bytes is not None and len(value) != self.size_bytes:
            raise SchemaError(expected=f"{self.takes}, or {self.size_bytes} bytes", found=f"{len(value)} bytes")
        return value

    def decode(self, payload: bytes | memoryview, /) -> Any:
        if self.size_bytes is not None and len(payload) != self.size_bytes:
            raise FormatError(expected=f"{self.size_bytes} bytes of {self.name}", found=f"{len(payload)}")
        return self.unpack(payload)

    def pack(self, value: Any) -> bytes:
        """The payload of a value that is not bytes."""
        self.refuse(value)

    def unpack(self, payload: bytes | memoryview) -> Any:
        """The value of a payload with a valid size."""
        raise NotImplementedError

    def refuse(self, value: object, *, hint: str = "", cause: BaseException | None = None) -> NoReturn:
        """Raise the SchemaError for a value that this encoding does not accept."""
        raise SchemaError(expected=self.takes, found=describe(value), hint=hint or brief(cause)) from cause

    def damaged(self, found: str) -> FormatError:
        """The error for a payload that is invalid in this encoding."""
        return FormatError(expected=f"a payload of {self.name}", found=found)


def describe(value: object) -> str:
    """A short description of a value: its type, and the value itself if it is a number."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    kind = type(value).__name__
    if isinstance(value, int) and value.bit_length() > 128:
        return f"{kind} of {value.bit_length()} bits"
    if isinstance(value, (int, float, np.generic)):
        return f"{kind} {value!s:.60}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{kind} of length {len(value)}"
    return "None" if value is None else kind


def brief(cause: BaseException | None) -> str:
    """The message of another library's error, on one line of bounded length; "" if there is none."""
    text = " ".join(str(cause).split()) if cause is not None else ""
    return text if len(text) <= 120 else f"{text[:119]}…"
