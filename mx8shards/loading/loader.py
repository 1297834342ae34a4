"""The Loader class: how does a user get batches of a dataset, and resume?"""

from __future__ import annotations

import copy
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt

from mx8shards.dataset import Dataset
from mx8shards.errors import IntegrityError, LoaderError, SettingError, shown, whole_number
from mx8shards.loading.budget.banks import Budget
from mx8shards.loading.epoch import Epoch
from mx8shards.loading.execution.results import Failed
from mx8shards.loading.execution.run import Run
from mx8shards.loading.planning.accepted_datasets import checked_dataset
from mx8shards.loading.planning.assembly import assemble, order_of
from mx8shards.loading.planning.machine import distributed_rank
from mx8shards.loading.planning.settings import Settings
from mx8shards.loading.planning.unknown_arguments import refused
from mx8shards.loading.pool import Pool, check_pool
from mx8shards.loading.reporting.progress import Progress
from mx8shards.loading.reporting.state_difference import difference
from mx8shards.loading.reporting.stats import Explanation, explain
from mx8shards.loading.reporting.times import ProducerTimes
from mx8shards.order.blocks import BlockShuffle
from mx8shards.order.orders import Order
from mx8shards.order.state import State
from mx8shards.order.steps import Steps
from mx8shards.stages import Decoder

if TYPE_CHECKING:
    from mx8shards.loading.iterable_dataset import IterableBatches

_HINT = "use DataLoader(loader.as_iterable_dataset(), num_workers=…) for batches from other processes"


class Loader:
    """Batches of a dataset, prepared ahead of the training loop in threads, in memory that is reused.

    `for batch in loader` gives one epoch of `Batch`es. The next `for` gives the next epoch, also after a `break`. An
    epoch begins with its first batch: `iter(loader)` alone ends the previous iteration and starts to prepare batches,
    but changes neither the epoch nor `state_dict()`. An error names the sample; after it, the next `for` tries the step
    that failed again. Each rank gets its own batches.

    `state_dict()` is the position after the last batch that the loader gave. Any number of ranks can resume from it, as
    long as the data are the same.

    Args:
        dataset: An mx8shards.Dataset, or a view of one: `select`, `where`, `concat`. A `torch.utils.data.Subset` of a
            Dataset works as well.
        batch_size: The number of samples in a batch of one rank.
        shuffle: False: in order. True: the whole dataset, in a new order each epoch. `BlockShuffle(shards=…)`: a
            shuffle that uses few shards at a time.
        seed: It determines orders and random draws, and must be equal on all ranks.
        columns: The names of the columns to load. None: all columns.
        decode: A decoder for each column of pictures, such as `{"image": mx8.RandomResizedCrop(224)}`. Other columns
            are copied as they are stored.
        transform: A function of a batch, called in the loader's threads. The loader yields its result.
        uneven: What to do at the end of an epoch with samples that do not fill a step of all ranks. `"split"`: all
            ranks get equal numbers, to within one sample. `"pad"`: the batch is filled up with samples from the
            beginning of the epoch, which `batch.padding` marks. `"drop"`: they are left out. `"exact"`: the last ranks
            get a short batch, or none.
        on_error: What to do with a sample that cannot be read or decoded: `"raise"` an error, `"skip"` the sample, or
            `"substitute"` another one. `stats()` lists the samples that were lost. All ranks take the same number of
            steps, so if all samples of a batch are skipped, the batch has no rows.
        memory: A hard limit on the memory that the loader holds, in bytes or as `"4gb"`. Batches that you still hold
            count; what `transform` allocates does not. None: a quarter of the memory of the machine or the cgroup, at
            most 4 GB, divided by the ranks on this machine and by the workers of a DataLoader.
        threads: The number of threads that prepare batches. None: the cores of this process, divided in the same way.
        io: How payloads are read. `"mmap"` copies from mapped shards. `"pread"` reads with system calls, which is safe
            if files are changed in place. `"auto"` copies rows that are in the page cache from maps, and reads the
            rest.
        rank: The rank of this process, from 0. None: that of torch.distributed or the environment (torchrun).
        world_size: The number of ranks. Give it with `rank`, or give neither.
        device: Where batches go: `"cpu"`, `"cuda"` or `"cuda:1"`. Copies to a GPU overlap the training step.
        output: `"torch"` for tensors; `"numpy"` for arrays, without torch.
        order: An order of your own instead of `shuffle`: an object with `len(order)`, the number of positions in an
            epoch; `at(epoch, counts)`, an array with a position in the dataset for each of these counts, which are
            numbers from 0 to `len(order) - 1`, or -1 for padding; `ids(epoch, start, stop)`, the positions for a range
            of counts; and `description`, a JSON dict with its "name" and everything it depends on. It must be a pure
            function and equal on all ranks. Positions may repeat, and each repeat gets its own random crop.
        pool: A Pool of memory and threads that several loaders share. It replaces `memory` and `threads`.
        read_timeout_s: How many seconds the file system may fail to answer before the loader raises an error.
    """

    @refused
    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        shuffle: Literal[False, True] | BlockShuffle = False,
        seed: int = 0,
        columns: Sequence[str] | None = None,
        decode: Mapping[str, Decoder] | None = None,
        transform: Callable[[Any], Any] | None = None,
        uneven: Literal["split", "pad", "drop", "exact"] = "split",
        on_error: Literal["raise", "skip", "substitute"] = "raise",
        memory: int | str | None = None,
        threads: int | None = None,
        io: Literal["auto", "mmap", "pread"] = "auto",
        rank: int | None = None,
        world_size: int | None = None,
        device: Literal["cpu", "cuda"] | str = "cpu",
        output: Literal["torch", "numpy"] = "torch",
        order: Order | None = None,
        pool: Pool | None = None,
        read_timeout_s: float = 300.0,
    ) -> None:
        dataset = checked_dataset(dataset)
        check_pool(pool, memory, threads)
        self.rank, self.world_size = distributed_rank(rank, world_size)
        self._settings = Settings(
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            columns=columns,
            decode={} if decode is None else decode,
            transform=transform,
            uneven=uneven,
            on_error=on_error,
            memory=memory,
            threads=threads,
            io=io,
            device=device,
            output=output,
            order=order,
            read_timeout_s=read_timeout_s,
        )
        self._dataset = copy.copy(dataset)  # the copy stays open when the user closes theirs
        self._order = order_of(dataset, self._settings)
        self._steps = self._steps_of(self.world_size)
        self._shared_pool = pool
        self._progress = Progress()
        self._epoch: weakref.ref[Epoch] | None = None
        self._runs: list[Run] = []  # the current run, if there is one
        self._closed = False
        self._assemble()

    def _assemble(self) -> None:
        """Make or join a pool, and assemble the parts that runs share."""
        self._process = os.getpid()
        self._pool = self._shared_pool or Pool(memory=self._settings.memory, threads=self._settings.threads)
        self._pool.renew()
        budget = Budget(self._pool.memory)
        self._leave = weakref.finalize(self, _give_up, self._runs, budget)  # before it joins, as Ctrl-C may come then
        self._leave.atexit = False
        settings, order, steps = self._settings, self._order, self._steps
        self._assembly = assemble(self._dataset, settings, order, steps, self.rank, self._pool, budget)

    # batches ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        self._make_ready()
        self._abandon()
        batches = Epoch(self._assembly, self._progress, self._runs, self._what_next)
        self._epoch = weakref.ref(batches)
        return batches

    def __len__(self) -> int:
        """The number of batches that this rank gets in a whole epoch, as learning-rate schedules and Lightning need it.

        The first epoch after a resume has fewer. `len(iter(loader))` is the number of batches still to come, so an
        exact progress bar is `for batch in tqdm(iter(loader))`.
        """
        return self._steps.batches(self.rank)

    def set_epoch(self, epoch: int) -> None:
        """Make the next `for` this epoch.

        It starts at the epoch's beginning. But if the next `for` would continue within this epoch anyway, after
        `load_state_dict` or a failed step, the position stays.

        Args:
            epoch: Its number, from 0.
        """
        epoch = whole_number("epoch", epoch, 0)
        if epoch != self._progress.at[0] or self._progress.under_way:
            self._go_to(epoch, 0)

    def _go_to(self, epoch: int, position: int) -> None:
        """Let the next `for` begin here."""
        self._abandon()
        self._progress.go_to((epoch, position))

    def ids(
        self, *, epoch: int, step: int, rank: int | None = None, world_size: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The sample_ids of one batch, for any epoch, rank and number of ranks. No data are read.

        Padding that has no sample is -1.

        Args:
            epoch: Its number, from 0.
            step: The number of the step in the epoch, from 0.
            rank: The rank that gets the batch. None: this loader's.
            world_size: The number of ranks. None: this loader's.
        """
        epoch = whole_number("epoch", epoch, 0)
        steps = self._steps_of(self.world_size if world_size is None else world_size)
        rank = whole_number("rank", self.rank if rank is None else rank, 0, steps.world_size - 1)
        share = steps.slice_of(rank, steps.at(whole_number("step", step, 0)))
        return self._assembly.plan.samples_at(epoch, share.positions).sample_ids

    def warm_up(self) -> None:
        """Prepare all that a first batch needs: start threads, compile kernels, open its shards."""
        self._make_ready()
        if self._iterating() is None:
            self._abandon()
            run = Run(self._assembly, *self._progress.upcoming)
            self._runs[:] = [run]  # before its thread starts, as Ctrl-C may come from then on
            try:
                run.start()
                result = run.take()
                if isinstance(result, Failed):
                    raise result.error
            finally:
                run.stop()
                run.join()
                self._runs.clear()

    def as_iterable_dataset(self) -> IterableBatches:
        """A dataset for `DataLoader(loader.as_iterable_dataset(), num_workers=…)`, if code needs a DataLoader.

        It has this loader's settings and begins at this loader's position. The DataLoader yields the batches of this
        rank in the loader's order, with any number of workers, and every iteration is the next epoch. Batches are
        copied between processes, so this is slower than the loader by itself.
        """
        from mx8shards.loading.iterable_dataset import IterableBatches  # imports torch, which is optional

        if self._shared_pool is not None:
            expected = "None for a loader whose batches come from other processes"
            raise SettingError(subject="pool", expected=expected, found=shown(self._shared_pool))
        return IterableBatches(
            LoaderInTurns, self._dataset, self._settings, self.rank, self.world_size, len(self), self.state_dict()
        )

    # state and resuming -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch, as small JSON. Equal on all ranks, except for the record of lost samples."""
        return self._state().to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume with the step after the state, on any number of ranks. If the data differ, an error says how.

        The next `for` is the rest of that epoch. With another number of ranks this rest may be shorter than one step;
        with `uneven="drop"` it then has no batch.

        Args:
            state: The `state_dict()` of a loader of the same data, from any rank.
        """
        found = State.from_json(state)
        try:
            found.check(self._state(), len(self._order))
        except IntegrityError as error:
            error.hint = difference(found.snapshot, self._dataset.shards.snapshots) or error.hint
            raise
        pixels = self._assembly.filler.pixels
        if found.pixels != pixels:
            message = "the state has another way of decoding pictures: %s then, %s now; pixels differ slightly"
            warnings.warn(message % (_ways(found.pixels), _ways(pixels)), stacklevel=2)
        self._go_to(found.epoch, found.position)
        self._progress.lost.resume_from(found.lost)

    def _state(self) -> State:
        return State(
            snapshot=self._dataset.snapshot,
            view=self._dataset.view.digest,
            order=self._order.description,
            seed=self._settings.seed,
            epoch=self._progress.at[0],
            position=self._progress.at[1],
            lost=self._progress.lost.to_json(),
            pixels=self._assembly.filler.pixels,
        )

    # statistics -------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counts of delivered and lost samples, waiting times, and memory in use, as plain numbers by name."""
        self._renew()
        producer = self._runs[0].producer_s if self._runs else ProducerTimes()
        counted = self._progress.counters.report(self._assembly.budget, self._progress.lost, producer)
        fetched = self._dataset.shards.fetched
        traffic = {"fetched_shards": fetched.shards, "fetched_bytes": fetched.size_bytes, "fetching_s": fetched.seconds}
        counts = [stage.counts() for stage in self._assembly.filler.stages]
        totals = {name: sum(each.get(name, 0) for each in counts) for each in counts for name in each}
        return {**counted, **traffic, **totals, "pixels": self._assembly.filler.pixels}

    def explain(self) -> Explanation:
        """Which part limits the speed, with the evidence."""
        return explain(self.stats(), self._pool.threads)

    # closing ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all threads. Batches that you hold stay valid."""
        if not self._closed:
            self._closed = True
            self._abandon()
            if self._process == os.getpid():
                self._assembly.budget.leave()
                self._leave.detach()  # after `leave`, as Ctrl-C may come between the two
                self._assembly.provider_threads.close()
                if self._shared_pool is None:
                    self._pool.close()
                else:
                    self._pool.end_stages(self._assembly.filler.stages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Loader, rank {self.rank} of {self.world_size}: {len(self)} batches of {self._settings.batch_size}>"

    def __reduce__(self) -> NoReturn:
        raise LoaderError("a Loader has threads and memory: it can be neither pickled nor copied", hint=_HINT)

    def __getitem__(self, i: object) -> NoReturn:
        raise LoaderError("a Loader gives batches one after the other, not by number", hint=_HINT)

    def _make_ready(self) -> None:
        if self._closed:
            raise LoaderError("the loader is closed")
        self._renew()

    def _renew(self) -> None:
        """In a forked child, assemble anew: the threads are gone, and inherited locks may never be released."""
        if self._process != os.getpid():
            self._runs = []
            self._leave.detach()
            self._assemble()

    def _iterating(self) -> Epoch | None:
        return self._epoch() if self._epoch is not None else None

    def _abandon(self) -> None:
        """End the current iteration and wait for its run, also if the iterator is gone."""
        iterating = self._iterating()
        if iterating is not None:
            iterating.close()
        self._epoch = None
        if self._process == os.getpid():
            for run in self._runs:
                run.stop()
                run.join()
                self._progress.counters.produced(run.producer_s)
        self._runs.clear()

    def _what_next(self, epoch: int) -> str:
        """What the next `for` does after a failed step, as text for the user."""
        return f"the next `for` tries this step again, set_epoch({epoch + 1}) goes to the next epoch"

    def _steps_of(self, world_size: int) -> Steps:
        size, uneven = self._settings.batch_size, self._settings.uneven
        return Steps(length=len(self._order), batch_size=size, world_size=world_size, uneven=uneven)


class LoaderInTurns(Loader):
    """The loader of one of `turns` workers, which take turns at the steps of an epoch."""

    def __init__(
        self, turns: int, what_next_in_worker: Callable[[int], str | None], dataset: Dataset, **settings: Any
    ) -> None:
        self._turns = turns
        self._what_next_in_worker = what_next_in_worker
        super().__init__(dataset, **settings)

    def _what_next(self, epoch: int) -> str:
        return self._what_next_in_worker(epoch) or super()._what_next(epoch)

    def _steps_of(self, world_size: int) -> Steps:
        return replace(super()._steps_of(world_size), turns=self._turns)


def _give_up(runs: list[Run], budget: Budget) -> None:
    """The finalizer of a loader: stop its run and leave the memory."""
    for run in list(runs):
        run.stop()
    budget.abandon()


def _ways(pixels: Mapping[str, str]) -> str:
    return ", ".join(f"{column} by {way!r}" for column, way in sorted(pixels.items())) or "none"
