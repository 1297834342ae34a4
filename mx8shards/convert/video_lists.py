"""Which videos does a list name, with which labels and parts? A CSV or JSONL file with path, label, start and end.

    path,label,start,end                          {"path": "a/1.mp4", "label": "run", "start": 3.5, "end": 13.5}
    a/1.mp4,run,3.5,13.5

Paths are relative to the folder of the list, or to --root. Start and end are seconds from the first frame. Labels are
names of classes, or numbers. Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from mx8shards.convert.classes import class_names
from mx8shards.convert.file_kinds import VIDEOS
from mx8shards.convert.source import Item
from mx8shards.convert.source_files import Folder, is_text, user_path
from mx8shards.disk.files import read_bounded
from mx8shards.errors import FormatError, SourceError, one_of, shown

SUFFIXES = (".csv", ".jsonl", ".ndjson")

_MOST_BYTES = 1 << 28


class Row(NamedTuple):
    """A line of a list. Start and end are None if the whole video is meant."""

    path: str
    label: str | int | None
    start: float | None
    end: float | None


class VideoList:
    """The videos that a list names, in its order.

    An item is a name, the path, start and end in seconds, and the label.
    """

    travels = False

    def __init__(self, src: str | os.PathLike[str], labels: str, classes: Any, root: Any) -> None:
        one_of("labels", labels, ("auto", "none", VIDEOS.source))
        path = user_path(os.fspath(src))
        folder = path.parent if root is None else user_path(os.fspath(root))
        self.files = Folder(folder, VIDEOS)
        self._rows = list(_rows(path, folder))
        if not self._rows:
            raise SourceError(subject=str(path), expected="lines with a path", found="none")
        if labels == "none":
            self._rows = [row._replace(label=None) for row in self._rows]
        self.has_labels, self.classes = _classes(path, self._rows, class_names(classes))
        self.has_parts = any(row.start is not None or row.end is not None for row in self._rows)
        self._numbers = {name: number for number, name in enumerate(self.classes or ())}

    def items(self) -> Sequence[Item]:
        """All lines of the list."""
        return [(_name_of(row), row.path, row.start, row.end, row.label) for row in self._rows]

    def expect(self, items: Sequence[Item]) -> None:
        """Nothing: a local file is read when it is needed."""

    def stamp(self, item: Item) -> object:
        """Size and modification time of a video's file."""
        return self.files.stamp(item[1])

    def check(self, item: Item) -> None:
        """SourceError for a name that cannot be stored."""
        if not is_text(item[0]):
            raise SourceError("its name is not UTF-8")

    def is_chosen(self, name: str) -> bool:
        """True: a list names only videos."""
        return True

    def read(self, item: Item) -> bytes:
        """The bytes of a video."""
        return self.files.read(item[1])

    def open(self, item: Item) -> IO[bytes]:
        """The file of a video, of any size."""
        return self.files.open(item[1])

    def label(self, item: Item) -> int:
        """The label of a line."""
        return int(item[4]) if self.classes is None else self._numbers[str(item[4])]


def _name_of(row: Row) -> str:
    """The path, and which part of the video."""
    if row.start is None and row.end is None:
        return row.path
    begin, end = ("" if time is None else f"{time:.15g}" for time in (row.start, row.end))
    return f"{row.path}#{begin}-{end}"


def _classes(path: Path, rows: Sequence[Row], wanted: tuple[str, ...] | None) -> tuple[bool, tuple[str, ...] | None]:
    """Whether lines have labels, and the names of classes in the order of their numbers; None if labels are numbers."""
    missing = [number for number, row in enumerate(rows, 1) if row.label is None]
    if len(missing) == len(rows):
        return False, None
    if missing:
        raise SourceError(subject=str(path), place=f"entry {missing[0]}", expected="a label", found="none")
    if wanted is None and all(isinstance(row.label, int) for row in rows):
        return True, None
    names = tuple(sorted({str(row.label) for row in rows}))
    unknown = sorted(set(names) - set(names if wanted is None else wanted))
    if unknown:
        raise SourceError(subject=str(path), expected="labels that --classes names", found=unknown[0])
    return True, names if wanted is None else wanted


def _rows(path: Path, root: Path) -> Iterator[Row]:
    """The lines of a list. SourceError for a line without a path, or with impossible times."""
    for number, values in enumerate(_records(path), 1):
        try:
            yield _row(values, root)
        except SourceError as error:
            raise error.at(subject=str(path), place=f"entry {number}") from None


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = read_bounded(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise SourceError(f"cannot be read: {error}", subject=str(path)) from None
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            if "path" not in (reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "none"
                raise SourceError(subject=str(path), expected="a header with path, label, start, end", found=found)
            yield from reader
        except csv.Error as error:
            raise SourceError(f"no CSV: {error}", subject=str(path), place=f"line {reader.line_num}") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"no JSON: {error}", subject=str(path), place=f"line {number}") from None
            if not isinstance(values, dict):
                raise SourceError(subject=str(path), place=f"line {number}", expected="an object", found=shown(values))
            yield values


def _row(values: Mapping[str, Any], root: Path) -> Row:
    path, label = values.get("path"), values.get("label")
    if not isinstance(path, str) or not path:
        raise SourceError(expected="a path", found=shown(path))
    start, end = _seconds(values, "start"), _seconds(values, "end")
    if (start or 0.0) >= (math.inf if end is None else end):
        raise SourceError(expected="an end after the start", found=f"{start} to {end}")
    return Row(_below(path, root), _label(label), start, end)


def _below(path: str, root: Path) -> str:
    """The path relative to the root. SourceError for one that leads out of it."""
    relative = os.path.normpath(os.path.relpath(path, root) if Path(path).is_absolute() else path)
    if relative.startswith(".."):
        raise SourceError(expected=f"a path below {root}", found=path, hint="--root names the folder of all videos")
    return relative


def _label(value: Any) -> str | int | None:
    """A number, also as text of a CSV; a name; or None if there is none."""
    if value is None or value == "" or (isinstance(value, int) and not isinstance(value, bool)):
        return None if value == "" else value
    if not isinstance(value, str):
        raise SourceError(expected="a label that is a name or a number", found=shown(value))
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 18 else value


def _seconds(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise SourceError(expected=f"{name} in seconds, from 0 on", found=shown(value))
    return seconds
