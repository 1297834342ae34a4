"""Which bytes go into which batch, and what does it cost?

Nothing is read here but offset tables, if these tell enough: a batch's payloads are bounded from above by the lengths
of its samples, and what they really need is known when their size headers are read. Where only few of a sample's
columns are wanted, or decoders give rows whose sizes no table tells, that bound may be far too large, or none: then
batches are measured before memory is reserved for them.
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
from mx8shards.loading.memory.banks import bank_bytes
from mx8shards.loading.memory.batch_layout import most_bytes
from mx8shards.loading.planning.groups import Group, Measured, part_of
from mx8shards.loading.planning.payload_finder import PayloadFinder
from mx8shards.loading.planning.shard_table import Ids, Provide, Reach, Rows
from mx8shards.order.orders import PADDING, Order, shards_ahead
from mx8shards.order.shard_lookup import ShardLookup
from mx8shards.order.steps import Steps
from mx8shards.shards.open_shard import Shards
from mx8shards.views import NO_EXTRAS, Extras, View, replaced_extras, with_occurrences

# A shuffle is computed several times as quickly for thousands of positions at once.
_WINDOW = 4096

_GROUP_PART = 32  # several batches share so small a part of the memory: whoever holds one of them holds all of it


class Provisions(Protocol):
    """Makes the shards local that planning needs."""

    def are_here(self, numbers: Sequence[int], /) -> bool:
        """Whether nothing has to be waited for."""

    def need(self, numbers: Sequence[int], /) -> dict[int, Exception]:
        """Return when these shards are local; why some cannot be, by their numbers."""


class Samples(NamedTuple):
    """Samples, what is known of them beside that, and which of them are none: those have the sample_id PADDING."""

    sample_ids: Ids
    extras: Extras
    absent: Ids | None


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Plan:
    """All that determines which samples the batches of an epoch hold, and where they lie."""

    order: Order
    repeats: bool  # whether the order may hold a position several times in an epoch
    view: View
    places: ShardLookup
    shards: Shards
    seed: int
    samples: int  # of the dataset
    steps: Steps
    rank: int
    reach: Reach
    finder: PayloadFinder
    group_bytes: int  # several batches lie in one bank of so many bytes at most
    limit_bytes: Callable[[], int]
    memory_for: Callable[[int], int]

    def found_at(self, epoch: int, counts: Ids) -> Samples:
        """The samples at these counts of an epoch's order, and what is known of them.

        An order that may repeat a position is not asked how often it did so far, which would take a pass over all of
        it: its counts, which no two repeats share, tell them apart.
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
        if len(found) and not 0 <= found.min() <= found.max() < self.samples:  # kernels would believe it
            raise LoaderError(
                subject="view",
                expected=f"sample_ids from 0 to {self.samples - 1}",
                found=f"{found.min()} to {found.max()}",
            )
        return found, extras

    def begin_epoch(self) -> None:
        """An iteration begins: look at every shard anew when it is first needed."""
        self.reach.begin_epoch()

    def after(self, group: Group) -> int:
        """The position at which the step after these batches begins."""
        return min(group.steps[-1].position + self.steps.stride, self.steps.length)

    def batches(self, epoch: int, position: int, provisions: Provisions) -> Iterator[Group]:
        """The batches of an epoch from a position on, each planned when it is asked for, whatever memory there is."""
        before = 0
        window = 1
        while self.steps.left(position):
            ranks = self._looked_at()
            many = 1 if self.finder.bound == "none" else max(1, _WINDOW // (self.steps.batch_size * len(ranks)))
            count = min(window, many, self.steps.left(position))
            try:
                found = self._window(epoch, position, count, ranks, provisions)
            except Exception:
                if count == 1:
                    raise
                window = 1  # the steps before the one that fails, or has to wait, are good
                continue
            for begin, group, needed in found:
                if before + needed > self.limit_bytes():
                    raise self._too_large(epoch, begin, before, needed)
                before = needed
                if len(group.rows):  # with uneven="exact" the last step may have nothing for this rank
                    yield group
            position = min(position + count * self.steps.stride, self.steps.length)
            window = 2 * count

    def again(self, group: Group, rows: Ids, positions: Ids) -> Group:
        """The same batches with what stands at these positions of the view in the place of these rows."""
        sample_ids = group.rows["sample_id"].copy()
        sample_ids[rows], extras = self.resolve(positions, group.epoch)
        found = self._rows_of(sample_ids, group.absent)
        both = replaced_extras(group.extras, rows, extras, len(found))
        again = group._replace(rows=found, extras=both, measured=None)
        (reserve,), measured = self._reserves(again, [0, len(found)], 1)
        if reserve > self.limit_bytes():
            raise self._too_large(group.epoch, group.position, 0, reserve)
        return again._replace(reserve_bytes=reserve, measured=measured)

    def _looked_at(self) -> range:
        """Whose parts of a step have to be looked at: all ranks', so that all agree on whether it fits into memory.

        This rank's alone will do if it fits whatever its samples are. Where no table tells what a batch needs, all
        ranks' payloads would have to be read: then each rank knows of its own batches.
        """
        mine, all_ranks = range(self.rank, self.rank + 1), range(self.steps.world_size)
        if mine == all_ranks or self.finder.bound == "none":
            return mine
        rows = self.steps.batch_size
        longest = self.reach.longest() - self.finder.overhead if self._has_ragged else 0
        fits = 2 * bank_bytes(most_bytes(self.finder.outputs, rows, rows * longest)) <= self.limit_bytes()
        return mine if fits else all_ranks

    @property
    def _has_ragged(self) -> bool:
        return any(output.shape is None for output in self.finder.outputs.values())

    def _window(
        self, epoch: int, position: int, count: int, ranks: range, provisions: Provisions
    ) -> list[tuple[int, Group, int]]:
        """So many steps at once: this rank's parts of them, and the bytes that the greediest of `ranks` reserves."""
        positions = range(position, position + count * self.steps.stride, self.steps.stride)
        counts, padding, bounds = self.steps.slices_of(ranks, position, count)
        sample_ids, extras, absent = self.found_at(epoch, counts)
        rows = self._rows_of(sample_ids, absent, provisions.need if count == 1 else partial(_expect_here, provisions))
        if absent is not None:
            padding[absent] = True
        every = Group(epoch, (), rows, padding, extras, 0, absent)
        width = len(ranks)
        needs, measured = self._reserves(every, bounds, width)
        every = every._replace(measured=measured)
        room = min(self.group_bytes, self.limit_bytes() // _GROUP_PART)
        if width == 1 and (together := room // max(needs)) > 1:
            edges = [*range(0, count, together), count]
            needs, _ = self._reserves(every, [bounds[k] for k in edges], 1)
            return [
                (positions[first], part_of(every, positions[first:last], bounds[first : last + 1], need), need)
                for (first, last), need in zip(pairwise(edges), needs, strict=True)
            ]
        groups = []
        for k in range(count):
            i = k * width + self.rank - ranks.start
            group = part_of(every, positions[k : k + 1], bounds[i : i + 2], needs[i])
            if width > 1:
                group = group._replace(rows=group.rows.copy())  # a view would keep those of all ranks
            groups.append((positions[k], group, max(needs[k * width : (k + 1) * width])))
        return groups

    def _rows_of(self, sample_ids: Ids, absent: Ids | None, provide: Provide | None = None) -> Rows:
        """A row for each sample, and for those that are absent one that nobody reads."""
        if absent is None:
            return self.reach.find(sample_ids, provide)
        there = np.ones(len(sample_ids), bool)
        there[absent] = False
        rows = np.zeros(len(sample_ids), ROW)
        rows[there] = self.reach.find(sample_ids[there], provide)
        blank = rows[absent]
        blank["sample_id"], blank["status"], blank["way"] = PADDING, ABSENT, MAPPED
        rows[absent] = blank
        return rows

    def _reserves(self, group: Group, bounds: list[int], width: int) -> tuple[list[int], Measured | None]:
        """The most that a bank can need for each part of these rows, and what was found if they had to be measured.

        A step has as many parts as `width` says.

        A step that may need more than half of the memory is measured, if that can make a difference: so any two that
        are not measured fit side by side.
        """
        counts = [stop - start for start, stop in pairwise(bounds)]
        fixed = {count: most_bytes(self.finder.outputs, count, 0) for count in set(counts)}

        def banks(ragged: Ids) -> list[int]:
            return [bank_bytes(fixed[count] + more) for count, more in zip(counts, ragged.tolist(), strict=True)]

        ragged = np.zeros(len(counts), np.int64)
        if self._has_ragged:
            gather.sum_lengths(group.rows, np.array(bounds), self.finder.overhead, ragged)
        most = banks(ragged)
        if self.finder.bound == "tight":
            return most, None
        half = self.limit_bytes() // 2
        large = [self.finder.bound == "none" or max(most[k : k + width]) > half for k in range(0, len(most), width)]
        if not any(large):
            return most, None
        ragged, found = self.finder.measure(group, np.array(bounds))
        measured = banks(ragged)
        return [measured[i] if large[i // width] else most[i] for i in range(len(most))], found

    def _too_large(self, epoch: int, position: int, before: int, needed: int) -> LoaderError:
        return LoaderError(
            subject=f"epoch {epoch}, position {position}",
            expected=f"a batch that fits into {self.limit_bytes()} bytes of memory, beside {before} of the one before",
            found=f"one of up to {needed} bytes",
            hint=f"memory={self.memory_for(before + needed)} or a smaller batch_size",
        )


def _expect_here(provisions: Provisions, shards: Sequence[int]) -> dict[int, Exception]:
    """LoaderError if these shards have to be waited for: steps are planned together that need no waiting."""
    if not provisions.are_here(shards):
        raise LoaderError("some shards of these steps are not here yet")
    return provisions.need(shards)
