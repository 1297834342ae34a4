"""How are side-cars laid out (block digests, column values), and listed in the index? (spec: side-cars)

A side-car repeats data of the shards that it covers, for quick access. Its name is the blake3 of its bytes, and its
size follows from the index, so both can be verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.errors import FormatError
from mx8shards.format.columns import Columns
from mx8shards.format.file_blocks import BLOCK_BYTES, DIGEST_BYTES, LEAST_BLOCK_BYTES, block_count, is_block_size
from mx8shards.format.jsontext import integer, kind_of, short

MAGIC = {"blocks": b"MX8BLK1\n", "columns": b"MX8COL1\n"}

Ints = npt.NDArray[np.int64]

_BLAKE3 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """The index entry of a side-car, which covers the shards from `start` to before `stop`."""

    kind: str
    blake3: str
    size_bytes: int
    start: int
    stop: int
    columns: tuple[str, ...] = ()  # of the kind `columns`
    block_bytes: int = BLOCK_BYTES  # of the kind `blocks`

    def to_json(self) -> dict[str, object]:
        """The JSON value in the index."""
        found: dict[str, object] = {
            "kind": self.kind,
            "blake3": self.blake3,
            "bytes": self.size_bytes,
            "start": self.start,
            "stop": self.stop,
        }
        if self.block_bytes != BLOCK_BYTES:
            found["block_bytes"] = self.block_bytes
        return found | ({"columns": list(self.columns)} if self.kind == "columns" else {})

    def moved(self, shards: int) -> Sidecar:
        """The entry of this side-car in an index with `shards` more shards before the ones it covers."""
        return replace(self, start=self.start + shards, stop=self.stop + shards)


def parse_sidecars(values: object, place: str, shards: int) -> tuple[Sidecar, ...]:
    """The side-cars of known kinds; FormatError for an invalid one, or if two of a kind overlap."""
    if not isinstance(values, list):
        raise FormatError(place=place, expected="a list", found=kind_of(values))
    found = []
    ends: dict[str, int] = {}
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise FormatError(place=f"{place}[{i}]", expected="an object", found=kind_of(value))
        if not isinstance(value.get("kind"), str):
            raise FormatError(place=f"{place}[{i}].kind", expected="str", found=kind_of(value.get("kind")))
        if value["kind"] not in MAGIC:
            continue
        sidecar = _parse(value, f"{place}[{i}]", shards)
        if sidecar.start < ends.get(sidecar.kind, 0):
            raise FormatError(
                place=f"{place}[{i}].start",
                expected=f"at least {ends[sidecar.kind]} (end of the {sidecar.kind} side-car before)",
                found=f"{sidecar.start}",
            )
        ends[sidecar.kind] = sidecar.stop
        found.append(sidecar)
    return tuple(found)


def _parse(value: dict[str, Any], place: str, shards: int) -> Sidecar:
    digest = value.get("blake3")
    if not isinstance(digest, str) or not _BLAKE3.fullmatch(digest):
        raise FormatError(place=f"{place}.blake3", expected="64 lower-case hex digits", found=short(digest))
    start = integer(value.get("start"), f"{place}.start", 0, shards)
    return Sidecar(
        kind=value["kind"],
        blake3=digest,
        size_bytes=integer(value.get("bytes"), f"{place}.bytes", 8),
        start=start,
        stop=integer(value.get("stop"), f"{place}.stop", start + 1, shards),
        columns=_names(value.get("columns"), f"{place}.columns") if value["kind"] == "columns" else (),
        block_bytes=_block_bytes(value, f"{place}.block_bytes") if value["kind"] == "blocks" else BLOCK_BYTES,
    )


def _block_bytes(value: dict[str, Any], place: str) -> int:
    found = value.get("block_bytes", BLOCK_BYTES)
    if type(found) is not int or not is_block_size(found):
        expected = f"a power of two from {LEAST_BLOCK_BYTES} to {BLOCK_BYTES}"
        raise FormatError(place=place, expected=expected, found=short(found))
    return found


def _names(values: object, place: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise FormatError(place=place, expected="a list of column names", found=short(values))
    if any(a >= b for a, b in pairwise(values)):
        raise FormatError(place=place, expected="sorted names, each once", found=short(values))
    return tuple(values)


def scalar_columns(columns: Columns) -> tuple[str, ...]:
    """The columns that a `columns` side-car can contain: those with one fixed-size number per sample."""
    return tuple(name for name, coder in zip(columns.names, columns.coders, strict=True) if coder.shape == ())


def padded(size_bytes: Any) -> Any:
    """The size rounded up to a multiple of eight, which aligns the arrays of a `columns` side-car."""
    return -(-size_bytes // 8) * 8


def sidecar_bytes(sidecar: Sidecar, stored_bytes: Ints, samples: Ints, columns: Columns) -> int:
    """The expected size of this side-car, from the stored sizes and sample counts of all shards of the index."""
    covered = slice(sidecar.start, sidecar.stop)
    size = len(MAGIC[sidecar.kind])
    if sidecar.kind == "blocks":
        return size + DIGEST_BYTES * int(block_count(stored_bytes[covered], sidecar.block_bytes).sum())
    return size + sum(int(padded(samples[covered] * width).sum()) for width in widths(sidecar, columns))


def widths(sidecar: Sidecar, columns: Columns) -> list[int]:
    """The bytes per sample of each column in a `columns` side-car; FormatError for an unsupported column."""
    known = dict(zip(columns.names, columns.sizes, strict=True))
    good = set(scalar_columns(columns))
    for name in sidecar.columns:
        if name not in good:
            raise FormatError(
                subject=f"side-car {sidecar.blake3}", expected="columns of one number per sample", found=short(name)
            )
    return [known[name] or 0 for name in sidecar.columns]
