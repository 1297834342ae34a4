"""How are several datasets combined into one: concatenated (concat), or mixed by weights (mix)?"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np

from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetNotFoundError, SchemaError, SettingError, one_of, real_number, shown, whole_number
from mx8shards.shards.compare_metadata import classes_difference
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Join, Mix, View

OnExhausted = Literal["error", "cycle", "allow"]
ON_EXHAUSTED = get_args(OnExhausted)

_MOST = 1 << 40  # the most positions of a mix: each dataset's number of positions is then exact as a float


def concat(datasets: Iterable[Dataset]) -> Dataset:
    """Concatenate several datasets: one dataset that is a view of all their samples, without copying any.

    Args:
        datasets: Open datasets with equal columns. If any of them has a list of class names (`metadata["classes"]`),
            all must have the same list in the same order, because otherwise a label would name different classes.
            If they are clips of videos, `clips` must have been called with equal settings on each.

    The metadata are the entries that are equal in all datasets. Each dataset keeps its own `verify` and `cache_dir`.
    """
    return _concatenated("concat", _listed("concat", datasets))


def _concatenated(caller: str, datasets: Sequence[Dataset]) -> Dataset:
    first, *others = [other for other in datasets if other.shards.count] or datasets[:1]  # no shards, no columns
    for other in others:
        if other.columns != first.columns or other.picked(None) != first.picked(None):
            raise SchemaError(subject=caller, expected=f"the columns {first.columns}", found=f"{other.columns}")
        _require_equal_classes(caller, first, other)
    starts = itertools.accumulate((other.shards.samples for other in datasets), initial=0)
    view = Join([(other.view, start) for other, start in zip(datasets, starts, strict=False)])
    _require_equal_clips(caller, view, datasets)
    return first._derived(view, Shards.joined([other.shards for other in datasets]))


def _require_equal_clips(caller: str, view: Join, datasets: Sequence[Dataset]) -> None:
    """SettingError if some datasets are clips of videos and others are not, or are other clips."""
    if view.videos is None and any(dataset.view.videos is not None for dataset in datasets if len(dataset)):
        expected = "clips with equal settings in all datasets, or whole samples in all"
        found = _differences([_clip_settings(dataset.view) for dataset in datasets if len(dataset)])
        raise SettingError(subject=caller, expected=expected, found=found, hint="call clips alike on each dataset")


def _clip_settings(view: View) -> dict[str, object]:
    """The settings of clips by name; none for whole samples."""
    if view.videos is None:
        return {}
    return {"columns": list(view.videos.names), **{str(name): value for name, value in view.videos.times.settings()}}


def _differences(settings: Sequence[dict[str, object]]) -> str:
    """The settings in which the first clips differ from others, as `name=value and value`."""
    first = settings[0]
    other = next((each for each in settings if each != first), first)
    if not first or not other:
        return "clips and whole samples"
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    found = [f"{name}={first.get(name)!r} and {other.get(name)!r}" for name in names]
    return ", ".join(found) or "packet indices in different columns"


def mix(
    datasets: Iterable[Dataset],
    *,
    weights: Sequence[float],
    on_exhausted: OnExhausted = "error",
    length: int | None = None,
) -> Dataset:
    """Mix several datasets by weights: one dataset that is a view of them, without copying any samples.

    In every epoch, each dataset gets a number of positions in proportion to its weight. If it has more samples, the
    next epoch continues with the others, so that over the epochs all are used equally often. The positions of one
    dataset are adjacent in the view; use `shuffle=True` to mix them. `dataset[i]`, `column` and iteration return the
    samples of epoch 0 and seed 0. The limit of shards of `BlockShuffle` holds for epoch 0 only, unless each dataset's
    number of positions is a multiple of its samples.

    Args:
        datasets: Open datasets, under the conditions of `concat`.
        weights: A number above 0 for each dataset, in proportion to which its samples occur.
        on_exhausted: What happens if a dataset has fewer samples than its part of an epoch. `"error"`: an error.
            `"cycle"`: its samples repeat within the epoch, and random draws differ between repeats. `"allow"`: the
            other datasets share the rest of its part by their weights.
        length: The number of positions of the view, which is the length of an epoch. None: for `"error"`, it ends where
            the first dataset has no more samples; for `"cycle"`, where each has been read as a whole; for `"allow"`,
            each sample is read once.
    """
    datasets = _listed("mix", datasets)
    weights = _checked(weights, len(datasets))
    one_of("on_exhausted", on_exhausted, ON_EXHAUSTED)
    sizes = [len(dataset) for dataset in datasets]
    if 0 in sizes:
        found = f"none in datasets[{sizes.index(0)}]"
        raise SettingError(subject="datasets", expected="samples in each dataset", found=found)
    joined = _concatenated("mix", datasets)
    if length is None:
        length = _default_length(sizes, weights, on_exhausted)
    counts = _counts(whole_number("length", length, 0, _MOST), sizes, weights, on_exhausted)
    return joined._derived(Mix(joined.view, sizes, counts))


def _checked(weights: Any, count: int) -> list[float]:
    """The weights as a list: one number above 0 for each dataset."""
    found = list(weights) if isinstance(weights, Iterable) else []
    if len(found) != count:
        expected = f"a number for each of {count} datasets"
        raise SettingError(subject="weights", expected=expected, found=shown(weights))
    for weight in found:
        real_number("weights", weight, "finite numbers above 0", lambda number: 0 < number < math.inf)
    return found


def _default_length(sizes: Sequence[int], weights: Sequence[float], on_exhausted: OnExhausted) -> int:
    """The length of an epoch if none is given."""
    if on_exhausted == "allow":
        return sum(sizes)
    total = sum(map(Fraction, weights))
    lengths = [size * total / Fraction(weight) for size, weight in zip(sizes, weights, strict=True)]
    if on_exhausted == "cycle":
        return math.ceil(max(lengths))
    return min(math.floor(min(lengths)), _MOST)


def _counts(length: int, sizes: Sequence[int], weights: Sequence[float], on_exhausted: OnExhausted) -> list[int]:
    """The number of positions of each dataset; SettingError if there are too few samples for them."""
    counts = parts_of(length, weights)
    short = [i for i, size in enumerate(sizes) if counts[i] > size]
    if not short or on_exhausted == "cycle":
        return counts
    if on_exhausted == "allow":
        return _filled(length, sizes, weights)
    most = _default_length(sizes, weights, "error")
    expected = f"at most {most}, so that no dataset runs out of samples"
    found = f"{length}, for which datasets[{short[0]}] needs {counts[short[0]]} samples, and has {sizes[short[0]]}"
    hint = 'on_exhausted="cycle" repeats its samples, "allow" takes more of the others'
    raise SettingError(subject="length", expected=expected, found=found, hint=hint)


def _filled(length: int, sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Divide the length by weights. A dataset gets at most all its samples; the others share the rest of its part."""
    if length > sum(sizes):
        raise SettingError(subject="length", expected=f"at most {sum(sizes)}, all samples", found=f"{length}")
    counts = [0] * len(sizes)
    while left := length - sum(counts):
        going = [i for i, size in enumerate(sizes) if counts[i] < size]
        for i, part in zip(going, parts_of(left, [weights[i] for i in going]), strict=True):
            counts[i] = min(counts[i] + part, sizes[i])
    return counts


def parts_of(length: int, weights: Sequence[float]) -> list[int]:
    """Divide a length in proportion to weights, by the largest remainder method; ties go to the first."""
    exact = np.array(weights, np.float64) / math.fsum(weights) * length
    counts = np.floor(exact).astype(np.int64)
    left = length - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    found: list[int] = counts.tolist()
    return found


def _listed(caller: str, datasets: Any) -> list[Dataset]:
    """The datasets given to `concat` or `mix` as a list; an error for anything else."""
    one = isinstance(datasets, Dataset | str | bytes | os.PathLike) or not isinstance(datasets, Iterable)
    found = [datasets] if one else list(datasets)
    wrong = [item for item in found if not isinstance(item, Dataset)]
    if one or wrong:
        hint = f"{caller}([mx8shards.Dataset(a), mx8shards.Dataset(b)])"
        given = repr((wrong or found)[0])[:80]
        raise SettingError(subject=caller, expected="a list of open datasets", found=given, hint=hint)
    if not found:
        raise DatasetNotFoundError(f"{caller}: expected at least one dataset, got none")
    return found


def _require_equal_classes(caller: str, first: Dataset, other: Dataset) -> None:
    """SchemaError if the class lists differ, so that a label would name different classes."""
    ours, theirs = first.metadata.get("classes"), other.metadata.get("classes")
    if ours != theirs:
        mine, its = first.shards.snapshots[0].root, other.shards.snapshots[0].root
        raise SchemaError(
            subject=caller,
            place="metadata 'classes'",
            expected=f"the classes of {mine}",
            found=f"others in {its}: {classes_difference(ours, theirs)}",
            hint="convert one of them again with `mx8shards convert … --classes FILE`, where FILE lists the classes of "
            "both; mx8shards.Writer(path, mode='append', metadata={'classes': […]}) adds a missing list",
        )
