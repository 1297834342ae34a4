"""Fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mx8shards.convert import convert_in_parts
from tests.text_folders import NAMES, write_texts


@pytest.fixture
def src(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ten texts in two classes, whose conversion has parts of three items."""
    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", 3)
    return write_texts(tmp_path / "src", NAMES)
