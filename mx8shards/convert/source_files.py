"""How are the files of a source listed and read? A source is a folder, or a tar of one (`tarball`).

Their counterparts in a store are in `remote_sources`. The `facts` about a file are part of its item, and `read` gets
them in any process.

Files are named by their paths relative to the source. Files and folders whose names begin with a dot (.DS_Store, .git,
macOS's "._x") are hidden and skipped. Everything else is listed, also unreadable files: reading one raises the reason.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from mx8shards.convert.file_kinds import PICTURES, FileKind
from mx8shards.convert.reasons import is_about_file
from mx8shards.convert.tarball import Tar
from mx8shards.disk.files import open_regular, read_bounded
from mx8shards.errors import FormatError, SettingError, SourceError, shown
from mx8shards.shards.links import is_url

if TYPE_CHECKING:
    from mx8shards.convert.remote_sources import RemoteFolder

_MOST_REPEATED = 1 << 20
_NAMES_PER_VISIT = 32  # opening a folder through many links costs about as much as listing this many names


def suffix_of(name: str) -> str:
    """The suffix of a name, in lower case and with its dot; "" if it has none."""
    at = max(name.rfind("."), 0)  # pathlib would take seconds for a million names
    return name[at:].lower() if at > name.rfind("/") else ""


def is_text(name: str) -> bool:
    """Whether a file name is valid UTF-8, so that it can be stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def user_path(text: str | os.PathLike[str]) -> Path:
    """Parse a path given by the user. A leading `~` or `~user` is expanded if that home directory exists."""
    if "\0" in str(text):
        raise SettingError(subject="path", expected="a path", found=shown(str(text)))
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises without a home directory


class Folder:
    """The files in a folder and its subfolders. Symlinks are followed, except to a parent folder.

    `kind` limits the size of a file.
    """

    state = None  # `stamp` gives the state of each file

    def __init__(self, root: Path, kind: FileKind = PICTURES) -> None:
        if not root.is_dir():
            raise SourceError(expected="a folder, or a .tar file", found=_kind_of(root), subject=str(root))
        self._root = root
        self._kind = kind

    def names(self) -> list[str]:
        """The paths of all files, sorted."""
        return sorted(self._walk())

    def folders(self) -> list[str]:
        """The top-level folders, including empty ones, without symlinks to the root itself."""
        try:
            with os.scandir(self._root) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".") and _is_directory(entry)]
                return [entry.name for entry in found if not os.path.samestat(entry.stat(), self._root.stat())]
        except OSError as error:
            raise SourceError(f"cannot be listed: {error.strerror}", subject=str(self._root)) from error

    def _walk(self) -> Iterator[str]:
        """Not recursive, because folders may be nested deeper than Python's recursion limit.

        A folder that several symlinks lead to is listed once for each. Nested links make that exponential, so the
        names listed repeatedly are limited.
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
                if here in above:  # a symlink to a parent folder
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
            expected=f"at most {_MOST_REPEATED} repeated names in folders reached through several symlinks",
            found="more",
            hint="remove symlinks to folders inside the source",
        )

    def stamp(self, name: str) -> object:
        """Size and modification time of a file, or the reason why it cannot be read."""
        try:
            found = (self._root / name).stat()
        except OSError as error:
            if not is_about_file(error):
                raise
            return str(error.strerror)
        return [found.st_size, found.st_mtime_ns]

    def facts(self, name: str) -> tuple[()]:
        """No facts: a worker reads the folder itself."""
        return ()

    def expect(self, items: Iterable[Sequence[Any]]) -> None:
        """Nothing: a local file is read when it is needed."""

    def read(self, name: str) -> bytes:
        """Read a file. SourceError for a device or a pipe, which might never end, and for a file that is too large."""
        with _reasons():
            try:
                return read_bounded(self._root / name, self._kind.most_bytes)
            except FormatError as error:
                hint = self._kind.hint
                raise SourceError(expected=error.expected, found=error.found, hint=hint) from None

    def open(self, name: str) -> IO[bytes]:
        """Open a file of any size."""
        with _reasons():
            return open(open_regular(self._root / name), "rb")


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Convert an OSError that is about the file to SourceError."""
    try:
        yield
    except OSError as error:
        if not is_about_file(error):
            raise
        raise SourceError(f"cannot be read: {error.strerror}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink to itself or into a forbidden folder; `read` will raise the reason
        return False


def _kind_of(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return f"none: {error.strerror}"
    return "a pipe, a socket or a device"


Files: TypeAlias = "Folder | Tar | RemoteFolder"


def open_files(src: str | os.PathLike[str], kind: FileKind = PICTURES) -> Files:
    """Open a folder or a tar, by its path or URL. SourceError if `src` is neither."""
    if is_url(text := os.fspath(src)):
        from mx8shards.convert.remote_sources import open_remote  # only for URLs

        return open_remote(text, kind)
    path = user_path(src)
    return Tar(path, kind=kind) if path.is_file() else Folder(path, kind)
