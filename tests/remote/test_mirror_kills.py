"""Does a SIGKILL at any step leave a mirror that the next job uses: nothing torn, nothing left, within the limit?"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.disk import operations
from tests.remote.mirrors import URL, bytes_of, numbers, residue, serve, upload, write

_MOST_STEPS = 400


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Whether a forked child was killed before step number `step` of those that change the disk."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        left = step

        def count(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        operations.before = count
        try:
            act()
        except BaseException:  # noqa: BLE001
            os._exit(3)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def hashes(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.mds")}


@pytest.mark.parametrize("part", [None, 0.6])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_kill_before_any_step_leaves_nothing_torn(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: float | None,
    compression: str | None,
) -> None:
    write(tmp_path / "source", 60, compression=compression)
    serve(tmp_path / "source", monkeypatch)
    numbers(mx8.Dataset(URL, local=tmp_path / "clean"))
    right = hashes(tmp_path / "clean")
    sizes = bytes_of(tmp_path / "clean")
    limit = None if part is None else int(part * sizes) + 2_000

    root = tmp_path / "cache"  # the same one for all kills: it must stay usable

    def read() -> list[int]:
        with mx8.Dataset(URL, local=root, cache_limit=limit) as dataset:
            return numbers(dataset)

    for step in range(_MOST_STEPS):
        if step % 7 == 0 and root.exists():
            mx8.Dataset(URL, local=root)
            for path in root.glob("*.mds"):
                path.unlink()
        killed = killed_at(step, read)
        here = hashes(root) if root.exists() else {}
        assert here == {name: right[name] for name in here}
        if limit is not None:
            assert bytes_of(root) <= limit
        if not killed and step % 7 == 1:
            break
    assert read() == list(range(60))
    assert hashes(root).items() <= right.items()
    assert residue(root) == []


JOB = """
import sys
import mx8shards as mx8
url, cache, limit, seed = sys.argv[1:]
with (
    mx8.Dataset(url, local=cache, cache_limit=int(limit)) as dataset,
    mx8.Loader(dataset, batch_size=10, shuffle=mx8.BlockShuffle(shards=3), seed=int(seed), output="numpy") as loader,
):
    for epoch in range(2):
        print(sorted(x for batch in loader for x in batch["x"].tolist()) == list(range(len(dataset))), flush=True)
"""


@pytest.mark.parametrize("cycles", [2, pytest.param(100, marks=pytest.mark.hunt)])
def test_jobs_that_are_killed_at_random_moments_leave_a_mirror_to_the_others(
    bucket: str,
    tmp_path: Path,
    cycles: int,
) -> None:
    write(tmp_path / "large", 1_500)
    upload(tmp_path / "large", bucket)
    right = hashes(tmp_path / "large")
    root = tmp_path / "cache"
    limit = bytes_of(tmp_path / "large") * 6 // 10
    rng = random.Random(cycles)

    def begin(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", JOB, bucket, str(root), str(limit), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    for _ in range(cycles):
        jobs = [begin(seed) for seed in range(4)]
        time.sleep(rng.uniform(1.5, 4))
        for job in jobs[:3]:
            job.kill()
            job.communicate()
        assert jobs[3].communicate(timeout=120)[0].split() == ["True", "True"]
        here = hashes(root)
        assert here == {name: right[name] for name in here}
        assert bytes_of(root) <= limit
    assert begin(9).communicate(timeout=120)[0].split() == ["True", "True"]
    assert residue(root) == []
    assert bytes_of(root) <= limit
