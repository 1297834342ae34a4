"""Are local copies of shards shared by killed, restarted and concurrent jobs, and removed on demand?"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader

from mx8shards.errors import RemoteError
from mx8shards.streaming import JSONWriter, Stream, StreamingDataLoader, StreamingDataset
from tests.dropin.conftest import write
from tests.forked import forked
from tests.remote.conftest import S3Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "data", 0, 400, compression="zstd", hashes="sha1")


def make(source: Path, cache: Path, **settings: Any) -> StreamingDataset:
    return StreamingDataset(remote=str(source), local=str(cache), batch_size=4, shuffle=True, **settings)


def ids(samples: list[dict[str, Any]]) -> list[int]:
    return [each["id"] for each in samples]


def read_all(source: Path, cache: Path, limit: int | None) -> None:
    os.setpgrp()  # so that the test can end the workers, too
    for _ in DataLoader(make(source, cache, cache_limit=limit), batch_size=4, num_workers=2, collate_fn=ids):
        pass


def killed_and_restarted(source: Path, cache: Path, cycles: int, limit: int | None = None) -> None:
    """Kill jobs at random times in one directory, which nobody cleans, and read everything afterwards."""
    rng, jobs = random.Random(cycles), []
    for _ in range(cycles):
        job = forked(partial(read_all, source, cache, limit))
        time.sleep(rng.uniform(0, 0.4))
        os.kill(job, signal.SIGKILL)
        os.waitpid(job, 0)
        jobs.append(job)
    for job in jobs:  # workers whose parent was killed read on for a while, beside the next job
        with suppress(ProcessLookupError):
            os.killpg(job, signal.SIGKILL)
    dataset = make(source, cache, cache_limit=limit)
    assert sorted(ids(list(dataset))) == list(range(400))
    here = [path.stat().st_size for path in cache.glob("*.mds*")]
    assert len(here) == dataset.num_shards if limit is None else sum(here) <= limit
    assert list(cache.glob(".shard*")) == []


def test_killed_jobs_leave_a_directory_that_the_next_one_uses(source: Path, tmp_path: Path) -> None:
    killed_and_restarted(source, tmp_path / "cache", 4)


@pytest.mark.hunt
@pytest.mark.parametrize("part", [None, 0.75])
def test_a_hundred_killed_jobs(part: float | None, source: Path, tmp_path: Path) -> None:
    raw_bytes = sum(each.get_raw_size() for each in make(source, tmp_path / "other").shards)
    killed_and_restarted(source, tmp_path / "cache", 100, None if part is None else int(part * raw_bytes))


def test_a_remote_that_was_replaced_is_read_anew_from_the_default_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "caches"))

    def found(**settings: Any) -> list[int]:
        return ids(list(StreamingDataset(remote=str(tmp_path / "data"), batch_size=4, **settings)))

    write(tmp_path / "data", 0, 100)
    assert found() == found(local=str(tmp_path / "chosen")) == list(range(100))
    write(tmp_path / "data", 200, 300, exist_ok=True)
    assert found() == list(range(200, 300))
    assert found(local=str(tmp_path / "chosen")) == list(range(100))  # until @refresh, as the docs say


def test_the_index_is_asked_for_once_and_fetched_only_if_it_has_changed(
    bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "caches"))
    write(tmp_path / "local", 0, 100, remote=bucket)
    assert ids(list(StreamingDataset(remote=bucket, batch_size=4))) == list(range(100))
    before = s3_server.count("HEAD", "index.json"), s3_server.count("GET")
    assert ids(list(StreamingDataset(remote=bucket, batch_size=4))) == list(range(100))
    wait_until(lambda: s3_server.count("HEAD", "index.json") > before[0])
    assert (s3_server.count("HEAD", "index.json"), s3_server.count("GET")) == (before[0] + 1, before[1])
    dead = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("S3_ENDPOINT_URL", dead)
    with pytest.raises(RemoteError, match=r"local='.*' uses the copy that is here"):
        StreamingDataset(remote=bucket, batch_size=4, download_timeout=0.5)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# JSON, CSV, TSV and XSV shards ------------------------------------------------------------------------------------


def write_json(out: str, start: int = 0, **options: Any) -> None:
    with JSONWriter(out=out, columns={"id": "int"}, size_limit=200, **options) as writer:
        for i in range(start, start + 40):
            writer.write({"id": i})


@pytest.mark.parametrize("keep_zip", [False, True])
def test_each_file_of_other_formats_is_fetched_once(
    keep_zip: bool, bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    write_json(bucket, compression="zstd", hashes="sha1")
    settings: dict[str, Any] = {"batch_size": 4, "keep_zip": keep_zip, "validate_hash": "sha1"}
    dataset = StreamingDataset(remote=bucket, local=str(tmp_path / "cache"), **settings)
    before = s3_server.count("GET", "shard.")

    def read_all() -> None:
        assert ids(list(dataset)) == list(range(40))

    jobs = [forked(read_all) for _ in range(3)]
    assert [os.waitpid(job, 0)[1] for job in jobs] == [0] * 3
    assert ids(list(dataset)) == list(range(40))
    files = {path.name for path in (tmp_path / "cache").glob("shard.*")}
    packed = {name for name in files if name.endswith(".zstd")}
    assert len(files - packed) == 2 * dataset.num_shards
    assert len(packed) == keep_zip * 2 * dataset.num_shards
    assert s3_server.count("GET", "shard.") - before == 2 * dataset.num_shards
    with pytest.raises(ValueError, match=r"validate_hash: expected one of the hashes in the index \(sha1\)"):
        StreamingDataset(remote=bucket, local=str(tmp_path / "cache"), batch_size=4, validate_hash="sha256")


def test_a_copy_in_another_format_of_a_remote_that_was_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MX8SHARDS_CACHE", str(tmp_path / "caches"))
    write_json(str(tmp_path / "data"))
    settings: dict[str, Any] = {"remote": str(tmp_path / "data"), "batch_size": 4}
    chosen = str(tmp_path / "chosen")
    for local in (None, None, chosen, chosen):
        assert ids(list(StreamingDataset(local=local, **settings))) == list(range(40))
    write_json(str(tmp_path / "data"), 100, exist_ok=True)
    for local in (None, chosen):
        with pytest.raises(ValueError, match=r"local: expected a copy of .*data has now, got .*remove this directory"):
            StreamingDataset(local=local, **settings)


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
