"""Which helper processes were started, and which of them can this process reap?

The process that starts the helper is often a DataLoader worker, which ends before it. Then the helper's parent is
process 1, which should reap it. In a container that is often a training script, which reaps nothing. So each helper
writes its number into a file that all these processes share, and before each fork, a process reaps those that have
become its children.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_RECORD = struct.Struct("<qq")  # the number of a process, and when it was started


class HelperRecords:
    """The helpers in the shared file with this descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen: tuple[int, list[tuple[int, int]]] = 0, []  # bytes read of the file, and helpers not reaped yet

    def add_this_process(self) -> None:
        """Called by one process at a time: the helper, while it holds its lock."""
        record = _RECORD.pack(os.getpid(), _state(os.getpid())[2])
        os.pwrite(self._descriptor, record, os.fstat(self._descriptor).st_size)

    def reap(self) -> None:
        """Reap the helpers that have ended and are children of this process. Several threads may do so at once."""
        begin, unreaped = self._seen
        count = (os.fstat(self._descriptor).st_size - begin) // _RECORD.size
        data = os.pread(self._descriptor, count * _RECORD.size, begin)
        left = [each for each in (*unreaped, *_RECORD.iter_unpack(data)) if not _is_gone(*each)]
        self._seen = begin + len(data), left


def _is_gone(number: int, started: int) -> bool:
    """Whether a helper has ended. If it is a child of this process, it is reaped then."""
    try:
        state, parent, since = _state(number)
        if since == started and state == b"Z" and parent == os.getpid():
            return os.waitpid(number, os.WNOHANG)[0] == number  # 0 while one of its threads has not ended yet
    except (FileNotFoundError, ProcessLookupError, ChildProcessError):
        return True
    except OSError:  # no descriptor is left, for instance
        return False
    return since != started  # another process has its number


def _state(number: int) -> tuple[bytes, int, int]:
    """State, parent and start time of a process, from Linux."""
    fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0], int(fields[1]), int(fields[19])
