"""What does a `for` over a loader iterate over? The batches of one epoch from a position on."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any

from mx8shards.errors import LoaderError, ShardsError
from mx8shards.kernels import compiling
from mx8shards.loading.execution.device import Mover, Moving
from mx8shards.loading.execution.results import Done, Failed, Ready, Result
from mx8shards.loading.execution.run import Run
from mx8shards.loading.execution.run_state import Assembly
from mx8shards.loading.reporting.progress import Progress

_LEFT = "this iteration was left: a newer one has begun, it was interrupted, or the loader was closed"


class Epoch(Iterator[Any]):
    """The batches of one epoch from a position on, in order. It ends with its last batch, an error, or `close`.

    assembly   what the loader's runs are made of
    progress   where the loader stands: it moves with the first batch, error or end, and not before
    runs       the run that is under way, for whoever has to wait for its end when this iteration is gone
    what_next  what the next `for` does after a step of this epoch failed, for the user; it keeps the loader alive
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
        self._left = False
        self._asking: dict[str, int] = {}  # the thread that waits for a batch
        self._run = Run(assembly, *self._at)
        runs[:] = [self._run]  # before its thread starts: Ctrl-C may come from there on
        self._stop = weakref.finalize(self, Run.stop, self._run)  # also if nobody takes it to its end
        self._run.start()

    def __next__(self) -> Any:
        if self._process != os.getpid():
            raise LoaderError("this iteration belongs to another process: iterate anew after a fork")
        if self._left:
            raise LoaderError(_LEFT)
        if self._over:
            raise StopIteration
        if self._asking.setdefault("thread", get_ident()) != get_ident():  # at once, unlike a lock after Ctrl-C
            raise LoaderError("another thread waits for the next batch of this iteration: one thread at a time may")
        try:
            return self._next()
        except Exception:
            raise
        except BaseException as error:  # Ctrl-C, and a batch may be lost: to go on here would hide that
            self._left = True
            self._end()
            if isinstance(error, KeyboardInterrupt):
                error.__context__ = None  # that a queue was empty when it came tells nothing
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
            if self._left:
                raise LoaderError(_LEFT) from None
            self._progress.go_to(self._at)
            raise
        if self._left:  # another thread left it while this one took the result: the loader's position is not ours now
            raise LoaderError(_LEFT)
        if isinstance(result, Ready):
            now = time.perf_counter()
            compiled_s = min(compiling.seconds() - compiled_s, now - asked_at)
            self._at = self._assembly.plan.steps.after(self._epoch, result.position)
            self._progress.delivered(result, self._at, now - asked_at, asked_at - self._given_at, compiled_s)
            self._given_at = now
            return result.batch
        self._end()
        if isinstance(result, Done):
            self._progress.go_to((self._epoch + 1, 0))  # also if this rank got no batch of the epoch
            raise StopIteration
        self._progress.go_to(self._at)  # the step was not done: the next `for` tries it again
        raise self._error_of(result) from (None if isinstance(result.error, LoaderError) else result.error)

    def _error_of(self, failed: Failed) -> LoaderError:
        reason = failed.error
        if isinstance(reason, LoaderError):
            return reason.at(place=failed.transformed) if failed.transformed else reason
        return LoaderError(
            f"{type(reason).__name__}: {reason}",
            subject=f"epoch {self._epoch}",
            place=failed.transformed,
            hint=self._how_to_go_on(failed),
        )

    def _how_to_go_on(self, failed: Failed) -> str:
        """What a user can do about a batch that could not be made."""
        again = self._what_next(self._epoch)
        of_sample = isinstance(failed.error, ShardsError) and not failed.transformed
        if of_sample and self._assembly.on_error == "raise":
            return f'on_error="skip" or "substitute" passes over bad samples; {again}'
        return again

    def __len__(self) -> int:
        """How many batches are still to come: of a whole epoch as many as the loader has, after a resume fewer."""
        if self._over or self._left or self._at[0] != self._epoch:
            return 0
        plan = self._assembly.plan
        return plan.steps.batches(plan.rank, self._at[1])

    def close(self) -> None:
        """Give up what was made ahead. Whoever asks for more gets an error."""
        if not self._over and self._process == os.getpid():
            self._left = True
            self._end()

    def _moved(self, mover: Mover) -> Result:
        """What comes next, on the device; the batch after it is sent on its way."""
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
