"""What must an encoding be able to do, and how does it say no? (spec §3.6)"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from mx8shards.errors import FormatError, SchemaError


@runtime_checkable
class Encoding(Protocol):
    """How the values of one column become bytes and come back.

    `encode` raises SchemaError for a value that does not fit and lets `bytes` pass as they are (those of a fixed-size
    column only in that size). `decode` raises FormatError, and nothing else, whatever the bytes; it allocates nothing
    that its payload does not account for, and what it returns may be a view of the payload.
    """

    name: str = ""  # as it stands in the index
    size_bytes: int | None = None  # None: payloads differ in size
    dtype: str | None = None  # with `shape`, where payloads are the bytes of equally shaped arrays, so that they stack
    shape: tuple[int, ...] | None = None
    unsafe: bool = False  # decoding runs code that the payload chooses

    def encode(self, value: Any, /) -> bytes:
        """The payload that holds `value`."""
        ...

    def decode(self, payload: bytes | memoryview, /) -> Any:
        """The value that `payload` holds."""
        ...


class Codec(Encoding):
    """What the built-in encodings share: bytes and wrong sizes are dealt with here, `pack` and `unpack` do the rest."""

    takes = "bytes"  # what `encode` takes, in words

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
        """The value of a payload whose size is right."""
        raise NotImplementedError

    def refuse(self, value: object, *, hint: str = "", cause: BaseException | None = None) -> NoReturn:
        """SchemaError: `value` is not what this encoding takes."""
        raise SchemaError(expected=self.takes, found=describe(value), hint=hint or brief(cause)) from cause

    def damaged(self, found: str) -> FormatError:
        """The error to raise for a payload that is not one of this encoding's."""
        return FormatError(expected=f"a payload of {self.name}", found=found)


def describe(value: object) -> str:
    """A value in a few words; its type alone where the value would be long."""
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
    """What another library had to say, on one line of bounded length."""
    text = " ".join(str(cause).split()) if cause is not None else ""
    return text if len(text) <= 120 else f"{text[:119]}…"
