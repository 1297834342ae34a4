"""How is one sample of an open MDS shard read and decoded, as fast as Python can?"""

from __future__ import annotations

import os
from typing import Any

from mx8shards.errors import FormatError
from mx8shards.format.shard_bytes import read_table
from mx8shards.shards.shard import Shard
from mx8shards.streaming.payload_decoders import Decoder

# Samples up to this size are read in one call; of larger ones, each column by itself, which saves a copy.
_WHOLE_BYTES = 16 << 10


class MdsRows:
    """The samples of one open shard: a function of the row. Its values share no memory with the shard.

    Args:
        shard: The shard.
        decoders: One for each of its columns.
    """

    def __init__(self, shard: Shard, decoders: tuple[Decoder, ...]) -> None:
        self._shard = shard
        self._columns = shard.columns
        self._offsets = shard.kept_offsets
        self._fields = [
            (name, decode, c) for c, (name, decode) in enumerate(zip(shard.columns.names, decoders, strict=True))
        ]

    def __call__(self, row: int) -> dict[str, Any]:
        offsets = self._offsets
        if offsets is None:
            return self._by_column(row)
        begin = offsets[row]
        size = offsets[row + 1] - begin
        if size > _WHOLE_BYTES:
            return self._by_column(row)
        shard = self._shard
        file = shard.file or shard.open_file()  # the reference keeps the descriptor open during the read
        whole = os.pread(file.descriptor, size, begin)
        try:
            return self.decode(whole)
        except (FormatError, ValueError):
            return self._by_column(row)  # it raises the error that names the place

    def sample_bytes(self, row: int) -> bytes:
        """The bytes of a sample; IndexError if there is no such row."""
        if not 0 <= row < self._shard.samples:
            raise IndexError(f"sample {row} of {self._shard.samples} in this shard")
        self._shard.check_size()
        begin, end = read_table(self._shard.head(mapped=True), self._shard.samples)[row : row + 2].tolist()
        return bytes(self._shard.view[begin:end])

    def decode(self, data: bytes) -> dict[str, Any]:
        """The sample with these bytes; FormatError if its columns do not fill them."""
        bounds = self._columns.bounds(data, len(data))
        return {name: decode(data[bounds[c] : bounds[c + 1]]) for name, decode, c in self._fields}

    def _by_column(self, row: int) -> dict[str, Any]:
        payloads = self._shard.payloads(row, range(len(self._fields)))
        sample = {}
        for (name, decode, _), payload in zip(self._fields, payloads, strict=True):
            try:
                sample[name] = decode(bytes(payload))
            except FormatError as error:
                place = f"sample {row} of this shard, column {name!r}"
                raise error.at(subject=self._shard.name, place=place) from error.__cause__
        return sample
