"""Does the table of blocks agree with a plain model, and does it hold no more rows than blocks in use or in memory?"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from mx8shards.loading.planning.block_table import Block, BlockTable, Rows


@dataclass
class Known:
    """A block in the model."""

    size: int
    state: str = "absent"
    users: int = 0
    used_at: int = 0


class Model:
    """A table of blocks, as simple as possible."""

    def __init__(self) -> None:
        self.blocks: dict[Block, Known] = {}
        self.clock = 0

    @property
    def size_bytes(self) -> int:
        return sum(each.size for each in self.blocks.values() if each.state != "absent")

    def lease(self, blocks: list[Block], sizes: list[int]) -> None:
        self.clock += 1
        for block, size in zip(blocks, sizes, strict=True):
            known = self.blocks.setdefault(block, Known(size))
            known.users += 1
            known.used_at = self.clock

    def end_lease(self, blocks: list[Block]) -> None:
        for block in blocks:
            self.blocks[block].users -= 1
        self.forget()

    def idle(self) -> list[Block]:
        return [block for block, known in self.blocks.items() if known.state == "here" and not known.users]

    def drop(self, blocks: list[Block]) -> None:
        for block in blocks:
            self.blocks[block].state = "absent"
        self.forget()

    def forget(self) -> None:
        self.blocks = {block: known for block, known in self.blocks.items() if known.users or known.state != "absent"}


def size_of(block: Block) -> int:
    return 16 if block[0] % 2 else 1024


def check_room(model: Model, size_bytes: int, dropped: list[Block] | None) -> None:
    """As few blocks as necessary were dropped, and those whose last use was earliest; None if there are too few."""
    idle = model.idle()
    if dropped is None:
        assert sum(map(size_of, idle)) < size_bytes
        return
    assert set(dropped) <= set(idle)
    assert sum(map(size_of, dropped)) >= size_bytes
    assert sum(map(size_of, dropped[:-1])) < max(size_bytes, 1)
    last = max((model.blocks[block].used_at for block in dropped), default=0)
    assert all(model.blocks[block].used_at >= last for block in set(idle) - set(dropped))


def test_the_table_agrees_with_a_model_over_many_random_steps() -> None:
    rng = random.Random(1)
    table, model = BlockTable(), Model()
    leases: list[tuple[Rows, list[Block]]] = []
    for _ in range(4_000):
        step = rng.choice(("lease", "lease", "end", "end", "arrive", "fail", "room", "shard"))
        awaited = [block for block, known in model.blocks.items() if known.state == "awaited"]
        if step == "lease" and len(leases) < 40:
            blocks = [(rng.randrange(6), number) for number in rng.sample(range(200), rng.randrange(20))]
            rows = table.lease(blocks, [size_of(block) for block in blocks])
            model.lease(blocks, [size_of(block) for block in blocks])
            leases.append((rows, blocks))
            assert table.has_awaited(rows) == any(model.blocks[block].state == "awaited" for block in blocks)
            absent = table.absent(rows)
            assert table.blocks(absent) == [block for block in blocks if model.blocks[block].state == "absent"]
            table.expect(absent)
            for block in blocks:
                if model.blocks[block].state == "absent":
                    model.blocks[block].state = "awaited"
        elif step == "end" and leases:
            rows, blocks = leases.pop(rng.randrange(len(leases)))
            table.end_lease(rows)
            model.end_lease(blocks)
        elif step in ("arrive", "fail") and awaited:
            some = rng.sample(awaited, rng.randrange(len(awaited) + 1))
            (table.arrive if step == "arrive" else table.fail)(some)
            for block in some:
                model.blocks[block].state = "here" if step == "arrive" else "absent"
            model.forget()
        elif step == "room":
            size = rng.randrange(-100, 4_000)
            check_room(model, size, dropped := table.make_room(size))
            model.drop(dropped or [])
        elif step == "shard":
            assert table.in_use() == {
                b[0] for b, known in model.blocks.items() if known.users or known.state == "awaited"
            }
            idle = {block[0] for block in model.blocks} - table.in_use()
            table.forget_shards(idle)
            model.blocks = {block: known for block, known in model.blocks.items() if block[0] not in idle}
        assert (table.size_bytes, len(table)) == (model.size_bytes, len(model.blocks))


def test_blocks_that_are_used_never_make_room() -> None:
    table = BlockTable()
    rows = table.lease([(0, 0), (0, 1)], [10, 10])
    table.expect(rows)
    table.arrive([(0, 0), (0, 1)])
    table.end_lease(rows[:1])
    assert table.make_room(11) is None
    assert table.make_room(10) == [(0, 0)]
    assert table.size_bytes == 10
    assert table.absent(np.array([rows[1]])).tolist() == []
