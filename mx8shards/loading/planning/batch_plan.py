"""Which samples go into which batch, which small batches form a group, and how much memory does each need?

Usually planning reads only offset tables: the lengths of the samples bound the size of a batch, and size headers give
the exact size later, when the batch is filled. If only a few columns are wanted, or if no table has the sizes of
decoded rows, this bound may be far too large or missing. Then batches are measured before memory is reserved for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.format.randomness import integers
from mx8shards.kernels import gather
from mx8shards.kernels.records import ABSENT, MAPPED, ROW
from mx8shards.loading.budget.banks import bank_bytes
from mx8shards.loading.budget.batch_layout import max_bytes
from mx8shards.loading.planning.groups import Group, Measured, part_of
from mx8shards.loading.planning.partial_shards import Fetch, PartsTooLargeError
from mx8shards.loading.planning.payload_finder import PayloadFinder
from mx8shards.loading.planning.shard_table import Ids, Provide, Rows, ShardTable
from mx8shards.order.orders import PADDING, Order, first_needed
from mx8shards.order.shard_uses import ShardUses
from mx8shards.order.steps import Steps
from mx8shards.shards.open_shard import Shards
from mx8shards.views import NO_EXTRAS, Extras, View, replaced_extras, with_occurrences

# Positions that are planned together: a shuffle is several times faster for thousands of positions at once.
_POSITIONS_AT_ONCE = 4096

_GROUP_PART = 32  # a group has at most 1/32 of the memory: holding one of its batches holds its whole bank


class NotHereError(Exception):
    """Some shards of these steps are not local yet."""


class Provisions(Protocol):
    """Makes shards local for the planner."""

    def are_here(self, numbers: Sequence[int], /) -> bool:
        """Whether all these shards are local."""

    def need(self, numbers: Sequence[int], /) -> dict[int, Exception]:
        """Wait until these shards are local; the errors of those that cannot be, by shard number."""

    @property
    def fetch(self) -> Fetch | None:
        """Fetches what batches need of shards that are read in parts."""

    def at(self, begin: int, end: int, /) -> None:
        """The step that is planned next has the order positions from `begin` to before `end`."""


class Samples(NamedTuple):
    """Sample_ids and extras of some order positions, and which of them are padding: their sample_id is PADDING."""

    sample_ids: Ids
    extras: Extras
    absent: Ids | None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Plan:
    """Everything that determines the samples of an epoch's batches and their location. It is immutable."""

    order: Order
    repeats: bool  # whether the order may repeat a position within an epoch
    view: View
    shards: Shards
    seed: int
    samples: int  # of the dataset
    steps: Steps
    rank: int
    shard_table: ShardTable
    finder: PayloadFinder
    group_bytes: int  # batches are grouped in banks of at most this size
    limit_bytes: Callable[[], int]
    memory_for: Callable[[int], int]
    uses: Callable[[int], ShardUses]  # of the shards, by epoch
    uses_are_quick: bool  # to compute

    def samples_at(self, epoch: int, counts: Ids) -> Samples:
        """The samples and extras at these order positions of an epoch.

        If the order may repeat a view position, the order position is its occurrence: it is unique, and counting the
        earlier repeats would take a pass over the whole order.
        """
        positions, absent = self.order.at(epoch, counts), None
        if len(positions) and positions.min() < 0:
            absent, there = np.flatnonzero(positions == PADDING), np.flatnonzero(positions != PADDING)
            sample_ids = np.full(len(positions), PADDING)
            sample_ids[there], some = self.resolve(positions[there], epoch)
            extras = replaced_extras(NO_EXTRAS, there, some, len(positions))
        else:
            sample_ids, extras = self.resolve(positions, epoch)
        if self.repeats:
            extras = with_occurrences(extras, counts, self.view.occurrences)
        return Samples(sample_ids, extras, absent)

    def upcoming_shards(self, epoch: int, position: int) -> Iterator[int]:
        """The shards that this rank needs from an order position on, each once, in the order of first need."""
        seen = np.zeros(self.shards.count, bool)
        ranks, at_once = range(self.rank, self.rank + 1), 1
        while (left := self.steps.left(position)) and not seen.all():
            count = min(at_once, max(1, _POSITIONS_AT_ONCE // self.steps.batch_size), left)
            counts, _, _ = self.steps.slices_of(ranks, position, count)
            ids = self.samples_at(epoch, counts).sample_ids
            numbers = np.searchsorted(self.shards.starts, ids[ids != PADDING], side="right") - 1
            yield from first_needed(numbers, seen)
            position = min(position + count * self.steps.stride, self.steps.length)
            at_once = 2 * count

    def substitute(self, epoch: int, sample_id: int, occurrence: int, attempt: int) -> int:
        """The view position that replaces a lost sample in this attempt, from 0 (spec: registry, "substitute")."""
        ids, occurrences = np.array([sample_id]), np.array([occurrence])
        count = min(len(self.view), 1 << 32)
        return int(integers(self.seed, epoch, ids, "substitute", attempt + 1, count, occurrences)[0, attempt])

    def resolve(self, positions: Ids, epoch: int) -> tuple[Ids, Extras]:
        """The sample_ids and extras at these view positions."""
        found, extras = self.view.resolve(positions, epoch, self.seed)
        if len(found) and not 0 <= found.min() <= found.max() < self.samples:  # kernels do not check it again
            raise LoaderError(
                subject="view",
                expected=f"sample_ids from 0 to {self.samples - 1}",
                found=f"{found.min()} to {found.max()}",
            )
        return found, extras

    def begin_epoch(self) -> None:
        """Begin an iteration: each shard is checked again when it is first needed."""
        self.shard_table.begin_epoch()

    def after(self, group: Group) -> int:
        """The order position of the step after these batches."""
        return min(group.steps[-1].position + self.steps.stride, self.steps.length)

    def batches(self, epoch: int, position: int, provisions: Provisions) -> Iterator[Group]:
        """The groups of an epoch from an order position on, planned lazily. LoaderError if a batch can never fit."""
        before = 0
        at_once = 1
        while self.steps.left(position):
            ranks = self._ranks_to_plan()
            count = min(at_once, self._max_at_once(ranks), self.steps.left(position))
            provisions.at(position, position + self.steps.size)
            try:
                found = self._planned(epoch, position, count, ranks, provisions)
            except NotHereError:
                at_once = 1  # steps whose shards have to be waited for are planned one by one
                continue
            except PartsTooLargeError as error:
                self.shard_table.read_whole(error.shards)
                continue
            except Exception:
                if count == 1:
                    raise
                at_once = 1  # plan the steps before the failing one by themselves
                continue
            for begin, group, needed in found:
                if before + needed > self.limit_bytes():
                    raise self._too_large(epoch, begin, before, needed)
                before = needed
                if len(group.rows):  # with uneven="exact", the last step may have no rows for this rank
                    yield group
            position = min(position + count * self.steps.stride, self.steps.length)
            at_once = 2 * count

    def _max_at_once(self, ranks: range) -> int:
        """The number of steps that may be planned together: one if they are measured, or parts fetched for each."""
        if self.finder.bound == "none" or self.shard_table.parts.are_possible:
            return 1
        return max(1, _POSITIONS_AT_ONCE // (self.steps.batch_size * len(ranks)))

    def replanned(self, group: Group, rows: Ids, positions: Ids, provisions: Provisions | None = None) -> Group:
        """The same batches, with the samples at these view positions in these rows.

        Without provisions, the shards of all rows are local.
        """
        provide, fetch = (None, None) if provisions is None else (provisions.need, provisions.fetch)
        sample_ids = group.rows["sample_id"].copy()
        sample_ids[rows], extras = self.resolve(positions, group.epoch)
        self.shard_table.keep(sample_ids[rows])  # before they are opened
        found = self._rows_of(sample_ids, group.absent, provide)
        both = replaced_extras(group.extras, rows, extras, len(found))
        again = group._replace(rows=found, extras=both, measured=None)
        (reserve,), measured = self._reserves(again, [0, len(found)], 1, fetch)
        if reserve > self.limit_bytes():
            raise self._too_large(group.epoch, group.position, 0, reserve)
        return again._replace(reserve_bytes=reserve, measured=measured)

    def _ranks_to_plan(self) -> range:
        """The ranks whose batches are planned: all, so that all ranks find the same step too large for the memory.

        Only this rank's are planned if a batch of the largest samples fits. They are also planned alone if batches are
        measured, because measuring those of all ranks would read their payloads.
        """
        mine, all_ranks = range(self.rank, self.rank + 1), range(self.steps.world_size)
        if mine == all_ranks or self.finder.bound == "none" or self.shard_table.parts.are_possible:
            return mine
        rows = self.steps.batch_size
        longest = self.shard_table.longest() - self.finder.overhead if self._has_ragged else 0
        fits = 2 * bank_bytes(max_bytes(self.finder.outputs, rows, rows * longest)) <= self.limit_bytes()
        return mine if fits else all_ranks

    @property
    def _has_ragged(self) -> bool:
        return any(output.shape is None for output in self.finder.outputs.values())

    def _planned(
        self, epoch: int, position: int, count: int, ranks: range, provisions: Provisions
    ) -> list[tuple[int, Group, int]]:
        """Plan `count` steps at once: order position, this rank's group, and the largest need of any of `ranks`."""
        positions = range(position, position + count * self.steps.stride, self.steps.stride)
        counts, padding, bounds = self.steps.slices_of(ranks, position, count)
        sample_ids, extras, absent = self.samples_at(epoch, counts)
        rows = self._rows_of(sample_ids, absent, provisions.need if count == 1 else partial(_expect_here, provisions))
        if absent is not None:
            padding[absent] = True
        every = Group(epoch, (), rows, padding, extras, 0, absent)
        width = len(ranks)
        needs, measured = self._reserves(every, bounds, width, provisions.fetch)
        every = every._replace(measured=measured)
        room = min(self.group_bytes, self.limit_bytes() // _GROUP_PART)
        if width == 1 and (together := room // max(needs)) > 1:
            edges = [*range(0, count, together), count]
            needs, _ = self._reserves(every, [bounds[k] for k in edges], 1, provisions.fetch)
            return [
                (positions[first], part_of(every, positions[first:last], bounds[first : last + 1], need), need)
                for (first, last), need in zip(pairwise(edges), needs, strict=True)
            ]
        groups = []
        for k in range(count):
            i = k * width + self.rank - ranks.start
            group = part_of(every, positions[k : k + 1], bounds[i : i + 2], needs[i])
            if width > 1:
                group = group._replace(rows=group.rows.copy())  # a view would keep the rows of all ranks alive
            groups.append((positions[k], group, max(needs[k * width : (k + 1) * width])))
        return groups

    def _rows_of(self, sample_ids: Ids, absent: Ids | None, provide: Provide | None = None) -> Rows:
        """A row for each sample; absent samples get a row that no stage reads."""
        if absent is None:
            return self.shard_table.find(sample_ids, provide)
        there = np.ones(len(sample_ids), bool)
        there[absent] = False
        rows = np.zeros(len(sample_ids), ROW)
        rows[there] = self.shard_table.find(sample_ids[there], provide)
        blank = rows[absent]
        blank["sample_id"], blank["status"], blank["way"] = PADDING, ABSENT, MAPPED
        rows[absent] = blank
        return rows

    def _reserves(
        self, group: Group, bounds: list[int], width: int, fetch: Fetch | None
    ) -> tuple[list[int], Measured | None]:
        """An upper bound of the bank for each part of these rows, and the measurements, if they were measured.

        Each step has `width` parts. If a step may need more than half of the memory and the bound is not tight, the
        step is measured. So any two steps that are not measured fit into memory together.
        """
        counts = [stop - start for start, stop in pairwise(bounds)]
        fixed = {count: max_bytes(self.finder.outputs, count, 0) for count in set(counts)}

        def banks(ragged: Ids) -> list[int]:
            return [bank_bytes(fixed[count] + more) for count, more in zip(counts, ragged.tolist(), strict=True)]

        ragged = np.zeros(len(counts), np.int64)
        if self._has_ragged:
            gather.sum_lengths(group.rows, np.array(bounds), self.finder.overhead, ragged)
        needs = banks(ragged)
        if self.finder.bound == "tight":
            return needs, None
        half = self.limit_bytes() // 2
        large = [self.finder.bound == "none" or max(needs[k : k + width]) > half for k in range(0, len(counts), width)]
        if not any(large):
            return needs, None
        ragged, found = self.finder.measure(group, np.array(bounds), fetch)
        measured = banks(ragged)
        return [measured[i] if large[i // width] else needs[i] for i in range(len(counts))], found

    def _too_large(self, epoch: int, position: int, before: int, needed: int) -> LoaderError:
        return LoaderError(
            subject=f"epoch {epoch}, position {position}",
            expected=f"a batch that fits into {self.limit_bytes()} bytes of memory, beside {before} of the one before",
            found=f"one of up to {needed} bytes",
            hint=f"memory={self.memory_for(before + needed)} or a smaller batch_size",
        )


def _expect_here(provisions: Provisions, shards: Sequence[int]) -> dict[int, Exception]:
    """NotHereError if a shard is not local: steps are planned together only if none of them has to wait."""
    if not provisions.are_here(shards):
        raise NotHereError
    return provisions.need(shards)
