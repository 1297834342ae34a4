"""How are datasets merged where some of them, or the result, are in a store?

Remote parts are brought into a temporary directory first. A result in a store is uploaded while it is made: the files
of the parts go up from where they are, as p0000/shard.00000.mds and so on, and the index last.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mx8shards.disk import publish
from mx8shards.disk.scratch import Scratch
from mx8shards.errors import DatasetExistsError, DiskError
from mx8shards.maintain.remote_links import store_of
from mx8shards.maintain.sync import sync
from mx8shards.remote.remote_snapshots import require_unchanged
from mx8shards.remote.reservations import HeldReservation, Reservation, take
from mx8shards.remote.store import Store
from mx8shards.remote.upload import RemotePublication
from mx8shards.remote.writer_start import Found, Start, names_in, reserved_already, start
from mx8shards.shards.links import Link, RemoteLink
from mx8shards.shards.recovery import SIDECAR
from mx8shards.shards.snapshots import STATE, Snapshot
from mx8shards.shards.writer_base import require_empty


@contextlib.contextmanager
def brought_here(links: Sequence[Link | RemoteLink], out: Path | str, deadline_s: float) -> Iterator[list[Link]]:
    """Links to local datasets: remote ones are downloaded into a temporary directory, near `out` if that is local."""
    if not any(isinstance(link, RemoteLink) for link in links):
        yield [link for link in links if isinstance(link, Link)]
        return
    above = Path(tempfile.gettempdir())
    if isinstance(out, Path):  # on the disk of the result, so that files can be linked into it
        above = out.parent
        publish.make_root(above)
    scratch = Scratch(above)
    try:
        yield [_brought(link, scratch.path / f"{i:04}", deadline_s) for i, link in enumerate(links)]
    finally:
        with contextlib.suppress(DiskError):  # the next process that makes such a directory removes it
            scratch.remove()


def _brought(link: Link | RemoteLink, root: Path, deadline_s: float) -> Link:
    if isinstance(link, Link):
        return link
    sync(str(link), root, deadline_s=deadline_s)
    return Link(root)


class MergeIntoStore:
    """A publication of a merge into a store."""

    def __init__(self, url: str, *, append: bool, onto: str | None, single_writer: bool, deadline_s: float) -> None:
        self.place = url
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(store_of(RemoteLink(url), deadline_s))
            self._publication = RemotePublication(store, single_writer=single_writer)
            stack.callback(self._publication.close)
            begun, self.first_part = _start(store, append, onto, conditional=self._publication.conditional)
            self._publication.begin(begun)
            self.base: Snapshot | None = begun.current.snapshot(Path(url)) if begun.current else None
            self._stack = stack.pop_all()

    def put_file(self, name: str, source: Path, *, hard_link: bool) -> None:
        """Upload a file; `hard_link` means nothing here."""
        if SIDECAR.fullmatch(name):
            self._publication.sidecars[name] = source
        else:
            self._publication.put_file(name, source, lambda: None)

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish the merged dataset and return the snapshot's id."""
        return self._publication.put_index(data, if_match)

    def close(self) -> None:
        """Remove what was uploaded, unless it was published."""
        self._stack.close()


def _start(store: Store, append: bool, onto: str | None, *, conditional: bool) -> tuple[Start, int]:
    """The state of the store, with the names of parts reserved, and the number of the first part."""

    def reserve(found: Found) -> tuple[int, HeldReservation | None]:
        _check(store, found, append, onto)
        first = next_part(names_in(found.keys, ""))
        base = found.current.id if found.current else None
        held = take(store, Reservation("", first, base, kind="merge")) if conditional else None
        if conditional and held is None:
            raise reserved_already(store, None)
        return first, held

    return start(store, reserve, conditional=conditional)


def _check(store: Store, found: Found, append: bool, onto: str | None) -> None:
    """An error unless the store has nothing, or with `append` a dataset, whose current snapshot is `onto`."""
    current = found.current
    if current is None:
        others = (key for key in found.keys if not key.startswith(f"{STATE}/"))
        require_empty(store.url, names_in(others, ""))
    elif not append:
        hint = 'mode="append" (--append) adds to it'
        raise DatasetExistsError("the URL already contains a dataset", subject=store.url, hint=hint)
    else:
        require_unchanged(store, current, found.keys)
    now = current.id if current else None
    if onto is not None and onto != now:
        raise DatasetExistsError(subject=store.url, expected=f"{onto} to be the current snapshot", found=str(now))


def next_part(names: Collection[str]) -> int:
    """One more than the highest number of a part's directory among these names."""
    numbers = (int(name[1:]) for name in names if name[:1] == "p" and name[1:].isdecimal() and len(name) > 4)
    return 1 + max(numbers, default=-1)
