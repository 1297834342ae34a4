"""The names of `streaming.base` in MosaicML Streaming, whose modules have the same names here."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

_NAMES = (
    *("CSVWriter", "JSONWriter", "LocalDataset", "MDSWriter", "Stream", "StreamingDataLoader", "StreamingDataset"),
    *("TSVWriter", "XSVWriter"),
)


def __getattr__(name: str) -> Any:
    """One of the classes, or a module, which Streaming imports with the package."""
    if name in _NAMES:
        return getattr(import_module("mx8shards.streaming"), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_NAMES, *globals()])
