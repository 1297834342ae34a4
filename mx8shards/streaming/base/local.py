"""The names of `streaming.base.local` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.local_dataset import LocalDataset

__all__ = [
    "LocalDataset",
]
