"""Do jobs that share a mirror get right samples, although others are killed at random times?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.remote.fault_server import FaultServer
from tests.remote.jobs import JOBS, write

pytest.importorskip("obstore")

SHARDS = 24


def serve(server: FaultServer, root: Path, size: int) -> int:
    """Put a dataset into the server; the bytes of all its shards."""
    write(root, 25 * SHARDS, size, hashes=("sha256",))
    for path in (path for path in root.rglob("*") if path.is_file() and path.name != "lock"):
        server.put(f"set/{path.relative_to(root).as_posix()}", path.read_bytes())
    return sum(path.stat().st_size for path in root.glob("*.mds"))


def check(
    server: FaultServer, place: Path, repository: Path, *, size: int, part: float, cycles: int, seed: int
) -> None:
    total = serve(server, place / "written", size)
    limit = int(total * part) if part < 1 else 0
    command = [sys.executable, "-m", "tests.remote.jobs", place / "practice", server.url("set"), place / "cache"]
    done = subprocess.run(
        [*map(str, command), str(limit), str(cycles), str(seed)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["statuses"] == [0] * JOBS, done.stderr
    assert found["failed"] == 0, done.stderr
    assert found["most_bytes"] <= (limit or total)
    assert found["wrong"] == []
    assert found["residue"] == []
    assert len(server.counts("read")) >= SHARDS
    if not limit and not cycles:
        assert Counter(server.counts("read")).most_common(1)[0][1] == 1


def test_five_cycles_of_killed_jobs_leave_right_shards_within_the_limit(
    fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    check(fault_server, tmp_path, repository, size=2_000, part=0.6, cycles=5, seed=17)


def test_four_jobs_on_one_mirror_fetch_every_object_once(
    fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    check(fault_server, tmp_path, repository, size=2_000, part=1, cycles=0, seed=17)


@pytest.mark.hunt
@pytest.mark.parametrize("part", [0.5, 0.6, 0.8, 1])
@pytest.mark.parametrize("size", [2_000, 60_000])
@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_cycles_of_each_kind(
    seed: int, size: int, part: float, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    check(fault_server, tmp_path, repository, size=size, part=part, cycles=40, seed=seed)
