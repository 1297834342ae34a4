"""What does a user get who wants batches of a dataset?"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from mx8shards.dataset import Dataset
from mx8shards.errors import IntegrityError, LoaderError
from mx8shards.kernels.permutation import walk
from mx8shards.kernels.records import ROW, SPAN
from mx8shards.loading import machine
from mx8shards.loading.bank import bank_bytes
from mx8shards.loading.batch import OUTPUT_KINDS, OutputKind, converter
from mx8shards.loading.device import Mover, Moving
from mx8shards.loading.difference import difference
from mx8shards.loading.filling import Filler
from mx8shards.loading.ledger import ON_ERROR, Ledger, OnError
from mx8shards.loading.outputs import most_bytes
from mx8shards.loading.plan import Plan
from mx8shards.loading.pool import Pool
from mx8shards.loading.prefetch import Done, Failed, Ready, Recipe, Restart, Run
from mx8shards.loading.reach import IO, IOS, Reach
from mx8shards.loading.stages import Gather, Stage
from mx8shards.loading.stats import Counters, Explanation, explain
from mx8shards.order.blocks import BlockOrder, BlockShuffle
from mx8shards.order.keys import Key
from mx8shards.order.orders import Order, Sequential, Shuffle
from mx8shards.order.places import Places
from mx8shards.order.state import State
from mx8shards.order.steps import Steps, Uneven
from mx8shards.views import Whole

if TYPE_CHECKING:
    from mx8shards.loading.iterable import IterableBatches

_DEPTH_BYTES = 16 << 20  # small batches are made further ahead, so that nobody waits for a thread to be woken
_MOST_DEPTH = 64


class Decoder(Protocol):
    """What can be given for a column in `decode=`."""

    def stage(self, column: str, encoding: str) -> Stage:
        """The stage that does it."""


class Loader:
    """Batches of a dataset, made ahead in threads, as tensors over memory that is used again and again.

    Iterating gives one epoch; the next `for` is the next epoch, also after one that was left early. Each rank gets its
    part. `memory` is a hard limit on what the loader holds, batches that you still hold included. `transform(batch)`
    runs in the threads, and what it returns is what you get.

    `state_dict()` says where the loader stands after the last batch it gave you; with the same data, any number of
    ranks goes on there.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        shuffle: bool | BlockShuffle = False,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        decode: Mapping[str, Decoder] | None = None,
        transform: Callable[[Any], Any] | None = None,
        uneven: Uneven = "split",
        on_error: OnError = "raise",
        memory: int | str | None = None,
        threads: int | None = None,
        io: IO = "auto",
        rank: int | None = None,
        world_size: int | None = None,
        device: str = "cpu",
        output: OutputKind = "torch",
        pool: Pool | None = None,
        read_timeout_s: float = 300.0,
    ) -> None:
        _expect("on_error", on_error, ON_ERROR)
        _expect("io", io, IOS)
        _expect("output", output, OUTPUT_KINDS)
        if pool is not None and (memory is not None or threads is not None):
            raise LoaderError("pool= brings its own memory and threads: leave out memory= and threads=")
        if type(seed) is not int:
            raise LoaderError(subject="seed", expected="an int", found=repr(seed))
        self.rank, self.world_size = machine.distributed_rank(rank, world_size)
        picked = dataset.picked(columns)
        decode = dict(decode or {})
        for name in decode:
            if name not in picked.names:
                raise picked.unknown(name)
        self._dataset = dataset
        self._order = _order(dataset, shuffle, seed)
        self._steps = Steps(length=len(self._order), batch_size=batch_size, world_size=self.world_size, uneven=uneven)
        mover = None if device == "cpu" else Mover(device)
        self._settings = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "columns": columns,
            "decode": decode,
            "transform": transform,
            "uneven": uneven,
            "on_error": on_error,
            "memory": memory,
            "threads": threads,
            "io": io,
            "output": output,
            "read_timeout_s": read_timeout_s,
        }
        self._pool = Pool(memory=memory, threads=threads) if pool is None else pool
        if mover is not None:
            self._pool.memory.pins = mover
        self._owns_pool = pool is None
        share = self._pool.memory.join()
        self._share = share
        try:
            reach = Reach(dataset.shards, io)
            gather = Gather(picked, [name for name in picked.names if name not in decode])
            encodings = dict(zip(picked.names, picked.encodings, strict=True))
            stages = [gather, *(decode[name].stage(name, encodings[name]) for name in sorted(decode))]
            filler = Filler(
                reach=reach,
                share=share,
                wanted=picked.names,
                stages=stages,
                decoders=gather.decoders,
                convert=converter(output),
                most_ranges=4 * self._pool.threads,
            )
            mean = self._mean_batch_bytes(filler)
            depth = max(2 * self._pool.threads + 2, min(_MOST_DEPTH, _DEPTH_BYTES // mean))
            record_bytes = batch_size * (2 * ROW.itemsize + len(picked.names) * SPAN.itemsize)
            share.fixed_bytes = reach.kept_bytes + depth * record_bytes
            self._require_three(mean)
        except BaseException:
            share.leave()
            raise
        weakref.finalize(self, share.leave)
        plan = Plan(
            order=self._order,
            view=dataset.view,
            seed=seed,
            steps=self._steps,
            rank=self.rank,
            reach=reach,
            outputs=filler.outputs,
            overhead=filler.overhead,
            limit_bytes=lambda: share.limit_bytes,
        )
        self._recipe = Recipe(
            plan=plan,
            filler=filler,
            share=share,
            pool=self._pool,
            transform=transform,
            on_error=on_error,
            depth=depth,
            read_timeout_s=read_timeout_s,
            mover=mover,
        )
        self._seed = seed
        self._epoch = 0
        self._position = 0
        self._under_way = False  # whether a `for` has begun this epoch
        self._batches: weakref.ref[_Batches] | None = None
        self._counters = Counters()
        self._ledger = Ledger()
        self._closed = False

    # batches ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        if self._closed:
            raise LoaderError("the loader is closed")
        self._abandon()
        if self._under_way:
            self._epoch, self._position = self._epoch + 1, 0
        self._under_way = True
        batches = _Batches(self, self._recipe, self._epoch, self._position)
        self._batches = weakref.ref(batches)
        return batches

    def __len__(self) -> int:
        """How many batches this rank gets in a whole epoch."""
        return self._steps.batches(self.rank)

    def set_epoch(self, epoch: int) -> None:
        """The next `for` is this epoch, from its beginning. Naming the epoch of a loaded state keeps its position."""
        if type(epoch) is not int or epoch < 0:
            raise LoaderError(subject="epoch", expected="an int of at least 0", found=repr(epoch))
        if epoch != self._epoch or self._under_way:
            self._abandon()
            self._epoch, self._position, self._under_way = epoch, 0, False

    def ids(
        self, *, epoch: int, step: int, rank: int | None = None, world_size: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The sample_ids of one step of an epoch, as any rank of any world gets or got them; no data are read."""
        world_size = self.world_size if world_size is None else world_size
        rank = self.rank if rank is None else rank
        steps = Steps(
            length=self._steps.length,
            batch_size=self._steps.batch_size,
            world_size=world_size,
            uneven=self._steps.uneven,
        )
        share = steps.share(rank, steps.at(step))
        return self._recipe.plan.sample_ids(epoch, share.positions)[0]

    def warm_up(self) -> None:
        """Have everything ready that a first batch needs beside its data: threads, kernels, the shards it is in."""
        if self._closed or (self._batches is not None and self._batches() is not None):
            return  # there is nothing left to get ready
        run = Run(self._recipe, self._epoch, self._position)
        try:
            run.take()
        finally:
            run.stop()
            run.join()

    def as_iterable_dataset(self) -> IterableBatches:
        """The same batches for a plain `DataLoader(…, batch_size=None)`, copied out; workers split this rank's part."""
        from mx8shards.loading.iterable import IterableBatches

        if not self._owns_pool:
            raise LoaderError("a loader with pool= cannot be taken to other processes")
        return IterableBatches(self._dataset, self._settings, self.rank, self.world_size, self._epoch)

    # where it stands --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, as small JSON: equal on all ranks, but for what each of them lost."""
        return self._state().to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the very next step, on any number of ranks: with the same data, or an error says what differs."""
        found = State.from_json(dict(state))
        try:
            found.check(self._state(), len(self._order))
        except IntegrityError as error:
            error.hint = difference(found.snapshot, self._dataset.shards.snapshots) or error.hint
            raise
        self._abandon()
        self._epoch, self._position, self._under_way = found.epoch, found.position, False
        self._ledger.go_on(found.lost)

    def _state(self) -> State:
        return State(
            snapshot=self._dataset.snapshot,
            view=self._dataset.view.digest,
            order=self._order.description,
            seed=self._seed,
            epoch=self._epoch,
            position=self._position,
            lost=self._ledger.to_json(),
        )

    def _advance(self, ready: Ready) -> None:
        """A step is done: its batch was handed over."""
        self._epoch, self._position = self._steps.after(ready.planned.epoch, ready.planned.position)
        self._under_way = bool(self._position)
        self._ledger.add(ready.entries)
        self._counters.delivered(ready)

    def _finish(self, epoch: int) -> None:
        """The epoch is over, also if this rank got no batch of it."""
        if self._epoch == epoch:
            self._epoch, self._position = epoch + 1, 0
        self._under_way = False

    # how it goes ------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What was delivered and lost, who waited for whom, and what is held, as plain numbers."""
        return self._counters.report(self._share, self._ledger)

    def explain(self) -> Explanation:
        """The bottleneck, with the evidence."""
        return explain(self.stats(), self._pool.threads)

    # life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all threads. Batches that you hold stay valid."""
        if not self._closed:
            self._closed = True
            self._abandon()
            self._share.leave()
            if self._owns_pool:
                self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _abandon(self) -> None:
        batches = self._batches() if self._batches is not None else None
        if batches is not None:
            batches.close()
        self._batches = None

    def _mean_batch_bytes(self, filler: Filler) -> int:
        """The bytes of a bank for a batch of samples as they are on average."""
        shards = self._dataset.shards
        samples = max(1, shards.samples)
        raw = sum(int(snapshot.index.raw.size_bytes.sum()) for snapshot in shards.snapshots)
        payload = max(0, raw // samples - 4 - filler.overhead)
        ragged = any(output.shape is None for output in filler.outputs.values())
        rows = min(self._steps.batch_size, max(1, len(self._order)))
        return bank_bytes(most_bytes(filler.outputs, rows, rows * payload if ragged else 0))

    def _require_three(self, mean: int) -> None:
        limit = self._share.limit_bytes
        if 3 * mean > limit:
            raise LoaderError(
                subject="memory",
                expected=f"room for three batches: two that are held, and one that is filled (about {mean} bytes each)",
                found=f"{limit} bytes, beside {self._share.fixed_bytes} for tables",
                hint=f"memory={3 * mean + self._share.fixed_bytes} or a smaller batch_size",
            )


class _Batches(Iterator[Any]):
    """The batches of one epoch, for one `for`."""

    def __init__(self, loader: Loader, recipe: Recipe, epoch: int, position: int) -> None:
        self._loader: Loader | None = loader
        self._recipe = recipe
        self._epoch = epoch
        self._position = position
        self._process = os.getpid()
        self._run = Run(recipe, epoch, position)
        self._given: float | None = None
        self._ahead: tuple[Ready | Failed | Done, Moving | None] | None = None
        self._end = weakref.finalize(self, Run.stop, self._run)

    def __next__(self) -> Any:
        loader = self._loader
        if loader is None:
            raise StopIteration
        if self._process != os.getpid():
            raise LoaderError("this iterator belongs to another process: iterate anew after a fork")
        asked = time.perf_counter()
        counters = loader._counters
        if self._given is not None:
            counters.consumer_worked_s += asked - self._given
        try:
            result = self._result() if self._recipe.mover is None else self._moved(self._recipe.mover)
        except BaseException:
            self.close()
            raise
        self._given = time.perf_counter()
        counters.consumer_waited_s += self._given - asked
        if isinstance(result, Ready):
            loader._advance(result)
            return result.batch
        self._stop()
        if isinstance(result, Done):
            loader._finish(self._epoch)
            raise StopIteration
        error = result.error
        if isinstance(error, LoaderError):
            raise error
        raise LoaderError(f"{type(error).__name__}: {error}", subject=f"epoch {self._epoch}") from error

    def _result(self) -> Ready | Failed | Done:
        """What comes next."""
        result = self._run.take()
        while isinstance(result, Restart):  # all that was made ahead is given up: substitutes need the room
            self._end()
            self._run.join()
            self._run = Run(self._recipe, self._epoch, result.planned.position, result)
            self._end = weakref.finalize(self, Run.stop, self._run)
            result = self._run.take()
        return result

    def _moved(self, mover: Mover) -> Ready | Failed | Done:
        """What comes next, on the device; the one after it is sent on its way."""
        result, moving = self._ahead or self._sent(mover, self._result())
        following = self._run.take_ready()
        self._ahead = None if following is None else self._sent(mover, following)
        if isinstance(result, Ready) and moving is not None:
            return result._replace(batch=mover.finish(moving))
        return result

    def _sent(self, mover: Mover, result: Ready | Failed | Done) -> tuple[Ready | Failed | Done, Moving | None]:
        return result, mover.start(result.batch) if isinstance(result, Ready) else None

    def _stop(self) -> None:
        if self._loader is not None:
            self._loader._counters.producer_waited_s += self._run.waited_for_memory_s
        self._loader = None
        self._end()
        self._run.join()

    def close(self) -> None:
        """Give up what was made ahead."""
        if self._loader is not None and self._process == os.getpid():
            self._stop()
        self._loader = None


def _expect(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise LoaderError(subject=name, expected=f"one of {', '.join(map(repr, known))}", found=repr(value))


def _order(dataset: Dataset, shuffle: bool | BlockShuffle, seed: int) -> Order:
    view = dataset.view
    resolve = None if isinstance(view, Whole) else lambda positions, epoch: view.resolve(positions, epoch, seed)[0]
    places = Places(len(view), dataset.shards.starts, resolve)
    if shuffle is False:
        return Sequential(places)
    key = Key(dataset.snapshot, view.digest, seed)
    if shuffle is True:
        return Shuffle(places, key, walk)
    if isinstance(shuffle, BlockShuffle):
        return BlockOrder(places, key, shuffle)
    raise LoaderError(subject="shuffle", expected="False, True or a BlockShuffle", found=repr(shuffle))
