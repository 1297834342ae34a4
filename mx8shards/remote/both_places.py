"""How does a Writer publish into a local directory and into a store, as one snapshot?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mx8shards.errors import DatasetExistsError, DiskError
from mx8shards.format.columns import Columns
from mx8shards.format.sidecar_bytes import Sidecar
from mx8shards.remote.upload import RemotePublication
from mx8shards.shards.publication import LocalPublication, Pieces
from mx8shards.shards.recovery import sidecar_name
from mx8shards.shards.writer_base import Base, Mode


class PublicationInBoth:
    """A publication into a local directory and a store. Their current snapshots must be equal in the beginning.

    The store comes first: if another writer has published there meanwhile, the local directory is left unchanged.
    """

    def __init__(self, local: LocalPublication, remote: RemotePublication) -> None:
        self._local = local
        self._remote = remote

    def base(self, mode: Mode, columns: Columns) -> Base:
        """The state to start from; DatasetExistsError if the two places differ."""
        local, remote = self._local.base(mode, columns), self._remote.base(mode, columns)
        if _described(local) != _described(remote):
            raise DatasetExistsError(
                subject=str(self._local.root),
                expected=f"{_described(remote)}, as in {self._remote.store.url}",
                found=_described(local),
                hint="mx8shards sync makes them equal",
            )
        return remote

    def require_owner(self) -> None:
        """DiskError in a process forked from the one that opened this."""
        self._local.require_owner()

    def put_shard(self, basename: str, pieces: Pieces) -> None:
        """Store the shard in both places."""
        kept: Collection[bytes | memoryview] = list(pieces)
        self._local.put_shard(basename, kept)
        self._remote.put_shard(basename, kept)

    def temporary_path(self, name: str) -> Path:
        """A free path on the disk of the local directory."""
        return self._local.temporary_path(name)

    def put_sidecar(self, staged: Path, sidecar: Sidecar) -> None:
        """Store the side-car in both places."""
        self._local.put_sidecar(staged, sidecar)
        self._remote.put_sidecar(self._local.staged(sidecar_name(sidecar)), sidecar)

    def put_index(self, data: bytes, if_match: str | None) -> str:
        """Publish in the store, then in the local directory."""
        name = self._remote.put_index(data, if_match)
        try:
            return self._local.put_index(data, if_match)
        except DiskError as error:
            url = self._remote.store.url
            error.hint = f"{name} is published in {url} already: `mx8shards sync {url} {self._local.root}` brings it"
            raise

    def close(self) -> None:
        """Discard everything that was not published."""
        try:
            self._remote.close()
        finally:
            self._local.close()


def _described(base: Base) -> str:
    snapshot = base.snapshot.id if base.snapshot else "none"
    return f"{snapshot} as the current snapshot and {base.prefix}shard.{base.first:05} as the next shard"
