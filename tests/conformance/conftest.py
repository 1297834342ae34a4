"""Fixtures of the conformance tests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.streaming_stub import import_streaming, is_installed


@pytest.fixture(autouse=True)
def _streaming_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Release after each test what a StreamingDataset keeps until the process ends: ten blocks of shared memory with
    their descriptors, and two lock files in the directory for temporary files.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cleanups: list[Callable[[], None]] = []
    if is_installed():
        import_streaming()
        memory = sys.modules["streaming.base.shared.memory"]
        monkeypatch.setattr(memory, "atexit", SimpleNamespace(register=cleanups.append))
    yield
    for cleanup in cleanups:
        cleanup()
