"""The names of `streaming.base.storage` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.base.storage.download import CloudDownloader, download_file
from mx8shards.streaming.base.storage.upload import CloudUploader

__all__ = [
    "CloudDownloader",
    "CloudUploader",
    "download_file",
]
