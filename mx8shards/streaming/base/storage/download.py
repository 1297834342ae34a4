"""The names of `streaming.base.storage.download` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.cloud_files import CloudDownloader
from mx8shards.streaming.stored_files import download_file

__all__ = [
    "CloudDownloader",
    "download_file",
]
