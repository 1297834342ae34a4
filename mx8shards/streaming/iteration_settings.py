"""Which settings of a StreamingDataset are allowed, and which do others follow from?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mx8shards.errors import SettingError, one_of, shown, whole_number
from mx8shards.streaming.abbreviated_numbers import bytes_to_int, number_abbrev_to_int
from mx8shards.streaming.stream import Stream

if TYPE_CHECKING:
    from mx8shards.streaming.stream_opening import Samples

SAMPLING_METHODS = ("balanced", "fixed")
BATCHING_METHODS = ("random", "stratified", "per_stream", "device_per_stream")
_AHEAD_BATCHES = 8
_AHEAD = 64


def check_methods(sampling_method: str, sampling_granularity: int, batching_method: str, shuffle_seed: Any) -> None:
    """SettingError for values that Streaming's constructor refuses, too. Others are found when an epoch is planned."""
    one_of("sampling_method", sampling_method, SAMPLING_METHODS)
    one_of("batching_method", batching_method, BATCHING_METHODS)
    whole_number("sampling_granularity", sampling_granularity, 1)
    if not isinstance(shuffle_seed, int | np.integer) or not 0 <= shuffle_seed < 1 << 63:  # a state holds no larger one
        raise SettingError(subject="shuffle_seed", expected="an int from 0, below 2**63", found=shown(shuffle_seed))


def listed(streams: Any) -> list[Stream]:
    """The given streams as a list; SettingError for settings of streams that were not made Streams yet, as in YAML."""
    is_one = isinstance(streams, (Stream, str, Mapping))
    wrong = [streams] if is_one else [each for each in streams if not isinstance(each, Stream)]
    if wrong:
        hint = "Stream(**settings) makes one from a dict"
        found = f"a {type(wrong[0]).__name__}" + ("" if is_one else " in it")
        raise SettingError(subject="streams", expected="a list of Streams", found=found, hint=hint)
    return list(streams)


def samples_ahead(predownload: int | None, batch_size: int | None) -> int:
    """For how many samples to fetch shards ahead."""
    if predownload is None:
        return _AHEAD if batch_size is None else _AHEAD_BATCHES * batch_size
    if batch_size is not None and predownload < batch_size:
        message = f"predownload < batch_size ({predownload} < {batch_size}): batches may have to wait for shards"
        warnings.warn(message, stacklevel=3)
    return predownload


def samples_per_epoch(epoch_size: int | str | None) -> int | None:
    """The number of samples of an epoch, if it was given."""
    if not epoch_size:
        return None
    found = number_abbrev_to_int(epoch_size)
    if found < 0:
        raise SettingError(subject="epoch_size", expected="a number above 0, or None", found=shown(epoch_size))
    return found


def limit_of(cache_limit: int | str | None) -> int | None:
    """The most bytes of shards to keep, if there is a limit."""
    return bytes_to_int(cache_limit) if cache_limit else None


def check_limit(limit: int, streams: Sequence[Stream], samples: Sequence[Samples]) -> None:
    """SettingError for a limit of the cache without room for the indices, or for four shards: as in Streaming."""
    from mx8shards.streaming.split_samples import SplitSamples

    indices = sum(stream.get_index_size() for stream in streams)
    for stream, each in zip(streams, samples, strict=True):
        if stream.source is not None and isinstance(each, SplitSamples):
            expected = "None for remote streams of JSON, CSV, TSV or XSV, whose copies are not limited"
            raise SettingError(subject="cache_limit", expected=expected, found=f"{limit}, for {stream.source}")
    if limit <= indices:
        raise SettingError(subject="cache_limit", expected=f"more than the indices take, {indices}", found=f"{limit}")
    largest = max(each.largest_bytes for each in samples)
    if limit < 4 * largest:
        expected = f"at least {4 * largest} bytes, four times the largest shard ({largest} bytes raw and compressed)"
        raise SettingError(subject="cache_limit", expected=expected, found=f"{limit}")
