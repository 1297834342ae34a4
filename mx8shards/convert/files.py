"""Where do the files of a source lie? In a folder, or in a tar of one; both list and read them by their paths."""

from __future__ import annotations

import errno
import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path

from mx8shards.disk.files import open_regular, read_bounded
from mx8shards.errors import FormatError, SourceError

MOST_BYTES = 1 << 30  # of one file; the largest picture that is converted has half as many bytes of pixels

_MOST_LINKS = 40  # as many as Linux follows
_NOWHERE = (-1, 0)


def suffix_of(name: str) -> str:
    return name[name.rfind(".") :].lower()  # a Path for each of a million names takes seconds


def is_text(name: str) -> bool:
    """Whether a name, as Python got it from the file system, can be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Folder:
    """Files in a folder, those of its folders included; symlinks are followed, and what is hidden is not looked at."""

    def __init__(self, root: Path, suffixes: frozenset[str]) -> None:
        if not root.is_dir():
            raise SourceError(expected="a folder, or a .tar file", found="no such thing", subject=str(root))
        self._root = root
        self._suffixes = suffixes

    def names(self) -> list[str]:
        """Their paths, sorted."""
        return sorted(self._walk(self._root, "", frozenset()))

    def _walk(self, directory: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
        here = os.path.realpath(directory)
        if here in above:  # a symlink that leads back up
            return
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_directory(entry):
                        yield from self._walk(directory / entry.name, f"{prefix}{entry.name}/", above | {here})
                    elif suffix_of(entry.name) in self._suffixes and (entry.is_symlink() or entry.is_file()):  # no pipe
                        yield prefix + entry.name
        except OSError as error:
            raise SourceError(f"cannot be listed: {error.strerror}", subject=str(directory)) from error

    def stamp(self, name: str) -> object:
        """Size and time, or why there are none."""
        try:
            found = (self._root / name).stat()
        except OSError as error:
            return str(error.strerror)
        return [found.st_size, found.st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        try:
            return read_bounded(self._root / name, MOST_BYTES)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        except FormatError as error:
            raise SourceError(expected=error.expected, found=error.found) from None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a symlink to itself
            raise
        return False


class Tar:
    """Files in an uncompressed tar, read where they lie. Links to files in it are followed, hidden ones left out."""

    def __init__(self, path: Path, suffixes: frozenset[str]) -> None:
        self._path = path
        self._suffixes = suffixes
        self._places: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    name = posixpath.normpath(member.name).lstrip("/")
                    if member.isreg():
                        self._places[name] = (member.offset_data, member.size)
                    elif member.islnk():
                        links[name] = posixpath.normpath(member.linkname).lstrip("/")
                    elif member.issym():
                        links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        except (tarfile.TarError, OSError) as error:
            hint = "a compressed one has to be unpacked first"
            raise SourceError(f"no tar that can be read: {error}", subject=str(path), hint=hint) from error

        for name, target in links.items():
            for _ in range(_MOST_LINKS):
                target = links.get(target, target)
            self._places[name] = self._places.get(target, _NOWHERE)

    def names(self) -> list[str]:
        """Their paths, sorted."""
        return sorted(name for name in self._places if "/." not in f"/{name}" and suffix_of(name) in self._suffixes)

    def stamp(self, name: str) -> object:
        """Place and size, and the time of the tar."""
        return [*self._places[name], self._path.stat().st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        begin, size = self._places[name]
        if begin < 0:
            raise SourceError("cannot be read: a link to nothing in the tar")
        if size > MOST_BYTES:
            raise SourceError(expected=f"at most {MOST_BYTES} bytes", found=f"{size}")
        try:
            with open(open_regular(self._path), "rb") as file:
                file.seek(begin)
                data = file.read(size)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise SourceError(expected=f"{size} bytes", found=f"{len(data)}: the tar is cut short")
        return data


Files = Folder | Tar


def open_files(src: Path, suffixes: frozenset[str]) -> Files:
    """The files with these suffixes in a folder or a tar; SourceError if there is neither."""
    return (Tar if src.is_file() else Folder)(src, suffixes)
