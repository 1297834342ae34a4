"""What does a `for` over a loader go through?"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from threading import get_ident
from typing import Any, Protocol

from mx8shards.errors import LoaderError, ShardsError
from mx8shards.kernels import compiling
from mx8shards.loading.execution.device import Mover, Moving
from mx8shards.loading.execution.prefetch import Done, Failed, Ready, Recipe, Restart, Run, Shed

Outcome = Ready | Failed | Done


_LEFT = "this iteration was left: a newer one has begun, it was interrupted, or the loader was closed"


class Listener(Protocol):
    """Who is told of what is handed over."""

    def delivered(self, ready: Ready, waited_s: float, worked_s: float, compiled_s: float) -> None:
        """A batch is the consumer's now, who waited for it and before that worked for so long.

        While it waited, kernels were compiled for `compiled_s`.
        """

    def ended(self, epoch: int) -> None:
        """There is no more of this epoch."""

    def failed(self) -> None:
        """The next batch could not be made."""

    def what_next(self, epoch: int) -> str:
        """What comes after such a failure, for the user."""

    def left(self, epoch: int) -> int:
        """How many batches are still to come of this epoch."""


class Epoch(Iterator[Any]):
    """The batches of one epoch from a position on, in order. It ends with its last batch, an error, or `close`."""

    def __init__(self, recipe: Recipe, listener: Listener, epoch: int, position: int, runs: list[Run]) -> None:
        self._runs = runs  # the one that is under way, for somebody who has to wait for its end when we are gone
        self._recipe = recipe
        self._listener = listener
        self._epoch = epoch
        self._position = position  # of what is taken from the run next
        self._process = os.getpid()
        self._given_at = time.perf_counter()
        self._ahead: tuple[Outcome, Moving | None] | None = None
        self._over = False
        self._left = False
        self._asking: dict[str, int] = {}  # the thread that waits for a batch
        self._start(Run(recipe, epoch, position))

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
        try:
            result = self._result() if self._recipe.mover is None else self._moved(self._recipe.mover)
        except Exception:
            self._end()
            if self._left:
                raise LoaderError(_LEFT) from None
            self._listener.failed()
            raise
        if self._left:  # another thread left it while this one took the result: the loader's position is not ours now
            raise LoaderError(_LEFT)
        now = time.perf_counter()
        if isinstance(result, Ready):
            compiled_s = min(compiling.seconds() - compiled_s, now - asked_at)
            self._listener.delivered(result, now - asked_at, asked_at - self._given_at, compiled_s)
            self._given_at = now
            return result.batch
        self._end()
        if isinstance(result, Done):
            self._listener.ended(self._epoch)
            raise StopIteration
        self._listener.failed()
        reason = result.error
        if isinstance(reason, LoaderError):
            raise reason.at(place=result.transformed) if result.transformed else reason
        raise LoaderError(
            f"{type(reason).__name__}: {reason}",
            subject=f"epoch {self._epoch}",
            place=result.transformed,
            hint=self._how_to_go_on(result),
        ) from reason

    def __len__(self) -> int:
        """How many batches are still to come: of a whole epoch as many as the loader has, after a resume fewer."""
        return 0 if self._over or self._left else self._listener.left(self._epoch)

    def _how_to_go_on(self, failed: Failed) -> str:
        """What a user can do about a batch that could not be made."""
        again = self._listener.what_next(self._epoch)
        of_sample = isinstance(failed.error, ShardsError) and not failed.transformed
        if of_sample and self._recipe.on_error == "raise":
            return f'on_error="skip" or "substitute" passes over bad samples; {again}'
        return again

    def close(self) -> None:
        """Give up what was made ahead. Whoever asks for more gets an error."""
        if not self._over and self._process == os.getpid():
            self._left = True
            self._end()

    def _result(self) -> Outcome:
        """What comes next."""
        result = self._run.take()
        while isinstance(result, Restart | Shed):  # all that was made ahead is given up: others need the room
            self._stop()
            self._run.join()
            if self._left:
                raise LoaderError(_LEFT)
            if isinstance(result, Restart):
                self._start(Run(self._recipe, self._epoch, result.planned.position, result))
            else:
                self._start(Run(self._recipe, self._epoch, self._position))
            result = self._run.take()
        self._pass(result)
        return result

    def _pass(self, result: Outcome | None) -> None:
        if isinstance(result, Ready):
            steps = self._recipe.plan.steps
            self._position = min(result.planned.position + steps.stride, steps.length)

    def _moved(self, mover: Mover) -> Outcome:
        """What comes next, on the device; the one after it is sent on its way."""
        result, moving = self._ahead or _sent(mover, self._result())
        following = self._run.take_ready()
        self._pass(following)
        self._ahead = None if following is None else _sent(mover, following)
        if isinstance(result, Ready) and moving is not None:
            return result._replace(batch=mover.finish(moving))
        return result

    def _start(self, run: Run) -> None:
        self._run = run
        self._runs[:] = [run]  # before its thread starts: Ctrl-C may come from there on
        self._stop = weakref.finalize(self, Run.stop, run)  # also if nobody takes it to its end
        run.start()
        if self._left:  # another thread closed the loader just now
            run.stop()

    def _end(self) -> None:
        self._over = True
        self._ahead = None
        self._stop()
        self._run.join()
        if self._recipe.mover is not None:
            self._recipe.mover.wait()


def _sent(mover: Mover, result: Outcome) -> tuple[Outcome, Moving | None]:
    return result, mover.start(result.batch) if isinstance(result, Ready) else None
