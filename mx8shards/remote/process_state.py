"""What does one process have of a remote dataset? A forked child must not use its parent's store, nor its threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from mx8shards.remote.store import Store


@dataclass
class ProcessState:
    """The store that a process is connected to, and what it has fetched.

    lock      of store and closed: a store that nobody knows would not be closed
    here      basenames that were provided in this process
    spent     begin, end and bytes of each fetch of a shard
    in_parts  those of each read of a part of a shard
    etags     of the objects that are read in parts, by basename
    """

    process: int
    lock: Lock = field(default_factory=Lock)
    store: Store | None = None
    closed: bool = False
    here: set[str] = field(default_factory=set)
    spent: list[tuple[float, float, int]] = field(default_factory=list)
    in_parts: list[tuple[float, float, int]] = field(default_factory=list)
    etags: dict[str, str] = field(default_factory=dict)
