"""How are the objects of a killed writer removed?"""

from __future__ import annotations

from collections.abc import Iterable

from mx8shards.errors import DatasetNotFoundError
from mx8shards.remote.claims import Claim, FoundClaim, HeldClaim, replace_claim
from mx8shards.remote.remote_snapshots import kept_in, kept_key, read_current, read_kept
from mx8shards.remote.store import Listed, Store
from mx8shards.shards.recovery import files_of
from mx8shards.shards.writer_base import shard_number


def clean(store: Store, found: FoundClaim, listed: Iterable[Listed]) -> bool:
    """Remove the shards that a dead writer has uploaded, and its claim; False if another process does that already.

    Its claim is replaced by ours first, so that only one process cleans up. Only names that it had claimed are removed,
    and none if it published its snapshot. Its side-cars may be in use under the same name, so they are left to gc.
    """
    dead = found.claim
    held = replace_claim(store, Claim(dead.directory, dead.first, dead.base, dead.snapshot), found.etag)
    if held is None:
        return False
    clean_held(store, held, [each.key for each in listed])
    held.release()
    return True


def clean_held(store: Store, held: HeldClaim, keys: list[str]) -> None:
    """Remove the unpublished objects of the dead writer whose claim this process has taken over."""
    claim = held.claim
    if claim.snapshot is not None:
        if is_published(store, claim.snapshot, claim.base, keys):
            return
        store.delete([kept_key(claim.snapshot)])
    mine = (key for key in keys if key.startswith(claim.directory))
    numbered = ((key, shard_number(key.removeprefix(claim.directory))) for key in mine)
    store.delete(key for key, number in numbered if number is not None and number >= claim.first)


def is_published(store: Store, snapshot: str, base: str | None, keys: Iterable[str]) -> bool:
    """Whether a snapshot is the current one or was it once, as far as the parents of the current one tell.

    Every publication names the one before as its parent, so a snapshot that follows `base` is found between it and the
    current one. If a link of this chain is missing, the answer is yes, because then nothing must be removed.
    """
    current = read_current(store)
    if current is None:
        return False
    known = set(kept_in(keys))
    name: str | None = current.id
    index = current.parse()
    while name != snapshot:
        name = index.parent
        if name == base:
            return False
        if name is None or (name != snapshot and name not in known):
            return True
        if name != snapshot:
            try:
                index = read_kept(store, name).parse()
            except DatasetNotFoundError:
                return True
    return True


def referenced(store: Store, snapshots: Iterable[str]) -> set[str]:
    """The names of all files of these kept snapshots."""
    names: set[str] = set()
    for name in snapshots:
        names |= files_of(read_kept(store, name).parse())
    return names
