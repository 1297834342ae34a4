"""What can go wrong, and what is it called?

    ShardsError
    ├── FormatError (ValueError)             bytes or JSON break the spec
    ├── IntegrityError (ValueError)          well-formed, but a hash differs
    ├── SchemaError (ValueError)             a sample does not fit its columns
    ├── SettingError (ValueError)            an argument has a value that is not allowed
    ├── DecodeError (ValueError)             a decoder refuses a payload
    ├── SourceError (ValueError)             a converter's source cannot give a sample
    ├── DatasetNotFoundError (FileNotFoundError)
    ├── DatasetExistsError (FileExistsError)
    ├── DiskError (OSError)                  the disk refused a step; what was published before is intact
    ├── RemoteError (OSError)                a fetch or upload failed for good
    ├── MissingPackageError (ImportError)    this call needs an optional package; the message says how to install it
    └── LoaderError (RuntimeError)           a prefetch thread failed; __cause__ is the reason

Every error names its subject (a file, a dataset), the place in it, what was expected there and what was found:

    train/shard.00003.mds: offset 17 of 512: expected at most 8999936 (end of file), got 9000012
    index.json: at $.shards[3].column_names[0]: expected str, got int
"""

from __future__ import annotations

import math
import operator
import re
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from numbers import Real
from types import ModuleType
from typing import Any, Self, TypeVar

_E = TypeVar("_E", bound=BaseException)

# Control characters, and those that change the direction of what follows: a terminal obeys them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """The text with its control characters escaped: names, texts and errors of a dataset may come from anybody."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class ShardsError(Exception):
    """The base class of every error that this package raises on purpose.

    Give either a whole `message`, or `expected` and `found`, from which the message is made. The innermost code knows
    what is wrong; its callers know where, and add that with `at` while the error passes through them.

    Args:
        message: The whole message; empty if `expected` and `found` make it.
        subject: The file, dataset or argument that the error is about.
        place: The position in it: an offset, a JSON path, a sample and column.
        expected: The values that are allowed there.
        found: The value that was there.
        hint: What to do about it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        subject: str = "",
        place: str = "",
        expected: str = "",
        found: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.place = place
        self.expected = expected
        self.found = found
        self.hint = hint

    def at(self, *, subject: str = "", place: str = "") -> Self:
        """The same error with a subject, if it had none, and with `place` put before the place it had.

        Args:
            subject: The file, dataset or argument that the error is about.
            place: A position in it.
        """
        self.subject = self.subject or subject
        if self.place.startswith(("[", ".")):
            self.place = place + self.place
        else:
            self.place = ": ".join(part for part in (place, self.place) if part)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        what = self.message or f"expected {self.expected}, got {self.found}"
        place = f"at {self.place}" if self.place.startswith("$") else self.place
        where = ": ".join(part for part in (self.subject, place) if part)
        return visible((f"{where}: " if where else "") + what + (f" ({self.hint})" if self.hint else ""))


class FormatError(ShardsError, ValueError):
    """Bytes or JSON break a rule of the format."""


class IntegrityError(ShardsError, ValueError):
    """Well-formed bytes whose hash is not the one in the index."""


class SchemaError(ShardsError, ValueError):
    """A sample or a value does not fit its columns."""


class SettingError(ShardsError, ValueError):
    """An argument has a value that is not allowed. `subject` names the argument, `expected` the allowed values."""


class DecodeError(ShardsError, ValueError):
    """A payload cannot be decoded."""


class SourceError(ShardsError, ValueError):
    """A converter's source cannot give a sample."""


class DatasetNotFoundError(ShardsError, FileNotFoundError):
    """There is no dataset or no such snapshot, or a file of it is missing."""


class DatasetExistsError(ShardsError, FileExistsError):
    """There is something already where a new dataset was to be written."""


class DiskError(ShardsError, OSError):
    """The disk refused a step. Nothing was published; what was published before is intact."""


class RemoteError(ShardsError, OSError):
    """A fetch or an upload failed for good."""


class LoaderError(ShardsError, RuntimeError):
    """A prefetch thread failed; `__cause__` is the reason."""


class MissingPackageError(ShardsError, ImportError):
    """This call needs an optional package that is not installed."""


def without_traceback(error: _E) -> _E:
    """The error, and all that led to it, without tracebacks: for an error that is kept, whose message says enough.

    A traceback keeps the variables of all functions that were under way, payloads and pixels among them. One of these
    is often the error itself: then only a garbage collection ends that.
    """
    for found in _chain(error):
        found.__traceback__ = None
    return error


def without_locals(error: _E) -> _E:
    """The error, and all that led to it, with the lines of their tracebacks but without the variables there.

    Functions that have not returned yet keep theirs.
    """
    for found in _chain(error):
        traceback.clear_frames(found.__traceback__)
    return error


def _chain(error: BaseException) -> list[BaseException]:
    """The error, its causes and contexts, and theirs."""
    chain = [error]
    for found in chain:
        chain += [other for other in (found.__cause__, found.__context__) if other is not None and other not in chain]
    return chain


def whole_number(name: str, value: Any, least: int | None, most: int = 2**62) -> int:
    """The value of the integer setting `name`, from `least` to `most`; NumPy integers count, bools do not.

    With `least` None it may be any int.
    """
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:  # arrays of several values have __index__ too
        number = None
    if number is None or not (least is None or least <= number <= most):
        limits = ("" if least is None else f" from {least}") + (f" to {most}" if most < 2**62 else "")
        raise SettingError(subject=name, expected=f"an int{limits}", found=shown(value))
    return number


def real_number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """The value of the setting `name`: a real number that `fits`, as `expected` says; NaN and bools never do."""
    number = _as_float(value)
    if number is None or math.isnan(number) or not fits(number):
        raise SettingError(subject=name, expected=expected, found=shown(value))
    return number


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number; NumPy's count, bools do not."""
    number = _as_float(value)
    return number is not None and math.isfinite(number)


def _as_float(value: Any) -> float | None:
    """A real number as a float; None for anything else, and for an int that no float holds."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def finite_numbers(value: Any) -> tuple[float, ...] | None:
    """A list, tuple, array or tensor of finite numbers as floats; None for anything else, and for an empty one."""
    values = value.tolist() if hasattr(value, "tolist") else value
    good = isinstance(values, (list, tuple)) and len(values) > 0 and all(map(is_number, values))
    return tuple(map(float, values)) if good else None


def probability(name: str, value: Any) -> float:
    """The value of the setting `name`: a number from 0 to 1."""
    return real_number(name, value, "a probability from 0 to 1", lambda number: 0 <= number <= 1)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a value of the setting `name` that is none of the `allowed` texts."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise SettingError(subject=name, expected=f"one of {', '.join(map(repr, allowed))}", found=shown(value))


def true_or_false(name: str, value: Any) -> bool:
    """The value of the setting `name`: a bool, NumPy's included."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise SettingError(subject=name, expected="True or False", found=shown(value))
    return bool(value)


def said(error: BaseException) -> str:
    """What an error of another package says, in one line that is not too long; its class if it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shown(value: object) -> str:
    """A value as an error shows it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        return f"{type(value).__name__} that Python does not print"
    return text if len(text) <= 200 else f"{text[:200]}…"


def require(module: str, extra: str) -> ModuleType:
    """The optional module `module`, imported; MissingPackageError names the extra of ours that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"the package of {module!r} is not installed", hint=f'pip install "mx8shards[{extra}]"'
        ) from error
