"""Which files may a reader open (§1)? Vectors of links, directories, and raw files beside compressed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from invalid_files import flip, with_words
from invalid_index import COLUMNS, FIRST_SHARD, PLAIN, SQUEEZED, invalid, rows
from valid_cases import valid
from vector_parts import Files, Vector, foreign, make_shard, make_sidecar, publish


def linked(vector: Vector, links: Mapping[str, str]) -> Vector:
    """The vector with symbolic links in it. None leads out of the vector's own folder."""
    return replace(vector, links=links)


def within(files: Files, folder: str) -> Files:
    return {f"{folder}/{name}": data for name, data in files.items()}


def without(files: Files, name: str) -> Files:
    return {path: data for path, data in files.items() if path != name}


def links() -> Iterator[Vector]:
    whole = foreign(PLAIN)
    at_read: dict[str, Any] = {"when": "read", "path": FIRST_SHARD}
    moved = without(whole, FIRST_SHARD) | {"elsewhere.mds": PLAIN[0].raw}
    shard = invalid("shard-that-is-a-symbolic-link", "§1.6", moved, "it could lead anywhere", **at_read)
    yield linked(shard, {FIRST_SHARD: "elsewhere.mds"})
    packed = foreign(SQUEEZED)
    (name,) = SQUEEZED[0].files
    moved = without(packed, name) | {"elsewhere.zstd": packed[name]}
    squeezed = invalid("compressed-shard-that-is-a-symbolic-link", "§1.6", moved, "it could lead anywhere", **at_read)
    yield linked(squeezed, {name: "elsewhere.zstd"})
    nested = make_shard(COLUMNS, rows(3), basename=f"part/{FIRST_SHARD}")
    moved = {"index.json": foreign([nested])["index.json"], f"elsewhere/{FIRST_SHARD}": nested.raw}
    below = invalid("shard-below-a-symbolic-link", "§1.6", moved, "the link is a component of its path", **at_read)
    yield linked(below, {"part": "elsewhere"})
    sidecar = make_sidecar("blocks", PLAIN)
    files = publish(PLAIN, sidecars=[sidecar]).files
    car = invalid(
        "side-car-that-is-a-symbolic-link",
        "§1.6",
        without(files, sidecar.path) | {"elsewhere": sidecar.data},
        "samples are read without it; it is never opened",
        error="DatasetNotFoundError",
        when="verify",
        path=sidecar.entry["blake3"][:12],
    )
    yield linked(car, {sidecar.path: "../../elsewhere"})


def directories() -> Iterator[Vector]:
    whole = foreign(PLAIN)
    yield invalid(
        "shard-that-is-a-directory",
        "§1.1",
        {"index.json": whole["index.json"], f"{FIRST_SHARD}/file": b""},
        "no file of that name",
        error="DatasetNotFoundError",
        when="read",
        path=FIRST_SHARD,
    )


def raw_beside_compressed() -> Iterator[Vector]:
    whole, raw = foreign(SQUEEZED), SQUEEZED[0].raw
    yield invalid(
        "raw-file-that-differs-from-its-compressed-shard",
        "§1.8",
        whole | {FIRST_SHARD: flip(raw, len(raw) - 1)},
        "one reader uses the raw file, another the compressed one",
        error="IntegrityError",
        when="verify",
        path=FIRST_SHARD,
    )
    yield invalid(
        "raw-file-that-is-left-alone-with-a-wrong-table",
        "§1.8",
        {"index.json": whole["index.json"], FIRST_SHARD: with_words(raw, {0: 9})},
        "a raw file is checked like that of a shard that is not compressed",
        when="read",
        path=FIRST_SHARD,
    )


def invalid_paths() -> list[Vector]:
    return [*links(), *directories(), *raw_beside_compressed()]


def valid_paths() -> list[Vector]:
    plain = foreign(PLAIN)
    files = without(within(plain, "real"), "real/index.json") | {"the-index.json": plain["index.json"]}
    named = valid(
        "root-and-index-that-are-symbolic-links",
        "§1.6",
        PLAIN,
        files,
        index=plain["index.json"],
        directory="named",
    )
    packed, raw = foreign(SQUEEZED), SQUEEZED[0].raw
    longer = packed | {FIRST_SHARD: raw + b"\0"}
    beside = valid(
        "compressed-shard-beside-a-raw-name-that-is-a-link", "§1.8", SQUEEZED, packed | {"other": raw[:-1] + b"?"}
    )
    return [
        linked(named, {"named": "real", "real/index.json": "../the-index.json"}),
        valid("compressed-shard-beside-a-raw-file-of-another-size", "§1.8", SQUEEZED, longer),
        linked(beside, {FIRST_SHARD: "other"}),
    ]
