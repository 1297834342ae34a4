"""A fast directory (tmpfs) for tests that write thousands of datasets."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A tmpfs, where an fsync is free. None: there is none, and tempfile's default directory is used.
FAST_ROOT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def fast_directory() -> Iterator[Path]:
    """A temporary directory below FAST_ROOT."""
    with tempfile.TemporaryDirectory(dir=FAST_ROOT) as place:
        yield Path(place)
