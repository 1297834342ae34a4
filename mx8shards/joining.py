"""How do several datasets become one: one after the other (concat), or mixed by weights (mix)?"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetNotFoundError, SchemaError, SettingError, real_number, shown, whole_number
from mx8shards.shards.agreement import classes_difference
from mx8shards.shards.open_shard import Shards
from mx8shards.views import Join, Mix

_MOST = 1 << 40  # positions of a mix: floats hold every share of them


def concat(datasets: Iterable[Dataset]) -> Dataset:
    """The samples of several datasets, one after the other, as one dataset: a view, for which nothing is copied.

    Args:
        datasets: Open datasets with equal columns. Where one has a list of class names (`metadata["classes"]`), all
            have to have the same list in the same order: label 3 would be another class in each, otherwise.

    The metadata are those that all of them agree on. Each dataset's shards are verified, and unpacked into a cache, as
    that dataset was opened.
    """
    datasets = _listed("concat", datasets)
    first, *others = [other for other in datasets if other.shards.count] or datasets[:1]  # no shards, no columns
    for other in others:
        if other.columns != first.columns or other.picked(None) != first.picked(None):
            raise SchemaError(subject="concat", expected=f"the columns {first.columns}", found=f"{other.columns}")
        _require_equal_classes(first, other)
    starts = itertools.accumulate((other.shards.samples for other in datasets), initial=0)
    view = Join([(other.view, start) for other, start in zip(datasets, starts, strict=False)])
    return first._derived(view, Shards.joined([other.shards for other in datasets]))


def mix(datasets: Iterable[Dataset], *, weights: Sequence[float], length: int) -> Dataset:
    """Several datasets as one, in which each makes up a share of every epoch: a view, for which nothing is copied.

    A dataset with fewer samples than its share repeats them within an epoch, and random draws differ between repeats.
    One with more gives other samples in the next epoch, until all were used equally often. All positions of a dataset
    stand side by side in the view: `shuffle=True` mixes them. `dataset[i]`, `column` and iterating give the samples of
    epoch 0 and seed 0, and the number of shards that `BlockShuffle` keeps to holds for epoch 0, unless each dataset's
    share is a multiple of its samples.

    Args:
        datasets: Open datasets, as `concat` takes them.
        weights: A number above 0 for each: how many samples of it there are, in proportion to the others.
        length: How many positions the view has, which is the length of an epoch.
    """
    datasets = _listed("mix", datasets)
    weights = list(weights)
    if len(weights) != len(datasets):
        expected = f"a number for each of {len(datasets)} datasets"
        raise SettingError(subject="weights", expected=expected, found=shown(weights))
    for weight in weights:
        real_number("weights", weight, "finite numbers above 0", lambda number: 0 < number < math.inf)
    sizes = [len(dataset) for dataset in datasets]
    if 0 in sizes:
        found = f"none in number {sizes.index(0)}"
        raise SettingError(subject="datasets", expected="samples in each dataset", found=found)
    joined = concat(datasets)
    counts = parts_of(whole_number("length", length, 0, _MOST), weights)
    return joined._derived(Mix(joined.view, sizes, counts))


def parts_of(length: int, weights: Sequence[float]) -> list[int]:
    """A length divided in proportion to weights: rounded down, and the largest remainders, the first of equals, up."""
    exact = np.array(weights, np.float64) / math.fsum(weights) * length
    counts = np.floor(exact).astype(np.int64)
    left = length - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    found: list[int] = counts.tolist()
    return found


def _listed(who: str, datasets: Any) -> list[Dataset]:
    """The datasets given to `concat` or `mix`; an error for anything else."""
    one = isinstance(datasets, Dataset | str | bytes | os.PathLike) or not isinstance(datasets, Iterable)
    found = [datasets] if one else list(datasets)
    wrong = [item for item in found if not isinstance(item, Dataset)]
    if one or wrong:
        hint = f"{who}([mx8shards.Dataset(a), mx8shards.Dataset(b)])"
        given = repr((wrong or found)[0])[:80]
        raise SettingError(subject=who, expected="a list of open datasets", found=given, hint=hint)
    if not found:
        raise DatasetNotFoundError(f"{who}: expected at least one dataset, got none")
    return found


def _require_equal_classes(first: Dataset, other: Dataset) -> None:
    """SchemaError where a label of one dataset would get the name of another class in the other one."""
    ours, theirs = first.metadata.get("classes"), other.metadata.get("classes")
    if ours != theirs:
        mine, its = first.shards.snapshots[0].root, other.shards.snapshots[0].root
        raise SchemaError(
            subject="concat",
            place="metadata 'classes'",
            expected=f"the classes of {mine}",
            found=f"others in {its}: {classes_difference(ours, theirs)}",
            hint="convert one of them again with `mx8shards convert … --classes FILE`, where FILE lists the classes of "
            "both; a list that is missing is added by mx8shards.Writer(path, mode='append', metadata={'classes': […]})",
        )
