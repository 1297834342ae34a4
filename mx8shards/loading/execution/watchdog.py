"""Should the consumer keep waiting for a batch? A watchdog that detects stalled reads, providers and dead threads."""

from __future__ import annotations

import logging
import time

from mx8shards.errors import LoaderError
from mx8shards.kernels import compiling
from mx8shards.loading.execution.provisions import Wait
from mx8shards.loading.execution.run_state import RunState
from mx8shards.loading.execution.stalls import Stalls

INTERVAL_S = 0.5
_REPORT_S = 2.0

_NAMES = {"unpack": "a thread that unpacks it", "network": "the network"}

_logger = logging.getLogger("mx8shards")


class Watchdog:
    """Checks the threads of a run at intervals while the consumer is blocked."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._since = time.monotonic()
        self._compiled_s = compiling.seconds()
        self._stalls = Stalls()
        self._warned = False

    def look(self, planner: int | None, *, planning: bool) -> None:
        """LoaderError if a file system or a provider does not answer, or if no thread can make the batch any more.

        planner   the native id of the planner thread
        planning  whether the planner thread runs or is being started
        """
        state, assembly = self._state, self._state.assembly
        threads = assembly.pool.busy_threads.now()
        stalled = self._stalls.look(threads)
        mine = [number for number, (_, owner) in threads.items() if owner is assembly or owner is None]
        waited_s = max((stalled[number] for number in mine), default=0.0)
        self._expect_answer(waited_s, "a read has not come back for {:.0f} s: the file system does not answer")
        if state.filling and set(mine) <= {planner}:  # other loaders or an earlier run occupy all threads
            waited_s = max(stalled.values(), default=0.0)
            self._expect_answer(waited_s, "no thread has become free for {:.0f} s: earlier reads have not come back")
        provisions = state.provisions  # read once: the planner sets it to None when it ends
        wait = None if provisions is None else provisions.wait
        if wait is not None:
            self._report(wait)
        if wait is not None and wait.cause == "network":  # threads that unpack are covered by the checks above
            complaint = f"{wait.shard} has not arrived after {{:.0f}} s: the loader waits for {_NAMES[wait.cause]}"
            self._expect_answer(time.monotonic() - wait.since, complaint)
        if not planning and state.results.empty() and not state.filling:
            raise LoaderError("the prefetch threads are gone, perhaps because this process was forked")
        self._warn()

    def _report(self, wait: Wait) -> None:
        """Log, once per run, which shard the consumer waits for."""
        waited_s = time.monotonic() - wait.since
        if waited_s > _REPORT_S and not self._state.wait_reported:
            self._state.wait_reported = True
            _logger.warning("a batch has waited for %s for %.0f s: %s", _NAMES[wait.cause], waited_s, wait.shard)

    def _warn(self) -> None:
        waited_s = time.monotonic() - self._since
        if waited_s > self._state.assembly.read_timeout_s and not self._warned:
            self._warned = True
            waits = filter(None, (stage.wait() for stage in self._state.assembly.filler.stages))
            _logger.warning(
                "the next batch has taken %.1f s, %.1f of them to compile %s; no read stalls: %s",
                waited_s,
                compiling.seconds() - self._compiled_s,
                compiling.current() or "kernels",
                "; ".join(waits) or "something else is slow",
            )

    def _expect_answer(self, waited_s: float, complaint: str) -> None:
        limit_s = self._state.assembly.read_timeout_s
        if waited_s > limit_s:
            self._state.stalled = True
            message = complaint.format(waited_s)
            raise LoaderError(message, subject=f"epoch {self._state.epoch}", hint=f"read_timeout_s={limit_s:g}")
