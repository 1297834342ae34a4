"""How are side-car files written, shard by shard, in bounded memory?"""

from __future__ import annotations

from collections.abc import Iterable

from mx8shards.disk.publish import NewFile
from mx8shards.format.columns import Columns
from mx8shards.format.file_blocks import BLOCK_BYTES
from mx8shards.format.hashing import hasher
from mx8shards.format.sidecar_bytes import MAGIC, Sidecar, padded, scalar_columns
from mx8shards.shards.publication import Publication


class NewSidecar:
    """A side-car being written shard by shard. Its name is its hash, so it is known only at the end.

    `columns` and `block_bytes` are those of its index entry.
    """

    def __init__(
        self, publication: Publication, kind: str, columns: tuple[str, ...] = (), block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._publication = publication
        self._kind = kind
        self._columns = columns
        self._block_bytes = block_bytes
        self._file = NewFile(publication.temporary_path(kind))
        self._hash = hasher("blake3")
        self._size_bytes = 0
        self._append(MAGIC[kind])

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._size_bytes += len(data)

    def write(self, arrays: Iterable[bytes]) -> None:
        """Append the arrays of the next shard."""
        self._append(b"".join(data + bytes(padded(len(data)) - len(data)) for data in arrays))

    def finish(self, start: int, shards: int) -> tuple[Sidecar, ...]:
        """Store the side-car of the `shards` shards from number `start` for publication; no side-car without shards."""
        if not shards:
            self.close()
            return ()
        sidecar = Sidecar(
            kind=self._kind,
            blake3=self._hash.hexdigest(),
            size_bytes=self._size_bytes,
            start=start,
            stop=start + shards,
            columns=self._columns,
            block_bytes=self._block_bytes,
        )
        self._file.finish()
        self._publication.put_sidecar(self._file.path, sidecar)
        return (sidecar,)

    def close(self) -> None:
        """Close the file; an unfinished one is removed with the staging directory."""
        self._file.close()


def new_sidecars(publication: Publication, columns: Columns, block_bytes: int) -> tuple[NewSidecar, NewSidecar | None]:
    """The side-cars of shards with these columns: that of blocks of this size, and that of columns if there are any."""
    scalars = scalar_columns(columns)
    blocks = NewSidecar(publication, "blocks", block_bytes=block_bytes)
    return blocks, NewSidecar(publication, "columns", scalars) if scalars else None


def column_arrays(columns: Columns, pieces: list[bytes]) -> list[bytes]:
    """The values of each scalar column of one shard, from the pieces of its samples (a size header, then the payloads).

    The concatenated fixed-size payloads of a column are its array.
    """
    stride = 1 + len(columns.names)
    return [b"".join(pieces[1 + columns.names.index(name) :: stride]) for name in scalar_columns(columns)]
