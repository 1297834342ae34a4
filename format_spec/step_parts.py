"""Which views have which text, and what does each rank get of an epoch? The rules of §12.6 to §12.8 for the vectors."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any

from order_parts import order_words, permuted

Keys = list[tuple[int, int]]

UNEVEN = ("split", "pad", "drop", "exact")


def text_of(*parts: object) -> str:
    """§12.6"""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def whole(samples: int) -> str:
    return text_of("whole", samples)


def select(base: str, positions: Sequence[int]) -> str:
    packed = struct.pack(f"<{len(positions)}q", *positions)
    return text_of("select", base, hashlib.sha256(packed).hexdigest())


def join(parts: Sequence[tuple[str, int]]) -> str:
    return text_of("join", *parts)


def mix(base: str, parts: Sequence[tuple[int, int]]) -> str:
    return text_of("mix", base, *parts)


# §12.10: the sample and the occurrence at each position of a view, and the number that all its occurrences are below


def whole_keys(samples: int) -> tuple[Keys, int]:
    return [(i, 0) for i in range(samples)], 1


def select_keys(base: tuple[Keys, int], positions: Sequence[int]) -> tuple[Keys, int]:
    keys, most = base
    repeats = [list(positions[:i]).count(position) for i, position in enumerate(positions)]
    found = [(keys[p][0], keys[p][1] + r * most) for p, r in zip(positions, repeats, strict=True)]
    return found, most * (1 + max(repeats, default=0))


def join_keys(parts: Sequence[tuple[tuple[Keys, int], int]]) -> tuple[Keys, int]:
    found = [(first + sample, occurrence) for (keys, _), first in parts for sample, occurrence in keys]
    return found, max(most for (_, most), _ in parts)


def mix_keys(
    base: tuple[Keys, int], base_text: str, parts: Sequence[tuple[int, int]], seed: int, epoch: int
) -> tuple[Keys, int]:
    """§12.9"""
    keys, most = base
    words = order_words("mix", "", mix(base_text, parts), seed, 0)
    found, before = [], 0
    for k, (size, count) in enumerate(parts):
        for j in range(count):
            at = (epoch * count + j) % size
            sample, occurrence = keys[before + (permuted(at, size, k, words) if count % size else at)]
            found.append((sample, occurrence + j // size * most))
        before += size
    return found, most * max(1, *(-(-count // max(size, 1)) for size, count in parts))


def resolved(keys: tuple[Keys, int], **asked: int) -> dict[str, Any]:
    found, most = keys
    return {**asked, "samples": [s for s, _ in found], "occurrences": [o for _, o in found], "below": most}


def resolves() -> list[dict[str, Any]]:
    """What stands at the positions of a few views with repeats."""
    ten = whole_keys(10)
    picked = select_keys(ten, [3, 3, 0])
    joined = join_keys([(picked, 0), (ten, 10)])
    text = join([(select(whole(10), [3, 3, 0]), 0), (whole(10), 10)])
    described: dict[str, Any] = {"join": [{"select": [3, 3, 0], "of": {"whole": 10}}, {"whole": 10}], "starts": [0, 10]}
    again = {"select": [1, 1, 0], "of": {"select": [3, 3, 0], "of": {"whole": 10}}}
    found = [
        {**again, **resolved(select_keys(picked, [1, 1, 0]), seed=0, epoch=0)},
        {**described, **resolved(joined, seed=0, epoch=0)},
    ]
    parts = [(3, 7), (10, 4), (0, 0)]
    for seed, epoch in ((0, 0), (0, 1), (-1, 5), (9, 1 << 62)):
        keys = mix_keys(joined, text, parts, seed, epoch)
        found.append({"mix": [list(part) for part in parts], "of": described, **resolved(keys, seed=seed, epoch=epoch)})
    return found


def clips(base: str, columns: list[str], **settings: object) -> dict[str, Any]:
    """A view of clips, with the list that its text is the hash of."""
    rate = {} if "fps" in settings else {"stride": 2}
    given = {"every": 8, "frames": 16, "short": "drop", **rate, **settings}
    parts: list[object] = [base, columns, *([name, given[name]] for name in sorted(given))]
    return {"list": ["clips", *parts], "text": text_of("clips", *parts)}


def views() -> dict[str, Any]:
    """A few views, each with the list of §12.6 that its text is the hash of."""
    ten, none = whole(10), whole(0)
    picked = select(ten, [3, 3, 0])
    return {
        "rule": "§12.6",
        "clips": [
            clips(ten, ["video"]),
            clips(text_of("whole", 4), ["left", "right"], fps=[30000, 1001], at=[[-1, 5], [0, 1]]),
        ],
        "views": [
            {"whole": 0, "text": none},
            {"whole": 10, "text": ten},
            {"whole": 1 << 40, "text": whole(1 << 40)},
            {"select": [], "of": {"whole": 10}, "text": select(ten, [])},
            {"select": [3, 3, 0], "of": {"whole": 10}, "text": picked},
            {"select": [1, 2], "of": {"select": [3, 3, 0], "of": {"whole": 10}}, "text": select(picked, [1, 2])},
            {"join": [{"whole": 10}, {"whole": 4}], "starts": [0, 10], "text": join([(ten, 0), (whole(4), 10)])},
            {
                "join": [{"select": [3, 3, 0], "of": {"whole": 10}}, {"whole": 10}],
                "starts": [0, 10],
                "text": join([(picked, 0), (ten, 10)]),
            },
            {"mix": [[3, 7], [7, 7]], "of": {"whole": 10}, "text": mix(ten, [(3, 7), (7, 7)])},
        ],
        "resolves": resolves(),
    }


def step_slice(length: int, position: int, batch_size: int, world_size: int, rank: int, uneven: str) -> range:
    """§12.7: the counts that a rank gets of the step that begins at a position; those from `length` on are padding."""
    rest, whole_step = length - position, batch_size * world_size
    begin, end = rank * batch_size, (rank + 1) * batch_size
    if (rest < whole_step and uneven == "drop") or not rest:
        begin, end = 0, 0
    elif rest < whole_step and uneven == "exact":
        begin, end = min(begin, rest), min(end, rest)
    elif rest < whole_step and uneven == "split":
        shared = max(rest, world_size)
        begin, end = rank * shared // world_size, (rank + 1) * shared // world_size
    return range(position + begin, position + end)


def epoch_of(length: int, position: int, batch_size: int, world_size: int, uneven: str) -> list[list[list[int]]]:
    """Per step and rank: what it gets of the order, -1 - count for padding."""
    found = []
    while position < length and not (uneven == "drop" and length - position < batch_size * world_size):
        slices = [step_slice(length, position, batch_size, world_size, rank, uneven) for rank in range(world_size)]
        found.append([[count if count < length else -1 - count % length for count in one] for one in slices])
        position += batch_size * world_size
    return found


def steps() -> dict[str, Any]:
    """Whole epochs and rests of epochs, cut for several worlds."""
    asked = [
        (length, position, batch_size, world_size, uneven)
        for length, position in ((0, 0), (1, 0), (7, 0), (12, 0), (13, 5), (25, 8))
        for batch_size, world_size in ((1, 1), (4, 1), (2, 3), (3, 4))
        for uneven in UNEVEN
    ]
    names = ("length", "position", "batch_size", "world_size", "uneven")
    return {
        "rule": "§12.7",
        "epochs": [{**dict(zip(names, one, strict=True)), "steps": epoch_of(*one)} for one in asked],
    }
