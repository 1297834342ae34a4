"""How are side-car files written, shard by shard, in bounded memory?"""

from __future__ import annotations

from collections.abc import Iterable

from mx8shards.disk.publish import NewFile
from mx8shards.format.columns import Columns
from mx8shards.format.hashing import hash_hex, hasher
from mx8shards.format.sidecar_bytes import BLOCK_BYTES, MAGIC, Sidecar, padded, scalar_columns
from mx8shards.shards.publication import Publication


class NewSidecar:
    """A side-car being written shard by shard. Its name is its hash, so it is known only at the end."""

    def __init__(self, publication: Publication, kind: str, columns: tuple[str, ...] = ()) -> None:
        self._publication = publication
        self._kind = kind
        self._columns = columns
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
        )
        self._file.finish()
        self._publication.put_sidecar(self._file.path, sidecar)
        return (sidecar,)

    def close(self) -> None:
        """Close the file; an unfinished one is removed with the staging directory."""
        self._file.close()


def block_digests(data: bytes | memoryview) -> bytes:
    """The concatenated blake3 digests of a stored file's blocks."""
    view = memoryview(data)
    blocks = (view[begin : begin + BLOCK_BYTES] for begin in range(0, len(data), BLOCK_BYTES))
    return b"".join(bytes.fromhex(hash_hex("blake3", block)) for block in blocks)


def column_arrays(columns: Columns, pieces: list[bytes]) -> list[bytes]:
    """The values of each scalar column of one shard, from the pieces of its samples (a size header, then the payloads).

    The concatenated fixed-size payloads of a column are its array.
    """
    stride = 1 + len(columns.names)
    return [b"".join(pieces[1 + columns.names.index(name) :: stride]) for name in scalar_columns(columns)]
