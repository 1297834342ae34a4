"""Fault injection: a decoder and a transform that fail at one sample."""

from __future__ import annotations

import ctypes
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mx8shards.kernels.records import MAPPED, OK, REFUSED
from mx8shards.stages import DecoderContext, Output, Stage, Work

BLOB = 0  # the index of this column


class OnCommandError(Exception):
    """The error of injected faults."""


@dataclass(eq=False)
class Fault:
    """Calls `act` in the method `where`, when it handles one of `samples` (empty: any), while `armed`."""

    where: str
    act: Callable[[], None]
    samples: frozenset[int] = frozenset()
    armed: bool = True
    happened: int = field(default=0)

    def trigger(self, where: str, sample_ids: Any) -> None:
        """Call `act` if the fault is armed for this method and these samples."""
        if self.armed and where == self.where and (not self.samples or self.samples.intersection(sample_ids)):
            self.happened += 1
            self.act()


def raising(error: BaseException) -> Callable[[], None]:
    """An `act` that raises."""

    def act() -> None:
        raise error

    return act


@dataclass(frozen=True)
class ChecksumDecoder:
    """A decoder of a blob's length and checksum, which refuses the samples in `bad`."""

    fault: Fault | None = None
    bad: frozenset[int] = frozenset()
    takes_s: float = 0.0

    def stage(self, context: DecoderContext) -> ChecksumStage:
        """The stage of this decoder."""
        return ChecksumStage(context.column, self)


class Scratch:
    """The resource of one thread."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault

    def close(self) -> None:
        """Called when the thread ends."""
        if self._fault is not None:
            self._fault.trigger("close", self._fault.samples)


class ChecksumStage(Stage):
    """Computes length and checksum of each blob."""

    opens_thread = True
    narrows = True

    def __init__(self, column: str, settings: ChecksumDecoder) -> None:
        self.columns = (column,)
        self.outputs = {"checksum": Output(np.dtype(np.int64), (2,))}
        self._settings = settings

    def _trigger(self, where: str, work: Work, start: int = 0, stop: int | None = None) -> None:
        if self._settings.fault is not None:
            self._settings.fault.trigger(where, work.rows["sample_id"][start:stop].tolist())

    def open_thread(self) -> Scratch:
        if self._settings.fault is not None and self._settings.fault.where == "scratch":
            self._settings.fault.trigger("scratch", self._settings.fault.samples)
        return Scratch(self._settings.fault)

    def narrow(self, work: Work) -> None:
        self._trigger("narrow", work)

    def begin(self, work: Work) -> None:
        self._trigger("begin", work)

    def fill(self, work: Work, start: int, stop: int, scratch: Any) -> None:
        weights = work.array("checksum", self.outputs["checksum"])
        for i in range(start, stop):
            row = work.rows[i]
            self._trigger("fill", work, i, i + 1)
            if int(row["sample_id"]) in self._settings.bad:
                work.rows["status"][i] = REFUSED
            if work.rows["status"][i] == OK:
                span = work.spans[i, BLOB]
                blob = _bytes(work, row, int(span["begin"]), int(span["size"]))
                weights[i] = len(blob), zlib.crc32(blob)
            if self._settings.takes_s:
                time.sleep(self._settings.takes_s)


def _bytes(work: Work, row: Any, begin: int, size: int) -> bytes:
    if row["way"] == MAPPED:
        return ctypes.string_at(int(work.shards[row["shard"]]["base"]) + begin, size)
    return os.pread(int(row["file"]), size, begin)
