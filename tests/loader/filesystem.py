"""A FUSE file system that stalls, fails or is slow on command. It mirrors a directory.

`python -m tests.loader.filesystem SOURCE MOUNT` serves it in a separate process, read-only; stopping that process
simulates a file server that does not answer. It implements the FUSE protocol itself and needs only root and
/dev/fuse. Commands on its standard input set the behaviour of reads: `ok`, `fail`, `fail FROM` (reads beyond byte
FROM fail), `delay SECONDS`, or `hold` (no answer until the next command). It unmounts when its input ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_RDONLY_NOSUID_NODEV = 1 | 2 | 4
_DETACH = 2

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_READ = struct.Struct("<QQI")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_TIMES = struct.Struct("<QI4x")
_ENTRY = struct.Struct("<QQQQII")
_OPEN = struct.Struct("<QII")
_STATFS = struct.Struct("<QQQQQIIII24x")

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    *(1, 2, 3, 14, 15, 17, 18, 25, 26, 27),
    *(28, 29),
)
INTERRUPT, DESTROY, BATCH_FORGET = 36, 38, 42
_SILENT = {FORGET, INTERRUPT, BATCH_FORGET}


class Server:
    """Answers the kernel's FUSE requests for one directory."""

    def __init__(self, source: Path, mount: Path) -> None:
        self._paths = {1: source}
        self._numbers = {source: 1}
        self._files: dict[int, int] = {}
        self._reads = ["ok"]
        self._held: list[bytes] = []
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if _libc.mount(b"mx8shards-test", bytes(mount), b"fuse", _RDONLY_NOSUID_NODEV, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount failed")

    def serve(self) -> None:
        """Serve until the standard input ends."""
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([self._device, sys.stdin], [], [])
            if sys.stdin in ready:
                self._reads = sys.stdin.readline().split()
                if not self._reads:
                    return
                print("heard", flush=True)
                while self._held and self._reads[0] != "hold":
                    self._reply(self._held.pop())
            if self._device in ready:
                try:
                    request = os.read(self._device, 1 << 17)
                except OSError as error:
                    if error.errno == errno.ENODEV:  # unmounted
                        return
                    raise
                if self._reads[0] == "hold" and _IN.unpack_from(request)[1] == READ:
                    self._held.append(request)
                else:
                    self._reply(request)

    def _reply(self, request: bytes) -> None:
        _, code, unique, node, *_ = _IN.unpack_from(request)
        if code in _SILENT:
            return
        error, body = 0, b""
        try:
            body = self._body(code, node, request[_IN.size :])
        except OSError as failure:
            error = -(failure.errno or errno.EIO)
        with suppress(FileNotFoundError):  # the request was interrupted
            os.write(self._device, _OUT.pack(_OUT.size + len(body), error, unique) + body)

    def _body(self, code: int, node: int, body: bytes) -> bytes:
        if code == INIT:
            return _INIT_OUT.pack(7, 31, 1 << 17, 1, 16, 12, 1 << 16, 1, 0, 0, 0)
        if code == LOOKUP:
            path = self._paths[node] / os.fsdecode(body.rstrip(b"\0"))
            attributes = _attributes(path)
            number = self._numbers.setdefault(path, len(self._numbers) + 1)
            self._paths[number] = path
            return _ENTRY.pack(number, 0, 0, 0, 0, 0) + attributes
        if code == GETATTR:
            return _TIMES.pack(0, 0) + _attributes(self._paths[node])
        if code == OPEN:
            descriptor = os.open(self._paths[node], os.O_RDONLY)
            return _OPEN.pack(descriptor, 0, 0)
        if code == RELEASE:
            os.close(struct.unpack_from("<Q", body)[0])
            return b""
        if code == READ:
            return self._read(*_READ.unpack_from(body))
        if code == READDIR:
            return self._entries(node, *_READ.unpack_from(body)[1:])
        if code == STATFS:
            return _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)
        if code in (OPENDIR, RELEASEDIR, FLUSH, DESTROY):
            return _OPEN.pack(0, 0, 0) if code == OPENDIR else b""
        raise OSError(errno.ENOSYS, "unknown")

    def _read(self, descriptor: int, begin: int, size: int) -> bytes:
        what, number = (*self._reads, "0")[:2]
        if what == "fail" and begin + size > int(number):
            raise OSError(errno.EIO, "as told")
        if what == "delay":
            time.sleep(float(number))
        return os.pread(descriptor, size, begin)

    def _entries(self, node: int, offset: int, size: int) -> bytes:
        found = b""
        for i, name in enumerate(sorted(os.listdir(self._paths[node]))):
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", i + 2, i + 1, len(raw), 0) + raw
            entry += b"\0" * (-len(entry) % 8)
            if i >= offset and len(found) + len(entry) <= size:
                found += entry
        return found


def _attributes(path: Path) -> bytes:
    found = os.lstat(path)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime), 0, 0, 0)
    mode = found.st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    owner = (found.st_nlink, found.st_uid, found.st_gid, 0)
    return _ATTR.pack(found.st_ino, found.st_size, found.st_blocks, *times, mode, *owner, 4096, 0)


class Mirror:
    """A FUSE mount of a directory, by a server that can fail."""

    def __init__(self, source: Path, mount: Path) -> None:
        self.root = mount
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.loader.filesystem", source, mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline().strip() != "ready":
            self.close()
            raise OSError(errno.EPERM, "this process may not mount a file system of its own")

    def reads(self, what: str) -> None:
        """Set the behaviour of reads: `ok`, `fail`, `fail FROM`, `delay SECONDS`, `hold`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(what + "\n")
        self._server.stdin.flush()
        self._server.stdout.readline()

    def stall(self) -> None:
        """Stop the server: no request is answered."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue the server: pending requests are answered too."""
        self._server.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Drop its files from the page cache."""
        for path in self.root.rglob("*.mds"):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Unmount. Pending requests get an error."""
        self.go_on()
        _libc.umount2(bytes(self.root), _DETACH)
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server.kill()
        self._server.wait()


@contextmanager
def mirrored(source: Path, mount: Path) -> Iterator[Mirror]:
    """Mount the directory. Skips the test if mounting is not allowed."""
    mount.mkdir()
    try:
        found = Mirror(source, mount)
    except OSError as error:
        pytest.skip(f"no file system of our own: {error}")
    try:
        yield found
    finally:
        found.close()


def main() -> None:
    """Serve."""
    source, mount = map(Path, sys.argv[1:])
    server = Server(source, mount)
    try:
        server.serve()
    finally:
        _libc.umount2(bytes(mount), _DETACH)


if __name__ == "__main__":
    main()
