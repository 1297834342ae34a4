"""Which state of a remote dataset belongs to one process? A forked child cannot use its parent's."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from mx8shards.remote.store import Store


@dataclass
class ProcessState:
    """The store that a process is connected to, and what it has fetched.

    lock      guards `store` and `closed`, so that no store is opened after `closed` was set, and never closed
    here      basenames that were provided in this process
    spent     begin, end and bytes of each fetch of a shard
    in_parts  the bytes of all reads of parts of shards, the seconds in which any was running, the end of the last
    etags     of the objects that are read in parts, by basename
    """

    process: int
    lock: Lock = field(default_factory=Lock)
    store: Store | None = None
    closed: bool = False
    here: set[str] = field(default_factory=set)
    spent: list[tuple[float, float, int]] = field(default_factory=list)
    in_parts: tuple[int, float, float] = (0, 0.0, 0.0)
    etags: dict[str, str] = field(default_factory=dict)

    def note_part(self, begin: float, end: float, size_bytes: int) -> None:
        """Add the read of a part to the sums: there may be millions of them."""
        with self.lock:
            total, busy_s, until = self.in_parts
            self.in_parts = total + size_bytes, busy_s + max(0.0, end - max(begin, until)), max(end, until)
