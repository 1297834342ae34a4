"""The names of `streaming.base.storage` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.stored_files import download_file

__all__ = [
    "download_file",
]
