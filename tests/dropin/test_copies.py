"""Are local copies of shards shared by killed, restarted and concurrent jobs, and removed on demand?"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader

from mx8shards.streaming import Stream, StreamingDataLoader, StreamingDataset
from tests.dropin.conftest import write
from tests.forked import forked


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "data", 0, 400, compression="zstd", hashes="sha1")


def make(source: Path, cache: Path, **settings: Any) -> StreamingDataset:
    return StreamingDataset(remote=str(source), local=str(cache), batch_size=4, shuffle=True, **settings)


def ids(samples: list[dict[str, Any]]) -> list[int]:
    return [each["id"] for each in samples]


def read_all(source: Path, cache: Path) -> None:
    os.setpgrp()  # so that the test can end the workers, too
    for _ in DataLoader(make(source, cache), batch_size=4, num_workers=2, collate_fn=ids):
        pass


def killed_and_restarted(source: Path, cache: Path, cycles: int) -> None:
    """Kill jobs at random times in one directory, which nobody cleans, and read everything afterwards."""
    rng, jobs = random.Random(cycles), []
    for _ in range(cycles):
        job = forked(partial(read_all, source, cache))
        time.sleep(rng.uniform(0, 0.4))
        os.kill(job, signal.SIGKILL)
        os.waitpid(job, 0)
        jobs.append(job)
    for job in jobs:  # workers whose parent was killed read on for a while, beside the next job
        with suppress(ProcessLookupError):
            os.killpg(job, signal.SIGKILL)
    assert sorted(each["id"] for each in make(source, cache)) == list(range(400))
    assert len(list(cache.glob("*.mds"))) == make(source, cache).num_shards
    assert list(cache.glob(".shard*")) == []


def test_killed_jobs_leave_a_directory_that_the_next_one_uses(source: Path, tmp_path: Path) -> None:
    killed_and_restarted(source, tmp_path / "cache", 4)


@pytest.mark.hunt
def test_a_hundred_killed_jobs(source: Path, tmp_path: Path) -> None:
    killed_and_restarted(source, tmp_path / "cache", 100)


# ranks ------------------------------------------------------------------------------------------------------------


def rank_of(place: Path, source: Path, ranks: int, rank: int, name: str, state: Any) -> None:
    """One rank: it writes its batches, and the state after its third one."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}
    dist.init_process_group("gloo", init_method=f"file://{place}/{name}.store", rank=rank, world_size=ranks)
    dataset = make(source, place / "cache", num_canonical_nodes=2)
    dataset.batch_size = 16 // ranks
    loader = StreamingDataLoader(dataset, batch_size=16 // ranks, num_workers=1)
    if state is not None:
        loader.load_state_dict(state)
    batches, saved = [], None
    for batch in loader:
        batches.append(batch["id"].tolist())
        saved = loader.state_dict() if len(batches) == 3 else saved
    gathered: list[Any] = [None] * ranks
    dist.all_gather_object(gathered, (batches, saved))
    if rank == 0:
        (place / f"{name}.json").write_text(json.dumps(gathered))
    dist.destroy_process_group()


def steps(place: Path, source: Path, ranks: int, name: str, state: Any = None) -> tuple[list[list[int]], Any]:
    """The samples of each step of all ranks, and the state."""
    jobs = [forked(partial(rank_of, place, source, ranks, rank, name, state)) for rank in range(ranks)]
    assert [os.waitpid(job, 0)[1] for job in jobs] == [0] * ranks
    found = json.loads((place / f"{name}.json").read_text())
    batches = zip(*(rank[0] for rank in found), strict=True)
    return [sorted(i for batch in step for i in batch) for step in batches], found[0][1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_four_gloo_ranks_share_copies_and_two_go_on(source: Path, tmp_path: Path) -> None:
    four, state = steps(tmp_path, source, 4, "four")
    assert sorted(i for step in four for i in step) == list(range(400))
    two, _ = steps(tmp_path, source, 2, "two", state)
    assert two == four[3:]


# removing copies --------------------------------------------------------------------------------------------------


def test_copies_are_counted_and_removed_on_demand(source: Path, tmp_path: Path) -> None:
    dataset = make(source, tmp_path / "cache", keep_zip=False)
    before = dataset.cache_usage
    dataset.prepare_shard(0)
    dataset.prepare_shard(3)
    sizes = [shard.get_raw_size() for shard in dataset.shards]
    assert dataset.cache_usage == before + sizes[0] + sizes[3]
    assert dataset[0]["id"] == 0
    dataset.evict_coldest_shard()
    dataset.evict_coldest_shard()
    assert dataset.cache_usage == before
    with pytest.raises(ValueError, match="copies"):
        dataset.evict_coldest_shard()
    assert dataset[0]["id"] == 0  # fetched again


def test_the_only_copy_of_a_shard_is_never_removed(source: Path) -> None:
    dataset = StreamingDataset(streams=[Stream(local=str(source))], batch_size=4)
    before = sorted(source.iterdir())
    with pytest.raises(ValueError, match="remote"):
        dataset.evict_shard(0)
    with pytest.raises(ValueError, match="copies"):
        dataset.evict_coldest_shard()
    assert sorted(source.iterdir()) == before
