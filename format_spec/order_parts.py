"""Which position comes when? The orders of §12 for the vectors, in plain integers and lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def order_words(purpose: str, snapshot: str, view: str, seed: int, epoch: int) -> list[int]:
    """§12.3"""
    text = json.dumps(["mx8shards order 1", purpose, snapshot, view, seed & WORD, epoch & WORD])
    digest = hashlib.shake_256(text.encode()).digest(200)
    return [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 200, 8)]


def tweak(number: int, words: Sequence[int]) -> int:
    z = (number * GOLDEN + words[24]) & WORD
    z = (z ^ z >> 30) * FIRST & WORD
    z = (z ^ z >> 27) * SECOND & WORD
    return z ^ z >> 31


def one_pass(cell: int, count: int, number: int, words: Sequence[int]) -> int:
    """§12.2"""
    bits = ((count - 1).bit_length() + 1) // 2
    rows, columns = -(-count // (1 << bits)), 1 << bits
    row, column = divmod(cell, columns)
    for i in range(24 if count <= 4096 else 10):
        h = (column if i % 2 == 0 else row) ^ words[i] ^ tweak(number, words)
        h = h * FIRST & WORD
        h = (h ^ h >> 32) * SECOND & WORD
        if i % 2 == 0:
            row = (row + ((h >> 32) * rows >> 32)) % rows
        else:
            column = (column + (h >> 32 >> 32 - bits)) % columns
    return row * columns + column


def permuted(position: int, count: int, number: int, words: Sequence[int]) -> int:
    """§12.1"""
    cell = one_pass(position, count, number, words)
    while cell >= count:
        cell = one_pass(cell, count, number, words)
    return cell


def shuffle(count: int, snapshot: str, view: str, seed: int, epoch: int) -> list[int]:
    """§12.4"""
    words = order_words("shuffle", snapshot, view, seed, epoch)
    return [permuted(position, count, 0, words) for position in range(count)]


def block_shuffle(
    groups: Sequence[Sequence[int]], shards: int, snapshot: str, view: str, seed: int, epoch: int
) -> list[int]:
    """§12.5, of the positions in each shard."""
    every = sorted(position for group in groups for position in group)
    if sum(map(bool, groups)) <= shards:
        return [every[i] for i in shuffle(len(every), snapshot, view, seed, epoch)]
    return [position for slot in slots(groups, shards, snapshot, view, seed, epoch) for position in slot]


def slots(
    groups: Sequence[Sequence[int]], shards: int, snapshot: str, view: str, seed: int, epoch: int
) -> list[list[int]]:
    """The slots of §12.5, where there are more shards with positions than that."""
    full = [group for group in groups if group]
    total = len(full)
    shard_words, part_words, slot_words = (
        order_words(f"block_shuffle {what}", snapshot, view, seed, epoch) for what in ("shards", "parts", "slots")
    )
    ranked = [full[permuted(c, total, 0, shard_words)] for c in range(total)]
    mixed = [
        [group[permuted(i, len(group), c, part_words)] for i in range(len(group))] for c, group in enumerate(ranked)
    ]
    found = []
    for u in range(total):
        row: list[int] = []
        for j in range(shards):
            group = mixed[(u - j) % total]
            row += group[len(group) * j // shards : len(group) * (j + 1) // shards]
        found.append([row[permuted(q, len(row), u, slot_words)] for q in range(len(row))])
    return found
