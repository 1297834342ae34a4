"""The MDSWriter class: MosaicML Streaming's writer, with the same arguments and the same shard files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from mx8shards.errors import FormatError, SchemaError, ShardsError
from mx8shards.format import compression as compressions
from mx8shards.format.columns import Columns
from mx8shards.format.encodings import get_encoding
from mx8shards.format.sizes import parse_size_limit
from mx8shards.shards.publication import Publication
from mx8shards.streaming.compatible_errors import MissingValueError, UnknownEncodingError, WrongTypeError
from mx8shards.streaming.writer_targets import DEFAULT_LIMIT, Target, checked_hashes, checked_options, target_of
from mx8shards.writer import Writer


class _ReplacingWriter(Writer):
    """A Writer that empties its directory, if `exist_ok` says so, when all of its arguments are checked."""

    def __init__(self, target: Target, **settings: Any) -> None:
        self._target = target
        super().__init__(target.out, **settings)
        self._warn_above = math.inf  # Streaming ignores values without a column

    def _opened(self, open_publication: Callable[[], Publication]) -> Publication:
        self._target.empty()
        return super()._opened(open_publication)


class MDSWriter:
    """Writes samples into MDS shards. The files equal those of MosaicML Streaming, byte for byte.

    Use it as a context manager. If the block raises, nothing is published (Streaming publishes what was written).

    Args:
        columns: The encoding of each column, by name.
        out: A directory, a URL, or a pair of a local directory and a URL or another directory.
        keep_local: Whether the local directory stays, if there is a remote one.
        compression: None, or a codec with an optional level: `"zstd"`, `"zstd:7"`, `"gz"`, `"bz2"`, `"br"`, `"snappy"`.
        hashes: The names of the hashes of each file, sorted; or one name.
        size_limit: The most bytes of a shard, as a number or as `"64mb"`; None: one shard for all samples.
        remote: The same as a pair `(out, remote)` as `out`.
        kwargs: `exist_ok=True` empties the local directory first, when all other arguments are checked. `progress_bar`,
            `max_workers` and `retry` are accepted.
    """

    format = "mds"

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        out: str | os.PathLike[str] | tuple[str, str],
        keep_local: bool = False,
        compression: str | None = None,
        hashes: Sequence[str] | str | None = None,
        size_limit: int | str | None = DEFAULT_LIMIT,
        remote: str | None = None,
        **kwargs: Any,
    ) -> None:
        options = checked_options(kwargs)
        self.columns = dict(columns)
        self.column_names = sorted(columns)
        self.column_encodings = [columns[name] for name in self.column_names]
        self.column_sizes = [_size(name, columns[name]) for name in self.column_names]
        self.compression = compression or None
        compressions.check(self.compression)
        self.hashes = checked_hashes(hashes)
        self.keep_local = keep_local
        self.size_limit = parse_size_limit(size_limit or None)
        self._encoder = Columns.of(columns, allow_pickle=True)
        self._target: Target = target_of(out, remote, keep_local=keep_local, exist_ok=bool(options.get("exist_ok")))
        self._writer = _ReplacingWriter(
            self._target,
            columns=columns,
            compression=self.compression,
            hashes=self.hashes,
            size_limit=self.size_limit,
            allow_pickle=True,
            match_streaming=True,
            mode="create" if self._target.remote is None or self._target.is_pair else "overwrite",
            single_writer=self._target.remote is not None,
        )

    @property
    def local(self) -> str | None:
        """The local directory, if there is one."""
        return self._target.local

    @property
    def remote(self) -> str | None:
        """The URL, or the other directory, if there is one."""
        return self._target.remote

    def encode_sample(self, sample: Mapping[str, Any]) -> bytes:
        """The bytes of a sample.

        Args:
            sample: A value for each column, by name.
        """
        try:
            return b"".join(self._encoder.encode(sample, 0))
        except SchemaError as error:
            raise _as_streaming(error) from error

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add a sample.

        Args:
            sample: A value for each column, by name. Other keys are ignored.
        """
        try:
            self._writer.write(sample)
        except SchemaError as error:
            raise _as_streaming(error) from error

    def flush_shard(self) -> None:
        """End the current shard, so that the next sample begins a new one."""
        self._writer._end_shard()

    @property
    def new_samples(self) -> list[bytes]:
        """The bytes of each sample of the current shard."""
        return self._writer._new_samples

    @property
    def shards(self) -> list[dict[str, Any]]:
        """What the index has of each shard that was ended. This waits until their files are written."""
        running = (each.result().entry for each in self._writer._running)  # an error is raised by `finish`, too
        return [entry.to_json() for entry in (*self._writer._entries, *running)]

    def finish(self) -> None:
        """Publish what was written."""
        self._writer.finish()
        self._target.finish()

    def get_config(self) -> dict[str, Any]:
        """What the index has of every shard."""
        return {
            "version": 2,
            "format": self.format,
            "compression": self.compression,
            "hashes": self.hashes,
            "size_limit": self.size_limit,
            "column_names": self.column_names,
            "column_encodings": self.column_encodings,
            "column_sizes": self.column_sizes,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self._writer.abandon()


def _size(name: str, encoding: str) -> int | None:
    try:
        return get_encoding(encoding).size_bytes
    except FormatError as error:
        raise UnknownEncodingError(
            subject=f"column {name!r}", expected=error.expected, found=error.found, hint=error.hint
        ) from None


def _as_streaming(error: SchemaError) -> ShardsError:
    """The error as the class that Streaming raises: KeyError for a missing value, AttributeError for a wrong one."""
    is_missing = error.expected == "a value" or error.expected.endswith(" bytes")
    kind = MissingValueError if is_missing else WrongTypeError
    return kind(
        error.message,
        subject=error.subject,
        place=error.place,
        expected=error.expected,
        found=error.found,
        hint=error.hint,
    )
