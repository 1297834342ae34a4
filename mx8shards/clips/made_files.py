"""How is a file in the cache directory made once, by whichever process needs it first?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mx8shards.disk import lock, operations, publish
from mx8shards.errors import DiskError
from mx8shards.shards.cache import default_directories
from mx8shards.shards.open_shard import Shards


def places_of(shards: Shards, about: Sequence[object], suffix: str) -> list[Path]:
    """Where a file about the snapshots of `shards` may be. `about` says what else it depends on."""
    ids = [snapshot.id for snapshot in shards.snapshots]
    name = hashlib.sha256(json.dumps([*about, ids]).encode()).hexdigest()[:40] + suffix
    return [directory / name for directory in default_directories(shards.snapshots[0].root)]


def found_in(places: Sequence[Path]) -> Path | None:
    """The file, if it exists."""
    return next((path for path in places if path.is_file()), None)


def made_in(places: Sequence[Path], pieces: Callable[[], Iterator[bytes]]) -> Path:
    """Make a file of these pieces in the first place that can be written, unless another process does so meanwhile."""
    refused: DiskError | None = None
    for path in places:
        draft = path.with_suffix(".tmp")
        try:
            publish.make_root(path.parent)
            with lock.only_writer(draft) as descriptor:
                _write(descriptor, draft, path, pieces)
        except DiskError as error:
            refused = error
        else:
            return path
    raise DiskError(f"no directory can hold this file: {refused}", subject=str(places[0])) from refused


def _write(descriptor: int, draft: Path, path: Path, pieces: Callable[[], Iterator[bytes]]) -> None:
    """Write the draft and rename it, unless another process did."""
    try:
        if not path.is_file():
            operations.truncate(descriptor, 0, draft)
            for piece in pieces():
                operations.write(descriptor, piece, draft)
            operations.sync(descriptor, draft)
            operations.rename(draft, path)
    finally:
        if draft.exists():
            operations.unlink(draft)
