"""The names of `streaming.base` in MosaicML Streaming, whose modules have the same names here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = (
    *("CSVWriter", "JSONWriter", "LocalDataset", "MDSWriter", "Stream", "StreamingDataLoader", "StreamingDataset"),
    *("TSVWriter", "XSVWriter"),
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module("mx8shards.streaming"), name)
    raise AttributeError(f"module 'mx8shards.streaming.base' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_NAMES, *globals()])
