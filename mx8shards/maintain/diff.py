"""Which samples differ between two snapshots (`mx8shards diff`)?"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from mx8shards.disk.map import ReadFile
from mx8shards.errors import finite_seconds
from mx8shards.format.entries import Entry
from mx8shards.format.hashing import CONTENT_HASHES
from mx8shards.format.index import Index
from mx8shards.format.shard_bytes import read_table, table_bytes
from mx8shards.maintain.parallel import Progress, Ticker, map_in_threads, thread_count
from mx8shards.maintain.remote_links import open_snapshot
from mx8shards.maintain.report import ranges
from mx8shards.shards.open_shard import ProvidedSnapshot, Shards
from mx8shards.shards.shard import Shard
from mx8shards.shards.snapshots import Snapshot

Ids = npt.NDArray[np.int64]
Digests = npt.NDArray[np.bytes_]

_DIGEST_BYTES = 16
_READ_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """How snapshot `b` differs from snapshot `a`. All sample_ids are in ascending order.

    A sample_id is `changed` if each snapshot has a sample there that the other one does not contain. Of the other
    samples, those only in `a` are `removed` and those only in `b` are `added`. A sample that only moved is not listed.
    """

    a: str
    b: str
    added: Ids  # sample_ids of b
    removed: Ids  # sample_ids of a
    changed: Ids  # sample_ids in both
    columns_added: dict[str, str]  # encodings by name
    columns_removed: dict[str, str]
    columns_changed: dict[str, tuple[str, str]]
    metadata_changed: bool
    shared_shards: int
    read_shards: int  # number of shards read, of both snapshots together

    @property
    def same(self) -> bool:
        """Whether both have equal samples, in any order, and equal columns and metadata."""
        columns = self.columns_added or self.columns_removed or self.columns_changed
        samples = len(self.added) + len(self.removed) + len(self.changed)
        return not (samples or columns or self.metadata_changed)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, with sample_ids as half-open ranges."""
        ids = ("added", "removed", "changed")
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {"same": self.same, **fields, **{name: ranges(fields[name]) for name in ids}}


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    deadline_s: float = 300.0,
    progress: Progress | None = None,
) -> Diff:
    """Find the samples added, removed or changed between two snapshots, by a hash of their bytes.

    Args:
        a: The earlier snapshot: a dataset's directory or URL, or `path@sha256:9f2c…`.
        b: The later snapshot, of this dataset or of another one.
        deadline_s: For a URL, how many seconds the store may fail to answer before that is an error.
        progress: A function, called with the number of bytes done and the total number of bytes.

    Shards that are in both snapshots are not read. Every sample that is read takes a few dozen bytes of memory.
    """
    deadline_s = finite_seconds("deadline_s", deadline_s)
    opened = open_snapshot(a, deadline_s), open_snapshot(b, deadline_s)
    first, second = (each.snapshot for each in opened)
    mine, theirs = _unshared(first, second)
    ticker = Ticker(progress, _raw_bytes(first, mine) + _raw_bytes(second, theirs))
    removed, added = _unmatched(_digests(opened[0], mine, ticker), _digests(opened[1], theirs, ticker))
    changed = np.intersect1d(removed, added, assume_unique=True)
    ours, columns = _encodings(first.index), _encodings(second.index)
    return Diff(
        a=first.id,
        b=second.id,
        added=np.setdiff1d(added, changed, assume_unique=True),
        removed=np.setdiff1d(removed, changed, assume_unique=True),
        changed=changed,
        columns_added={name: columns[name] for name in columns.keys() - ours.keys()},
        columns_removed={name: ours[name] for name in ours.keys() - columns.keys()},
        columns_changed={
            name: (ours[name], columns[name]) for name in ours.keys() & columns.keys() if ours[name] != columns[name]
        },
        metadata_changed=first.index.metadata != second.index.metadata,
        shared_shards=first.index.shards - len(mine),
        read_shards=len(mine) + len(theirs),
    )


def _encodings(index: Index) -> dict[str, str]:
    shards = (zip(kind.columns.names, kind.columns.encodings, strict=True) for kind in index.kinds)
    return {name: encoding for pairs in shards for name, encoding in pairs}


# shards in both snapshots -----------------------------------------------------------------------------------------


def _unshared(a: Snapshot, b: Snapshot) -> tuple[list[int], list[int]]:
    """The numbers of the shards that have no match in the other snapshot. Each shard matches at most one other."""
    one_place = a.root.resolve() == b.root.resolve()
    left = {i: b.index.entry(i) for i in range(b.index.shards)}
    by_key: dict[object, list[int]] = defaultdict(list)
    for i, entry in left.items():
        for key in _keys(entry, one_place):
            by_key[key].append(i)
    mine = []
    for i in range(a.index.shards):
        entry = a.index.entry(i)
        alike = (k for key in _keys(entry, one_place) for k in by_key[key] if k in left and _agree(entry, left[k]))
        found = next(alike, None)
        if found is None:
            mine.append(i)
        else:
            del left[found]
    return mine, list(left)


def _keys(entry: Entry, one_place: bool) -> Iterator[object]:
    """Two shards with a common key are equal. Keys are content hashes, or the basename with the other hashes."""
    for info in filter(None, (entry.raw, entry.zip)):
        yield from ((name, info.hashes[name], info.size_bytes) for name in sorted(CONTENT_HASHES & info.hashes.keys()))
    hashes = tuple(sorted(entry.stored.hashes.items()))
    if hashes or one_place:
        yield entry.stored.basename, entry.stored.size_bytes, None if one_place else hashes


def _agree(a: Entry, b: Entry) -> bool:
    both = a.raw.hashes.keys() & b.raw.hashes.keys()
    return a.samples == b.samples and all(a.raw.hashes[name] == b.raw.hashes[name] for name in both)


# samples in both snapshots ----------------------------------------------------------------------------------------


def _raw_bytes(snapshot: Snapshot, numbers: list[int]) -> int:
    return int(snapshot.index.raw.size_bytes[numbers].sum())


def _digests(opened: ProvidedSnapshot, numbers: list[int], ticker: Ticker) -> tuple[Ids, Digests]:
    """The sample_ids in these shards, and a hash of each sample's bytes."""
    shards = Shards.of((opened,))
    starts = opened.snapshot.index.starts
    ids = [np.arange(starts[i], starts[i + 1]) for i in numbers]
    with map_in_threads(lambda i: _hash_samples(shards.open_shard(i), ticker), numbers, thread_count()) as found:
        digests = list(found)
    none = np.zeros(0, f"S{_DIGEST_BYTES}")
    return np.concatenate([np.zeros(0, np.int64), *ids]), np.concatenate([none, *digests])


def _hash_samples(shard: Shard, ticker: Ticker) -> Digests:
    file = shard.open_file()
    offsets = read_table(file.read(0, table_bytes(shard.samples)), shard.samples).astype(np.int64)
    found = bytearray()
    row = 0
    while row < shard.samples:
        last = max(row + 1, int(np.searchsorted(offsets, offsets[row] + _READ_BYTES, "right")) - 1)
        begin, end = int(offsets[row]), int(offsets[last])
        bounds = (offsets[row : last + 1] - begin).tolist()
        if last == row + 1:
            found += _hash_one(file, begin, end)
        else:
            data = memoryview(file.read(begin, end - begin))
            for a, b in itertools.pairwise(bounds):
                found += blake3(data[a:b]).digest(_DIGEST_BYTES)
        row = last
    ticker.tick(shard.size_bytes)
    return np.frombuffer(bytes(found), f"S{_DIGEST_BYTES}")


def _hash_one(file: ReadFile, begin: int, end: int) -> bytes:
    state = blake3()
    for at in range(begin, end, _READ_BYTES):
        state.update(file.read(at, min(_READ_BYTES, end - at)))
    return state.digest(_DIGEST_BYTES)


def _unmatched(a: tuple[Ids, Digests], b: tuple[Ids, Digests]) -> tuple[Ids, Ids]:
    """The sample_ids on each side without a match on the other. Of equal samples, the last ones stay unmatched."""
    _, groups = np.unique(np.concatenate([a[1], b[1]]), return_inverse=True)
    ours, theirs = groups[: len(a[0])], groups[len(a[0]) :]
    return a[0][_beyond(ours, theirs)], b[0][_beyond(theirs, ours)]


def _beyond(groups: Ids, others: Ids) -> npt.NDArray[np.bool_]:
    """A mask of the surplus members of each group: those beyond the number of its members in `others`."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    counts = np.bincount(others, minlength=int(groups.max(initial=-1)) + 1)
    place = np.arange(len(groups)) - np.searchsorted(ordered, ordered, "left")
    found = np.zeros(len(groups), bool)
    found[order] = place >= counts[ordered]
    return found
