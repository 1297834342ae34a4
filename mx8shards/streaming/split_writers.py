"""The JSON, CSV, TSV and XSV writers: MosaicML Streaming's, with the same arguments and the same files."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from mx8shards.errors import SettingError, shown
from mx8shards.format import compression as compressions
from mx8shards.format.hashing import hash_hex
from mx8shards.format.sizes import parse_size_limit
from mx8shards.shards.snapshots import INDEX
from mx8shards.streaming.compatible_errors import MissingValueError, WrongTypeError
from mx8shards.streaming.split_entries import SEPARATORS, TYPES
from mx8shards.streaming.split_targets import SplitTarget
from mx8shards.streaming.writer_targets import DEFAULT_LIMIT, checked_hashes, checked_options


class SplitWriter:
    """The base of writers whose shards have a data and a meta file. Use one as a context manager.

    If the block raises, no index is written, so that there is no dataset.
    """

    format = ""

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        newline: str,
        out: str | os.PathLike[str] | tuple[str, str],
        keep_local: bool,
        compression: str | None,
        hashes: Sequence[str] | str | None,
        size_limit: int | str | None,
        options: Mapping[str, Any],
    ) -> None:
        options = checked_options(options)
        self.columns = dict(columns)
        for name, encoding in columns.items():
            if encoding not in TYPES:
                raise SettingError(
                    subject=f"column {name!r}", expected=f"one of {', '.join(TYPES)}", found=shown(encoding)
                )
        self.newline = newline
        self.keep_local = keep_local
        self.compression = compression or None
        compressions.check(self.compression)
        if self.compression is not None:
            compressions.require_package(self.compression)
        self.hashes = checked_hashes(hashes)
        self.size_limit = parse_size_limit(size_limit or None)
        self._target = SplitTarget(out, keep_local=keep_local, exist_ok=bool(options.get("exist_ok")))
        self.shards: list[dict[str, Any]] = []
        self.new_samples: list[bytes] = []
        self._bytes = 0

    @property
    def local(self) -> str | None:
        """The local directory, if there is one."""
        return None if self._target.root is None else str(self._target.root)

    @property
    def remote(self) -> str | None:
        """The URL, or the other directory, if there is one."""
        return self._target.remote

    @abstractmethod
    def encode_sample(self, sample: Mapping[str, Any]) -> bytes:
        """The bytes of a sample.

        Args:
            sample: A value for each column, by name.
        """

    @property
    def _header(self) -> bytes:
        """What a data file begins with."""
        return b""

    def get_config(self) -> dict[str, Any]:
        """What the index has of every shard."""
        return {
            "version": 2,
            "format": self.format,
            "compression": self.compression,
            "hashes": self.hashes,
            "size_limit": self.size_limit,
        }

    def write(self, sample: Mapping[str, Any]) -> None:
        """Add a sample.

        Args:
            sample: A value for each column, by name. Other keys are ignored.
        """
        data = self.encode_sample(sample)
        if self.size_limit and self.size_limit < self._bytes + len(data):
            self.flush_shard()
        self.new_samples.append(data)
        self._bytes += len(data)

    def flush_shard(self) -> None:
        """Write the samples so far as a shard."""
        raw = f"shard.{len(self.shards):05}.{self.format}"
        table = np.array([0, *map(len, self.new_samples)]).cumsum() + len(self._header)
        config = json.dumps(self.get_config(), sort_keys=True).encode()
        meta = np.uint32(len(self.new_samples)).tobytes() + table.astype("<u4").tobytes() + config
        entry = {"samples": len(self.new_samples), **self.get_config()}
        for part, name, data in (
            ("data", raw, self._header + b"".join(self.new_samples)),
            ("meta", f"{raw}.meta", meta),
        ):
            entry[f"raw_{part}"], entry[f"zip_{part}"] = self._stored(name, data)
        self.shards.append(entry)
        self.new_samples, self._bytes = [], 0

    def _stored(self, name: str, data: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Write a file, compressed if that is asked for. What the index has of the raw and the compressed one."""
        raw = self._info(name, data)
        if self.compression is None:
            self._target.put(name, data)
            return raw, None
        name = f"{name}.{compressions.extension(self.compression)}"
        data = compressions.compress(self.compression, data, match_streaming=True)
        self._target.put(name, data)
        return raw, self._info(name, data)

    def _info(self, name: str, data: bytes) -> dict[str, Any]:
        return {"basename": name, "bytes": len(data), "hashes": {each: hash_hex(each, data) for each in self.hashes}}

    def finish(self) -> None:
        """Write the last shard, then the index."""
        if self.new_samples:
            self.flush_shard()
        self._target.put(INDEX, json.dumps({"version": 2, "shards": self.shards}, sort_keys=True).encode())
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self._target.abandon()

    def _value(self, sample: Mapping[str, Any], name: str) -> Any:
        """The checked value of a column."""
        if name not in sample:
            raise MissingValueError(subject=f"column {name!r}", expected="a value", found="none")
        value, kind = sample[name], self.columns[name]
        if not isinstance(value, TYPES[kind]):
            raise WrongTypeError(subject=f"column {name!r}", expected=kind, found=shown(value))
        return value


class JSONWriter(SplitWriter):
    """Writes a line of JSON for each sample.

    Args:
        columns: The type of each column, by name: `"str"`, `"int"` or `"float"`.
        newline: What ends a line.
        out: A directory, a URL, or a pair of a local directory and a URL or another directory.
        keep_local: Whether the local directory stays, if there is a remote one.
        compression: None, or a codec with an optional level, such as `"zstd:7"`.
        hashes: The names of the hashes of each file, sorted; or one name.
        size_limit: The most bytes of a data file; None: one shard for all samples.
        kwargs: As those of MDSWriter.
    """

    format = "json"

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        newline: str = "\n",
        out: str | os.PathLike[str] | tuple[str, str],
        keep_local: bool = False,
        compression: str | None = None,
        hashes: Sequence[str] | str | None = None,
        size_limit: int | str | None = DEFAULT_LIMIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            columns=columns,
            newline=newline,
            out=out,
            keep_local=keep_local,
            compression=compression,
            hashes=hashes,
            size_limit=size_limit,
            options=kwargs,
        )

    def encode_sample(self, sample: Mapping[str, Any]) -> bytes:
        """A line of JSON.

        Args:
            sample: A value for each column, by name.
        """
        found = {name: self._value(sample, name) for name in self.columns}
        return (json.dumps(found, sort_keys=True) + self.newline).encode()

    def get_config(self) -> dict[str, Any]:
        """What the index has of every shard."""
        return {**super().get_config(), "columns": self.columns, "newline": self.newline}


class XSVWriter(SplitWriter):
    """Writes a line of separated values for each sample, without quotes: values contain no separator or newline.

    Args:
        columns: The type of each column, by name: `"str"`, `"int"` or `"float"`.
        separator: What stands between two values.
        newline: What ends a line.
        out: A directory, a URL, or a pair of a local directory and a URL or another directory.
        keep_local: Whether the local directory stays, if there is a remote one.
        compression: None, or a codec with an optional level, such as `"zstd:7"`.
        hashes: The names of the hashes of each file, sorted; or one name.
        size_limit: The most bytes of the lines of a data file; None: one shard for all samples.
        kwargs: As those of MDSWriter.
    """

    format = "xsv"

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        separator: str,
        newline: str = "\n",
        out: str | os.PathLike[str] | tuple[str, str],
        keep_local: bool = False,
        compression: str | None = None,
        hashes: Sequence[str] | str | None = None,
        size_limit: int | str | None = DEFAULT_LIMIT,
        **kwargs: Any,
    ) -> None:
        self.separator = separator
        self.column_names = sorted(columns)
        self.column_encodings = [columns[name] for name in self.column_names]
        self.newline = newline
        for name in self.column_names:
            self._plain(name, f"the name of column {name!r}")
        super().__init__(
            columns=columns,
            newline=newline,
            out=out,
            keep_local=keep_local,
            compression=compression,
            hashes=hashes,
            size_limit=size_limit,
            options=kwargs,
        )

    def encode_sample(self, sample: Mapping[str, Any]) -> bytes:
        """A line of separated values.

        Args:
            sample: A value for each column, by name.
        """
        values = [self._plain(str(self._value(sample, name)), f"column {name!r}") for name in self.column_names]
        return (self.separator.join(values) + self.newline).encode()

    def _plain(self, text: str, subject: str) -> str:
        """The text; an AssertionError, as Streaming raises, if it contains what separates values."""
        if self.separator in text or self.newline in text:
            raise AssertionError(f"{subject}: expected no separator or newline, got {shown(text)}")
        return text

    @property
    def _header(self) -> bytes:
        return (self.separator.join(self.column_names) + self.newline).encode()

    def get_config(self) -> dict[str, Any]:
        """What the index has of every shard."""
        names = {"column_names": self.column_names, "column_encodings": self.column_encodings, "newline": self.newline}
        return {**super().get_config(), **names, **({} if self.format in SEPARATORS else {"separator": self.separator})}


class CSVWriter(XSVWriter):
    """Writes values separated by commas. The arguments are those of XSVWriter, without `separator`."""

    format = "csv"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(separator=SEPARATORS[self.format], **kwargs)


class TSVWriter(CSVWriter):
    """Writes values separated by tabs. The arguments are those of XSVWriter, without `separator`."""

    format = "tsv"
