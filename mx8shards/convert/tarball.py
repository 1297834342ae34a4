"""Which files does an uncompressed tar hold, and at which offsets are their bytes?

Python's `tarfile` reads the headers, and files are read in place. Headers are not trusted: sizes are checked against
the tar, and the header bytes of one file are bounded. `tarfile` takes the first unreadable header for the end of the
tar, which would lose files silently; here only a block of zeros ends a tar.

A tar inside another tar is given by its offset and size. Nothing outside of this range is read.

Sparse files (`tar -S`; GNU's old format and PAX 0.0, 0.1 and 1.0) are expanded: their holes, which are not stored,
become zeros.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.convert.file_kinds import PICTURES, FileKind
from mx8shards.convert.reasons import is_about_file
from mx8shards.disk.files import open_regular
from mx8shards.errors import RemoteError, SourceError, error_text

_BLOCK = 512
_MOST_LINKS = 40  # Linux's own limit for chains of links
_MOST_HEADER_BYTES = 1 << 18  # per file, extension headers included
_MOST_RUNS = 1 << 18  # stored runs of all sparse files in a tar: Python objects are several times larger than headers
_MOST_ZEROS = 1 << 20  # bytes after the end of a tar that are searched for a concatenated tar
_UNPACK = "`tar -xf` unpacks what can still be read; convert that folder"


class _Place(NamedTuple):
    """Offset and size of a file in the tar."""

    begin: int
    size: int
    runs: tuple[tuple[int, int], ...] | None = None  # only for sparse files: (offset in the file, stored bytes)
    fault: str = ""  # the reason if the file cannot be read

    @property
    def stored(self) -> int:
        """The number of its bytes in the tar."""
        return self.size if self.runs is None else sum(length for _, length in self.runs)


class Tar:
    """The files in an uncompressed tar. Links inside the tar are followed.

    `begin` and `size` are the offset and size of the tar in the file `path`, if it is not the whole file. `kind` limits
    the size of a file.
    """

    _kind = PICTURES

    def __init__(self, path: Path, begin: int = 0, size: int | None = None, *, kind: FileKind = PICTURES) -> None:
        self._path = path
        self._kind = kind
        self._scan(str(path), begin, size)

    def _scan(self, subject: str, begin: int = 0, size: int | None = None) -> None:
        """Read the headers of all files."""
        self._subject = subject
        self._places: dict[str, _Place] = {}
        self._folders: set[str] = set()
        self._runs_left = _MOST_RUNS
        try:
            raw, self.state = self._opened()
            with _Headers(raw, begin, size) as file:
                self._list(file)
        except SourceError as error:
            raise error.at(subject=subject) from None
        except (MemoryError, RemoteError):
            raise
        except Exception as error:  # tarfile raises many types: ValueError, OverflowError, RecursionError
            expected, found = "a folder, or an uncompressed tar", f"a file that is neither: {_text_of(error)}"
            hint = "unpack a compressed tar, or a zip, first"
            if self._places:
                expected, found, hint = "a whole tar", f"a damaged one: {_text_of(error)}", _UNPACK
            raise SourceError(expected=expected, found=found, subject=subject, hint=hint) from error

    def _opened(self) -> tuple[io.RawIOBase, object]:
        """The tar's file, and its state."""
        file = io.FileIO(open_regular(self._path))
        return file, _state_of(os.fstat(file.fileno()))

    def _state_now(self) -> object:
        """The state of the tar now, which differs from `state` if it changed since it was listed."""
        return _state_of(self._path.stat())

    def _list(self, file: _Headers) -> None:
        links: dict[str, str] = {}
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a gigabyte for a million files
                tar.pax_headers.clear()  # type: ignore[attr-defined]  # global headers, which `tarfile` copies for each file
                file.begin_member()
                _check_sizes(member, tar.offset, file.end)
                name = _name_of(member.name)
                links.pop(name, None)  # of several members with one name, the last one counts
                if member.isreg():
                    self._places[name] = self._place_of(member, file.end)
                elif member.islnk():
                    links[name] = _name_of(member.linkname)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.isdir():
                    self._folders.add(name)
                else:
                    kind = member.type.decode("ascii", "replace")
                    self._places[name] = _Place(-1, 0, fault=f"expected a regular file, got one of type {kind!r}")
            file.begin_member()
            _check_end(file, tar.offset)
        for name, target in links.items():
            for _ in range(_MOST_LINKS):
                target = links.get(target, target)
            nowhere = _Place(-1, 0, fault="cannot be read: a link whose target is not in the tar")
            self._places[name] = nowhere if target in links else self._places.get(target, nowhere)

    def names(self) -> list[str]:
        """The paths of all files, sorted. Includes paths that lead out of the tar, which cannot be read."""
        return sorted(name for name in self._places if "/." not in f"/{name}" or _is_outside(name))

    def folders(self, below: str = "") -> list[str]:
        """The folders listed directly in the folder `below` (a path that ends with "/", or "" for the root)."""
        found = (name.removeprefix(below) for name in self._folders if name.startswith(below))
        return [name for name in found if "/" not in name and not name.startswith(".")]

    def place(self, name: str) -> tuple[int, int]:
        """The offset of a file's bytes in `path`, and their size. SourceError if the file cannot be read."""
        begin, size, runs, fault = self._found(name)
        if fault or runs is not None:
            raise SourceError(fault or "a sparse file", subject=self._subject, place=name)
        return begin, size

    def facts(self, name: str) -> tuple[()]:
        """No facts: a worker has the same list of files."""
        return ()

    def expect(self, items: Iterable[Sequence[Any]]) -> None:
        """Nothing: a local file is read when it is needed."""

    def stamp(self, name: str) -> object:
        """Offset and size of a file, and the state of the tar. SourceError if the tar changed since it was listed."""
        place = self._found(name)
        if self._state_now() != self.state:
            raise self._changed()
        return [place.begin, place.size, self.state]

    def read(self, name: str) -> bytes:
        """Read a file."""
        place = self._found(name)
        if place.fault:
            raise SourceError(place.fault)
        data = self._stored(name, place.begin, place.stored)
        if len(data) < place.stored:
            raise SourceError(expected=f"{place.stored} bytes", found=f"{len(data)}: the tar is cut short")
        return data if place.runs is None else _expanded(data, place.size, place.runs)

    def _stored(self, name: str, begin: int, size: int) -> bytes:
        """The stored bytes of a file."""
        try:
            with open(open_regular(self._path), "rb") as file:
                file.seek(begin)
                return file.read(size)
        except OSError as error:
            if not is_about_file(error):
                raise
            raise SourceError(f"cannot be read: {error.strerror}") from error

    def _found(self, name: str) -> _Place:
        place = self._places.get(name)
        if place is None:
            raise self._changed()
        return place

    def _changed(self) -> SourceError:
        hint = "running the same command again converts the changed files and reuses the rest"
        return SourceError("the tar changed while it was converted", subject=self._subject, hint=hint)

    def _place_of(self, member: tarfile.TarInfo, end: int) -> _Place:
        """The offset and size of a regular file, or the fault of its header."""
        begin, size = member.offset_data, member.size
        if _is_outside(_name_of(member.name)):
            return _Place(begin, size, fault="its path leads out of the tar")
        limit = PICTURES if member.issparse() else self._kind  # a sparse file may claim any size
        if size > limit.most_bytes:
            return _Place(begin, size, fault=str(limit.too_large(size)))
        sparse: Sequence[tuple[int, int]] | None = getattr(member, "sparse", None)
        if not member.issparse() or sparse is None:
            return _Place(begin, size)
        runs = tuple((offset, length) for offset, length in sparse if length)
        last = 0
        for offset, length in runs:
            if offset < last or length < 0 or offset + length > size:
                return _Place(begin, size, fault="a sparse file whose map of holes is damaged")
            last = offset + length
        if begin + sum(length for _, length in runs) > end:
            return _Place(begin, size, fault="a sparse file that is cut short")
        self._runs_left -= len(runs)
        if self._runs_left < 0:
            return _Place(begin, size, fault=f"expected at most {_MOST_RUNS} runs in all sparse files, got more")
        return _Place(begin, size, runs)


def _name_of(path: str) -> str:
    """The path of a file relative to the tar's root, as `tar -x` would create it."""
    return posixpath.normpath(path).lstrip("/")


def _is_outside(name: str) -> bool:
    return name.split("/", 1)[0] == ".."


def _state_of(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_sizes(member: tarfile.TarInfo, after: int, end: int) -> None:
    """SourceError if a member's size is invalid, because then the next member cannot be found."""
    name = repr(member.name[:200])
    if member.size < 0 or after <= member.offset:
        raise SourceError(f"{name} has a negative size", place=_at(member.offset), hint=_UNPACK)
    if after > end:
        what = f"the end of the tar at byte {end}: it is cut short"
        raise SourceError(expected=f"{name} to end at byte {after}", found=what, place=_at(member.offset), hint=_UNPACK)


def _expanded(stored: bytes, size: int, runs: Sequence[tuple[int, int]]) -> bytes:
    """A sparse file with its holes filled with zeros."""
    whole = io.BytesIO()
    whole.seek(max(size - 1, 0))
    whole.write(bytes(min(size, 1)))
    at = 0
    for offset, length in runs:
        whole.seek(offset)
        whole.write(stored[at : at + length])
        at += length
    return whole.getvalue()  # unlike bytes(bytearray), this does not copy


def _check_end(file: _Headers, offset: int) -> None:
    """SourceError unless a block of zeros is at `offset` and no concatenated tar follows."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or any(block):
        what = "the tar is cut short" if len(block) < _BLOCK else "bytes that are not the header of a file"
        raise SourceError(expected="the end mark of the tar", found=what, place=_at(offset), hint=_UNPACK)
    while len(block) == _BLOCK and not any(block) and file.tell() < offset + _MOST_ZEROS:
        file.begin_member()
        block = file.read(_BLOCK)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):  # only zeros follow, or bytes that are not a tar
        return
    place, hint = _at(file.tell() - _BLOCK), "convert each of them, or unpack them with `tar -xif`"
    raise SourceError(expected="one tar", found="another tar after its end", place=place, hint=hint)


def _at(offset: int) -> str:
    return f"byte {offset}"


def _text_of(error: Exception) -> str:
    return "extension headers nested too deeply" if isinstance(error, RecursionError) else error_text(error)


class _Headers(io.BufferedReader):
    """The file object for `tarfile`: bounds the header bytes of one file, and reads nothing after the tar."""

    def __init__(self, file: io.RawIOBase, begin: int, size: int | None) -> None:
        super().__init__(file)
        file_size = self.seek(0, io.SEEK_END)
        self.end = file_size if size is None else min(begin + size, file_size)
        self.seek(begin)
        self.begin_member()

    def begin_member(self) -> None:
        """Reset the count of header bytes."""
        self._left = _MOST_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self._left:
            found = "more" if size is None or size < 0 else f"{_MOST_HEADER_BYTES - self._left + size}"
            expected = f"headers of at most {_MOST_HEADER_BYTES} bytes for one file"
            raise SourceError(expected=expected, found=found, place=_at(self.tell()), hint=_UNPACK)
        self._left -= size
        return super().read(min(size, max(self.end - self.tell(), 0)))
