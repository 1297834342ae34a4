"""How does a Writer publish into a store? Shards are uploaded while it writes, the index last with a conditional put.

1. The writer reserves a directory of names (`writer_start`), so that no other writer uses them.
2. Shards go up as new objects; nothing is ever overwritten but index.json.
3. The reservation says which snapshot is about to be published. Its index is stored under its id.
4. index.json is put, if it is still the one that the writer began with. This decides between several writers.

A writer that loses, or is abandoned, removes the objects that it has put. After a kill, the next writer on the same
machine does that, and gc on any other; if it was killed between steps 3 and 4, five minutes later, as the put of step 4
may be under way. Where the answer to the put of index.json was lost, nothing is removed.

A process that takes the writer for dead replaces its reservation before it removes anything (`leftovers`). Step 3 fails
then. For the time after step 3, the reservation is looked at again directly before step 4, and after it: if somebody
has replaced it in between, its objects may be gone, and the writer puts the earlier index back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from mx8shards.disk import operations, publish
from mx8shards.disk.scratch import Scratch
from mx8shards.errors import DiskError, RemoteError, ShardsError
from mx8shards.format.columns import Columns
from mx8shards.format.index import parse_index
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote.conditions import require_conditions
from mx8shards.remote.leftovers import fate
from mx8shards.remote.remote_snapshots import RemoteIndex, kept_key, read_current
from mx8shards.remote.reservations import PREFIX, find_reservations, put_if
from mx8shards.remote.store import Store
from mx8shards.remote.uploads import Uploads
from mx8shards.remote.writer_start import Start, start_writer
from mx8shards.shards.publication import Pieces
from mx8shards.shards.recovery import files_of, sidecar_name, staged_name
from mx8shards.shards.snapshots import INDEX, STATE, snapshot_id
from mx8shards.shards.writer_base import Base, Mode

_logger = logging.getLogger("mx8shards")

_CLOSING_S = 15.0  # for uploads under way and the removal of objects, after an error or Ctrl-C


class RemotePublication:
    """A publication into a store. Holds a reservation of the names of its shards until `close`."""

    _start = Start()
    _resumable = False
    _outcome: Literal["unpublished", "unknown", "published"] = "unpublished"
    _open = True

    def __init__(self, store: Store, *, single_writer: bool = False) -> None:
        self.store = store
        self._process = os.getpid()
        self.conditional = require_conditions(store, single_writer=single_writer)
        self.sidecars: dict[str, Path] = {}
        self._scratch = Scratch(Path(tempfile.gettempdir()))
        self._uploads = Uploads(store, overwrite=not self.conditional)

    # the beginning ----------------------------------------------------------------------------------------------

    def base(self, mode: Mode, columns: Columns) -> Base:
        """The state to start from, after it has reserved the names of the new shards; an error if `mode` forbids it."""
        base, start = start_writer(self.store, mode, columns, conditional=self.conditional)
        self.begin(start)
        return base

    def begin(self, start: Start, *, resumable: bool = False) -> None:
        """Begin with the state of the store that `start` found.

        `resumable`: after a failure, the uploaded objects and the reservation stay for another attempt, unless another
        writer has published.
        """
        self._start = start
        self._resumable = resumable

    def require_owner(self) -> None:
        """DiskError in a forked process, which has neither the connection nor the threads of the other one."""
        if os.getpid() != self._process:
            raise DiskError(
                f"opened by process {self._process}: a process forked from it cannot publish", subject=self.store.url
            )

    # files ------------------------------------------------------------------------------------------------------

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Upload a shard in the background."""
        staged = self._scratch.path / staged_name(basename)
        with publish.NewFile(staged) as file:
            for piece in pieces:
                file.write(piece)
            file.close()  # not durable: it is needed only while this process runs
        self.put_file(basename, staged, partial(operations.unlink, staged))

    def put_file(self, name: str, source: Path, done: Callable[[], object]) -> None:
        """Upload a file in the background, and call `done` then, or if that fails."""
        self.require_owner()
        if self._start.held is not None:
            self._start.held.renew()
        self._uploads.send(name, source, done)

    def temporary_path(self, name: str) -> Path:
        """A free path for a file whose final name is not known yet."""
        self.require_owner()
        return self._scratch.path / f"~{name}"

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Upload the finished file `staged`, which stays where it is until `close`, as this side-car.

        That happens in `put_index`, after the reservation names the side-cars. An object of this name, which is the
        hash of the contents, is replaced, as it may be damaged.
        """
        self.sidecars[sidecar_name(sidecar)] = staged

    # the end ----------------------------------------------------------------------------------------------------

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish all uploaded files as a snapshot and return its id.

        RemoteError of reason "changed", without any change, if another snapshot was published since `base`.
        """
        self.require_owner()
        current = self._start.current
        assert if_match == (current and current.id)
        name = snapshot_id(data)
        parse_index(data)
        self._uploads.wait()
        if self._start.held is not None:
            self._start.held.announce(name, self.sidecars)
        for key, staged in self.sidecars.items():
            self._uploads.attempted.append(key)
            self.store.put(key, staged)
        if current is not None and current.id != name:  # keeps a foreign dataset's index readable under its id
            self._keep(current.id, current.data)
        self._keep(name, data)
        if current is None or current.id != name:
            self._replace_index(name, data)
        self._outcome = "published"
        return name

    def _keep(self, name: str, data: bytes) -> None:
        key = kept_key(name)
        if key not in self._start.keys:
            self._uploads.attempted.append(key)
            self.store.put(key, data)

    def _replace_index(self, name: str, data: bytes) -> None:
        current = self._start.current
        if not self.conditional:
            now = read_current(self.store)
            if (now and now.id) != (current and current.id):
                raise self._lost(now)
        self._require_held("nothing was published")
        self._outcome = "unknown"
        try:
            if self.conditional:
                etag = put_if(self.store, INDEX, data, current.etag if current else None)
            else:
                etag = self.store.put(INDEX, data)
        except RemoteError as error:
            if error.reason == "network":
                error.hint = self._unknown_hint(name)
                raise
            self._refused(name, error)
        else:
            self._require_published(name, etag)

    def _refused(self, name: str, error: RemoteError) -> None:
        """The put of the index was refused: an error, unless this snapshot was published.

        That happens if the answer to the put was lost, and the put was sent again: another writer may have followed, or
        the right to put may have expired.
        """
        current = self._start.current
        try:
            found = fate(self.store, name, current.id if current else None)
        except RemoteError:
            found = "unknown"
        if found == "published":
            return
        if found == "unknown":
            error.hint = "; ".join(part for part in (error.hint, self._unknown_hint(name)) if part)
            raise error
        self._outcome = "unpublished"
        if error.reason != "changed":
            raise error
        self._resumable = False
        raise self._lost(read_current(self.store)) from error

    def _unknown_hint(self, name: str) -> str:
        return f"whether {name} was published is unknown: `mx8shards log {self.store.url}` tells"

    def _require_held(self, consequence: str) -> None:
        """RemoteError if another process has replaced the reservation, and so may remove what was uploaded."""
        held = self._start.held
        if held is not None and not held.is_ours:
            raise held.taken_over(consequence)

    def _require_published(self, name: str, etag: str) -> None:
        """Put the earlier index back if uploaded objects may have been removed before the new one was there."""
        if self._resumable:  # of a sync, nothing is removed before it is abandoned
            return
        try:
            self._require_held(f"{name} was withdrawn")
        except RemoteError as error:
            if error.reason != "changed":
                return  # the store does not answer any more; it did directly before the put
            error.hint = f"its objects may be gone: `mx8shards verify {self.store.url}` tells"
            before = self._start.current
            if before is not None and self._withdrawn(before, etag):
                error.hint = "write again"
                self._outcome = "unpublished"
            else:
                error.message = error.message.replace("withdrawn", "published")
            raise

    def _withdrawn(self, before: RemoteIndex, etag: str) -> bool:
        """Put the earlier index back; False if that fails, such as when another writer has published on top."""
        try:
            put_if(self.store, INDEX, before.data, etag)
        except RemoteError:
            return False
        return True

    def _lost(self, now: RemoteIndex | None) -> RemoteError:
        expected = self._start.current.id if self._start.current else "none"
        found = now.id if now else "none"
        return RemoteError(
            f"expected the current snapshot to be {expected}, got {found}: another writer was quicker, and nothing was "
            "published",
            subject=f"{self.store.url}/{INDEX}",
            reason="changed",
        )

    def close(self) -> None:
        """Remove the objects of a publication that did not succeed, and its reservation. Closes the store.

        If the store does not answer within some seconds, both are left to the next writer or gc. This is only a
        warning: after an error, the user might append the published samples again.
        """
        if not self._open or os.getpid() != self._process:
            return
        self._open = False
        if self._resumable and self._outcome == "unpublished":
            self.store.close()  # nothing will be removed, so nothing that is being sent need be waited for
        limit = threading.Timer(_CLOSING_S, self.store.close)  # ends all requests
        limit.daemon = True
        if self._outcome == "unpublished":
            limit.start()
        try:
            self._uploads.stop()
            if self._outcome == "unpublished" and not self._resumable and self._has_names:
                self._remove_uploaded()
            if self._outcome == "published" or (self._outcome == "unpublished" and not self._resumable):
                self._release()
        except ShardsError as error:
            _logger.warning("uploaded objects are left to the next writer or gc: %s", error)
        finally:
            limit.cancel()
            with contextlib.suppress(ShardsError):  # the next process that uploads removes it
                self._scratch.remove()
            self.store.close()

    @property
    def _has_names(self) -> bool:
        """Whether the names are still reserved for this writer. If not, the objects may be another writer's."""
        return self._start.held is None or self._start.held.is_ours

    def _release(self) -> None:
        if self._start.held is not None:
            self._start.held.release()

    def _remove_uploaded(self) -> None:
        """Remove what was uploaded, without the side-cars and the snapshot that other writers use or announce."""
        mine = set(self._uploads.attempted) - self._start.keys
        if any(key.startswith(f"{STATE}/") for key in mine):
            now = read_current(self.store)
            if now is not None:
                mine -= {*files_of(now.parse()), kept_key(now.id)}
            held = self._start.held
            for each in find_reservations(self.store, self.store.list(PREFIX)):
                if held is None or each.reservation.writer != held.reservation.writer:
                    mine -= {*each.reservation.sidecars, kept_key(each.reservation.snapshot or "")}
        self.store.delete(sorted(mine))

    def __del__(self) -> None:
        if self._open and hasattr(self, "_uploads") and os.getpid() == self._process:
            message = f"{self.store.url}: never closed, so nothing was published; use `with Writer(…)` or finish()"
            _logger.warning(message)  # because Python hides a ResourceWarning by default
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
