"""Which objects does a Loader accept as `dataset=`?"""

from __future__ import annotations

import os
from typing import Any

from mx8shards.dataset import Dataset
from mx8shards.errors import SettingError, shown

_READS = ("__getitem__", "__iter__", "__len__")


def checked_dataset(given: Any) -> Dataset:
    """The given Dataset, or a view for a torch Subset of one; SettingError with a hint for anything else."""
    if isinstance(given, Dataset):
        _refuse_overrides(type(given), Dataset)
        return given
    if _is_of_torch(given, "Subset"):
        subset = _torch_class(given, "Subset")
        _refuse_overrides(type(given), subset)
        return checked_dataset(given.dataset).select(given.indices)
    raise SettingError(
        subject="dataset", expected="an mx8shards.Dataset", found=_described(given), hint=_what_to_do(given)
    )


def _refuse_overrides(found: type, known: type) -> None:
    """Refuse overridden methods: a Loader reads batches from the shards and would never call them."""
    for name in _READS:
        if getattr(found, name, None) is not getattr(known, name, None):
            raise SettingError(
                subject="dataset",
                expected=f"a {known.__name__} with its own {name}: a Loader reads the shards itself and never calls it",
                found=f"{found.__name__}, which overrides it",
                hint="use transform=, a function of whole batches, or decode=, a decoder for each column",
            )


def _what_to_do(given: Any) -> str:
    if isinstance(given, (str, os.PathLike)):
        return f"mx8.Loader(mx8.Dataset({os.fspath(given)!r}), …)"
    if isinstance(given, (list, tuple)) and given and all(isinstance(each, Dataset) for each in given):
        return "mx8.concat([…]) makes one dataset of several"
    if _is_of_torch(given, "ConcatDataset"):
        return "mx8.concat([…]) makes one dataset of several Datasets"
    if callable(getattr(given, "loader", None)):  # a StreamingDataset, whose module this one may not import
        return "dataset.loader(…) makes a Loader with the dataset's order"
    return "mx8.Writer writes samples into a dataset, mx8.Dataset(path) opens it"


def _described(given: Any) -> str:
    if isinstance(given, (str, os.PathLike)):
        return shown(given)
    return f"a {type(given).__name__}" + (f" of {len(given)}" if isinstance(given, (list, tuple, dict)) else "")


def _is_of_torch(given: Any, name: str) -> bool:
    """Whether this is the torch dataset of this name. This does not import torch."""
    return _torch_class(given, name) is not None


def _torch_class(given: Any, name: str) -> Any:
    for each in type(given).__mro__:
        if each.__module__ == "torch.utils.data.dataset" and each.__name__ == name:
            return each
    return None
