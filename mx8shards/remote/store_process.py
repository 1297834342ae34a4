"""How do the processes that one process has forked share a helper process, which asks object stores for them?

The first of them that needs the helper starts it, from a fresh interpreter, which has none of their threads and locks.
It serves all stores: requests carry the store. It ends with the last of these processes, or when none has been
connected for a while.

They have inherited two things, which were made before the fork: a pair of sockets, through which each of them sends the
end of a connection of its own, and an anonymous file. The helper holds a lock on the file's first byte, so that they
know whether it runs; who starts it holds one on the second. The kernel frees the locks of a process that is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

from mx8shards.errors import RemoteError
from mx8shards.remote import environment
from mx8shards.remote.helper_records import HelperRecords

SERVING, STARTING = 0, 1  # bytes of the file that are locked

# The arguments are two descriptors and the search path for modules.
_MAIN = """
import sys
sys.path[:] = sys.argv[3:]
from mx8shards.remote.store_serving import serve
serve(*map(int, sys.argv[1:3]))
"""
_ENDED = "the helper process that asks the object store has ended"
_STOPPED = "the operation was stopped: its store was closed"
_LOOK_S = 0.2  # between two looks at whether the helper runs, while it does not answer
_START_S = 0.005  # between two looks at whether it has started


class HelperEndedError(RemoteError):
    """The helper process has ended before it answered."""


class Meeting:
    """What a process and those forked from it share, so that they find one helper: descriptors, which stay open."""

    def __init__(self) -> None:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking, self._serving = (each.detach() for each in pair)
        self._locks = os.memfd_create("mx8shards-helper")
        self.helpers = HelperRecords(self._locks)

    def connect(self) -> socket.socket:
        """A connection to the helper, which is started if it does not run."""
        self._require_helper()
        mine, theirs = socket.socketpair()
        _here.ends.add(theirs)
        try:
            with socket.socket(fileno=os.dup(self._asking)) as asking:
                socket.send_fds(asking, [b"connect"], [theirs.fileno()])
        finally:
            _here.ends.discard(theirs)
            theirs.close()  # so that the connection ends with the helper
        while not is_readable(mine, _LOOK_S):
            self._require_helper()  # it may have ended before it took the connection, which another one takes then
        return mine

    def _require_helper(self) -> None:
        """Start the helper unless it runs."""
        if self._is_served():
            return
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, STARTING)
        try:
            if not self._is_served():
                self._start()
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, STARTING)

    def _is_served(self) -> bool:
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, SERVING)
        except (BlockingIOError, PermissionError):
            return True
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, SERVING)
        return False

    def _start(self) -> None:
        descriptors = self._serving, self._locks
        command = [sys.executable, "-c", _MAIN, *map(str, descriptors), *map(os.fspath, sys.path)]
        process = subprocess.Popen(  # its standard output goes to standard error
            command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=descriptors, start_new_session=True
        )
        while not self._is_served():
            if process.poll() is not None:
                raise HelperEndedError(f"{_ENDED}: it did not start, exit status {process.returncode}")
            time.sleep(_START_S)
        _here.started.append(process)


class Connection:
    """The connection of this process to the helper. Any thread may ask; one thread reads the answers."""

    def __init__(self, meeting: Meeting) -> None:
        self._socket = meeting.connect()
        _here.ends.add(self._socket)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[object, Future[Any]]] = {}  # with who asks
        self._count = 0
        self.alive = True
        self._send(environment.of_stores())  # with which the stores are opened
        threading.Thread(target=self._read_answers, name="mx8shards-helper", daemon=True).start()

    def ask(self, asker: object, store: bytes, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a method of a store in the helper. Its exception is raised here."""
        future: Future[Any] = Future()
        with self._lock:
            number = self._count = self._count + 1
            self._waiting[number] = asker, future
            try:
                self._send((number, store, method, args, kwargs))
            except BaseException as error:  # after half of a request, the helper understands nothing more
                self._waiting.pop(number, None)
                self._end()
                if isinstance(error, OSError):
                    raise HelperEndedError(_ENDED) from None
                raise
        if not self.alive and not future.done():
            raise HelperEndedError(_ENDED)
        return future.result()

    def abandon(self, asker: object) -> None:
        """End the wait for what this store was asked. The helper goes on with it, and nobody reads its answer."""
        for number, (who, _) in list(self._waiting.items()):
            if who is asker:
                self._taken(number).set_exception(RemoteError(_STOPPED))

    def _send(self, request: Any) -> None:
        self._socket.sendall(pickle.dumps(request))

    def _read_answers(self) -> None:
        """Give each answer to whoever waits for it, until the helper ends."""
        with contextlib.suppress(Exception), self._socket.makefile("rb") as answers:
            answers.read(1)  # that the connection was taken
            while True:
                number, result, error = pickle.load(answers)  # noqa: S301 — our own process wrote it
                if error is None:
                    self._taken(number).set_result(result)
                else:
                    self._taken(number).set_exception(error)
        self._end()
        while self._waiting:
            _, (_, future) = self._waiting.popitem()
            future.set_exception(HelperEndedError(_ENDED))

    def _taken(self, number: int) -> Future[Any]:
        """The future of a request, which nobody else takes; one that nobody waits for if it was taken before."""
        return self._waiting.pop(number, (None, Future()))[1]

    def _end(self) -> None:
        """Nothing more is sent; the thread that reads finds the end of the answers."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def is_readable(connection: socket.socket, timeout_s: float) -> bool:
    """Wait until something can be read from a socket, or until the timeout."""
    poll = select.poll()  # unlike select, it takes descriptors from 1024 on
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class _Here:
    """What this process shares with its relatives, and its own connection to the helper."""

    def __init__(self) -> None:
        self.meeting: Meeting | None = None  # shared with the processes that it was forked from, and those it forks
        self.connection: Connection | None = None
        self.lock = threading.Lock()  # of `connection`
        self.ends: set[socket.socket] = set()  # of connections; they must not stay open in a forked process
        self.started: list[subprocess.Popen[bytes]] = []  # helpers: it reaps those that have ended


_here = _Here()


def prepare() -> None:
    """Make what the processes that are forked from this one share. Called before a fork."""
    with contextlib.suppress(OSError):  # no descriptor is left: then each forked process makes its own
        _here.meeting = _here.meeting or Meeting()
        _here.meeting.helpers.reap()


def forget() -> None:
    """After a fork: forget the parent's connection, and a lock that another thread may have held."""
    _here.connection, _here.lock = None, threading.Lock()
    while _here.ends:
        with contextlib.suppress(OSError):
            os.close(_here.ends.pop().detach())


def ask(asker: object, store: bytes, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a method of a store, asked by the helper.

    Args:
        asker: An object that identifies the caller for `abandon`.
        store: The store, pickled.
        method: The name of a method, or of an attribute.
        args: The method's arguments.
        kwargs: Those by keyword.
    """
    return _connected().ask(asker, store, method, args, kwargs)


def abandon(asker: object) -> None:
    """End the waits of `asker`."""
    if _here.connection is not None:
        _here.connection.abandon(asker)


def _connected() -> Connection:
    with _here.lock:
        if _here.connection is None or not _here.connection.alive:
            _here.started = [process for process in _here.started if process.poll() is None]
            _here.meeting = _here.meeting or Meeting()
            _here.connection = Connection(_here.meeting)
        return _here.connection
