"""MDS shards for PyTorch, read at memory speed. These are the public names; each is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mx8shards import transforms
    from mx8shards.convert.convert_from import convert_from
    from mx8shards.dataset import Dataset
    from mx8shards.errors import (
        DatasetExistsError,
        DatasetNotFoundError,
        DecodeError,
        DiskError,
        FormatError,
        IntegrityError,
        LoaderError,
        MissingPackageError,
        RemoteError,
        SchemaError,
        SettingError,
        ShardsError,
        SourceError,
    )
    from mx8shards.format.encodings import register_encoding
    from mx8shards.joining import concat, mix
    from mx8shards.loading.loader import Loader
    from mx8shards.loading.pool import Pool
    from mx8shards.maintain.diff import diff
    from mx8shards.maintain.gc import gc
    from mx8shards.maintain.log import log
    from mx8shards.maintain.merge import merge
    from mx8shards.maintain.summary import summary
    from mx8shards.maintain.sync import sync
    from mx8shards.maintain.verify import verify
    from mx8shards.media.audio_spec import Audio
    from mx8shards.media.clip_spec import Clip
    from mx8shards.media.specs import CenterCrop, Decode, MultiCrop, RandomResizedCrop, ResizeCrop
    from mx8shards.order.blocks import BlockShuffle
    from mx8shards.writer import Writer

__version__ = "0.1.0"

__all__ = [
    "Audio",
    "BlockShuffle",
    "CenterCrop",
    "Clip",
    "Dataset",
    "DatasetExistsError",
    "DatasetNotFoundError",
    "Decode",
    "DecodeError",
    "DiskError",
    "FormatError",
    "IntegrityError",
    "Loader",
    "LoaderError",
    "MissingPackageError",
    "MultiCrop",
    "Pool",
    "RandomResizedCrop",
    "RemoteError",
    "ResizeCrop",
    "SchemaError",
    "SettingError",
    "ShardsError",
    "SourceError",
    "Writer",
    "concat",
    "convert_from",
    "diff",
    "gc",
    "log",
    "merge",
    "mix",
    "register_encoding",
    "summary",
    "sync",
    "transforms",
    "verify",
]

# name → its module, imported on first use: `import mx8shards` must not import numpy, numba or torch.
_HOMES = {
    "Dataset": "dataset",
    **dict.fromkeys(("concat", "mix"), "joining"),
    "Writer": "writer",
    "BlockShuffle": "order.blocks",
    "Audio": "media.audio_spec",
    "Clip": "media.clip_spec",
    "Loader": "loading.loader",
    "Pool": "loading.pool",
    "convert_from": "convert.convert_from",
    "register_encoding": "format.encodings",
    **dict.fromkeys(("CenterCrop", "Decode", "MultiCrop", "RandomResizedCrop", "ResizeCrop"), "media.specs"),
    **{name: f"maintain.{name}" for name in ("diff", "gc", "log", "merge", "summary", "sync", "verify")},
    **{name: "errors" for name in __all__ if name.endswith("Error")},
}


def __getattr__(name: str) -> Any:
    if name == "transforms":
        return import_module("mx8shards.transforms")
    if name not in _HOMES:
        raise AttributeError(f"module 'mx8shards' has no attribute {name!r}")
    value = getattr(import_module(f"mx8shards.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
