"""Which columns does a loader read, and which of them does it decode, copy, or need only for decoding others?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mx8shards.dataset import Dataset
from mx8shards.errors import SettingError, shown
from mx8shards.format.clip_times import SOUND
from mx8shards.format.columns import Columns
from mx8shards.loading.planning.settings import Settings
from mx8shards.stages import ClipColumns


@dataclass(frozen=True, slots=True)
class LoadedColumns:
    """The columns that are read.

    picked  all of them
    copied  those that are delivered as they are stored
    clips   what decoders of clips need to know, by column of videos
    """

    picked: Columns
    copied: tuple[str, ...]
    clips: Mapping[str, ClipColumns]


def column_of(key: str, picked: Columns) -> str:
    """The column that is decoded for a key of `decode=`: the sound of `video` is decoded for `video.audio`."""
    return key.removesuffix(SOUND) if key not in picked.names else key


def loaded_columns(dataset: Dataset, settings: Settings) -> LoadedColumns:
    """The columns of a loader. SettingError if a column that is not loaded would be decoded.

    The packet indices of decoded videos are read, but only delivered if `columns=` names them.
    """
    picked, videos = dataset.picked(settings.columns), dataset.view.videos
    used = {column_of(key, picked) for key in settings.decode}
    for name in used:
        if name not in picked.names:
            known = ", ".join(map(repr, picked.names))
            raise SettingError(subject="decode", expected=f"a column that is loaded: {known}", found=shown(name))
    copied = [name for name in picked.names if name not in used]
    decoded = [name for name in videos.names if name in used] if videos is not None else []
    if videos is None or not decoded:
        return LoadedColumns(picked, tuple(copied), {})
    sources = {name: videos.packets_of(name) for name in [videos.names[0], *decoded]}
    indices = {source for source in sources.values() if isinstance(source, str)}
    if settings.columns is None:
        copied = [name for name in copied if name not in indices]
    picked = dataset.shards.columns([*picked.names, *sorted(indices - set(picked.names))])
    places = {name: picked.names.index(at) if isinstance(at, str) else at for name, at in sources.items()}
    clips = {name: ClipColumns(videos.times, places[name], places[videos.names[0]]) for name in decoded}
    return LoadedColumns(picked, tuple(copied), clips)
