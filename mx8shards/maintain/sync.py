"""How is a whole snapshot brought from a store to a local directory, or the other way round (`mx8shards sync`)?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from mx8shards.errors import SettingError, finite_seconds, true_or_false
from mx8shards.maintain.parallel import Progress, Ticker
from mx8shards.remote.mirror import open_mirror
from mx8shards.remote.mirror_facts import mirrored_url
from mx8shards.remote.open_store import DEADLINE_S, open_store
from mx8shards.remote.transfers import fetch_all, parallel
from mx8shards.shards.links import Link, RemoteLink, parse_any, parse_any_target
from mx8shards.shards.snapshots import load


def sync(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    single_writer: bool = False,
    deadline_s: float = DEADLINE_S,
    progress: Progress | None = None,
) -> str:
    """Copy a whole snapshot from a store to a local directory, or from a local directory to a store. Returns its id.

    Args:
        source: The snapshot: a URL or a dataset's directory, plain or with `@sha256:…`. Plain means the current one.
        target: The local directory, or the URL. It may have an earlier snapshot of this dataset, but no other.
        single_writer: Also upload to a store without conditional puts. No other process may write there then.
        deadline_s: How many seconds the store may fail to answer before that is an error.
        progress: A function, called with the number of bytes done and the total number of bytes.

    Every byte is verified. index.json is copied last, so the target is never an incomplete dataset. Files that are
    there already are not copied again, so a repeated call continues an interrupted one. Nothing is deleted.
    """
    true_or_false("single_writer", single_writer)
    deadline_s = finite_seconds("deadline_s", deadline_s)
    link, there = parse_any(source), parse_any_target(target)

    def planned(total: int) -> Callable[[int], object]:
        ticker = Ticker(progress, total)
        ticker.tick(0)
        return ticker.tick

    if isinstance(link, RemoteLink) and isinstance(there, Path):
        if mirrored_url(there) is not None:
            return _fill_mirror(link, there, deadline_s, planned)
        from mx8shards.remote.download_snapshot import download_snapshot

        with contextlib.closing(open_store(link.url, deadline_s=deadline_s, parallel=parallel())) as store:
            return download_snapshot(store, link.snapshot, there, planned=planned)
    if isinstance(link, Link) and not isinstance(there, Path):
        from mx8shards.remote.upload_snapshot import upload_snapshot

        store = open_store(there, deadline_s=deadline_s)
        return upload_snapshot(store, load(link), single_writer=single_writer, planned=planned)
    kinds = "two URLs" if isinstance(link, RemoteLink) else "two directories"
    hint = "" if isinstance(link, RemoteLink) else "merge copies datasets between directories"
    raise SettingError(subject="source and target", expected="a URL and a directory", found=kinds, hint=hint)


def _fill_mirror(
    link: RemoteLink, root: Path, deadline_s: float, planned: Callable[[int], Callable[[int], object]]
) -> str:
    """Fetch all shards and side-cars of a snapshot into a mirror, which jobs may use meanwhile."""
    link = RemoteLink(link.url, link.snapshot, refresh=link.snapshot is None)
    opened = open_mirror(link, local=root, deadline_s=deadline_s)
    index, provider = opened.snapshot.index, opened.provider
    tick = planned(int(index.stored_bytes.sum()))

    def fetch(i: int) -> None:
        provider.provide(index.entry(i))
        tick(int(index.stored_bytes[i]))

    fetch_all(fetch, range(index.shards), provider.close)
    for sidecar in index.sidecars:
        provider.provide_sidecar(sidecar)
    return opened.snapshot.id
