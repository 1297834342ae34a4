"""The names of `streaming.base.storage.download` in MosaicML Streaming. One class is for all stores."""

from __future__ import annotations

from typing import NoReturn

from mx8shards.streaming.cloud_files import CloudDownloader, refuse_store
from mx8shards.streaming.stored_files import download_file

AzureDataLakeDownloader = AzureDownloader = GCSDownloader = CloudDownloader
HFDownloader = LocalDownloader = S3Downloader = CloudDownloader

__all__ = [
    "AzureDataLakeDownloader",
    "AzureDownloader",
    "CloudDownloader",
    "GCSDownloader",
    "HFDownloader",
    "LocalDownloader",
    "S3Downloader",
    "download_file",
]


def __getattr__(name: str) -> NoReturn:
    refuse_store(__name__, name)
