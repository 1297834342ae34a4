"""How does the dataset of a state differ from the dataset of a loader? The hint of a failed resume."""

from __future__ import annotations

from collections.abc import Sequence

from mx8shards.errors import ShardsError
from mx8shards.format.index import Index
from mx8shards.shards import snapshots
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import Snapshot


def difference(before: str, now: Sequence[Snapshot]) -> str:
    """The changes since the snapshot of a state, as text; "" if the old index is not kept."""
    ids = before.split("+")
    if len(ids) != len(now):
        return f"the state is of {len(ids)} datasets, the loader of {len(now)}"
    found = []
    for id_, snapshot in zip(ids, now, strict=True):
        if id_ == snapshot.id:
            continue
        try:
            old = snapshots.load(Link(snapshot.root, id_)).index
        except (ShardsError, OSError):
            return ""
        found.append(f"{snapshot.root.name} {_between(old, snapshot.index)}")
    return "; ".join(found)


def _between(old: Index, new: Index) -> str:
    hashes = sorted(_hashes(old) & _hashes(new))
    was, is_ = _shards(old, hashes), _shards(new, hashes)
    if was == is_:
        return "has the same shards but another index: perhaps it was sealed, or its metadata were changed"
    common = set(was) & set(is_)
    added, removed = len(is_) - len(common), len(was) - len(common)
    if not added and not removed:
        return "has the same shards in another order"
    if is_[: len(was)] == was:
        return f"was appended to: {added} shards and {int(new.samples.sum() - old.samples.sum())} samples more"
    return f"has {added} new shards, and lacks {removed} old ones"


def _hashes(index: Index) -> set[str]:
    """The hash algorithms that all shards have."""
    found = [set(index.entry(i).stored.hashes) for i in range(index.shards)]
    return set.intersection(*found) if found else set()


def _shards(index: Index, hashes: Sequence[str]) -> list[tuple[object, ...]]:
    """The identity of each shard: name, size, samples and these hashes."""
    found: list[tuple[object, ...]] = []
    for i in range(index.shards):
        entry = index.entry(i)
        file = entry.stored
        found.append((file.basename, file.size_bytes, entry.samples, *(file.hashes[name] for name in hashes)))
    return found
