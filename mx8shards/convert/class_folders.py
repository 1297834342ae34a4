"""Which files of a folder or tar are converted, and to which class does each belong? For pictures and for videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any

from mx8shards.convert.classes import check_no_empty, class_names, classes_of, top_of_tar
from mx8shards.convert.file_kinds import FileKind
from mx8shards.convert.source import Item
from mx8shards.convert.source_files import Folder, is_text, open_files, suffix_of
from mx8shards.convert.tarball import Tar
from mx8shards.errors import SourceError, one_of
from mx8shards.shards.links import is_url

_HIDDEN = "files and folders whose names begin with a dot are skipped"


class ClassFolders:
    """The files of a folder or tar, in the order of their paths, and their classes: the names of the top folders.

    An item is a file's path and, in a store, the facts about its object.
    """

    def __init__(self, src: str | os.PathLike[str], labels: str, classes: Any, kind: FileKind) -> None:
        one_of("labels", labels, ("auto", "none", kind.source))
        wanted = class_names(classes)
        self._kind = kind
        self.files = open_files(src, kind)
        self.travels = is_url(str(src))
        self._list(str(src), labels, wanted)
        self._numbers = {name: number for number, name in enumerate(self.classes or ())}

    def _list(self, src: str, labels: str, wanted: Sequence[str] | None) -> None:
        """List the files and find their classes."""
        names = self.files.names()
        chosen = [name for name in names if suffix_of(name) in self._kind.suffixes and not name.startswith("../")]
        folders, self._top = self.files.folders(), ""
        if isinstance(self.files, Tar) and labels == "auto":
            top = top_of_tar(names, chosen, folders)
            if top and top[:-1] not in (wanted or ()):
                self._top, folders = top, self.files.folders(top)
        self.names = [name.removeprefix(self._top) for name in names]
        chosen = [name.removeprefix(self._top) for name in chosen]
        if not chosen:
            expected, found = f"{self._kind.name} ({self._suffixes})", f"none among {len(self.names)} files"
            raise SourceError(subject=src, expected=expected, found=found, hint=_HIDDEN)
        self.classes = classes_of(src, chosen, labels, wanted, self._kind.source)
        if self.classes is not None and wanted is None:
            check_no_empty(src, folders, self.names)

    @property
    def _suffixes(self) -> str:
        return " ".join(sorted(self._kind.suffixes))

    def items(self) -> Sequence[Item]:
        """All files, each with the facts about its object if it is in a store."""
        return [(name, *self.files.facts(self._top + name)) for name in self.names]

    def expect(self, items: Sequence[Item]) -> None:
        """Begin to read these files ahead, if they are in a store."""
        self.files.expect([(self._top + name, *facts) for name, *facts in items if self.is_chosen(name)])

    def __getstate__(self) -> dict[str, Any]:
        names = None if self.travels else self.names  # a worker is given the items that it converts
        return {**self.__dict__, "names": names}

    def is_chosen(self, name: str) -> bool:
        """Whether a file is converted, by the suffix of its name."""
        return suffix_of(name) in self._kind.suffixes

    def stamp(self, item: Item) -> object:
        """Size and modification time of a file."""
        return self.files.stamp(self._top + item[0]) if self.is_chosen(item[0]) else None

    def check(self, item: Item) -> None:
        """SourceError for a file of another kind, or whose name cannot be stored."""
        name = item[0]
        if not is_text(name):
            raise SourceError("its name is not UTF-8")
        if not self.is_chosen(name):
            raise SourceError(expected=f"{self._kind.one}'s suffix ({self._suffixes})", found=suffix_of(name) or "none")

    def read(self, item: Item) -> bytes:
        """The bytes of a file."""
        return self.files.read(self._top + item[0], *item[1:])

    def open(self, item: Item) -> bytes | IO[bytes]:
        """A file of a folder, of any size; the bytes of one in a tar or a store."""
        if isinstance(self.files, Folder):
            return self.files.open(self._top + item[0])
        return self.read(item)

    @property
    def has_labels(self) -> bool:
        """Whether files have classes."""
        return self.classes is not None

    def label(self, item: Item) -> int:
        """The number of a file's class."""
        return self._numbers[item[0].split("/", 1)[0]]
