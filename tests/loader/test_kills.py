"""Is every sample delivered exactly once if a training is killed repeatedly and resumes with other ranks?"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests import videos
from tests.clip_data import write_videos
from tests.loader.child_process import ChildProcess
from tests.loader.leak_checks import time_limit, write

SAMPLES, EPOCHS = 301, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("kills") / "data", SAMPLES)


def kept_of(lines: list[dict[str, Any]]) -> dict[int, list[int]]:
    """The samples of completed steps by epoch. A step that no saved state includes was killed and is repeated."""
    runs: list[list[dict[str, Any]]] = []
    for line in lines:
        if "run" in line:
            runs.append([line])
        else:
            runs[-1].append(line)
    kept: dict[int, list[int]] = {epoch: [] for epoch in range(EPOCHS)}
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        end = (EPOCHS, 0) if following is None else (following[0]["epoch"], following[0]["position"])
        steps = [((line["epoch"], line["position"]), line["ids"]) for line in run[1:]]
        assert sum(at >= end for at, _ in steps) <= 1
        for (epoch, _), ids in (step for step in steps if step[0] < end):
            kept[epoch] += ids
    return kept


def train_and_kill(
    child_process: ChildProcess,
    data: Path,
    place: Path,
    rng: random.Random,
    kills: int,
    wanted: Collection[int] = range(SAMPLES),
    **more: Any,
) -> int:
    """Train to the end despite kills, and assert that each epoch had the wanted ids. Returns how many were killed."""
    place.mkdir()
    struck = 0
    while True:
        world_size, batch_size = rng.choice([1, 2, 3]), rng.choice([4, 7, 16])
        files = {"data": str(data), "state": str(place / "state"), "log": str(place / "log")}
        settings = {"world_size": world_size, "batch_size": batch_size, "epochs": EPOCHS, "seed": rng.randrange(99)}
        with time_limit():
            child_process.start("trained", **files, **settings, **more)
            if struck < kills:
                heard = next(
                    (word for _ in range(rng.randrange(1, 6)) if (word := child_process.read_line()) == "done"), "step"
                )
                if heard == "step":
                    os.kill(child_process.pid, signal.SIGKILL)
            _, status = child_process.read_rest()
        struck += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL), child_process.errors
        if status == 0:
            break
    kept = kept_of([json.loads(line) for line in (place / "log").read_text().splitlines()])
    for epoch, ids in kept.items():
        counts = Counter(ids)
        doubled = sum(counts.values()) - len(wanted)  # if fewer samples than ranks remain, ranks repeat some
        assert set(counts) == set(wanted), f"epoch {epoch}"
        assert 0 <= doubled <= 2, f"epoch {epoch}"
    return struck


def test_a_training_that_is_killed_repeatedly_sees_every_sample_once(
    child_process: ChildProcess, data: Path, tmp_path: Path
) -> None:
    assert train_and_kill(child_process, data, tmp_path / "place", random.Random(0), 20) >= 5  # more on a quiet machine


def test_a_training_on_clips_that_is_killed_sees_every_clip_once(child_process: ChildProcess, tmp_path: Path) -> None:
    forms = [("h264", "open"), ("h264", "vfr"), ("mjpeg", "closed")]
    found = [videos.video(*form) for form in forms]
    write_videos(tmp_path / "data", [each.data for each in found]).close()
    wanted = {1000 * i + start for i, each in enumerate(found) for start in range(0, len(each.numbers) - 2, 5)}
    rng, place = random.Random(1), tmp_path / "place"
    assert train_and_kill(child_process, tmp_path / "data", place, rng, 5, wanted, clips=True) >= 1


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_training_that_is_killed_two_hundred_times_sees_every_sample_once(
    child_process: ChildProcess, data: Path, tmp_path: Path, seed: int
) -> None:
    assert train_and_kill(child_process, data, tmp_path / "place", random.Random(seed), 20) >= 10
