"""Which hint helps if no dataset is at a path: unmerged parts, pictures, a parent folder, a typo?

Only file names are examined, and only the first few thousand of a large directory.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import quote

_INDEX = "index.json"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")
_MOST_NAMES = 2_000  # names of one directory that are examined
_MOST_FOLDERS = 50  # subdirectories that are examined
_SHOWN = 5
_KEPT = re.compile(r"[0-9a-f]{64}\.json")  # a kept snapshot
_CONVERTED = re.compile("[0-9a-f]{32}")  # a part of a conversion


def not_found_hint(root: Path) -> str:
    """A hint for `root`, where no dataset is; "" if its contents suggest none."""
    try:
        if root.is_dir():
            return _directory_hint(root)
        return _file_hint(root) if root.exists() else _missing_path_hint(root)
    except OSError:  # a hint is optional, so a directory that cannot be listed gets none
        return ""


def _file_hint(path: Path) -> str:
    if path.name == _INDEX:
        return f"give the dataset's directory: {path.parent}"
    if ".mds" in path.suffixes:
        return f"this is a shard; give the dataset's directory: {path.parent}"
    if path.suffix == ".tar":
        command = f"mx8shards convert imagefolder {quote(str(path))} OUT"
        return f"this is a tar: `{command}` makes a dataset of the pictures in it"
    return "this is a file; give the dataset's directory"


def _missing_path_hint(path: Path) -> str:
    """A hint for a path that does not exist: its first missing component, and similar names beside that."""
    missing, there = path, path.parent
    while not there.exists() and there != there.parent:
        missing, there = there, there.parent
    if not there.is_dir():
        return f"{there} is a file"
    alike = difflib.get_close_matches(missing.name, _names(there), _SHOWN, 0.6)
    found = [there / name for name in alike]
    return f"there is no {missing}" + (f"; did you mean {_listing(found)}?" if found else "")


def _directory_hint(root: Path) -> str:
    if _has_rank_parts(root):
        return (
            f"ranks wrote parts here that are not merged yet: mx8shards.merge([{str(root)!r}], {str(root)!r}), "
            f"or `mx8shards merge {quote(str(root))} {quote(str(root))}`"
        )
    if kept := kept_snapshot_hint(root):
        return kept
    if (root / ".mx8shards/conversion.lock").exists() or any(map(_CONVERTED.fullmatch, _names_below(root, "parts"))):
        return "a conversion into this directory was interrupted: repeat the convert command to continue it"
    names = _names(root)
    folders = [root / name for name in names if not name.startswith(".") and (root / name).is_dir()][:_MOST_FOLDERS]
    datasets = [folder for folder in folders if (folder / _INDEX).exists() or _has_rank_parts(folder)]
    if datasets:
        return f"there are datasets below: {_listing(datasets, 'and')}"
    if any(name.endswith(".mds") or ".mds." in name for name in names):
        return "there are shards but no index.json: writing was interrupted, or the index was not copied"
    if any(map(_is_picture, names)) or any(_is_picture(name) for folder in folders for name in _names(folder)):
        return f"these are pictures: `mx8shards convert imagefolder {quote(str(root))} OUT` makes a dataset of them"
    return "" if names else "the directory is empty"


def kept_snapshot_hint(root: Path) -> str:
    """How to open the newest snapshot kept in `root`, by modification time; "" if there is none."""
    directory = root / ".mx8shards/snapshots"
    try:
        kept = [name for name in _names_below(root, "snapshots") if _KEPT.fullmatch(name)]
        newest = max(kept, key=lambda name: (directory / name).stat().st_mtime_ns, default="")
    except OSError:
        return ""
    opens = f"`{root}@sha256:{newest.removesuffix('.json')}` opens the newest of them"
    return f"snapshots are kept here: {opens}" if newest else ""


def _has_rank_parts(root: Path) -> bool:
    return any(name.startswith("rank-") for name in _names_below(root, "parts"))


def _names_below(root: Path, name: str) -> list[str]:
    """The names in a subdirectory of the dataset's `.mx8shards` directory."""
    directory = root / ".mx8shards" / name
    return _names(directory) if directory.is_dir() else []


def _names(directory: Path) -> list[str]:
    """The names in a directory, sorted; of a large directory only the first few thousand that scandir returns."""
    with os.scandir(directory) as entries:
        return sorted(islice(_entry_names(entries), _MOST_NAMES))


def _entry_names(entries: Iterator[os.DirEntry[str]]) -> Iterator[str]:
    return (entry.name for entry in entries)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES)


def _listing(paths: list[Path], word: str = "or") -> str:
    shown = list(map(str, paths[:_SHOWN])) + ([f"{len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else [])
    return f" {word} ".join([*filter(None, [", ".join(shown[:-1])]), shown[-1]])
