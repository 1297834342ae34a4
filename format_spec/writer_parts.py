"""What must a writer do with limits and samples? The rules of §3.8 and §5 for the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vector_parts import Shard, Snapshot, both_sidecars, integer, make_shard, publish, text

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


def too_large() -> list[dict[str, Any]]:
    """§5.3: payloads in a single column, and which of them, if any, would take the shard to 2³² bytes."""
    config_bytes = len(make_shard({"x": "bytes"}, [], size_limit=None).raw) - 8
    room = (1 << 32) - 1 - (8 + config_bytes)  # each sample takes eight bytes beside its payload
    cases: list[tuple[list[int], int | None]] = [
        ([room - 8], None),
        ([room - 7], 0),
        ([1 << 31, 1 << 31], 1),
        ([room - 18, 2], None),
        ([room - 18, 3], 1),
    ]
    return [{"payload_bytes": sizes, "size_limit": None, "refused": refused} for sizes, refused in cases]


METADATA: dict[str, Any] = {
    "floats": [1e-05, 0.0001, 1e16, 123456789012345.0, 100.0, 0.1, -0.0, 1e22, 5e-324],
    "ints": [0, -1, 10**30],
    "strings": ['"quoted" \\ / \b\f\n\r\t', "\x00\x1f\x7f", "größe", "😀", "\uffff"],
    "Z": None,
    "a": {"b": [True, False], "": {}},
    "é": [],
}


def publications() -> list[dict[str, Any]]:
    """Four publications on top of each other in one directory, with the ids of their snapshots (§4.8, §9)."""
    columns = {"x": "int", "s": "str"}
    asked: list[tuple[str, list[int], dict[str, Any] | None]] = [
        ("create", [0, 1, 2], METADATA),
        ("append", [3], None),
        ("append", [4, 5], {"replaced": 1}),
        ("overwrite", [6], None),
    ]
    found = []
    shards: list[Shard] = []
    sidecars: list[Any] = []
    kept: dict[str, Any] = {}
    before: Snapshot | None = None
    for mode, numbers, metadata in asked:
        if mode == "overwrite":
            shards, sidecars, kept = [], [], {}
        kept = kept if metadata is None else metadata
        folder = "g0001/" if mode == "overwrite" else ""
        rows = [{"x": integer(number), "s": text(f"v{number}")} for number in numbers]
        name = f"{folder}shard.{len(shards):05}.mds"
        new = make_shard(columns, rows, basename=name, hashes=("blake3", "xxh128"))
        sidecars = [*sidecars, *both_sidecars([new], len(shards))]
        shards = [*shards, new]
        before = publish(shards, sidecars=sidecars, metadata=kept, before=before)
        samples = [{"x": number, "s": f"v{number}"} for number in numbers]
        found.append({"mode": mode, "metadata": metadata, "samples": samples, "snapshot": before.id})
    return found


def gzip_head(level: int) -> str:
    """§6.3: what a gzip member begins with."""
    return (b"\x1f\x8b\x08" + bytes(5) + {9: b"\2", 1: b"\4"}.get(level, b"\0") + b"\xff").hex()


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
    return {
        "rule": "§5",
        "limits": limits,
        "refused_limits": list(REFUSED),
        "shards": shards,
        "too_large": too_large(),
        "samples": samples,
        "gzip_heads": {str(level): gzip_head(level) for level in range(10)},
        "columns": {"x": "int", "s": "str"},
        "publications": publications(),
    }
