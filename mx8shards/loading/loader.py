"""What does a user get who wants batches of a dataset?"""

from __future__ import annotations

import copy
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt

from mx8shards.dataset import Dataset
from mx8shards.errors import IntegrityError, LoaderError, SettingError, shown, whole_number
from mx8shards.loading.epoch import Epoch
from mx8shards.loading.execution.prefetch import Failed, Ready, Run
from mx8shards.loading.memory.banks import Share
from mx8shards.loading.planning.accepted_datasets import checked_dataset
from mx8shards.loading.planning.assembly import assemble, order_of
from mx8shards.loading.planning.machine import distributed_rank
from mx8shards.loading.planning.settings import Settings
from mx8shards.loading.pool import Pool
from mx8shards.loading.reporting.lost_samples import Ledger
from mx8shards.loading.reporting.state_difference import difference
from mx8shards.loading.reporting.stats import Counters, Explanation, explain
from mx8shards.loading.reporting.times import ProducerTimes
from mx8shards.order.blocks import BlockShuffle
from mx8shards.order.orders import Order
from mx8shards.order.state import State
from mx8shards.order.steps import Steps
from mx8shards.stages import Decoder

if TYPE_CHECKING:
    from mx8shards.loading.iterable_dataset import IterableBatches


_TAKEN = "DataLoader(loader.as_iterable_dataset(), num_workers=…) takes it to other processes"


class Loader:
    """Batches of a dataset, made ahead in threads, as tensors over memory that is used again and again.

    `for batch in loader` gives one epoch of `Batch`es, and the next `for` gives the next epoch, also after one that was
    left early. An epoch is begun by its first batch: `iter(loader)` alone ends the iteration before it and makes
    batches ahead, but changes neither the epoch nor `state_dict()`. After an error, which says what is wrong with which
    sample, the next `for` goes on at the step that failed. Each rank gets its part.

    `state_dict()` says where the loader stands after the last batch it gave you; with the same data, any number of
    ranks goes on there.

    dataset         an mx8shards.Dataset, or a view of one: `select`, `where`, `concat`. A `torch.utils.data.Subset` of
                    a Dataset is one, too
    batch_size      how many samples a batch of one rank has
    shuffle         False: in order; True: all samples in an order of each epoch's own; BlockShuffle(shards=…): so that
                    few shards are in use at a time
    seed            what orders and random crops follow from; the same on all ranks
    columns         the names of the columns to load; None: all
    decode          what is done to which column: {"image": mx8.RandomResizedCrop(224)}; the others come as they are
    transform       a function of a batch that is called in the loader's threads; what it returns is what you get
    uneven          what becomes of the samples at an epoch's end that are fewer than a whole step of all ranks:
                    "split": all ranks get equal shares, to within one sample
                    "pad": the batch is filled up with samples from the epoch's beginning, marked in `batch.padding`
                    "drop": they are left out
                    "exact": the last ranks get a short batch, or none
    on_error        what becomes of a sample that cannot be read or decoded: "raise" an error, "skip" it, or
                    "substitute" another one; `stats()` tells which were lost
    memory          a hard limit on what the loader holds, in bytes or as "4gb", batches that you still hold included;
                    what `transform` makes is not counted. None: a quarter of the machine's or the cgroup's, 4 GB at
                    most, divided by the ranks of this machine and the workers of a DataLoader
    threads         how many threads make batches. None: the cores of this process, divided in the same way
    io              how payloads are read: "mmap" copies from mapped shards, "pread" reads, which is safe from files
                    that somebody changes in place, and "auto" takes maps for what lies in the page cache
    rank            which rank this is, from 0. None: what torch.distributed or the environment (torchrun) says
    world_size      how many ranks there are; with `rank`, or neither
    device          where batches go: "cpu", "cuda" or "cuda:1"; copies to a GPU run beside the training step
    output          "torch": tensors; "numpy": arrays, and no torch is needed
    order           an order of your own instead of `shuffle`: an object with `len(order)`, the positions in an epoch;
                    `at(epoch, counts)`, an array with the position in the dataset that stands at each of these counts
                    from 0 to before that, or -1 for padding; `ids(epoch, start, stop)`, those at a range of counts; and
                    `description`, a dict as JSON of its "name" and all it depends on. It must be a pure function, the
                    same on all ranks. Positions may repeat, and repeats get random crops of their own, as the count is
                    then one of the things that these follow from
    pool            a Pool of memory and threads that several loaders share; then `memory` and `threads` are the pool's
    read_timeout_s  after so many seconds without an answer of the file system there is an error instead of more waiting
    """

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
        if pool is not None and (memory is not None or threads is not None):
            found = f"memory={shown(memory)}, threads={shown(threads)}"
            hint = "pool= brings its own memory and threads"
            raise SettingError(subject="memory and threads", expected="neither beside pool=", found=found, hint=hint)
        if pool is not None and not isinstance(pool, Pool):
            raise SettingError(subject="pool", expected="a Pool, or None", found=shown(pool))
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
        self._dataset = copy.copy(dataset)  # this one stays open when the user closes theirs
        self._order = order_of(dataset, self._settings)
        self._steps = self._steps_of(self.world_size)
        self._shared_pool = pool
        self._at = (0, 0)  # epoch and position of the next step
        self._under_way = False  # whether a `for` has given batches of this epoch, and not failed
        self._epoch: weakref.ref[Epoch] | None = None
        self._runs: list[Run] = []
        self._counters = Counters()
        self._ledger = Ledger()
        self._closed = False
        self._assemble()

    def _assemble(self) -> None:
        """Get a pool, and a share of its memory."""
        self._process = os.getpid()
        self._pool = self._shared_pool or Pool(memory=self._settings.memory, threads=self._settings.threads)
        self._pool.renew()
        self._recipe = assemble(self._dataset, self._settings, self._order, self._steps, self.rank, self._pool)
        self._leave = weakref.finalize(self, _give_up, self._runs, self._recipe.share)
        self._leave.atexit = False

    # batches ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        self._make_ready()
        self._abandon()
        epoch, position = self._upcoming()
        batches = Epoch(self._recipe, _Listener(self, epoch, position), epoch, position, self._runs)
        self._epoch = weakref.ref(batches)
        return batches

    def __len__(self) -> int:
        """How many batches this rank gets in a whole epoch, as learning-rate schedules and Lightning count.

        The first epoch after a resume has fewer. `iter(loader)` knows how many are still to come, so a progress bar
        that fits is `for batch in tqdm(iter(loader))`.
        """
        return self._steps.batches(self.rank)

    def set_epoch(self, epoch: int) -> None:
        """The next `for` is this epoch.

        It starts at the epoch's beginning, except where the loader stands within this epoch and the next `for` would
        continue there anyway: after `load_state_dict`, and after a step that failed. Then the position stays.

        epoch  its number, from 0
        """
        epoch = whole_number("epoch", epoch, 0)
        if epoch != self._at[0] or self._under_way:
            self._go_to(epoch, 0)

    def _upcoming(self) -> tuple[int, int]:
        """Epoch and position at which the next `for` begins."""
        return (self._at[0] + 1, 0) if self._under_way else self._at

    def _go_to(self, epoch: int, position: int) -> None:
        """The next `for` begins here."""
        self._abandon()
        self._at, self._under_way = (epoch, position), False

    def ids(
        self, *, epoch: int, step: int, rank: int | None = None, world_size: int | None = None
    ) -> npt.NDArray[np.int64]:
        """The sample_ids of one step of an epoch, as any rank of any world gets or got them; no data are read.

        Padding that has no sample is -1.

        epoch       its number, from 0
        step        its number in the epoch, from 0
        rank        whose batch; None: this loader's
        world_size  of how many ranks; None: as many as this loader has
        """
        epoch = whole_number("epoch", epoch, 0)
        steps = self._steps_of(self.world_size if world_size is None else world_size)
        rank = whole_number("rank", self.rank if rank is None else rank, 0, steps.world_size - 1)
        share = steps.share(rank, steps.at(whole_number("step", step, 0)))
        return self._recipe.plan.sample_ids(epoch, share.positions)[0]

    def warm_up(self) -> None:
        """Have everything ready that a first batch needs: threads, kernels, the shards that it is in."""
        self._make_ready()
        if self._iterating() is None:
            self._abandon()
            run = Run(self._recipe, *self._upcoming())
            self._runs[:] = [run]  # before its thread starts: Ctrl-C may come from there on
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
        """The same batches for `DataLoader(loader.as_iterable_dataset(), num_workers=…)`, where one must be.

        It takes no arguments: all settings are this loader's, and it begins where this loader stands. The DataLoader
        gives the batches of this rank in the order of the loader, with any number of workers, which take turns, and
        every iteration is the next epoch. Batches are copied out, so this is slower than the loader by itself.
        """
        from mx8shards.loading.iterable_dataset import IterableBatches  # torch, for those who have it

        if self._shared_pool is not None:
            expected = "None for a loader that is taken to other processes"
            raise SettingError(subject="pool", expected=expected, found=shown(self._shared_pool))
        return IterableBatches(self._dataset, self._settings, self.rank, self.world_size, len(self), self.state_dict())

    # where it stands --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, as small JSON: equal on all ranks, but for what each of them lost."""
        return self._state().to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the very next step, on any number of ranks: with the same data, or an error says what differs.

        The next `for` is the rest of that epoch. With another number of ranks this rest may be shorter than one step;
        with `uneven="drop"` it then has no batch.

        state  what `state_dict()` of a loader of the same data gave, on any rank
        """
        found = State.from_json(state)
        try:
            found.check(self._state(), len(self._order))
        except IntegrityError as error:
            error.hint = difference(found.snapshot, self._dataset.shards.snapshots) or error.hint
            raise
        pixels = self._recipe.filler.pixels
        if found.pixels != pixels:
            told = (
                "the state was taken where pictures became pixels in another way: %s then, %s now; values differ a bit"
            )
            warnings.warn(told % (_ways(found.pixels), _ways(pixels)), stacklevel=2)
        self._go_to(found.epoch, found.position)
        self._ledger.go_on(found.lost)

    def _state(self) -> State:
        return State(
            snapshot=self._dataset.snapshot,
            view=self._dataset.view.digest,
            order=self._order.description,
            seed=self._settings.seed,
            epoch=self._at[0],
            position=self._at[1],
            lost=self._ledger.to_json(),
            pixels=self._recipe.filler.pixels,
        )

    # how it goes ------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What was delivered and lost, who waited for whom, and what is held, as plain numbers."""
        self._renew()
        producer = self._runs[0].producer_s if self._runs else ProducerTimes()
        counted = self._counters.report(self._recipe.share, self._ledger, producer)
        return {**counted, "pixels": self._recipe.filler.pixels}

    def explain(self) -> Explanation:
        """The bottleneck, with the evidence."""
        return explain(self.stats(), self._pool.threads)

    # life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all threads. Batches that you hold stay valid."""
        if not self._closed:
            self._closed = True
            self._abandon()
            if self._process == os.getpid():
                self._leave.detach()
                self._recipe.share.leave()
                if self._shared_pool is None:
                    self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise LoaderError("a Loader has threads and memory: it can be neither pickled nor copied", hint=_TAKEN)

    def __getitem__(self, i: object) -> NoReturn:
        raise LoaderError("a Loader gives batches one after the other, not by number", hint=_TAKEN)

    def _make_ready(self) -> None:
        if self._closed:
            raise LoaderError("the loader is closed")
        self._renew()

    def _renew(self) -> None:
        """A forked child has the loader's locks, perhaps held, and none of its threads."""
        if self._process != os.getpid():
            self._runs = []
            self._leave.detach()
            self._assemble()

    def _iterating(self) -> Epoch | None:
        return self._epoch() if self._epoch is not None else None

    def _abandon(self) -> None:
        """End what is under way, and wait for it, also if nobody has the iteration any more."""
        iterating = self._iterating()
        if iterating is not None:
            iterating.close()
        self._epoch = None
        if self._process == os.getpid():
            for run in self._runs:
                run.stop()
                run.join()
                self._counters.produced(run.producer_s)
        self._runs.clear()

    def _what_next(self, epoch: int) -> str:
        """What comes after a step that failed, for the user."""
        return f"the next `for` tries this step again, set_epoch({epoch + 1}) goes to the next epoch"

    def _steps_of(self, world_size: int) -> Steps:
        settings = self._settings
        length, size = len(self._order), settings.batch_size
        return Steps(length=length, batch_size=size, world_size=world_size, uneven=settings.uneven)


def _give_up(runs: list[Run], share: Share) -> None:
    """What becomes of a loader's threads and memory when nobody has it any more."""
    for run in list(runs):
        run.stop()
    share.abandon()


def _ways(pixels: Mapping[str, str]) -> str:
    return ", ".join(f"{column} by {way!r}" for column, way in sorted(pixels.items())) or "none"


class _Listener:
    """Keeps a loader's position and counters, and the loader alive while somebody iterates.

    The loader moves to the epoch of this iteration with its first batch, error or end, and not before.
    """

    def __init__(self, loader: Loader, epoch: int, position: int) -> None:
        self._loader = loader
        self._at = (epoch, position)  # of the next step of this iteration

    def delivered(self, ready: Ready, waited_s: float, worked_s: float, compiled_s: float) -> None:
        """A step is done when its batch was handed over."""
        loader = self._loader
        loader._at = self._at = loader._steps.after(ready.planned.epoch, ready.planned.position)
        loader._under_way = loader._at[1] > 0
        loader._ledger.add(ready.entries)
        loader._counters.delivered(ready, waited_s, worked_s, compiled_s)

    def failed(self) -> None:
        """The step was not done: the next `for` tries it again."""
        self._loader._at, self._loader._under_way = self._at, False

    def what_next(self, epoch: int) -> str:
        """What comes after a failure."""
        return self._loader._what_next(epoch)

    def left(self, epoch: int) -> int:
        """How many batches of this epoch are still to come for this rank."""
        loader = self._loader
        return loader._steps.batches(loader.rank, self._at[1]) if self._at[0] == epoch else 0

    def ended(self, epoch: int) -> None:
        """The epoch is over, also if this rank got no batch of it."""
        loader = self._loader
        loader._at = self._at = (epoch + 1, 0)
        loader._under_way = False
        loader._abandon()
