"""What is damaged? The report of `verify`: files, reasons and affected samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mx8shards.errors import DatasetNotFoundError, FormatError, IntegrityError, ShardsError

Range = tuple[int, int]
Reason = Literal["missing", "unreadable", "format", "integrity"]
Mode = Literal["structure", "subset", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One damaged file, what is wrong with it, and which samples it may affect."""

    file: str  # relative to the dataset's directory: a shard, index.json or a side-car
    reason: Reason
    error: str
    snapshot: str  # the snapshot that the sample_ids refer to
    samples: tuple[Range, ...] = ()  # half-open ranges of sample_ids
    blocks: tuple[int, ...] = ()  # the damaged blocks of the file, if the hashes of its blocks are known …
    block_bytes: int | None = None  # … and the size of a block

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One file that `verify(repair=True)` has replaced."""

    file: str  # relative to the dataset's directory
    blocks: tuple[int, ...] | None = None  # the blocks that were fetched; None: the whole file was replaced
    block_bytes: int | None = None  # the size of these blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of `verify`: whether the dataset is `ok`, and the damaged files in `damage`."""

    snapshot: str
    sealed: bool
    mode: Mode
    snapshots: int  # number of kept index files whose hash was compared with their name
    shards: int  # number of shards whose size and offsets were checked
    data_shards: int  # number of shards of which every byte was read
    unchecked: int  # of `data_shards`, those without any hash of their payload bytes
    samples: int
    bytes_checked: int
    damage: tuple[Damage, ...] = ()  # with repair=True, what could not be repaired
    repaired: tuple[Repair, ...] = ()
    absent: int = 0  # number of shards that are not in this mirror, because jobs use it with a cache_limit

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: [dataclasses.asdict(each) for each in fields[name]] for name in ("damage", "repaired")}
        return {"ok": self.ok, **fields, **lists}


def damage_of(
    error: ShardsError | OSError,
    *,
    file: str,
    snapshot: str,
    samples: Iterable[Range] = (),
    blocks: Iterable[int] = (),
    block_bytes: int | None = None,
) -> Damage:
    """The Damage that an error describes. The file's name is in `file`, so it is cut from the error's text."""
    return Damage(
        file=file,
        reason=_reason(error),
        error=_without_subject(error),
        snapshot=snapshot,
        samples=tuple(samples),
        blocks=tuple(blocks),
        block_bytes=block_bytes,
    )


def _without_subject(error: ShardsError | OSError) -> str:
    if isinstance(error, ShardsError):
        error = copy(error)
        error.subject = ""
    return str(error)


def _reason(error: Exception) -> Reason:
    match error:
        case IntegrityError():
            return "integrity"
        case FormatError():
            return "format"
        case DatasetNotFoundError(errno=None):
            return "missing"
    return "unreadable"


def ranges(ids: npt.NDArray[np.int64]) -> list[Range]:
    """Ascending sample_ids as half-open ranges."""
    if not ids.size:
        return []
    gaps = np.flatnonzero(np.diff(ids) != 1)
    begins = ids[np.concatenate([[0], gaps + 1])]
    ends = ids[np.concatenate([gaps, [-1]])] + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))
