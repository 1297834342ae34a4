"""The Dataset class: how are samples, payloads and columns of a dataset read, and views of it made?"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from mx8shards.clips.anchor_times import anchors_of
from mx8shards.clips.clip_facts import clip_view, video_columns
from mx8shards.clips.clip_settings import clip_times
from mx8shards.clips.packet_columns import clip_bounds
from mx8shards.errors import FormatError, SchemaError, SettingError, finite_seconds, one_of, true_or_false, visible
from mx8shards.format.clip_times import Clock, Short
from mx8shards.format.columns import Columns
from mx8shards.format.sizes import size_setting
from mx8shards.shards import links, snapshots
from mx8shards.shards.column_values import RaggedColumn, equal_payloads, equal_values, only_payload, stacked_column
from mx8shards.shards.compare_metadata import shared_metadata
from mx8shards.shards.open_shard import VERIFY, Shards, Verify
from mx8shards.shards.shard import Shard
from mx8shards.views import Select, View, Whole, checked_positions

Sample = dict[str, Any]

_RUN = 1 << 20  # positions that `column` and `where` resolve at a time
_ITERATION_RUN = 1 << 10  # positions that iteration resolves at a time: fewer, for a quick first sample


class Dataset:
    """One snapshot of a dataset, opened for reading: a sequence of samples.

    Args:
        link: The directory of a dataset, as a path, or its URL: `s3://bucket/train`. `~` is the home directory.
            `path@sha256:9f2c…` opens an earlier snapshot by its id, or by the beginning of the id, at least eight
            digits. `s3://bucket/train` opens the snapshot that was opened last, if the local copy has one, and
            `s3://bucket/train@refresh` asks for the current one.
        columns: The names of the columns to read. Others are neither read nor decoded. None: all columns.
        verify: `"structure"` checks the size and offsets of each shard when it is first opened; `"shard"` also checks
            the hash of the whole shard.
        cache_dir: The directory for unpacked copies of compressed shards. None: below the dataset or, if that is not
            writable, below `$XDG_CACHE_HOME/mx8shards`.
        allow_pickle: Also read columns with the encoding `pkl`. Decoding them runs code that the dataset contains.
        local: For a URL, the directory for the local copies of shards, which many jobs may share. None: below
            `$MX8SHARDS_CACHE` or, without it, below `$XDG_CACHE_HOME/mx8shards`.
        cache_limit: For a URL, the most bytes of shards to keep there, as a number or as `"500gb"`. Those that are
            needed last are removed. None: all are kept.
        keep_zip: For a URL, keep compressed shards as they are, and unpack them into `cache_dir` or, with a
            `cache_limit`, within that limit. False: they are unpacked when they arrive.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.

    `dataset[i]` is a dict of Python values by column name, `dataset[2:5]` and `dataset[[4, 1]]` are lists of them.
    Opening a dataset reads its index only; shards are opened when they are first needed. Samples are read, not mapped,
    so that a truncated file raises an error; only `payload` and `column` access mapped memory.
    """

    def __init__(
        self,
        link: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        verify: Verify = "structure",
        cache_dir: str | os.PathLike[str] | None = None,
        allow_pickle: bool = False,
        local: str | os.PathLike[str] | None = None,
        cache_limit: int | str | None = None,
        keep_zip: bool = False,
        deadline_s: float = 300.0,
    ) -> None:
        one_of("verify", verify, VERIFY)
        true_or_false("allow_pickle", allow_pickle)
        true_or_false("keep_zip", keep_zip)
        deadline_s = finite_seconds("deadline_s", deadline_s)
        limit = None if cache_limit is None else size_setting("cache_limit", cache_limit)
        where = links.parse_any(link)
        cache = None if cache_dir is None else links.directory("cache_dir", cache_dir)
        if isinstance(where, links.RemoteLink):
            from mx8shards.remote.mirror import open_mirror  # only for URLs

            opened = open_mirror(
                where,
                local=local,
                cache_limit=limit,
                keep_zip=keep_zip,
                verify=verify,
                cache_dir=cache,
                deadline_s=deadline_s,
            )
            shards = Shards.of((opened,))
        else:
            links.refuse_settings_of_urls(where, local=local, cache_limit=limit, keep_zip=keep_zip or None)
            shards = Shards([snapshots.load(where)], verify=verify, cache_dir=cache)
        self._open(shards, columns, allow_pickle)

    @classmethod
    def _of(cls, shards: Shards, columns: Sequence[str] | None, *, allow_pickle: bool) -> Self:
        """A dataset of shards that are open already."""
        found = object.__new__(cls)
        found._open(shards, columns, allow_pickle)
        return found

    def _open(self, shards: Shards, columns: Sequence[str] | None, allow_pickle: bool) -> None:
        self._shards: Shards | None = shards
        self._set_view(Whole(shards.samples))
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

    def _set_view(self, view: View) -> None:
        self._view = view
        self._count = len(view)  # cached, because every dataset[i] needs it
        self._is_whole = type(view) is Whole
        self._videos = view.videos

    def _make_decoders(self) -> list[Callable[[Any], Any]]:
        return [coder.decode for coder in self._columns.coders]

    # properties -------------------------------------------------------------------------------------------------

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
        """The id of the open snapshot; for concatenated or mixed datasets, their ids joined by `+`."""
        return "+".join(snapshot.id for snapshot in self.shards.snapshots)

    @property
    def sealed(self) -> bool:
        """Whether the index has a content hash of every shard."""
        return all(snapshot.index.sealed for snapshot in self.shards.snapshots)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata given to the Writer; for concatenated or mixed datasets, the keys with equal values in all."""
        return shared_metadata([snapshot.index for snapshot in self.shards.snapshots])

    @property
    def shards(self) -> Shards:
        """The shards that the dataset reads, for loaders; ValueError if it is closed."""
        if self._shards is None:
            raise ValueError("the dataset is closed")
        return self._shards

    @property
    def view(self) -> View:
        """The mapping from positions to sample_ids, for loaders."""
        return self._view

    def picked(self, columns: Sequence[str] | None) -> Columns:
        """The selected columns, or all columns that this dataset reads, for loaders."""
        return self._columns if columns is None else self._columns.pick(columns)

    # samples ----------------------------------------------------------------------------------------------------

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | npt.NDArray[Any]) -> list[Sample]: ...
    def __getitem__(self, key: Any) -> Any:
        if type(key) is int:
            return self._sample(self._sample_id(key)) if self._videos is None else self._clip(key)
        if isinstance(key, slice):
            return list(self._samples(range(*key.indices(len(self)))))
        if hasattr(key, "__index__") and getattr(key, "ndim", 0) == 0:
            return self[operator.index(key)]
        if isinstance(key, str):
            one = f"{key!r}: expected a position"
            raise TypeError(f"{one}; dataset.column({key!r}) is a column, dataset[i][{key!r}] one value of it")
        return list(self._samples_at(checked_positions(key, len(self))))

    def __iter__(self) -> Iterator[Sample]:
        return self._samples(range(len(self)))

    def _samples(self, positions: range) -> Iterator[Sample]:
        for start in range(0, len(positions), _ITERATION_RUN):
            run = positions[start : start + _ITERATION_RUN]
            yield from self._samples_at(np.arange(run.start, run.stop, run.step))

    def _samples_at(self, positions: npt.NDArray[np.int64]) -> Iterator[Sample]:
        if self._videos is not None:
            return map(self._clip, positions.tolist())
        return map(self._sample, self._view.resolve(positions)[0].tolist())

    def _clip(self, position: int) -> Sample:
        """The sample of a clip, with its bounds."""
        sample_ids, extras = self._view.resolve(checked_positions([position], self._count))
        return {**self._sample(int(sample_ids[0])), **clip_bounds(self.shards, self._videos, sample_ids, extras)}

    def _sample(self, sample_id: int) -> Sample:
        i, row = (self._shards or self.shards).locate(sample_id)
        shard, wanted = self._readers.get(i) or self._reader(i)
        payloads = shard.payloads(row, wanted)
        try:
            return dict(zip(self._columns.names, map(operator.call, self._decoders, payloads), strict=True))
        except FormatError:
            self._raise_for_column(shard.name, row, payloads)
            raise

    def _raise_for_column(self, name: str, row: int, payloads: Sequence[Any]) -> None:
        """Decode the payloads again one by one, and raise the error with the name of its column."""
        for column, decode, payload in zip(self._columns.names, self._decoders, payloads, strict=True):
            try:
                decode(payload)
            except FormatError as error:
                raise error.at(
                    subject=name, place=f"sample {row} of this shard, column {column!r}"
                ) from error.__cause__

    def _reader(self, i: int) -> tuple[Shard, list[int]]:
        """An open shard and the numbers of the wanted columns in it, as a shard may have further columns."""
        shard = self.shards.open_shard(i)
        self._readers[i] = shard, [shard.columns.names.index(name) for name in self._columns.names]
        return self._readers[i]

    def _sample_id(self, position: int) -> int:
        """The sample_id at one position, which may be negative. Without a selection it is the position itself."""
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
            position: The position of the sample; negative ones count from the end.
            column: The name of the column.

        The view stays valid after `close`. If the shard's file is truncated in place, accessing the view kills the
        process with SIGBUS, which no reader of mapped memory can prevent. `dataset[i]` raises an error instead.
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

        Returns an array if all values have one dtype and shape, and otherwise a sequence that decodes each value on
        access.
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
        other._columns, other._readers = self._columns.pick([name]), {}
        other._decoders = other._make_decoders()
        other._videos = None  # values do not need the bounds of clips
        return other

    # views ------------------------------------------------------------------------------------------------------

    def select(self, positions: Sequence[int] | npt.NDArray[Any]) -> Dataset:
        """Select samples by position, in any order and with repeats: a view over the same shards.

        A Loader's random draws for a sample (crops, flips, transforms) depend on seed, epoch, sample_id and occurrence,
        which is 0 for the first selection of a sample, 1 for the next, and so on: repeats get different draws.

        Args:
            positions: Positions in this dataset, which may itself be a view; negative ones count from the end. For a
                boolean mask, pass `numpy.flatnonzero(mask)`.
        """
        return self._derived(Select(self._view, positions))

    def where(self, column: str, value: Any) -> Dataset:
        """Select the samples whose column equals a value: a view over the same shards. Reads no other column.

        Args:
            column: The name of the column.
            value: The value to compare with: a number, text, bytes, or any value that the column's encoding decodes to.
        """
        if self._view.varies_by_epoch:
            hint = "call where on each dataset before mixing them"
            expected = "a view that has the same samples in every epoch"
            raise SettingError(subject="where", expected=expected, found="a mix", hint=hint)
        payload = only_payload(column, self._columns.pick([column]).coders[0].name, value)
        if payload is None:
            return self.select(equal_values(self.column(column), column, value))
        return self.select(equal_payloads(self.shards, column, payload, self._sample_ids()))

    def clips(
        self,
        column: str | Sequence[str],
        *,
        frames: int | None = None,
        stride: int | None = None,
        every: int | None = None,
        fps: float | Fraction | None = None,
        at: Sequence[float] | None = None,
        anchors: str | None = None,
        random: int | None = None,
        short: Short = "drop",
        clock: Clock = "first",
    ) -> Dataset:
        """Make every clip of a column of videos a sample: a view over the same shards. A Loader decodes it: `mx8.Clip`.

        `view[i]` has the undecoded video and the bounds of the clip: `video.frames`, `video.mask`, `video.start` and
        `video.end`, which `Clip` explains. In a batch, `extras["clip"]` is the number of the clip in its video: with
        `anchors`, the index of the anchor.

        Args:
            column: The column of videos, or several, such as cameras, with the frames shown at the times of the first.
            frames: The number of frames of a clip.
            stride: A clip has every `stride`-th frame. None: every frame.
            every: The number of frames (with `fps`, of moments) between the starts of two clips. None: `span`, which is
                `(frames - 1) * stride + 1`. A video has `1 + (length - span) // every` clips.
            fps: Instead of `stride`: a clip has the frames shown at the moments 0, 1/fps, 2/fps, … of the video.
            at: Instead of all of these: the frames shown at these seconds before (negative) or after each anchor.
            anchors: The column with the anchors: a number of seconds from the first frame of the video (see `clock`),
                or several, each for one clip: an array, or a list (also an empty one) in a column of `json`.
            random: Instead of `every`: each video has this many clips per epoch, whose starts depend on seed, epoch,
                sample and the number of the clip.
            short: `"drop"`, `"loop"`, or `"pad"` (with its last frame) a video that is shorter than a clip.
            clock: Where anchors, and times that several columns have in common, count from: `"first"`, the first frame
                of each video, or `"container"`, time 0 of its container, for cameras that begin at different times.
        """
        times = clip_times(frames, stride, every, fps, at, anchors, random, short, clock)
        videos = video_columns(self.shards, self._view, self.metadata, self._columns.names, column, times)
        starts = None if anchors is None else anchors_of(anchors, self.column(anchors), clock)
        return self._derived(clip_view(self.shards, self._view, self.metadata, videos, starts))

    def _derived(self, view: View, shards: Shards | None = None) -> Dataset:
        """A dataset with another view, over the same shards or over others with equal columns."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._set_view(view)
        if shards is not None:
            other._shards, other._readers = shards, {}
        return other

    # closing and pickling ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the dataset. Arrays and memoryviews that it returned stay valid. Fetches from a store are ended."""
        if self._shards is not None:
            for each in self._shards.opened:
                each.provider.close()
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
