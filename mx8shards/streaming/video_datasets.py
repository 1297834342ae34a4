"""Streaming's datasets of videos: the video is in the sample, or in a file of its own that the sample names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mx8shards.errors import FormatError, shown
from mx8shards.format.basename import RULE, is_basename
from mx8shards.streaming.stored_files import download_file
from mx8shards.streaming.streaming_dataset import StreamingDataset
from mx8shards.streaming.vision_datasets import OLD_DEFAULTS

__all__ = ["StreamingInsideWebVid", "StreamingOutsideDTWebVid", "StreamingOutsideGIWebVid"]


class StreamingInsideWebVid(StreamingDataset):
    """WebVid with the videos in the samples. The arguments are those of StreamingDataset."""


class StreamingOutsideGIWebVid(StreamingDataset):
    """WebVid with a file for each video, which is fetched when its sample is read.

    Args:
        extra_local: The directory for the videos.
        extra_remote: The URL or the directory that has them.
        kwargs: The arguments of StreamingDataset.
    """

    def __init__(self, *, extra_local: str | None = None, extra_remote: str | None = None, **kwargs: Any) -> None:
        super().__init__(**{**OLD_DEFAULTS, **kwargs})
        self.extra_local = extra_local
        self.extra_remote = extra_remote
        self.download_timeout = kwargs.get("download_timeout", 60.0)

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """A sample, with the bytes of its video as `content`.

        Args:
            sample_id: The number of the sample.
            retry: Ignored.
        """
        sample = super().get_item(sample_id)
        if self.extra_local and self.extra_remote:
            name = sample["content_path"]
            if not is_basename(name):  # it comes from the dataset, and must not lead out of the directory
                raise FormatError(subject="content_path", expected=RULE, found=shown(name))
            path = Path(self.extra_local) / name
            download_file(f"{self.extra_remote.rstrip('/')}/{name}", str(path), self.download_timeout)
            sample["content"] = path.read_bytes()
        return sample


class StreamingOutsideDTWebVid(StreamingOutsideGIWebVid):
    """The same as StreamingOutsideGIWebVid. (Streaming's class fetches the videos in its download thread.)"""
