"""How are the videos in a folder, tar or list converted to samples (`convert videofolder`)?

    SRC/run/1.mp4, SRC/jump/2.mkv    one folder per class: columns video, packets, label, path and the video's facts
    SRC/1.mp4, SRC/more/2.mp4        no classes (--labels none): the other columns, without label
    list.csv                         lines with path, label, start, end (see video_lists)

By default files are stored unchanged. The column packets holds an index of each video's packets, from which a Loader
decodes clips without a demuxer. Videos that clips cannot be decoded from are rejects; most of them can be re-encoded
with --gop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import IO, Any, Literal, NamedTuple

from mx8shards.convert.class_folders import ClassFolders
from mx8shards.convert.file_kinds import VIDEOS
from mx8shards.convert.source import Item
from mx8shards.convert.source_files import suffix_of
from mx8shards.convert.video_changes import VIDEO_COLUMNS, VIDEO_METADATA, Codec, VideoChanges
from mx8shards.convert.video_lists import SUFFIXES, VideoList
from mx8shards.errors import SettingError, SourceError, finite_seconds, require
from mx8shards.format.packet_index import PacketIndex
from mx8shards.media.video_cuts import Span, parts_of, span_of, whole_of
from mx8shards.shards.links import is_url

Labels = Literal["auto", "none", "videofolder"]


class _Opened(NamedTuple):
    """The video of the last part, kept for the next one: its path, its packet index, and its bytes if it is no file."""

    name: str
    packets: PacketIndex
    payload: bytes | None


class VideoFolder:
    """The videos in a folder or a tar, in the order of their paths, or those that a list names.

    Args:
        src: A folder of videos, an uncompressed .tar of one, the URL of either, or a list: a .csv or .jsonl file with
            the columns path, label, start and end (in seconds), of which only path is needed. Hidden files (.name) are
            skipped.
        labels: videofolder: every folder in SRC is a class, and must contain a file. none: no labels. auto: like
            videofolder if SRC contains folders, otherwise like none; of a list, its labels.
        classes: A FILE that lists the class names, one per line or as a JSON list; in Python also a list. The first
            name gets label 0, the next one label 1, and so on. Default: the names, sorted.
        root: The FOLDER that the paths in a list are relative to. Default: that of the list.
        remux: Copy the packets into MP4 files with the index in front, without re-encoding. MPEG-TS and others need it,
            if clips shall be decoded without reading whole videos.
        gop: Re-encode videos for random access, with a keyframe every N frames. Default, if another option asks to
            re-encode: 16.
        max_side: Re-encode; scale larger videos down so that the longer side has this many pixels.
        fps: Re-encode with this many frames per second: the frame that is shown at each time.
        crf: Re-encode with this constant rate factor: a smaller number gives better and larger files. Default: 23, and
            35 with --codec av1.
        codec: Re-encode with this codec: av1 makes smaller files, which decode more slowly. Default: h264.
        clip_seconds: Split each video at keyframes, without re-encoding, into parts of at least this many seconds. For
            long videos, and files of over 4 GiB.
        audio: Keep the audio. False: leave the audio out.
        decode: Decode all frames, so that damaged videos become rejects. False: only read the packets of
            videos, which is much faster.
    """

    packages = ("av",)  # its version affects how videos are encoded and which are refused

    def __init__(
        self,
        src: str | os.PathLike[str],
        *,
        labels: Labels = "auto",
        classes: str | os.PathLike[str] | Sequence[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        remux: bool = False,
        gop: int | None = None,
        max_side: int | None = None,
        fps: float | None = None,
        crf: int | None = None,
        codec: Codec | None = None,
        clip_seconds: float | None = None,
        audio: bool = True,
        decode: bool = True,
    ) -> None:
        require("av", "video")
        self._changes = VideoChanges(
            remux=remux, gop=gop, max_side=max_side, fps=fps, crf=crf, codec=codec, audio=audio, decode=decode
        )
        self._clip_seconds = None if clip_seconds is None else finite_seconds("clip_seconds", clip_seconds)
        self._videos = _videos(src, labels, classes, root)
        self._path_at = 1 if isinstance(self._videos, VideoList) else 0  # of a video's item
        self._last: _Opened | None = None
        self.classes = self._videos.classes
        has_parts = isinstance(self._videos, VideoList) and self._videos.has_parts
        if has_parts and clip_seconds is not None:
            expected, found = "None for a list with start and end", str(clip_seconds)
            raise SettingError(subject="clip_seconds", expected=expected, found=found)
        self.travels = self._videos.travels or clip_seconds is not None
        self.versions = self._changes.versions
        self.features = {"state": self._videos.files.state, "decode": decode}
        self.columns: Mapping[str, str] = {
            **VIDEO_COLUMNS,
            "path": "str",
            **({"label": "int"} if self._videos.has_labels else {}),
            **({"source_start": "float64", "source_end": "float64"} if has_parts or clip_seconds is not None else {}),
        }
        options = {**self._changes.to_json(), **({} if clip_seconds is None else {"clip_seconds": clip_seconds})}
        self.metadata: Mapping[str, Any] = {
            "videofolder": {"labels": labels, **options},
            **VIDEO_METADATA,
            **({"classes": list(self.classes)} if self.classes is not None else {}),
        }

    def items(self) -> Sequence[Item]:
        """The videos, or their parts: each a name, the video's item, and the part, in units of its time base."""
        whole = self._videos.items()
        if self._clip_seconds is None:
            return whole
        return [part for item in whole for part in self._parts(item, self._clip_seconds)]

    def _parts(self, item: Item, seconds: float) -> list[Item]:
        """The parts of a video; the video itself if it is refused, so that `sample` gives the reason."""
        try:
            self._videos.check(item)
            with _closing(self._videos.open(item)) as source:
                spans = parts_of(self._changes.indexed(source), seconds)
        except SourceError:
            return [(item[0], item, None)]
        return [(f"{item[0]}#{number}", item, span) for number, span in enumerate(spans)]

    def expect(self, items: Sequence[Item]) -> None:
        """Begin to read these videos ahead, if they are in a store.

        Args:
            items: Some of `items`, in the order in which `sample` is called with them.
        """
        if self._clip_seconds is None:
            self._videos.expect(items)

    def group(self, item: Item) -> str:
        """The video of a part: --split keeps the parts of a video together.

        Args:
            item: one of `items`.
        """
        return str((item if self._clip_seconds is None else item[1])[self._path_at])

    def stamp(self, item: Item) -> object:
        """Size and modification time of a video's file.

        Args:
            item: one of `items`.
        """
        return self._videos.stamp(item if self._clip_seconds is None else item[1])

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert one video, or one part of it.

        Args:
            item: one of `items`.
        """
        video, span = (item, None) if self._clip_seconds is None else item[1:]
        self._videos.check(video)
        sample = self._columns_of(video, span)
        sample["path"] = item[0]
        if self._videos.has_labels:
            sample["label"] = self._videos.label(video)
        return {name: sample[name] for name in self.columns}

    def _columns_of(self, video: Item, span: Span | None) -> dict[str, Any]:
        """The columns of a whole video, or of a part."""
        if isinstance(self._videos, VideoList) and video[2:4] != (None, None):
            return self._part(video, lambda index: span_of(index, video[2], video[3]))
        if self._clip_seconds is not None:
            return self._part(video, lambda index: whole_of(index) if span is None else span)
        sample = self._changes.applied(self._videos.read(video))
        unit = sample["time_base_num"] / sample["time_base_den"]
        return {**sample, "source_start": 0.0, "source_end": sample["duration"] * unit}

    def _part(self, video: Item, span_in: Callable[[PacketIndex], Span]) -> dict[str, Any]:
        """The columns of a part of a video."""
        with _closing(self._source_of(video)) as source:
            name = str(video[self._path_at])
            if self._last is None or self._last.name != name:
                self._last = _Opened(name, self._changes.indexed(source), source if isinstance(source, bytes) else None)
            return self._changes.part(source, self._last.packets, span_in(self._last.packets))

    def _source_of(self, video: Item) -> bytes | IO[bytes]:
        """The file of a video, or its bytes, which are kept for its other parts."""
        if self._last is not None and self._last.name == video[self._path_at] and self._last.payload is not None:
            return self._last.payload
        return self._videos.open(video)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}


def _videos(
    src: str | os.PathLike[str], labels: str, classes: Any, root: str | os.PathLike[str] | None
) -> ClassFolders | VideoList:
    if not is_url(os.fspath(src)) and suffix_of(os.fspath(src)) in SUFFIXES:
        return VideoList(src, labels, classes, root)
    if root is not None:
        raise SettingError(subject="root", expected="None, unless SRC is a list", found=str(root))
    return ClassFolders(src, labels, classes, VIDEOS)


def _closing(source: bytes | IO[bytes]) -> AbstractContextManager[bytes | IO[bytes]]:
    """Close a file at the end of the block."""
    return nullcontext(source) if isinstance(source, bytes) else closing(source)


open_source = VideoFolder
