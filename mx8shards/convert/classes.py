"""Which classes does a folder of pictures or videos have, and which label does each class get?"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mx8shards.convert.source_files import is_text, user_path
from mx8shards.disk.files import read_bounded
from mx8shards.errors import FormatError, SettingError, SourceError, visible

_MOST_BYTES = 64 << 20  # maximum size of a class list file: more than a million names

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def class_names(classes: Any) -> tuple[str, ...] | None:
    """The class names given by the option `classes`: a list, or a file with one name per line or a JSON list.

    A class's label is its index in the list.
    """
    if classes is None:
        return None
    if isinstance(classes, str | os.PathLike):
        return _checked(_names_in_file(os.fspath(classes)), f"{os.fspath(classes)}: ")
    return _checked(list(classes) if isinstance(classes, Iterable) else classes, "")


def _names_in_file(path: str) -> Any:
    try:
        text = read_bounded(user_path(path), _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, SettingError, FormatError) as error:
        raise SettingError(f"{path}: cannot be read: {error}", subject="classes") from None
    try:
        return _names(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise SettingError(f"{path}: expected a JSON list of names: {why}", subject="classes") from None


def _checked(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) and is_text(name) for name in names):
        raise SettingError(f"{where}expected a list of strings", subject="classes")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names:
        raise SettingError(f"{where}expected at least one class name, but the list is empty", subject="classes")
    if twice:
        message = f"{where}expected each class name once, got {twice[0]!r} several times"
        raise SettingError(message, subject="classes")
    return tuple(names)


def _names(text: str) -> Any:
    """The names in a class list file. ValueError for damaged JSON.

    Lines end with LF or CRLF only, because a folder's name may contain any other line separator. Spaces and tabs at the
    ends of a line are stripped. A class may be called `[unknown]`: a file that begins with such a line, has more lines
    and is not JSON has one name per line.
    """
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    lines = [line for line in lines if line]
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            if len(lines) < 2 or not re.fullmatch(r"\[[^\[\]\",]+\]", lines[0]):
                raise
    return lines


def classes_of(
    src: str, pictures: Sequence[str], labels: str, wanted: Sequence[str] | None, by_folder: str = "imagefolder"
) -> tuple[str, ...] | None:
    """The class names in the order of their labels: `wanted`, or the sorted top-level folders. None: no labels.

    `by_folder` is the value of the option `labels` that makes a class of every folder.
    """
    if labels == "none":
        if wanted is not None:
            raise SourceError("--classes cannot be used with --labels none", subject=src)
        return None
    loose = [name for name in pictures if "/" not in name]
    found = tuple(sorted({name.split("/", 1)[0] for name in pictures if "/" in name}))
    for name in found:
        if not is_text(name):
            raise SourceError("the folder's name is not UTF-8", subject=f"{src}/{os.fsencode(name)!r}")
    if wanted is None:
        _check_no_splits(src, found)
    if labels == "auto" and wanted is None:
        if not found:
            return None
        _check_depth(src, found, pictures, by_folder)
    if not found or loose:
        what = f"{loose[0]}, which is in no folder" if loose else "none"
        raise SourceError(
            subject=src,
            expected="a folder for each class",
            found=what,
            hint="--labels none converts them without labels",
        )
    unknown = sorted(set(found) - set(wanted)) if wanted is not None else []
    if wanted is not None and unknown:
        listed = ", ".join(wanted[:10]) + (f" and {len(wanted) - 10} more" if len(wanted) > 10 else "")
        others = f" (and {len(unknown) - 1} more folders)" if len(unknown) > 1 else ""
        raise SourceError(
            subject=src, expected=f"folders that --classes names: {listed}", found=f"{unknown[0]}{others}"
        )
    return found if wanted is None else tuple(wanted)


def check_no_empty(src: str, folders: Sequence[str], names: Sequence[str]) -> None:
    """SourceError for a top-level folder without files: it would get no label, which shifts the following labels.

    `names` are those of all files. A folder without any of them is accepted; each of its files becomes a reject.
    """
    empty = sorted(set(folders) - {name.split("/", 1)[0] for name in names})
    if empty:
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise SourceError(
            subject=src,
            expected="files in the folder of each class",
            found=f"none in {visible(empty[0])}{others}",
            hint="remove the folder, or give the classes of all splits in a file with --classes FILE",
        )


def top_of_tar(names: Sequence[str], pictures: Sequence[str], folders: Sequence[str]) -> str:
    """The single top-level folder of a tar, with "/", if all pictures lie in its subfolders; otherwise "".

    `tar -cf photos.tar photos` makes such a tar. Its classes are the subfolders.
    """
    tops = {name.split("/", 1)[0] for name in names} | set(folders)
    if len(tops) != 1 or tops == {".."} or not all(name.count("/") > 1 for name in pictures):
        return ""
    return f"{tops.pop()}/"


def _check_no_splits(src: str, found: Sequence[str]) -> None:
    """SourceError if the folders are splits (train, val …), whose names would become the classes."""
    splits = [name for name in found if name.lower() in SPLITS]
    if splits and (len(splits) > 1 or len(splits) == len(found)):
        raise SourceError(
            subject=src,
            expected="one split, or classes",
            found=f"the splits {', '.join(splits)}",
            hint=f"convert each of them: {_folder(src, splits[0])}; --labels none converts all of them without labels",
        )


def _check_depth(src: str, found: Sequence[str], pictures: Sequence[str], by_folder: str) -> None:
    """SourceError if there is one folder and it only has subfolders: the classes are probably a level deeper."""
    if len(found) == 1 and all(name.count("/") > 1 for name in pictures):
        raise SourceError(
            subject=src,
            expected="a folder for each class",
            found=f"one folder, {found[0]}, which contains only folders",
            hint=f"convert {_folder(src, found[0])}; --labels {by_folder} takes {found[0]} as the one class",
        )


def _folder(src: str, name: str) -> str:
    """The path that converts one folder of the source. A folder in a tar must be unpacked first."""
    return f"{name}, unpacked from the tar" if src.endswith(".tar") or Path(src).is_file() else f"{src}/{name}"
