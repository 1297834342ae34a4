"""What does a user get who opens a dataset?"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError, SchemaError, SettingError, one_of, true_or_false, visible
from mx8shards.format.columns import Columns
from mx8shards.shards import links, snapshots
from mx8shards.shards.agreement import shared_metadata
from mx8shards.shards.column_values import RaggedColumn, equal_payloads, equal_values, only_payload, stacked_column
from mx8shards.shards.open_shard import VERIFY, Shards, Verify
from mx8shards.shards.shard import Shard
from mx8shards.views import Select, View, Whole, checked_positions

Sample = dict[str, Any]

_RUN = 1 << 20  # positions that are resolved at a time
_ITERATED = 1 << 10  # the same, where each of them is read before the next one is wanted


class Dataset:
    """One snapshot of a dataset, opened for reading: a sequence of samples.

    Args:
        link: The directory of a dataset, as a path. `~` is the home directory. `path@sha256:9f2c…` opens an earlier
            snapshot by its id, or by the first eight digits of it or more.
        columns: The names of the columns to read. Others are neither read nor decoded. None: all columns.
        verify: `"structure"` checks sizes and offsets of each shard when it is first touched; `"shard"` checks the hash
            of the whole shard as well.
        cache_dir: The directory for unpacked copies of compressed shards. None: below the dataset, or, where that
            cannot be written, below `$XDG_CACHE_HOME/mx8shards`.
        allow_pickle: Also read columns of the encoding `pkl`. Decoding them runs code that the dataset contains.

    `dataset[i]` is a dict of Python values by column name, `dataset[2:5]` and `dataset[[4, 1]]` are lists of them.
    Opening reads the index and touches no shard. Samples are read, not mapped, so a file that someone cuts short is an
    error; only `payload` and the arrays of `column` view mapped memory.
    """

    def __init__(
        self,
        link: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        verify: Verify = "structure",
        cache_dir: str | os.PathLike[str] | None = None,
        allow_pickle: bool = False,
    ) -> None:
        one_of("verify", verify, VERIFY)
        true_or_false("allow_pickle", allow_pickle)
        snapshot = snapshots.load(links.parse_link(link))
        cache = None if cache_dir is None else links.absolute(os.fsdecode(cache_dir))
        self._open(Shards([snapshot], verify=verify, cache_dir=cache), columns, allow_pickle)

    def _open(self, shards: Shards, columns: Sequence[str] | None, allow_pickle: bool) -> None:
        self._shards: Shards | None = shards
        self._see(Whole(shards.samples))
        self._columns = shards.columns(columns)
        for name, coder in zip(self._columns.names, self._columns.coders, strict=True):
            if coder.unsafe and not allow_pickle:
                raise SchemaError(
                    f"encoding {coder.name!r} runs code when it is read",
                    subject=f"{shards.snapshots[0].root}: column {name!r}",
                    hint="allow_pickle=True accepts that, columns=[…] leaves it out",
                )
        self._decoders = self._make_decoders()
        self._readers: dict[int, tuple[Shard, list[int]]] = {}

    def _see(self, view: View) -> None:
        self._view = view
        self._count = len(view)  # what each dataset[i] asks
        self._is_whole = type(view) is Whole

    def _make_decoders(self) -> list[Callable[[Any], Any]]:
        return [coder.decode for coder in self._columns.coders]

    # what it is -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        if self._shards is None:
            return "<Dataset, closed>"
        roots = ", ".join(f"{snapshot.root}@{snapshot.id[:15]}…" for snapshot in self.shards.snapshots)
        return visible(f"<Dataset {roots}: {len(self)} samples of {', '.join(self._columns.names) or 'no columns'}>")

    @property
    def columns(self) -> dict[str, str]:
        """The encoding of each column, by name."""
        return dict(zip(self._columns.names, self._columns.encodings, strict=True))

    @property
    def snapshot(self) -> str:
        """The id of the snapshot that is open; of several joined datasets, their ids joined by `+`."""
        return "+".join(snapshot.id for snapshot in self.shards.snapshots)

    @property
    def sealed(self) -> bool:
        """Whether a content hash of every shard stands in the index."""
        return all(snapshot.index.sealed for snapshot in self.shards.snapshots)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that the Writer was given; of joined datasets, the keys that have equal values in all."""
        return shared_metadata([snapshot.index for snapshot in self.shards.snapshots])

    @property
    def shards(self) -> Shards:
        """The shards it reads, for loaders; ValueError once it is closed."""
        if self._shards is None:
            raise ValueError("the dataset is closed")
        return self._shards

    @property
    def view(self) -> View:
        """Which sample stands at which position, for loaders."""
        return self._view

    def picked(self, columns: Sequence[str] | None) -> Columns:
        """These columns, or all that it has, for loaders."""
        return self._columns if columns is None else self._columns.pick(columns)

    # samples ----------------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | npt.NDArray[Any]) -> list[Sample]: ...
    def __getitem__(self, key: Any) -> Any:
        if type(key) is int:
            return self._sample(self._sample_id(key))
        if isinstance(key, slice):
            return list(self._samples(range(*key.indices(len(self)))))
        if hasattr(key, "__index__") and getattr(key, "ndim", 0) == 0:
            return self._sample(self._sample_id(operator.index(key)))
        if isinstance(key, str):
            one = f"{key!r}: expected a position"
            raise TypeError(f"{one}; dataset.column({key!r}) is a column, dataset[i][{key!r}] one value of it")
        return list(map(self._sample, self._view.resolve(checked_positions(key, len(self)))[0].tolist()))

    def __iter__(self) -> Iterator[Sample]:
        return self._samples(range(len(self)))

    def _samples(self, positions: range) -> Iterator[Sample]:
        for start in range(0, len(positions), _ITERATED):
            run = positions[start : start + _ITERATED]
            sample_ids, _ = self._view.resolve(np.arange(run.start, run.stop, run.step))
            yield from map(self._sample, sample_ids.tolist())

    def _sample(self, sample_id: int) -> Sample:
        i, row = (self._shards or self.shards).locate(sample_id)
        shard, wanted = self._readers.get(i) or self._reader(i)
        payloads = shard.payloads(row, wanted)
        try:
            return dict(zip(self._columns.names, map(operator.call, self._decoders, payloads), strict=True))
        except FormatError:
            self._blame(shard.name, row, payloads)
            raise

    def _blame(self, name: str, row: int, payloads: Sequence[Any]) -> None:
        """Decode again, one by one, to name the column that could not be decoded."""
        for column, decode, payload in zip(self._columns.names, self._decoders, payloads, strict=True):
            try:
                decode(payload)
            except FormatError as error:
                raise error.at(subject=name, place=f"sample {row}, column {column!r}") from error.__cause__

    def _reader(self, i: int) -> tuple[Shard, list[int]]:
        """An open shard, and which of its columns are asked for: shards of one dataset may have others beside them."""
        shard = self.shards.open_shard(i)
        self._readers[i] = shard, [shard.columns.names.index(name) for name in self._columns.names]
        return self._readers[i]

    def _sample_id(self, position: int) -> int:
        """What stands at one position, which may be negative. In all samples it is the position itself."""
        count = self._count
        if not -count <= position < count:
            raise IndexError(f"position {position} of {count} samples")
        position = position if position >= 0 else position + count
        if self._is_whole:
            return position
        sample_id: int = self._view.resolve(np.array((position,)))[0].item()
        return sample_id

    def payload(self, position: int, column: str) -> memoryview:
        """The stored bytes of one value, as a read-only view of the mapped shard, without a copy.

        Args:
            position: Which sample; negative ones count from the end.
            column: The name of the column.

        The view stays valid after `close`. Should somebody cut the shard's file short in place, touching the view ends
        the process by SIGBUS: no reader of mapped memory can prevent that. `dataset[i]` raises an error instead.
        """
        i, row = self.shards.locate(self._sample_id(operator.index(position)))
        shard, wanted = self._readers.get(i) or self._reader(i)
        try:
            number = wanted[self._columns.names.index(column)]
        except ValueError:
            raise self._columns.unknown(column) from None
        return shard.mapped_payload(row, number)

    def column(self, name: str) -> npt.NDArray[Any] | RaggedColumn:
        """One column of all samples.

        Args:
            name: The name of the column.

        Returns an array if all values have one dtype and shape, and otherwise a sequence that decodes a value when it
        is asked for.
        """
        coder = self._columns.pick([name]).coders[0]
        if coder.dtype is None or coder.shape is None:
            return RaggedColumn(self._only(name), name)
        return stacked_column(self.shards, name, np.dtype(coder.dtype), coder.shape, self._sample_ids())

    def _sample_ids(self) -> Iterator[npt.NDArray[np.int64]]:
        """The sample_id of every position, in runs."""
        for start in range(0, len(self), _RUN):
            yield self._view.resolve(np.arange(start, min(start + _RUN, len(self)), dtype=np.int64))[0]

    def _only(self, name: str) -> Dataset:
        other = self._derived(self._view)
        other._columns = self._columns.pick([name])
        other._decoders = other._make_decoders()
        other._readers = {}
        return other

    # views ------------------------------------------------------------------------------------------------------

    def select(self, positions: Sequence[int] | npt.NDArray[Any]) -> Dataset:
        """The samples at these positions, in this order, repeats included: a view over the same shards.

        What a Loader draws at random for a sample (crops, flips, transforms) follows from seed, epoch, sample_id and
        occurrence: 0 where a sample is selected first, 1 where it is selected again. So repeats look different.

        Args:
            positions: Positions in this dataset, which may be a view itself; negative ones count from the end. For a
                mask of bools, give `numpy.flatnonzero(mask)`.
        """
        return self._derived(Select(self._view, positions))

    def where(self, column: str, value: Any) -> Dataset:
        """The samples whose column equals a value: a view over the same shards, found without reading other columns.

        Args:
            column: The name of the column.
            value: What to compare with: a number, a text, bytes, or whatever the column's encoding gives.
        """
        if self._view.moves:
            hint = "where on each dataset before they are mixed"
            expected = "a view that has the same samples in every epoch"
            raise SettingError(subject="where", expected=expected, found="a mix", hint=hint)
        payload = only_payload(self._columns.pick([column]).coders[0].name, value)
        if payload is None:
            return self.select(equal_values(self.column(column), column, value))
        return self.select(equal_payloads(self.shards, column, payload, self._sample_ids()))

    def _derived(self, view: View, shards: Shards | None = None) -> Dataset:
        """Another view over the same shards, or over others with the same columns."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._see(view)
        if shards is not None:
            other._shards, other._readers = shards, {}
        return other

    # life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the shards. Arrays and views that were handed out stay valid."""
        self._shards = None
        self._readers = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_decoders": None, "_readers": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._decoders = self._make_decoders()
