"""The names of `streaming.base.storage.upload` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.cloud_files import CloudUploader

__all__ = [
    "CloudUploader",
]
