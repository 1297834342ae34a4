"""How many samples does each stream contribute to an epoch? (`proportion`, `repeat`, `choose`, `epoch_size`)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SettingError, real_number
from mx8shards.order.permutation import Ids

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamWeight:
    """The weight of one stream: at most one of these; without any, each sample is read once.

    Args:
        proportion: Its part of the epoch, relative to the proportions of the other streams, which all need one.
        repeat: How many times its samples are read; 0.5 reads half of them.
        choose: The number of samples that are read.
    """

    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        if len(given) > 1:
            expected = "at most one of proportion, repeat and choose"
            raise SettingError(subject="stream", expected=expected, found=" and ".join(given))
        for name, value in given.items():
            real_number(name, value, "a number from 0", lambda number: 0 <= number < math.inf)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StreamShares:
    """What each stream contributes to every epoch.

    Args:
        choose: The number of samples per stream.
        proportion: The part of the epoch, per stream.
        repeat: The number of samples divided by the stream's size, per stream.
        epoch_size: The number of samples of all streams.
    """

    choose: Ids
    proportion: Floats
    repeat: Floats
    epoch_size: int


def resolve_streams(
    weights: Sequence[StreamWeight], samples_per_stream: Ids, epoch_size: int | None, seed: int
) -> StreamShares:
    """The shares of the streams. They are resolved once per run, with the seed that the run was started with.

    Args:
        weights: The weight of each stream.
        samples_per_stream: The number of samples of each stream; none is 0.
        epoch_size: The number of samples of an epoch; None or 0 if it follows from the streams. It is allowed if all
            streams have a `proportion`, or none has a weight.
        seed: The `shuffle_seed`, which decides the streams that get the samples left over by rounding.
    """
    sizes = np.asarray(samples_per_stream, np.int64)
    if _are_relative(weights):
        proportions = np.array([weight.proportion for weight in weights], np.float64)
        return _relative(proportions, sizes, epoch_size or int(sizes.sum()), seed)
    if not epoch_size:
        return _absolute(weights, sizes)
    if any(weight != StreamWeight() for weight in weights):
        expected = "None beside streams with repeat or choose, which determine it"
        raise SettingError(subject="epoch_size", expected=expected, found=f"{epoch_size}")
    return _relative(sizes.astype(np.float64), sizes, epoch_size, seed)


def _are_relative(weights: Sequence[StreamWeight]) -> bool:
    """Whether all streams have a proportion. SettingError if only some have."""
    relative = [weight.proportion is not None for weight in weights]
    if any(relative) and not all(relative):
        stream = relative.index(not relative[0])
        expected = "a proportion for all streams or for none"
        found = "none" if relative[0] else f"{weights[stream].proportion}"
        raise SettingError(subject="streams", place=f"stream {stream}", expected=expected, found=found)
    return all(relative)


def _relative(proportions: Floats, sizes: Ids, epoch_size: int, seed: int) -> StreamShares:
    proportion = _normalised(proportions)
    choose = (epoch_size * proportion).astype(np.int64)
    missing = epoch_size - choose.sum()
    choose[np.random.default_rng(seed).choice(len(sizes), missing, replace=False)] += 1
    return StreamShares(choose=choose, proportion=proportion, repeat=choose / sizes, epoch_size=int(epoch_size))


def _absolute(weights: Sequence[StreamWeight], sizes: Ids) -> StreamShares:
    choose = np.array([_chosen(weight, size) for weight, size in zip(weights, sizes.tolist(), strict=True)], np.int64)
    proportion = _normalised(choose.astype(np.float64))
    return StreamShares(choose=choose, proportion=proportion, repeat=choose / sizes, epoch_size=int(choose.sum()))


def _normalised(weights: Floats) -> Floats:
    total = float(weights.sum())
    if not total > 0:
        expected = "a weight above 0, so that an epoch has samples"
        raise SettingError(subject="streams", expected=expected, found="none")
    return weights / total


def _chosen(weight: StreamWeight, size: int) -> int:
    if weight.choose is not None:
        return int(weight.choose)
    return size if weight.repeat is None else int(weight.repeat * size)
