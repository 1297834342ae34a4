"""How is untrusted JSON parsed, and canonical JSON written?"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from mx8shards.errors import FormatError

SNAPSHOT_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

_SPACE = re.compile(r"[ \t\n\r]*")
_TYPES = {dict: "object", list: "list", str: "str", int: "int", float: "float", bool: "bool", type(None): "null"}


def dump(value: object) -> str:
    """Canonical JSON: sorted keys, ASCII, one line, without NaN or Infinity."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def kind_of(value: object) -> str:
    """The JSON type of a value, for messages."""
    return _TYPES.get(type(value), type(value).__name__)


def short(value: object) -> str:
    """A value for messages, truncated to 80 characters."""
    text = repr(value) if not isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def integer(value: object, place: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """The value, if it is an integer (not a bool) from `least` to `most`; otherwise FormatError."""
    if type(value) is not int or not least <= value <= most:
        raise FormatError(place=place, expected=f"an integer from {least} to {most}", found=short(value))
    return value


def parse_object(data: bytes, *, array: str, item: Callable[[Any], None]) -> dict[str, Any]:
    """Parse a JSON object. The items of its list `array` are passed one by one to `item`, and the list is left empty.

    The items must not contain floats, and NaN and Infinity are refused everywhere.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(expected="UTF-8", found=f"byte {data[error.start]:#04x} at {error.start}") from error
    return _Scanner(text).top(array, item)


def _broken(error: ValueError | RecursionError, place: str) -> FormatError:
    if isinstance(error, FormatError):
        return error.at(place=place)
    if isinstance(error, RecursionError):
        return FormatError(place=place, expected="JSON", found="too deeply nested values")
    return FormatError(place=place, expected="JSON", found=f"an error: {error}")  # also an int of too many digits


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(expected="a JSON number", found=name)


def _refuse_float(number: str) -> NoReturn:
    raise FormatError(expected="an integer", found=short(number))


class _Scanner:
    _value = json.JSONDecoder(parse_constant=_refuse_constant)
    _item = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_refuse_float)

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def top(self, array: str, item: Callable[[Any], None]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._expect("{", "$")
        if not self._skip_if("}"):
            while True:
                key = self._scan(self._value, "$")
                if not isinstance(key, str):
                    raise FormatError(place="$", expected="a key", found=kind_of(key))
                if key in found:
                    raise FormatError(place="$", expected="every key once", found=f"{short(key)} twice")
                self._expect(":", "$")
                if key == array:
                    found[key] = []
                    self._items(f"$.{array}", item)
                else:
                    found[key] = self._scan(self._value, f"$.{key}"[:80])
                if self._skip_if("}"):
                    break
                self._expect(",", "$")
        if self._peek():
            raise FormatError(place="$", expected="end of file", found=short(self._text[self._at : self._at + 20]))
        return found

    def _items(self, place: str, item: Callable[[Any], None]) -> None:
        self._expect("[", place)
        if self._skip_if("]"):
            return
        for count in itertools.count():
            item(self._scan(self._item, place, count))
            if self._text.startswith(", {", self._at):  # as json.dumps writes it: a faster path for long lists
                self._at += 2
                continue
            if self._skip_if("]"):
                return
            self._expect(",", place)

    def _scan(self, decoder: json.JSONDecoder, place: str, number: int | None = None) -> Any:
        self._peek()
        try:
            value, self._at = decoder.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            raise _broken(error, place if number is None else f"{place}[{number}]") from None
        return value

    def _peek(self) -> str:
        char = self._text[self._at : self._at + 1]
        if char and char in " \t\n\r":
            match = _SPACE.match(self._text, self._at)
            assert match is not None  # the expression matches the empty string
            self._at = match.end()
            char = self._text[self._at : self._at + 1]
        return char

    def _skip_if(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self._at += 1
        return True

    def _expect(self, char: str, place: str) -> None:
        if not self._skip_if(char):
            found = short(self._text[self._at : self._at + 20]) if self._at < len(self._text) else "end of file"
            raise FormatError(place=place, expected=repr(char), found=found)
