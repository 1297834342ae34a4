"""Do all ranks together, or all workers of a DataLoader, get every sample exactly once?"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.loader.leak_checks import ids_of, write

pytest.importorskip("torch")

Act = Callable[..., None]

SAMPLES, BATCH, AT = 203, 8, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("distributed") / "data", SAMPLES)


@pytest.fixture(scope="module")
def act(repository: Path) -> Iterator[Act]:
    """Runs a scenario of `ranks.py` in a fork of a process that has imported torch."""
    command, pipe = [sys.executable, "-m", "tests.loader.ranks"], subprocess.PIPE
    with subprocess.Popen(command, cwd=repository, stdin=pipe, stdout=pipe, text=True) as process:
        scenarios, statuses = process.stdin, process.stdout
        assert scenarios is not None
        assert statuses is not None

        def run(*scenario: object) -> None:
            print(json.dumps([str(word) for word in scenario]), file=scenarios, flush=True)
            assert statuses.readline() == "0\n"

        yield run


def check_world(data: Path, out: Path, world_size: int) -> None:
    found = [json.loads((out / f"{world_size}-{rank}.json").read_text()) for rank in range(world_size)]
    assert [(one["rank"], one["world_size"]) for one in found] == [(rank, world_size) for rank in range(world_size)]
    assert len({one["weight"] for one in found}) == 1  # gradients were averaged over all ranks
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, shuffle=True, output="numpy") as loader:
        for one in found:
            for epoch, batches in enumerate(one["epochs"]):
                assert len(batches) == one["length"] == -(-SAMPLES // (BATCH * world_size))
                places = [{"epoch": epoch, "rank": one["rank"], "world_size": world_size}] * len(batches)
                assert batches == [loader.ids(step=k, **place).tolist() for k, place in enumerate(places)]
            assert one["rest"] == one["epochs"][0][AT:]
            assert one["states"] == [found[0]["states"][0]] * world_size
        for epoch in range(2):
            union = [i for one in found for batch in one["epochs"][epoch] for i in batch]
            assert sorted(union) == list(range(SAMPLES))
        for other in (1, 3):  # another world size resumes with the remaining samples
            rest = []
            for rank in range(other):
                options: dict[str, Any] = {"rank": rank, "world_size": other, "output": "numpy", "shuffle": True}
                with mx8.Loader(dataset, batch_size=BATCH, **options) as loader:
                    loader.load_state_dict(found[-1]["states"][-1])
                    rest += [i for batch in loader for i in ids_of(batch)]
            done = [i for one in found for batch in one["epochs"][0][:AT] for i in batch]
            assert sorted(done + rest) == list(range(SAMPLES))


def test_ranks_under_gloo_train_in_step_and_see_every_sample_once(data: Path, tmp_path: Path, act: Act) -> None:
    act("ranks", data, tmp_path, 2, 4)
    for world_size in (2, 4):
        check_world(data, tmp_path, world_size)


@pytest.mark.hunt
def test_ranks_under_torchrun_train_in_step_and_see_every_sample_once(
    data: Path, tmp_path: Path, repository: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.loader.ranks", "under_torchrun", str(data), str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    check_world(data, tmp_path, 2)


def check_workers(data: Path, out: Path) -> None:
    """With any workers, iterations give the loader's consecutive epochs in its order."""
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, shuffle=True, output="numpy") as loader:
        expected = [[ids_of(batch) for batch in loader] for _ in range(3)]
        partly = [expected[0][AT:], expected[1]]
    for name, found in json.loads(out.read_text()).items():
        assert found["length"] == len(expected[0]), name
        assert found["epochs"] == [*expected[:2], expected[2][:1]], name
        assert found["set"] == [expected[1], expected[2], expected[0], expected[1]], name
        assert found["resumed"] == partly, name
        assert found["loaded"] == partly, name


def test_forked_workers_give_consecutive_epochs_of_the_loader(data: Path, tmp_path: Path, act: Act) -> None:
    act("workers", data, tmp_path, "fork", 0, 2)
    check_workers(data, tmp_path / "fork.json")


def test_spawned_workers_give_consecutive_epochs_of_the_loader(data: Path, tmp_path: Path, act: Act) -> None:
    act("spawned", data, tmp_path)
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, shuffle=True, output="numpy") as loader:
        first, second = ([ids_of(batch) for batch in loader] for _ in range(2))
    assert json.loads((tmp_path / "spawned.json").read_text()) == [first, second]


@pytest.mark.hunt
@pytest.mark.parametrize(("context", "count"), [("fork", 1), ("spawn", 2)])
def test_workers_give_consecutive_epochs_in_every_configuration(
    context: str, count: int, data: Path, tmp_path: Path, act: Act
) -> None:
    act("workers", data, tmp_path, context, count)
    check_workers(data, tmp_path / f"{context}.json")


def test_another_iterable_dataset_resumes_from_a_state(data: Path) -> None:
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, shuffle=True, output="numpy") as loader:
        for at in (0, 1, 7):
            first = loader.as_iterable_dataset()
            batches = iter(first)
            before = [next(batches)["number"].tolist() for _ in range(at)]
            state = json.loads(json.dumps(first.state_dict()))
            second = loader.as_iterable_dataset()
            second.load_state_dict(state)
            rest = [batch["number"].tolist() for batch in second]
            assert rest == [batch["number"].tolist() for batch in batches]
            assert sorted(i for batch in before + rest for i in batch) == list(range(SAMPLES))
        with pytest.raises(mx8.IntegrityError):
            second.load_state_dict({**state, "snapshot": "sha256:" + "0" * 64})


@pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed")
def test_a_stateful_data_loader_resumes_from_a_state(data: Path, tmp_path: Path, act: Act) -> None:
    act("stateful", data, tmp_path)
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=BATCH, shuffle=True, output="numpy") as loader:
        first, second, third = ([ids_of(batch) for batch in loader] for _ in range(3))
    for name, (before, rest, again, following, ended) in json.loads((tmp_path / "stateful.json").read_text()).items():
        assert before + rest == first, name
        assert again == rest, name
        assert following == second, name
        assert ended == third, name
