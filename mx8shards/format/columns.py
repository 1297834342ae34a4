"""How is a sample laid out in bytes, and at which offset is each column? (spec: sample bytes)"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mx8shards.errors import FormatError, SchemaError, SettingError, shown
from mx8shards.format.encodings import Encoding, get_encoding

Payload = bytes | memoryview

# A sample's size header has one uint32 for each column of variable size.
_SIZE = struct.Struct("<I")
MAX_BYTES = (1 << 32) - 1
MAX_COLUMNS = 4096
MAX_TEXT = 1024  # characters of a column's name or encoding


@dataclass(frozen=True)
class Columns:
    """The named fields of a sample, sorted by name, with the encoding and the fixed size (or None) of each."""

    names: tuple[str, ...]
    encodings: tuple[str, ...]
    sizes: tuple[int | None, ...]

    @classmethod
    def of(cls, encodings: Mapping[str, str], *, allow_pickle: bool = False) -> Columns:
        """The columns from names and encodings; SettingError or SchemaError if a reader would refuse them."""
        _check_names(encodings)
        names = tuple(sorted(encodings))
        coders = [_coder(name, encodings[name]) for name in names]
        for name, coder in zip(names, coders, strict=True):
            if coder.unsafe and not allow_pickle:
                raise SchemaError(
                    f"encoding {coder.name!r} runs code when it is read",
                    subject=f"column {name!r}",
                    hint="allow_pickle=True accepts that",
                )
        sizes = tuple(coder.size_bytes for coder in coders)
        fixed = sum(size for size in sizes if size is not None)
        if fixed > MAX_BYTES:
            raise SettingError(subject="columns", expected=f"at most {MAX_BYTES} bytes of fixed size", found=f"{fixed}")
        return cls(names, tuple(encodings[name] for name in names), sizes)

    def __reduce__(self) -> tuple[object, ...]:
        return Columns, (self.names, self.encodings, self.sizes)  # without the cached properties

    @cached_property
    def coders(self) -> tuple[Encoding, ...]:
        """One encoding per column."""
        sized = zip(self.encodings, self.sizes, strict=True)
        return tuple(get_encoding(text, varies=size is None) for text, size in sized)

    @cached_property
    def variable(self) -> int:
        """The number of columns of variable size; each has four bytes in the sample's size header."""
        return sum(size is None for size in self.sizes)

    @cached_property
    def header_bytes(self) -> int:
        """The size of a sample's size header."""
        return 4 * self.variable

    @cached_property
    def fixed_bytes(self) -> int:
        """The total size of the columns of fixed size in a sample."""
        return sum(size for size in self.sizes if size is not None)

    @cached_property
    def header(self) -> struct.Struct:
        """The struct of a sample's size header."""
        return struct.Struct(f"<{self.variable}I")

    @cached_property
    def _encoders(self) -> list[tuple[str, Any, int | None]]:
        return [(n, c.encode, s) for n, c, s in zip(self.names, self.coders, self.sizes, strict=True)]

    def encode(self, sample: Mapping[str, Any], number: int) -> list[bytes]:
        """The pieces of a sample's bytes: the size header, then one payload per column.

        Every encoding stores `bytes` unchanged, as in Streaming, so that encoded pictures need not be decoded first.
        """
        pieces = [b""]
        sizes = []
        for name, encode, size in self._encoders:
            try:
                value = sample[name]
            except (KeyError, TypeError, IndexError):
                raise self._missing(sample, name, number) from None
            try:
                payload = value if type(value) is bytes else encode(value)
            except SchemaError as error:
                raise error.at(subject=f"sample {number}, column {name!r}") from None
            if size is None:
                sizes.append(len(payload))
            elif len(payload) != size:
                raise SchemaError(
                    subject=f"sample {number}, column {name!r}", expected=f"{size} bytes", found=f"{len(payload)}"
                )
            pieces.append(payload)
        try:
            pieces[0] = self.header.pack(*sizes)
        except struct.error:
            raise SchemaError(
                subject=f"sample {number}", expected=f"columns of at most {MAX_BYTES} bytes", found=f"{max(sizes)}"
            ) from None
        return pieces

    def _missing(self, sample: Mapping[str, Any], name: str, number: int) -> SchemaError:
        if not isinstance(sample, Mapping):
            return SchemaError(
                subject=f"sample {number}", expected="values by column name", found=type(sample).__name__
            )
        return SchemaError(
            subject=f"sample {number}, column {name!r}",
            expected="a value",
            found=f"none; the sample has {', '.join(sorted(map(repr, sample))) or 'no columns'}",
        )

    def warn_of_others(self, sample: Mapping[str, Any]) -> None:
        """Warn of values that are not written, as there are no columns for them."""
        others = ", ".join(sorted(repr(name) for name in sample if name not in self.names))
        warnings.warn(f"samples have {others}, which are not written: columns= does not name them", stacklevel=3)

    def bounds(self, header: bytes | memoryview, size_bytes: int) -> list[int]:
        """The offsets of the payloads in a sample of `size_bytes` bytes with this size header, and the end of the last.

        The payload of column `c` is [bounds[c], bounds[c + 1]).
        """
        bounds = self._fixed_bounds or self._bounds(self.header.unpack_from(header))
        if bounds[-1] != size_bytes:
            raise FormatError(expected=f"columns of {size_bytes} bytes in all", found=f"{bounds[-1]}")
        return bounds

    def _bounds(self, variable: Iterable[int]) -> list[int]:
        sizes = iter(variable)
        end = self.header_bytes
        bounds = [end]
        for size in self.sizes:
            end += next(sizes) if size is None else size
            bounds.append(end)
        return bounds

    @cached_property
    def _fixed_bounds(self) -> list[int]:
        """The bounds if all columns have fixed sizes; otherwise empty."""
        return [] if self.variable else self._bounds(())

    def unknown(self, name: str) -> SettingError:
        """The error for an unknown column, listing the known ones."""
        known = ", ".join(map(repr, self.names)) or "no column"
        return SettingError(subject="columns", expected=f"one of {known}", found=repr(name))

    def pick(self, names: Sequence[str]) -> Columns:
        """A selection of the columns, sorted; SettingError for an unknown one."""
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise SettingError(subject="columns", expected="a list of names", found=shown(names))
        names = list(names)
        for name in names:
            if name not in self.names:
                raise self.unknown(name)
        chosen = [i for i, name in enumerate(self.names) if name in set(names)]
        return Columns(
            tuple(self.names[i] for i in chosen),
            tuple(self.encodings[i] for i in chosen),
            tuple(self.sizes[i] for i in chosen),
        )


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_names(names: Mapping[str, str]) -> None:
    if not isinstance(names, Mapping):
        raise SettingError(subject="columns", expected="names with their encodings", found=type(names).__name__)
    if not names:
        raise SettingError(subject="columns", expected="at least one column", found="none")
    if len(names) > MAX_COLUMNS:
        raise SettingError(subject="columns", expected=f"at most {MAX_COLUMNS}", found=f"{len(names)}")
    for name in names:
        if not isinstance(name, str):
            raise SettingError(subject="columns", expected="names of type str", found=type(name).__name__)
        if not name:
            raise SettingError(subject="columns", expected="a name", found="an empty one")
        if not _is_unicode(name):
            expected = "names without lone surrogates, which other JSON parsers refuse"
            raise SettingError(subject="columns", expected=expected, found=ascii(name))
        if len(name) > MAX_TEXT:
            raise SettingError(
                subject="columns", expected=f"names of at most {MAX_TEXT} characters", found=f"{len(name)}"
            )


def _coder(name: str, encoding: str) -> Encoding:
    try:
        found = get_encoding(encoding)
    except FormatError as error:
        raise SchemaError(
            subject=f"column {name!r}", expected=error.expected, found=error.found, hint=error.hint
        ) from error
    if len(encoding) > MAX_TEXT:
        raise SchemaError(
            subject=f"column {name!r}", expected=f"at most {MAX_TEXT} characters", found=f"{len(encoding)}"
        )
    return found
