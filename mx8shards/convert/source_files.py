"""Which files does a source have, and how are they read? A source is a folder, or a tar of one (`tarball`).

Both list their files by paths below the source. Files and folders whose name begins with a dot (.DS_Store, .git, the
"._x" of macOS) are hidden: they are not looked at. Everything else is listed, and what cannot be read says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mx8shards.convert.reasons import is_about_file
from mx8shards.convert.tarball import MOST_BYTES, Tar
from mx8shards.disk.files import read_bounded
from mx8shards.errors import FormatError, SettingError, SourceError, shown

_MOST_REPEATED = 1 << 20
_NAMES_PER_VISIT = 32  # that are listed in the time which it takes to find a folder behind many links


def suffix_of(name: str) -> str:
    """The suffix of a name, in lower case, with its dot; empty if it has none."""
    at = max(name.rfind("."), 0)  # a Path for each of a million names takes seconds
    return name[at:].lower() if at > name.rfind("/") else ""


def is_text(name: str) -> bool:
    """Whether a name, as Python got it from the file system, can be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path that a user typed; a leading `~` is a home directory if there is one of that name."""
    if "\0" in str(text):
        raise SettingError(subject="path", expected="a path", found=shown(str(text)))
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises where there is no home


class Folder:
    """The files in a folder and in the folders below it. Symlinks are followed, unless they lead back up."""

    state = None  # each file has one of its own

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SourceError(expected="a folder, or a .tar file", found=_kind_of(root), subject=str(root))
        self._root = root

    def names(self) -> list[str]:
        """Their paths, sorted."""
        return sorted(self._walk())

    def folders(self) -> list[str]:
        """The folders at the top, whether or not they hold files. A symlink to the root itself is none."""
        try:
            with os.scandir(self._root) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".") and _is_directory(entry)]
                return [entry.name for entry in found if not os.path.samestat(entry.stat(), self._root.stat())]
        except OSError as error:
            raise SourceError(f"cannot be listed: {error.strerror}", subject=str(self._root)) from error

    def _walk(self) -> Iterator[str]:
        """Not recursive: folders may lie deeper than Python can recurse.

        A folder that symlinks lead to has a path for each way to it. Links to links can double that number again and
        again, so the names that are listed a second time are counted.
        """
        waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
        seen: set[tuple[int, int]] = set()
        repeated = 0
        while waiting:
            prefix, above = waiting.pop()
            directory = self._root / prefix
            try:
                found = directory.stat()
                here = (found.st_dev, found.st_ino)
                if here in above:  # a symlink that leads back up
                    continue
                again, below = here in seen, above | {here}
                seen.add(here)
                repeated += again * _NAMES_PER_VISIT
                with os.scandir(directory) as entries:
                    for entry in entries:
                        repeated += again
                        if repeated > _MOST_REPEATED:
                            raise self._too_many(prefix)
                        if entry.name.startswith("."):
                            continue
                        if _is_directory(entry):
                            waiting.append((f"{prefix}{entry.name}/", below))
                        else:
                            yield prefix + entry.name
            except OSError as error:
                raise SourceError(f"cannot be listed: {error.strerror}", subject=str(directory)) from error

    def _too_many(self, prefix: str) -> SourceError:
        return SourceError(
            subject=str(self._root),
            place=prefix,
            expected=f"at most {_MOST_REPEATED} names in folders that symlinks lead to again",
            found="more",
            hint="remove links to folders that are listed anyway",
        )

    def stamp(self, name: str) -> object:
        """Size and time of a file, or the reason why there are none."""
        try:
            found = (self._root / name).stat()
        except OSError as error:
            if not is_about_file(error):
                raise
            return str(error.strerror)
        return [found.st_size, found.st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes. SourceError for a device or a pipe, which might never end, and for a file too large."""
        try:
            return read_bounded(self._root / name, MOST_BYTES)
        except OSError as error:
            if not is_about_file(error):
                raise
            raise SourceError(f"cannot be read: {error.strerror}") from error
        except FormatError as error:
            raise SourceError(expected=error.expected, found=error.found) from None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink to itself, or to where we may not look: reading it says so
        return False


def _kind_of(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return f"none: {error.strerror}"
    return "a pipe, a socket or a device"


Files = Folder | Tar


def open_files(src: Path) -> Files:
    """The files of a folder or of a tar; SourceError if `src` is neither."""
    return (Tar if src.is_file() else Folder)(src)
