"""Which files does a source convert, pictures or videos, and how large may one be?"""

from __future__ import annotations

from typing import NamedTuple

from mx8shards.errors import SourceError


class FileKind(NamedTuple):
    """The files that a source converts. All others in its folder are rejects."""

    source: str  # which converts them
    name: str  # in the plural
    one: str
    suffixes: frozenset[str]
    most_bytes: int
    hint: str = ""  # what to do with larger ones

    def too_large(self, size_bytes: int) -> SourceError:
        """The error for a file of this size."""
        return SourceError(expected=f"at most {self.most_bytes} bytes", found=f"{size_bytes}", hint=self.hint)


PICTURES = FileKind(
    "imagefolder",
    "pictures",
    "a picture",
    frozenset(
        (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
    ),
    1 << 28,  # our decoders take no larger picture, and a sparse file may claim any size
)
VIDEOS = FileKind(
    "videofolder",
    "videos",
    "a video",
    frozenset(
        (
            ".mp4",
            ".m4v",
            ".mov",
            ".3gp",
            ".mkv",
            ".webm",
            ".avi",
            ".ts",
            ".m2ts",
            ".mts",
            ".mpg",
            ".mpeg",
            ".flv",
            ".asf",
        )
    ),
    (1 << 32) - (1 << 24),  # a sample of an MDS shard has less than 4 GiB
    "--clip-seconds splits a video in a folder at keyframes",
)
