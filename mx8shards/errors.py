"""Which exceptions does this package raise, and how do their messages read?

    ShardsError
    ├── FormatError (ValueError)             bytes or JSON violate the spec
    ├── IntegrityError (ValueError)          well-formed bytes whose hash differs
    ├── SchemaError (ValueError)             a sample does not fit its columns
    ├── SettingError (ValueError)            an argument has a value that is not allowed
    ├── DecodeError (ValueError)             a payload cannot be decoded
    ├── SourceError (ValueError)             a converter's source cannot provide a sample
    ├── DatasetNotFoundError (FileNotFoundError)
    ├── DatasetExistsError (FileExistsError)
    ├── DiskError (OSError)                  a disk operation failed; earlier snapshots are intact
    ├── RemoteError (OSError)                a fetch or upload failed after all retries
    ├── MissingPackageError (ImportError)    an optional package is missing; the message says how to install it
    └── LoaderError (RuntimeError)           a Loader cannot make a batch, or is used wrongly while it loads

Every error names its subject (a file, a dataset), the place in it, the expected value and the value found:

    train/shard.00003.mds: offset 17 of 512: expected at most 8999936 (end of file), got 9000012
    index.json: at $.shards[3].column_names[0]: expected str, got int
    train/shard.00003.mds: sample 7 of this shard, column 'image': expected a whole JPEG, got …
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
from typing import Any, Literal, Self, TypeVar

_E = TypeVar("_E", bound=BaseException)

# Control characters, and characters that change the direction of text: terminals interpret them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def visible(text: str) -> str:
    """The text with control characters escaped, because names and texts of a dataset are untrusted."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class ShardsError(Exception):
    """The base class of every error that this package raises on purpose.

    Give either a complete `message`, or `expected` and `found`, from which the message is made. The code that detects
    the fault raises the error; its callers add the subject and the place with `at`.

    Args:
        message: The complete message; empty if it is made from `expected` and `found`.
        subject: The file, dataset or argument that the error is about.
        place: The position in it: an offset, a JSON path, a sample and column.
        expected: The values that are allowed there.
        found: The value that was there.
        hint: How to solve the problem.
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
        """Set the subject, if there is none, and prefix the place with `place`. Returns this error.

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
    """Bytes or JSON violate a rule of the format."""


class IntegrityError(ShardsError, ValueError):
    """Well-formed bytes whose hash differs from the one in the index."""


class SchemaError(ShardsError, ValueError):
    """A sample or a value does not fit its columns."""


class SettingError(ShardsError, ValueError):
    """An argument has a value that is not allowed. `subject` names the argument, `expected` the allowed values."""


class DecodeError(ShardsError, ValueError):
    """A payload cannot be decoded. `reason` is the class of a video's failure, such as "corrupt"; "" for pictures."""

    def __init__(self, message: str = "", *, reason: str = "", **rest: str) -> None:
        super().__init__(message, **rest)
        self.reason = reason


class SourceError(ShardsError, ValueError):
    """A converter's source cannot provide a sample."""


class DatasetNotFoundError(ShardsError, FileNotFoundError):
    """There is no such dataset or snapshot, or one of its files is missing."""


class DatasetExistsError(ShardsError, FileExistsError):
    """The directory for a new dataset contains a dataset or other files."""


class DiskError(ShardsError, OSError):
    """A disk operation failed. Nothing was published; earlier snapshots are intact."""


class RemoteError(ShardsError, OSError):
    """A fetch or an upload failed after all retries. `reason` is "network", "denied", "missing" or "changed"."""

    reason: Literal["network", "denied", "missing", "changed"] = "network"

    def __init__(
        self, message: str = "", *, reason: Literal["network", "denied", "missing", "changed"] = "network", **rest: str
    ) -> None:
        super().__init__(message, **rest)
        self.reason = reason


class LoaderError(ShardsError, RuntimeError):
    """A Loader could not make a batch (`__cause__` is the reason), or it was closed."""


class MissingPackageError(ShardsError, ImportError):
    """This call needs an optional package that is not installed."""


def without_traceback(error: _E) -> _E:
    """Remove the tracebacks of the error and of its causes, before the error is stored.

    A traceback keeps the local variables of all its frames alive, including payloads and pixels. Often one of these
    variables is the error itself, and then only the garbage collector frees them.
    """
    for found in _chain(error):
        found.__traceback__ = None
    return error


def without_locals(error: _E) -> _E:
    """Clear the local variables in the tracebacks of the error and of its causes, but keep the lines.

    Frames that are still running keep their variables.
    """
    for found in _chain(error):
        traceback.clear_frames(found.__traceback__)
    return error


def _chain(error: BaseException) -> list[BaseException]:
    """The error with all its direct and indirect causes and contexts."""
    chain = [error]
    for found in chain:
        chain += [other for other in (found.__cause__, found.__context__) if other is not None and other not in chain]
    return chain


def whole_number(name: str, value: Any, least: int | None, most: int = 2**62) -> int:
    """The value of the integer setting `name`, from `least` to `most`; NumPy integers are accepted, bools are not.

    If `least` is None, any int up to `most` is accepted.
    """
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:  # arrays of several values have an __index__ that raises it
        number = None
    if number is None or not (least is None or least <= number <= most):
        limits = ("" if least is None else f" from {least}") + (f" to {most}" if most < 2**62 else "")
        raise SettingError(subject=name, expected=f"an int{limits}", found=shown(value))
    return number


def real_number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    """The value of the setting `name`: a real number for which `fits` is true; NaN and bools are refused."""
    number = _as_float(value)
    if number is None or math.isnan(number) or not fits(number):
        raise SettingError(subject=name, expected=expected, found=shown(value))
    return number


def finite_seconds(name: str, value: Any) -> float:
    """The value of the setting `name`: a finite number of seconds above 0."""
    return real_number(name, value, "a number of seconds above 0", lambda seconds: 0 < seconds < math.inf)


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number; NumPy numbers are, bools are not."""
    number = _as_float(value)
    return number is not None and math.isfinite(number)


def _as_float(value: Any) -> float | None:
    """A real number as a float; None for anything else, and for an int beyond the range of floats."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def finite_numbers(value: Any) -> tuple[float, ...] | None:
    """A non-empty list, tuple, array or tensor of finite numbers as floats; None for anything else."""
    values = value.tolist() if hasattr(value, "tolist") else value
    good = isinstance(values, (list, tuple)) and len(values) > 0 and all(map(is_number, values))
    return tuple(map(float, values)) if good else None


def probability(name: str, value: Any) -> float:
    """The value of the setting `name`: a number from 0 to 1."""
    return real_number(name, value, "a probability from 0 to 1", lambda number: 0 <= number <= 1)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> None:
    """SettingError unless the value of the setting `name` is one of the `allowed` strings."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise SettingError(subject=name, expected=f"one of {', '.join(map(repr, allowed))}", found=shown(value))


def true_or_false(name: str, value: Any) -> bool:
    """The value of the setting `name`: a bool of Python or NumPy."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise SettingError(subject=name, expected="True or False", found=shown(value))
    return bool(value)


def error_text(error: BaseException) -> str:
    """The message of another package's error on one line of bounded length; its class if the message is empty."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def shown(value: object) -> str:
    """The repr of a value for error messages, truncated if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        return f"{type(value).__name__} that is too large to print"
    return text if len(text) <= 200 else f"{text[:200]}…"


def require(module: str, extra: str | None) -> ModuleType:
    """Import an optional module; MissingPackageError if it is missing, naming our extra that installs it.

    `extra` is None for a package of none of our extras, whose name is that of its module.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = f'"mx8shards[{extra}]"' if extra else module.partition(".")[0]
        raise MissingPackageError(
            f"the package of {module!r} is not installed", hint=f"pip install {package}"
        ) from error
