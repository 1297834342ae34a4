"""Does the table of blocks agree with a plain model, and does it hold no more than blocks in use or in memory?"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mx8shards.loading.planning.block_table import Block, BlockTable


@dataclass
class Known:
    """A block in the model."""

    state: str = "absent"
    users: int = 0
    idle_since: int = 0


class Model:
    """A table of blocks, as simple as possible."""

    def __init__(self) -> None:
        self.blocks: dict[Block, Known] = {}
        self.clock = 0

    @property
    def size_bytes(self) -> int:
        return sum(size_of(block) for block, known in self.blocks.items() if known.state != "absent")

    def in_state(self, *states: str) -> list[Block]:
        return [block for block, known in self.blocks.items() if known.state in states]

    def change(self, blocks: list[Block], users: int = 0, state: str = "") -> None:
        for block in blocks:
            self.clock += 1
            known = self.blocks.setdefault(block, Known())
            known.users += users
            known.state = state or known.state
            known.idle_since = self.clock
        self.blocks = {block: known for block, known in self.blocks.items() if known.users or known.state != "absent"}

    def room(self, size_bytes: int) -> list[Block] | None:
        """The blocks to drop."""
        idle = [block for block in self.in_state("here") if not self.blocks[block].users]
        idle.sort(key=lambda block: self.blocks[block].idle_since)
        for count in range(len(idle) + 1):
            if sum(map(size_of, idle[:count])) >= size_bytes:
                return idle[:count]
        return None


def size_of(block: Block) -> int:
    return 16 if block[0] % 2 else 1024


def test_the_table_agrees_with_a_model_over_many_random_steps() -> None:
    rng = random.Random(1)
    table, model = BlockTable(), Model()
    leases: list[list[Block]] = []
    for _ in range(4_000):
        step = rng.choice(("lease", "lease", "end", "end", "arrive", "fail", "room", "shards"))
        awaited = model.in_state("awaited")
        if step == "lease" and len(leases) < 40:
            shard = rng.randrange(6)
            blocks = [(shard, number) for number in rng.sample(range(60), rng.randrange(20))]
            table.lease(blocks, size_of((shard, 0)))
            model.change(blocks, users=1)
            leases.append(blocks)
            assert table.has_awaited(blocks) == bool({*blocks} & {*awaited})
            absent = table.absent(blocks)
            assert absent == [block for block in blocks if model.blocks[block].state == "absent"]
            assert table.total_bytes(absent) == sum(map(size_of, absent))
            table.expect(absent)
            model.change(absent, state="awaited")
        elif step == "end" and leases:
            blocks = leases.pop(rng.randrange(len(leases)))
            table.end_lease(blocks)
            model.change(blocks, users=-1)
        elif step in ("arrive", "fail"):
            some = rng.sample(awaited, rng.randrange(len(awaited) + 1))
            (table.arrive if step == "arrive" else table.fail)(some)
            model.change(some, state="here" if step == "arrive" else "absent")
        elif step == "room":
            size = rng.randrange(-100, 4_000)
            dropped = table.make_room(size)
            assert dropped == model.room(size)
            model.change(dropped or [], state="absent")
        elif step == "shards":
            in_use = {block[0] for block, known in model.blocks.items() if known.users or known.state == "awaited"}
            assert table.in_use() == in_use
            idle = [block for block in model.blocks if block[0] not in in_use and block[0] != 1]
            table.forget_shards({block[0] for block in idle})
            model.change(idle, state="absent")
        assert (table.size_bytes, len(table)) == (model.size_bytes, len(model.blocks))


def test_blocks_that_are_used_never_make_room() -> None:
    table, blocks = BlockTable(), [(0, 0), (0, 1)]
    table.lease(blocks, 10)
    table.expect(blocks)
    table.arrive(blocks)
    table.end_lease(blocks[:1])
    assert table.make_room(11) is None
    assert table.make_room(10) == [(0, 0)]
    assert table.size_bytes == 10
    assert table.absent(blocks[1:]) == []
