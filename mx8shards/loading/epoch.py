"""Which batches and errors does `for batch in loader` get? The iterator over one epoch, from a position on."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

from mx8shards.errors import DecodeError, LoaderError
from mx8shards.kernels import compiling
from mx8shards.loading.execution.device import Mover, Moving
from mx8shards.loading.execution.results import Done, Failed, Ready, Result
from mx8shards.loading.execution.run import Run
from mx8shards.loading.execution.run_state import Assembly
from mx8shards.loading.planning.shard_table import is_damage
from mx8shards.loading.reporting.progress import Progress

_ABANDONED = "this iteration has ended: a newer one has begun, it was interrupted, or the loader was closed"


class Epoch(Iterator[Any]):
    """The batches of one epoch from a position on, in order. It ends with its last batch, an error, or `close`.

    assembly   the parts that the loader's runs share
    progress   the loader's position, which moves with the first batch, error or end, and not before
    runs       receives the current run, so that the loader can wait for its end when this iterator is gone
    what_next  returns, for an error message, what the next `for` does after a failed step. It keeps the loader alive
    """

    def __init__(
        self, assembly: Assembly, progress: Progress, runs: list[Run], what_next: Callable[[int], str]
    ) -> None:
        self._assembly = assembly
        self._progress = progress
        self._runs = runs
        self._what_next = what_next
        self._at = progress.upcoming  # of the next step
        self._epoch = self._at[0]
        self._process = os.getpid()
        self._given_at = time.perf_counter()
        self._ahead: tuple[Result, Moving | None] | None = None
        self._over = False
        self._abandoned = False
        self._asking: dict[str, int] = {}  # the thread that is in `__next__`
        self._run = Run(assembly, *self._at)
        runs[:] = [self._run]  # before its thread starts, as Ctrl-C may come from then on
        self._stop = weakref.finalize(self, Run.stop, self._run)  # if this iterator is dropped before its end
        self._run.start()

    def __next__(self) -> Any:
        if self._process != os.getpid():
            raise LoaderError("this iteration belongs to another process: iterate anew after a fork")
        if self._abandoned:
            raise LoaderError(_ABANDONED)
        if self._over:
            raise StopIteration
        if self._asking.setdefault("thread", get_ident()) != get_ident():  # `setdefault` is atomic under the GIL
            raise LoaderError(
                "another thread waits for the next batch of this iteration: only one thread at a time may"
            )
        try:
            return self._next()
        except Exception:
            raise
        except BaseException as error:  # Ctrl-C may have lost a batch, and continuing would hide that
            self._abandoned = True
            self._end()
            if isinstance(error, KeyboardInterrupt):
                error.__context__ = None  # the context is only an empty queue
            raise
        finally:
            self._asking.clear()

    def _next(self) -> Any:
        asked_at, compiled_s = time.perf_counter(), compiling.seconds()
        mover = self._assembly.mover
        try:
            result = self._run.take() if mover is None else self._moved(mover)
        except Exception:
            self._end()
            if self._abandoned:
                raise LoaderError(_ABANDONED) from None
            self._progress.go_to(self._at)
            raise
        if self._abandoned:  # another thread closed it: the loader's position must not move
            raise LoaderError(_ABANDONED)
        if isinstance(result, Ready):
            now = time.perf_counter()
            compiled_s = min(compiling.seconds() - compiled_s, now - asked_at)
            self._at = self._assembly.plan.steps.after(self._epoch, result.position)
            network_s = max(0.0, result.times.blocks_at - asked_at)
            self._progress.delivered(result, self._at, now - asked_at, asked_at - self._given_at, compiled_s, network_s)
            self._given_at = now
            return result.batch
        self._end()
        if isinstance(result, Done):
            self._progress.go_to((self._epoch + 1, 0))  # even if this rank got no batch of the epoch
            raise StopIteration
        self._progress.go_to(self._at)  # the step failed: the next `for` tries it again
        raise self._error_of(result) from (None if isinstance(result.error, LoaderError) else result.error)

    def _error_of(self, failed: Failed) -> LoaderError:
        reason = failed.error
        if isinstance(reason, LoaderError):
            return reason.at(place=failed.transformed) if failed.transformed else reason
        return LoaderError(
            f"{type(reason).__name__}: {reason}",
            subject=f"epoch {self._epoch}",
            place=failed.transformed,
            hint=self._hint(failed),
        )

    def _hint(self, failed: Failed) -> str:
        """The hint of an error: what the user can do about a failed batch."""
        again = self._what_next(self._epoch)
        of_samples = is_damage(failed.error) or isinstance(failed.error, DecodeError)
        if of_samples and not failed.transformed and self._assembly.on_error == "raise":
            return f'on_error="skip" or "substitute" passes over bad samples; {again}'
        return again

    def __len__(self) -> int:
        """The number of batches still to come: `len` of the loader at first, fewer after a resume."""
        if self._over or self._abandoned or self._at[0] != self._epoch:
            return 0
        plan = self._assembly.plan
        return plan.steps.batches(plan.rank, self._at[1])

    def close(self) -> None:
        """End the iteration and drop prefetched batches. `next` raises an error from then on."""
        if not self._over and self._process == os.getpid():
            self._abandoned = True
            self._end()

    def _moved(self, mover: Mover) -> Result:
        """The next result, on the device; starts the copy of the batch after it."""
        result, moving = self._ahead or _sent(mover, self._run.take())
        following = self._run.take_ready()
        self._ahead = None if following is None else _sent(mover, following)
        if isinstance(result, Ready) and moving is not None:
            return result._replace(batch=mover.finish(moving))
        return result

    def _end(self) -> None:
        self._over = True
        self._ahead = None
        self._stop()
        self._run.join()
        if self._runs == [self._run]:
            self._runs.clear()
            self._progress.counters.produced(self._run.producer_s)
        if self._assembly.mover is not None:
            self._assembly.mover.wait()


def _sent(mover: Mover, result: Result) -> tuple[Result, Moving | None]:
    return result, mover.start(result.batch) if isinstance(result, Ready) else None
