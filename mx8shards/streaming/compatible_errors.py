"""Which errors are also of the class that Streaming raises, because programs catch it?"""

from __future__ import annotations

from mx8shards.errors import DatasetNotFoundError, SchemaError, SettingError, ShardsError


class MissingIndexError(DatasetNotFoundError, RuntimeError):
    """A stream has neither an index nor a remote to fetch it from."""


class MissingValueError(SchemaError, KeyError):
    """A sample lacks a column, or a value has another size than its encoding."""


class WrongTypeError(SchemaError, AttributeError):
    """A value does not fit the encoding of its column."""


class OutOfRangeError(WrongTypeError, OverflowError):
    """An int does not fit the encoding of its column."""


class EmptyStreamError(ShardsError, RuntimeError):
    """A stream has no samples."""


class UnknownEncodingError(SettingError, TypeError):
    """A writer's column has an encoding that does not exist."""
