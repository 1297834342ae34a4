"""MosaicML Streaming's classes, with the same arguments, samples, order and state: change one import."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mx8shards.streaming.installing import install
    from mx8shards.streaming.local_dataset import LocalDataset
    from mx8shards.streaming.mds_writer import MDSWriter
    from mx8shards.streaming.split_writers import CSVWriter, JSONWriter, TSVWriter, XSVWriter
    from mx8shards.streaming.stream import Stream
    from mx8shards.streaming.streaming_dataloader import StreamingDataLoader
    from mx8shards.streaming.streaming_dataset import StreamingDataset

__all__ = [
    "CSVWriter",
    "JSONWriter",
    "LocalDataset",
    "MDSWriter",
    "Stream",
    "StreamingDataLoader",
    "StreamingDataset",
    "TSVWriter",
    "XSVWriter",
    "install",
]

# name → its module, imported on first use: writing needs no torch.
_HOMES = {
    "MDSWriter": "mds_writer",
    **dict.fromkeys(("CSVWriter", "JSONWriter", "TSVWriter", "XSVWriter"), "split_writers"),
    "LocalDataset": "local_dataset",
    "Stream": "stream",
    "StreamingDataLoader": "streaming_dataloader",
    "StreamingDataset": "streaming_dataset",
    "install": "installing",
    "__version__": "_version",
}
_MODULES = ("base", "multimodal", "text", "vision")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"mx8shards.streaming.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'mx8shards.streaming' has no attribute {name!r}")
    value = getattr(import_module(f"mx8shards.streaming.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))])
