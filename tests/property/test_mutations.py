"""Is a randomly mutated dataset either refused or read correctly?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# The number of mutations of each kind: 3,000 and 100,000 in total.
KINDS = {"index": 800, "table": 400, "header": 300, "payload": 250, "frame": 800, "kept": 150, "sidecar": 300}
CHUNK = 1000
HUNT = [(kind, 1_000_000 + CHUNK * i) for kind, count in KINDS.items() for i in range(count * 100 // 3 // CHUNK + 1)]


def attempt(kind: str, first: int, count: int, log: Path, repository: Path) -> dict[str, int]:
    """Run in a subprocess, because a bug could kill the process."""
    command = [sys.executable, "-m", "tests.property.mutations", kind, str(first), str(count), str(log)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    last = (log.read_text().splitlines() if log.exists() else [])[-1:] or "before the first"
    assert done.returncode == 0, f"{last}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    tally: dict[str, int] = json.loads(done.stdout)
    assert sum(tally.values()) == count
    return tally


@pytest.mark.parametrize("kind", KINDS)
def test_three_thousand_mutations_are_refused_or_read_correctly(kind: str, tmp_path: Path, repository: Path) -> None:
    tally = attempt(kind, 0, KINDS[kind], tmp_path / "log", repository)
    assert tally["unchanged"] < KINDS[kind] / 2
    assert tally["read" if kind == "sidecar" else "refused"] > KINDS[kind] / 3


@pytest.mark.hunt
@pytest.mark.parametrize(("kind", "first"), HUNT)
def test_a_hundred_thousand_mutations_are_refused_or_read_correctly(
    kind: str, first: int, tmp_path: Path, repository: Path
) -> None:
    attempt(kind, first, CHUNK, tmp_path / "log", repository)
