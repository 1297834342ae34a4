"""The names of `streaming.base.storage.upload` in MosaicML Streaming. One class is for all stores."""

from __future__ import annotations

from typing import NoReturn

from mx8shards.streaming.cloud_files import CloudUploader, refuse_store

AzureDataLakeUploader = AzureUploader = GCSUploader = CloudUploader
HFUploader = LocalUploader = S3Uploader = CloudUploader

__all__ = [
    "AzureDataLakeUploader",
    "AzureUploader",
    "CloudUploader",
    "GCSUploader",
    "HFUploader",
    "LocalUploader",
    "S3Uploader",
]


def __getattr__(name: str) -> NoReturn:
    refuse_store(__name__, name)
