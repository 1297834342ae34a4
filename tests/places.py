"""A fast directory (tmpfs) for tests that write thousands of datasets."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# In memory, where an fsync costs nothing; None: in the directory for temporary files.
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def quick_place() -> Iterator[Path]:
    """A directory there, for a while."""
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        yield Path(place)
