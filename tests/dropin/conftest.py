"""Fixtures of the tests of mx8shards.streaming: one written dataset, and what mosaicml-streaming leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mx8shards.streaming import MDSWriter
from tests.conformance.conftest import _streaming_leaves_nothing_behind  # noqa: F401 - fixtures of these tests, too
from tests.remote.conftest import bucket, s3_environment, s3_server  # noqa: F401

COLUMNS = {"id": "int", "tokens": "ndarray:int32:4", "text": "str"}


def sample(i: int) -> dict[str, object]:
    return {"id": i, "tokens": np.arange(i, i + 4, dtype=np.int32), "text": f"sample {i}"}


def write(root: Path, start: int, stop: int, *, limit: int = 2000, **options: object) -> Path:
    """A dataset of the samples from `start` to before `stop`, in shards of about 35 samples."""
    with MDSWriter(out=str(root), columns=COLUMNS, size_limit=limit, **options) as writer:
        for i in range(start, stop):
            writer.write(sample(i))
    return root


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the datasets `a` of 300 samples, numbered from 0, and `b` of 110, numbered from 1000."""
    root = tmp_path_factory.mktemp("numbers")
    write(root / "a", 0, 300)
    write(root / "b", 1000, 1110)
    return root


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment makes these tests a part of a larger world."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
