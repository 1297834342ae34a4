"""Does one shard match its index entry, and if it is damaged, which samples are affected?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mx8shards.disk.map import ReadFile
from mx8shards.errors import FormatError, IntegrityError, ShardsError
from mx8shards.format.compression import decompress
from mx8shards.format.entries import FileInfo
from mx8shards.format.file_blocks import block_digests
from mx8shards.format.hashing import hasher
from mx8shards.format.shard_bytes import read_table, table_bytes
from mx8shards.format.sidecar_bytes import scalar_columns
from mx8shards.maintain.parallel import thread_count
from mx8shards.maintain.report import Damage, Range, damage_of, ranges
from mx8shards.maintain.verify_plan import ShardCheck
from mx8shards.maintain.walk import SampleWalk
from mx8shards.shards.cache import cached_file, cached_name, default_directories
from mx8shards.shards.local_files import best_hash, check_size, existing_raw_file, file_pieces, shard_name, shard_path
from mx8shards.shards.shard import OpenFiles, Shard, open_shard_file

Rows = npt.NDArray[np.int64]
Tick = Callable[[int], None]

_PACKED_BYTES = 1 << 30  # upper bound on compressed files in memory at a time


@dataclass(frozen=True, slots=True)
class Facts:
    """The hashes and numbers of an intact shard, for a sealed index and its side-cars."""

    raw_blake3: str
    stored_blake3: str
    digests: bytes
    numbers: list[bytes]


@dataclass
class Checked:
    """The result of checking one shard."""

    task: ShardCheck
    has_hash: bool = True  # whether a hash of its payload bytes is known
    damage: list[Damage] = field(default_factory=list)
    errors: list[ShardsError | OSError] = field(default_factory=list)
    facts: Facts | None = None

    def add(
        self, error: ShardsError | OSError, *, rows: Rows | None = None, blocks: Sequence[int] = (), file: str = ""
    ) -> None:
        """Record an error. It affects every sample of the shard, or only `rows` if they are given."""
        digests = self.task.blocks
        index = self.task.snapshot.index
        start, stop = index.starts[self.task.number : self.task.number + 2].tolist()
        every: list[Range] = [(start, stop)] if start < stop else []
        self.errors.append(error)
        self.damage.append(
            damage_of(
                error,
                file=file or self.task.entry.stored.basename,
                snapshot=self.task.snapshot.id,
                samples=every if rows is None else ranges(start + rows),
                blocks=blocks,
                block_bytes=digests.block_bytes if digests is not None and blocks else None,
            )
        )


def check_shard(task: ShardCheck, tick: Tick, *, facts: int | None = None) -> Checked:
    """Check one shard against its index entry, every byte if `task.data`.

    `facts` collects hashes for sealing: it is the size of the blocks of which digests are made.
    """
    checked = Checked(task)
    name = shard_name(task.snapshot, task.entry.stored)
    try:
        path = shard_path(task.snapshot, task.entry.stored)
        if task.data:
            file = open_shard_file(path, name)
            check_size(file, task.entry.stored, name)
            _DataCheck(checked, file, name, facts=facts).run(tick)
        elif task.entry.zip is not None:
            check_size(open_shard_file(path, name), task.entry.zip, name)
        else:
            Shard(name, path, task.entry, OpenFiles(1))
            tick(task.cost_bytes)
    except (FormatError, IntegrityError) as error:
        checked.add(error.at(subject=name))
    except OSError as error:
        checked.add(error)
    return checked


def check_threads(checks: list[ShardCheck]) -> int:
    """One thread per core, but fewer if compressed files, which are read whole, would exceed `_PACKED_BYTES`."""
    largest = max((task.entry.zip.size_bytes for task in checks if task.data and task.entry.zip), default=1)
    return min(thread_count(), max(1, _PACKED_BYTES // max(1, largest)))


class _FileHashes:
    """The hashes of one file, computed while it is read: the strongest one in the index, or blake3 if it has none."""

    def __init__(self, info: FileInfo, *, blake3: bool) -> None:
        self.info = info
        self.best = best_hash(info)
        self._hashers = {name: hasher(name) for name in {self.best or "blake3", *(("blake3",) if blake3 else ())}}

    def update(self, piece: bytes) -> None:
        """Add the next bytes of the file."""
        for each in self._hashers.values():
            each.update(piece)

    def found(self, name: str | None = None) -> str:
        """The computed hash called `name`, by default the one that is compared with the index."""
        return self._hashers[name or self.best or "blake3"].hexdigest()

    def error(self) -> IntegrityError | None:
        """IntegrityError if the index has a hash and the computed one differs."""
        if self.best is None or self.info.hashes[self.best] == self.found():
            return None
        return IntegrityError(place=self.best, expected=self.info.hashes[self.best], found=self.found())


class _DataCheck:
    """Reads every byte of one shard, in one pass if it is intact.

    Memory: a few MiB, the offset table and, if the shard is compressed, the whole compressed file.
    """

    def __init__(self, checked: Checked, file: ReadFile, name: str, *, facts: int | None) -> None:
        self._checked = checked
        self._task = checked.task
        self._entry = checked.task.entry
        self._file = file
        self._name = name
        self._facts = facts
        columns = self._entry.kind.columns
        self._scalars = scalar_columns(columns)
        self._walk = SampleWalk(columns, self._entry.samples, self._entry.raw.size_bytes, self._scalars)
        self._raw = _FileHashes(self._entry.raw, blake3=facts is not None)
        self._stored = _FileHashes(self._entry.zip, blake3=facts is not None) if self._entry.zip else self._raw
        self._digests: list[bytes] = []

    def run(self, tick: Tick) -> None:
        """Add every error found to `checked`."""
        packed = self._read_stored(tick)
        checked, task = self._checked, self._task
        checked.has_hash = self._stored.best is not None or self._raw.best is not None or task.blocks is not None
        error = self._stored.error()
        blocks = self._damaged_blocks()
        if blocks and error is None:
            error = self._blocks_error(blocks[0])
            if self._stored.best is not None:  # the shard matches a hash in the index, so the side-car is wrong
                checked.add(error, rows=np.zeros(0, np.int64), file=task.blocks_file)
                error = None
        if error is not None:
            checked.add(error.at(subject=self._name), rows=self._rows_in(blocks), blocks=blocks)
            return
        if self._entry.zip is not None:
            self._unpack(packed)
        self._check_raw()

    def _read_stored(self, tick: Tick) -> bytes:
        """Read and hash the stored file. Returns its bytes if it is compressed, otherwise b""."""
        size = self._entry.stored.size_bytes
        pieces = []
        done = 0
        block_bytes = self._facts if self._task.blocks is None else self._task.blocks.block_bytes
        for piece in file_pieces(self._file, size):
            self._stored.update(piece)
            if block_bytes is not None:
                self._digests.append(block_digests(piece, block_bytes))  # pieces are whole blocks, except for the last
            if self._entry.zip is None:
                self._walk.feed(piece)
            else:
                pieces.append(piece)
            done += len(piece)
            tick(len(piece))
        if done != size:
            raise FormatError(expected=f"{size} bytes (the index)", found=f"{done}")
        return b"".join(pieces)

    def _unpack(self, packed: bytes) -> None:
        for piece in decompress(self._entry.kind.compression or "", packed, self._entry.raw.size_bytes):
            self._raw.update(piece)
            self._walk.feed(piece)

    def _check_raw(self) -> None:
        """Check the hash, the samples, the side-cars and the copies of the raw bytes, all of which have been read."""
        error = self._raw.error()
        if error is not None:
            self._checked.add(error.at(subject=self._name, place="raw bytes"))
            return
        try:
            self._walk.finish()
        except FormatError as found:
            bad = np.concatenate(self._walk.bad) if self._walk.bad else None
            self._checked.add(found.at(subject=self._name), rows=bad)
            return
        self._compare_numbers()
        self._check_copies()
        if self._facts is not None:
            raw, stored = self._raw.found("blake3"), self._stored.found("blake3")
            self._checked.facts = Facts(raw, stored, b"".join(self._digests), self._walk.numbers)

    # damaged samples --------------------------------------------------------------------------------------------

    def _damaged_blocks(self) -> list[int]:
        expected = self._task.blocks
        if expected is None:
            return []
        found = np.frombuffer(b"".join(self._digests), np.uint8).reshape(expected.rows.shape)
        numbers: list[int] = np.flatnonzero((found != expected.rows).any(axis=1)).tolist()
        return numbers

    def _blocks_error(self, block: int) -> IntegrityError:
        expected = f"the digest in {self._task.blocks_file}"
        return IntegrityError(subject=self._name, place=f"block {block}", expected=expected, found="another digest")

    def _rows_in(self, blocks: list[int]) -> Rows | None:
        """The rows with bytes in these damaged blocks, or None for all rows.

        All rows may be damaged if there are no blocks, the shard is compressed, or a block overlaps the offset table.
        """
        table, digests = table_bytes(self._entry.samples), self._task.blocks
        if digests is None or not blocks or self._entry.zip is not None or blocks[0] * digests.block_bytes < table:
            return None
        offsets = read_table(self._file.read(0, table), self._entry.samples)
        begins = np.array(blocks) * digests.block_bytes
        if begins[0] < offsets[0]:
            return None
        starts = np.searchsorted(offsets[1:], begins, "right")
        stops = np.searchsorted(offsets[:-1], begins + digests.block_bytes, "left")
        rows: Rows = np.unique(np.concatenate(list(map(np.arange, starts, stops))))
        return rows

    # copies of the shard's bytes --------------------------------------------------------------------------------

    def _compare_numbers(self) -> None:
        """Compare the numbers in a side-car with the shard: they can be wrong although the side-car's hash is right."""
        found = dict(zip(self._scalars, self._walk.numbers, strict=True)) if self._task.numbers else {}
        for column, numbers in self._task.numbers.items():
            if numbers.tobytes() != found[column]:
                rows = (self._entry.samples, -1)
                other = np.frombuffer(found[column], np.uint8)
                error = IntegrityError(
                    subject=self._task.numbers_file,
                    place=f"column {column!r}",
                    expected=f"the numbers in {self._name}",
                    found="other numbers",
                )
                wrong = (numbers.reshape(rows) != other.reshape(rows)).any(axis=1)
                self._checked.add(error, rows=np.flatnonzero(wrong), file=self._task.numbers_file)

    def _check_copies(self) -> None:
        """Check the raw file beside a compressed shard and the copy in the cache, because readers use one of these."""
        if self._entry.zip is None:
            return
        snapshot = self._task.snapshot
        cached = cached_file(cached_name(self._entry, self._file), default_directories(snapshot.root))
        for path in filter(None, (existing_raw_file(snapshot, self._entry), cached)):
            with contextlib.suppress(FileNotFoundError):  # it was evicted meanwhile
                self._check_copy(path, ReadFile(path))

    def _check_copy(self, path: Path, file: ReadFile) -> None:
        hashes = _FileHashes(self._entry.raw, blake3=False)
        for piece in file_pieces(file, min(file.size_bytes, self._entry.raw.size_bytes)):
            hashes.update(piece)
        if file.size_bytes != self._entry.raw.size_bytes or hashes.found() != self._raw.found(hashes.best):
            error = IntegrityError(
                subject=str(path),
                place="decompressed copy",
                expected="the shard's raw bytes",
                found="other bytes",
                hint="remove this file",
            )
            root = self._task.snapshot.root
            self._checked.add(error, file=str(path.relative_to(root) if path.is_relative_to(root) else path))
