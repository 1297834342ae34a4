"""How do the data of a state differ from those of a loader?"""

from __future__ import annotations

from collections.abc import Sequence

from mx8shards.errors import ShardsError
from mx8shards.format.index import Index
from mx8shards.shards import snapshots
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import Snapshot


def difference(before: str, now: Sequence[Snapshot]) -> str:
    """What has changed since the snapshot of a state, in words; "" where no index of it is kept."""
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
    was, is_ = _shards(old), _shards(new)
    if was == is_:
        return f"has the same shards, but other facts: {int(old.samples.sum())} samples then and now"
    common = set(was) & set(is_)
    added, removed = len(is_) - len(common), len(was) - len(common)
    if not added and not removed:
        return "has the same shards in another order"
    if is_[: len(was)] == was:
        return f"was appended to: {added} shards and {int(new.samples.sum() - old.samples.sum())} samples more"
    return f"has {added} shards that it had not, and lacks {removed} that it had"


def _shards(index: Index) -> list[tuple[str, int, int, str]]:
    """What tells one shard from another: name, size, samples and any hash."""
    found = []
    for i in range(index.shards):
        entry = index.entry(i)
        hashes = entry.stored.hashes
        found.append((entry.stored.basename, entry.stored.size_bytes, entry.samples, min(hashes.items(), default="")))
    return [(name, size, samples, str(hashed)) for name, size, samples, hashed in found]
