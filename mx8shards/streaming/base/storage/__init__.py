"""The names of `streaming.base.storage` in MosaicML Streaming."""

from __future__ import annotations

from typing import NoReturn

from mx8shards.streaming.base.storage.download import (
    AzureDataLakeDownloader,
    AzureDownloader,
    CloudDownloader,
    GCSDownloader,
    HFDownloader,
    LocalDownloader,
    S3Downloader,
    download_file,
)
from mx8shards.streaming.base.storage.upload import (
    AzureDataLakeUploader,
    AzureUploader,
    CloudUploader,
    GCSUploader,
    HFUploader,
    LocalUploader,
    S3Uploader,
)
from mx8shards.streaming.cloud_files import refuse_store

__all__ = [
    "AzureDataLakeDownloader",
    "AzureDataLakeUploader",
    "AzureDownloader",
    "AzureUploader",
    "CloudDownloader",
    "CloudUploader",
    "GCSDownloader",
    "GCSUploader",
    "HFDownloader",
    "HFUploader",
    "LocalDownloader",
    "LocalUploader",
    "S3Downloader",
    "S3Uploader",
    "download_file",
]


def __getattr__(name: str) -> NoReturn:
    refuse_store(__name__, name)
