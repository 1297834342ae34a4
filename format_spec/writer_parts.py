"""What must a writer do with limits and samples? The rules of §3.8 and §5 for the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vector_parts import make_shard

LIMITS: dict[Any, int | None] = {
    "0": 0,
    "1": 1,
    "4095b": 4095,
    "64kb": 1 << 16,
    "64KB": 1 << 16,
    "1.5kb": 1536,
    ".5mb": 1 << 19,
    "64mb": 1 << 26,
    "3 gb": 3 << 30,
}
REFUSED = (-1, 1 << 32, 1.5, True, "", "mb", "1.5", "1.5b", "-1", "1e3", "64mib", "64m", "4gb", "6x", "٣mb")


def filled(config_bytes: int, lengths: Sequence[int], limit: int | None, match_streaming: bool) -> list[int]:
    """§5.2, §5.4: samples per shard, for samples of these lengths."""
    found, count, size = [], 0, 8 + config_bytes
    for length in lengths:
        if limit and limit < size + length + 4 and (count or match_streaming):
            found.append(count)
            count, size = 0, 8 + config_bytes
        count, size = count + 1, size + length + 4
    return [*found, count] if count or not (found or match_streaming) else found


def one_filling(payloads: Sequence[int], limit: int | None, match_streaming: bool) -> dict[str, Any]:
    """Payloads of so many bytes in a single column, whose samples have a header of four bytes."""
    config_bytes = len(make_shard({"x": "bytes"}, [], size_limit=limit).raw) - 8
    return {
        "payload_bytes": payloads,
        "size_limit": limit,
        "match_streaming": match_streaming,
        "samples_per_shard": filled(config_bytes, [4 + size for size in payloads], limit, match_streaming),
    }


def writer() -> dict[str, Any]:
    """Limits, shards under them, and samples that are refused."""
    config_bytes = len(make_shard({"x": "bytes"}, [], size_limit=500).raw) - 8
    two = 8 + config_bytes + 2 * 108  # two samples of 104 bytes and their offsets
    shapes: list[tuple[list[int], int | None]] = [
        ([], 1000),
        ([100] * 10, None),
        ([100] * 10, 500),
        ([400, 400, 400], 500),
        ([10, 400, 10, 10], 500),
        ([0, 0, 0], 300),
        ([100] * 5, two),
        ([100] * 5, two - 1),
    ]
    shards = [one_filling(*shape, match) for shape in shapes for match in (False, True)]
    limits = [{"given": given, "stored": stored} for given, stored in LIMITS.items()]
    limits += [{"given": given, "stored": given or None} for given in (0, 1, (1 << 32) - 1, None)]
    samples = [
        {"columns": {"a": "int", "b": "str"}, "sample": {"a": 1}, "refused": "a column is missing"},
        {"columns": {"a": "int"}, "sample": {"a": 1, "c": 2}, "refused": None},
        {"columns": {"a": "int"}, "sample": {"a": {"bytes": "0102"}}, "refused": "two bytes for a column of eight"},
        {"columns": {"a": "int"}, "sample": {"a": {"bytes": "0100000000000000"}}, "refused": None},
    ]
    return {"rule": "§5", "limits": limits, "refused_limits": list(REFUSED), "shards": shards, "samples": samples}
