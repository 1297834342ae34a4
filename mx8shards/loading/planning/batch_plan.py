"""Which bytes go into which batch, and what does it cost?

Nothing is read here but offset tables, if these tell enough: a batch's payloads are bounded from above by the lengths
of its samples, and what they really need is known when their size headers are read. Where only few of a sample's
columns are wanted, or decoders give rows whose sizes no table tells, that bound may be far too large, or none: then
batches are measured before memory is reserved for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mx8shards.errors import LoaderError
from mx8shards.format.randomness import integers
from mx8shards.kernels import gather
from mx8shards.kernels.records import ABSENT, MAPPED, ROW
from mx8shards.loading.memory.banks import bank_bytes
from mx8shards.loading.memory.batch_layout import most_bytes
from mx8shards.loading.planning.shard_table import Ids, Reach, Rows
from mx8shards.order.orders import PADDING, Order, shards_ahead
from mx8shards.order.places import Places
from mx8shards.order.steps import Steps
from mx8shards.stages import Output
from mx8shards.views import NO_EXTRAS, Extras, View, replaced_extras, told_apart

# A shuffle is computed several times as quickly for thousands of positions at once.
_WINDOW = 4096


# What the lengths of samples tell of the bytes that their ragged outputs need.
Bound = Literal["tight", "loose", "none"]


class Planned(NamedTuple):
    """One rank's batch of one step: its rows with their spans, and how many bytes its bank has at most.

    `absent` are the rows that have no sample, as the order has padding there; None where there are none.
    """

    epoch: int
    position: int
    rows: Rows
    padding: npt.NDArray[np.bool_]
    extras: Extras
    reserve_bytes: int
    absent: Ids | None = None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Plan:
    """All that determines which samples the batches of an epoch hold, and where they lie."""

    order: Order
    repeats: bool  # whether the order may hold a position several times in an epoch
    view: View
    places: Places
    seed: int
    samples: int  # of the dataset
    steps: Steps
    rank: int
    reach: Reach
    outputs: Mapping[str, Output]
    overhead: int  # bytes of each sample that are no part of a ragged column
    bound: Bound
    measure: Callable[[Planned, Ids], Ids]  # the bytes of ragged outputs in each part of some rows, just so
    limit_bytes: Callable[[], int]
    memory_for: Callable[[int], int]

    def sample_ids(self, epoch: int, counts: Ids) -> tuple[Ids, Extras]:
        """The samples at these counts of an epoch's order, and what is known of them. Padding has the sample PADDING.

        An order that may repeat a position is not asked how often it did so far, which would take a pass over all of
        it: its counts, which no two repeats share, tell them apart.
        """
        positions = self.order.at(epoch, counts)
        if len(positions) and positions.min() < 0:
            there = np.flatnonzero(positions != PADDING)
            found, some = self.resolve(positions[there], epoch)
            sample_ids = np.full(len(positions), PADDING)
            sample_ids[there] = found
            extras = replaced_extras(NO_EXTRAS, there, some, len(positions))
        else:
            sample_ids, extras = self.resolve(positions, epoch)
        return sample_ids, told_apart(extras, counts, self.view.occurrences) if self.repeats else extras

    def shards_ahead(self, epoch: int, position: int, n: int) -> Iterator[int]:
        """The shards that the next n counts of an epoch's order need, each once, in the order of first need."""
        return shards_ahead(self.order, self.places, epoch, position, n)

    def substitute(self, epoch: int, sample_id: int, occurrence: int, attempt: int) -> int:
        """The view position that is tried for a lost sample, at this attempt from 0 (spec: registry, "substitute")."""
        ids, occurrences = np.array([sample_id]), np.array([occurrence])
        most = min(len(self.view), 1 << 32)
        return int(integers(self.seed, epoch, ids, "substitute", attempt + 1, most, occurrences)[0, attempt])

    def resolve(self, positions: Ids, epoch: int) -> tuple[Ids, Extras]:
        """The samples at these positions of the view, and what is known of these."""
        found, extras = self.view.resolve(positions, epoch, self.seed)
        if (
            found is not positions and len(found) and not 0 <= found.min() <= found.max() < self.samples
        ):  # kernels would believe it
            raise LoaderError(
                subject="view",
                expected=f"sample_ids from 0 to {self.samples - 1}",
                found=f"{found.min()} to {found.max()}",
            )
        return found, extras

    def batches(self, epoch: int, position: int) -> Iterator[Planned]:
        """The batches of an epoch from a position on, without end as far as memory goes: each is planned when asked."""
        before = 0
        window = 1
        while self.steps.left(position):
            ranks = self._looked_at()
            many = 1 if self.bound == "none" else max(1, _WINDOW // (self.steps.batch_size * len(ranks)))
            count = min(window, many, self.steps.left(position))
            try:
                found = self._window(epoch, position, count, ranks)
            except Exception:
                if count == 1:
                    raise
                window = 1  # the steps before the one that fails are good
                continue
            for planned, most in found:
                if before + most > self.limit_bytes():
                    raise self._too_large(planned, before, most)
                before = most
                if len(planned.rows):  # with uneven="exact" the last step may have nothing for this rank
                    yield planned
            position = min(position + count * self.steps.stride, self.steps.length)
            window = 2 * count

    def again(self, planned: Planned, rows: Ids, positions: Ids) -> Planned:
        """The same batch with what stands at these positions of the view in the place of these rows."""
        sample_ids = planned.rows["sample_id"].copy()
        sample_ids[rows], extras = self.resolve(positions, planned.epoch)
        found = self._rows_of(sample_ids, planned.absent)
        both = replaced_extras(planned.extras, rows, extras, len(found))
        again = planned._replace(rows=found, extras=both)
        (reserve,) = self._reserves(again, [0, len(found)], 1)
        if reserve > self.limit_bytes():
            raise self._too_large(planned, 0, reserve)
        return again._replace(reserve_bytes=reserve)

    def _looked_at(self) -> range:
        """Whose parts of a step have to be looked at: all ranks', so that all agree on whether it fits into memory.

        This rank's alone will do if it fits whatever its samples are. Where no table tells what a batch needs, all
        ranks' payloads would have to be read: then each rank knows of its own batches.
        """
        mine, all_ranks = range(self.rank, self.rank + 1), range(self.steps.world_size)
        if mine == all_ranks or self.bound == "none":
            return mine
        rows = self.steps.batch_size
        longest = self.reach.longest() - self.overhead if self._has_ragged else 0
        fits = 2 * bank_bytes(most_bytes(self.outputs, rows, rows * longest)) <= self.limit_bytes()
        return mine if fits else all_ranks

    @property
    def _has_ragged(self) -> bool:
        return any(output.shape is None for output in self.outputs.values())

    def _window(self, epoch: int, position: int, count: int, ranks: range) -> list[tuple[Planned, int]]:
        """So many steps at once: each with this rank's part, and the bytes that the greediest of `ranks` reserves."""
        begins = range(position, position + count * self.steps.stride, self.steps.stride)
        counts, padding, bounds = self.steps.shares(ranks, position, count)
        sample_ids, extras = self.sample_ids(epoch, counts)
        absent = np.flatnonzero(sample_ids == PADDING) if self.repeats else None
        rows = self._rows_of(sample_ids, absent, side_by_side=True)
        if absent is not None:
            padding[absent] = True
        width = len(ranks)
        needs = self._reserves(Planned(epoch, position, rows, padding, extras, 0), bounds, width)
        planned = []
        for k, begin in enumerate(begins):
            i = k * width + self.rank - ranks.start
            mine = slice(bounds[i], bounds[i + 1])
            of_mine = {name: values[mine] for name, values in extras.items()}
            my_rows = rows[mine] if width == 1 else rows[mine].copy()  # a view would keep those of all ranks
            most = max(needs[k * width : (k + 1) * width])
            not_there = None if absent is None else _within(absent, bounds[i], bounds[i + 1])
            planned.append((Planned(epoch, begin, my_rows, padding[mine], of_mine, needs[i], not_there), most))
        return planned

    def _rows_of(self, sample_ids: Ids, absent: Ids | None, *, side_by_side: bool = False) -> Rows:
        """A row for each sample, and for those that are absent one that nobody reads."""
        if absent is None or not len(absent):
            return self.reach.find(sample_ids, side_by_side=side_by_side)
        there = np.ones(len(sample_ids), bool)
        there[absent] = False
        rows = np.zeros(len(sample_ids), ROW)
        rows[there] = self.reach.find(sample_ids[there], side_by_side=side_by_side)
        blank = rows[absent]
        blank["sample_id"], blank["status"], blank["way"] = PADDING, ABSENT, MAPPED
        rows[absent] = blank
        return rows

    def _reserves(self, planned: Planned, bounds: list[int], width: int) -> list[int]:
        """The most that a bank can need for each part of these rows. A step has as many parts as `width` says.

        A step that may need more than half of the memory is measured, if that can make a difference: so any two that
        are not measured fit side by side.
        """
        counts = [stop - start for start, stop in pairwise(bounds)]
        fixed = {count: most_bytes(self.outputs, count, 0) for count in set(counts)}

        def banks(ragged: Ids) -> list[int]:
            return [bank_bytes(fixed[count] + more) for count, more in zip(counts, ragged.tolist(), strict=True)]

        ragged = np.zeros(len(counts), np.int64)
        if self._has_ragged:
            gather.sum_lengths(planned.rows, np.array(bounds), self.overhead, ragged)
        most = banks(ragged)
        if self.bound == "tight":
            return most
        half = self.limit_bytes() // 2
        large = [self.bound == "none" or max(most[k : k + width]) > half for k in range(0, len(most), width)]
        if not any(large):
            return most
        measured = banks(self.measure(planned, np.array(bounds)))
        return [measured[i] if large[i // width] else most[i] for i in range(len(most))]

    def _too_large(self, planned: Planned, before: int, most: int) -> LoaderError:
        return LoaderError(
            subject=f"epoch {planned.epoch}, position {planned.position}",
            expected=f"a batch that fits into {self.limit_bytes()} bytes of memory, beside {before} of the one before",
            found=f"one of up to {most} bytes",
            hint=f"memory={self.memory_for(before + most)} or a smaller batch_size",
        )


def _within(rows: Ids, start: int, stop: int) -> Ids | None:
    """Those of some rows that lie from start to before stop, counted from start; None if none does."""
    found = rows[(rows >= start) & (rows < stop)] - start
    return found if len(found) else None
