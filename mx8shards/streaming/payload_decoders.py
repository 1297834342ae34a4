"""How do payloads become the values that Streaming returns? NumPy scalars for numbers, and arrays of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mx8shards.errors import FormatError, SchemaError
from mx8shards.format.arrays import ArrayOfFixed, DynamicArray, FixedArray
from mx8shards.format.codec import Encoding
from mx8shards.format.columns import Columns
from mx8shards.format.scalars import Bytes, Int, Number

Decoder = Callable[[bytes], Any]


def decoders_of(columns: Columns) -> tuple[Decoder, ...]:
    """A decoder for each column. Decoded values share no memory with the shard, or with each other."""
    return tuple(map(decoder_of, columns.coders))


def refuse_unsafe(columns: Columns, subject: str, hint: str) -> None:
    """SchemaError if decoding a column runs code."""
    for name, coder in zip(columns.names, columns.coders, strict=True):
        if coder.unsafe:
            message = f"encoding {coder.name!r} runs code when it is read"
            raise SchemaError(message, subject=f"{subject}: column {name!r}", hint=hint)


def decoder_of(coder: Encoding) -> Decoder:
    """A function from payloads to values."""
    match coder:
        case Bytes():
            return bytes  # returns the same object for bytes
        case Int():
            return coder.decode
        case Number():
            return partial(_scalar, np.dtype(coder.dtype).newbyteorder("<"))
        case FixedArray():
            return partial(_fixed, np.dtype(coder.dtype).newbyteorder("<"), coder.shape, coder.size_bytes)
        case DynamicArray() | ArrayOfFixed():
            return partial(_copied, coder.decode)
    return coder.decode


def _scalar(dtype: np.dtype[Any], payload: bytes) -> Any:
    return np.frombuffer(payload, dtype, 1)[0]


def _fixed(dtype: np.dtype[Any], shape: tuple[int, ...], size_bytes: int, payload: bytes) -> Any:
    if len(payload) != size_bytes:
        raise FormatError(expected=f"{size_bytes} bytes", found=f"{len(payload)}")
    return np.ndarray(shape, dtype, bytearray(payload))  # writable, as torch wants it


def _copied(decode: Callable[[bytes], Any], payload: bytes) -> Any:
    """An array that is aligned and writable, as a payload's bytes need not be."""
    return decode(payload).copy()
