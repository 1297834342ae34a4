"""Which files does an uncompressed tar hold, and where in it do their bytes lie?

Python's `tarfile` reads the headers; the bytes are read where they lie. What a header says is a claim: sizes are
checked against the tar, and the length of a header is bounded. `tarfile` takes the first header that it cannot read for
the end of the tar, which would lose files silently. Here only a block of zeros is its end.

Sparse files (`tar -S`; GNU's old format and PAX 0.0, 0.1 and 1.0) have holes that are not stored. They are expanded.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mx8shards.disk.files import open_regular
from mx8shards.errors import SourceError

MOST_BYTES = 1 << 30  # of one file: more is no picture, and a sparse one may claim any size

_BLOCK = 512
_MOST_LINKS = 40  # as many as Linux follows
_MOST_HEADER_BYTES = 1 << 18
_MOST_ZEROS = 1 << 20  # that are searched for another tar behind the end of the first
_UNPACK = "`tar -xf` unpacks what can still be read; convert that folder"


class _Place(NamedTuple):
    """Where the bytes of a file lie in the tar."""

    begin: int
    size: int
    runs: tuple[tuple[int, int], ...] | None = None  # of a sparse file: (offset in the file, stored bytes)
    fault: str = ""  # why it cannot be read


class Tar:
    """The files in an uncompressed tar. Links to files in it are followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, _Place] = {}
        try:
            with _Headers(io.FileIO(open_regular(path))) as file:
                self._list(file)
        except SourceError as error:
            raise error.at(subject=str(path)) from None
        except Exception as error:  # tarfile raises whatever it meets: ValueError, OverflowError, RecursionError
            expected, found = "a folder, or an uncompressed tar", f"a file that is neither: {_text_of(error)}"
            hint = "unpack a compressed tar, or a zip, first"
            if self._places:
                expected, found, hint = "a whole tar", f"a damaged one: {_text_of(error)}", _UNPACK
            raise SourceError(expected=expected, found=found, subject=str(path), hint=hint) from error

    def _list(self, file: _Headers) -> None:
        links: dict[str, str] = {}
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # of a million files, they take a gigabyte
                _check_sizes(member, tar.offset, file.size)
                name = posixpath.normpath(member.name).lstrip("/")
                links.pop(name, None)  # the last of several entries with one name counts
                if member.isreg():
                    self._places[name] = _place_of(member, file.size)
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname).lstrip("/")
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif not member.isdir():
                    kind = member.type.decode("ascii", "replace")
                    self._places[name] = _Place(-1, 0, fault=f"expected a regular file, got one of type {kind!r}")
            _check_end(file, tar.offset)
        for name, target in links.items():
            for _ in range(_MOST_LINKS):
                target = links.get(target, target)
            nowhere = _Place(-1, 0, fault="cannot be read: a link to nothing in the tar")
            self._places[name] = nowhere if target in links else self._places.get(target, nowhere)

    def names(self) -> list[str]:
        """Their paths, sorted."""
        return sorted(name for name in self._places if "/." not in f"/{name}")

    def stamp(self, name: str) -> object:
        """Place and size of a file, and the time of the tar."""
        place = self._places.get(name)
        if place is None:
            raise SourceError(
                f"{name!r:.200} is in the tar no longer: it changed while it was converted", subject=str(self._path)
            )
        return [place.begin, place.size, self._path.stat().st_mtime_ns]

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        begin, size, runs, fault = self._places[name]
        if fault:
            raise SourceError(fault)
        stored = size if runs is None else sum(length for _, length in runs)
        try:
            with open(open_regular(self._path), "rb") as file:
                file.seek(begin)
                data = file.read(stored)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        if len(data) < stored:
            raise SourceError(expected=f"{stored} bytes", found=f"{len(data)}: the tar is cut short")
        return data if runs is None else _expanded(data, size, runs)


def _check_sizes(member: tarfile.TarInfo, after: int, tar_bytes: int) -> None:
    """SourceError for a member without which the next one cannot be found."""
    name = repr(member.name[:200])
    if member.size < 0 or after <= member.offset:
        raise SourceError(f"{name} has a negative size", place=_at(member.offset), hint=_UNPACK)
    if after > tar_bytes:
        what = f"that the tar ends at byte {tar_bytes}: it is cut short"
        raise SourceError(expected=f"{name} to end at byte {after}", found=what, place=_at(member.offset), hint=_UNPACK)


def _place_of(member: tarfile.TarInfo, tar_bytes: int) -> _Place:
    """Where a regular file lies, or what is wrong with its header."""
    begin, size = member.offset_data, member.size
    if size > MOST_BYTES:
        return _Place(begin, size, fault=f"expected at most {MOST_BYTES} bytes, got {size}")
    sparse: Sequence[tuple[int, int]] | None = getattr(member, "sparse", None)
    if not member.issparse() or sparse is None:
        return _Place(begin, size)
    runs = tuple((offset, length) for offset, length in sparse if length)
    end = 0
    for offset, length in runs:
        if offset < end or length < 0 or offset + length > size:
            return _Place(begin, size, fault="a sparse file whose map of holes is damaged")
        end = offset + length
    if begin + sum(length for _, length in runs) > tar_bytes:
        return _Place(begin, size, fault="a sparse file that is cut short")
    return _Place(begin, size, runs)


def _expanded(stored: bytes, size: int, runs: Sequence[tuple[int, int]]) -> bytes:
    """A sparse file with its holes, which are zeros."""
    whole = bytearray(size)
    at = 0
    for offset, length in runs:
        whole[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(whole)


def _check_end(file: _Headers, offset: int) -> None:
    """SourceError unless the members end at `offset` with a block of zeros, and no other tar follows."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or any(block):
        what = "the tar is cut short" if len(block) < _BLOCK else "bytes that are no header of a file"
        raise SourceError(expected="the end mark of the tar", found=what, place=_at(offset), hint=_UNPACK)
    while len(block) == _BLOCK and not any(block) and file.tell() < offset + _MOST_ZEROS:
        block = file.read(_BLOCK)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):  # zeros to the end, or bytes that are no tar
        return
    place, hint = _at(file.tell() - _BLOCK), "convert each of them, or unpack them with `tar -xif`"
    raise SourceError(expected="one tar", found="another tar behind its end", place=place, hint=hint)


def _at(offset: int) -> str:
    return f"byte {offset}"


def _text_of(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "headers of headers, nested too deeply"
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Headers(io.BufferedReader):
    """The tar's file as `tarfile` gets it: it reads no more at once than a header may have."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file)
        self.size = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER_BYTES:
            expected = f"a header of at most {_MOST_HEADER_BYTES} bytes"
            raise SourceError(expected=expected, found=f"{size}", place=_at(self.tell()), hint=_UNPACK)
        return super().read(size)
