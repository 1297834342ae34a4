"""Does cache_limit bound the bytes of copies, of all streams and with the files that are open, whatever is read?"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Subset

from mx8shards.errors import RemoteError, SettingError
from mx8shards.remote import fetching
from mx8shards.remote.eviction import Limit, Room
from mx8shards.remote.stamps import Stamps
from mx8shards.streaming import MDSWriter, Stream, StreamingDataset
from mx8shards.streaming.cache_following import Coming, Uses, next_uses
from tests.dropin.conftest import write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen shards of about 2,000 bytes."""
    return write(tmp_path_factory.mktemp("source") / "data", 0, 800)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of about 10,000 bytes."""
    return write(tmp_path_factory.mktemp("large") / "data", 0, 800, limit=10_000)


def largest(source: Path) -> int:
    return max(path.stat().st_size for path in source.glob("*.mds"))


def copies(*caches: Path) -> int:
    """The bytes of shards in these directories."""
    total = 0
    for path in (path for cache in caches for path in cache.glob("*.mds")):
        with suppress(FileNotFoundError):  # it was just removed
            total += path.stat().st_size
    return total


def held(cache: Path) -> int:
    """The bytes of removed shards below a directory that this process has open or mapped."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            if path.readlink().is_relative_to(cache) and path.readlink().name.endswith(".mds (deleted)"):
                found[path.stat().st_ino] = path.stat().st_size
        except OSError:
            continue
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(cache) in line and line.endswith(".mds (deleted)"):
            fields = line.split()
            begin, end = (int(each, 16) for each in fields[0].split("-"))
            found[int(fields[4])] = end - begin
    return sum(found.values())


def whole(source: Path, cache: Path, limit: int, **settings: Any) -> StreamingDataset:
    return StreamingDataset(remote=str(source), local=str(cache), batch_size=4, cache_limit=limit, **settings)


ORDERS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "blocks": {"shuffle": True, "shuffle_algo": "py1br", "shuffle_block_size": 100},
    "windows": {"shuffle": True, "shuffle_block_size": 100},
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_removed_shards_are_closed(order: dict[str, Any], source: Path, tmp_path: Path) -> None:
    limit = 8 * largest(source)
    dataset = whole(source, tmp_path / "cache", limit, **order)
    for epoch in range(2):
        found = []
        for read, sample in enumerate(dataset):
            found.append(sample["id"])
            if read % 50 == 0:
                assert copies(tmp_path / "cache") <= limit
                assert held(tmp_path / "cache") <= limit // 4 + largest(source)
        assert sorted(found) == list(range(800)), epoch
        assert held(tmp_path / "cache") == 0


def test_removed_shards_are_closed_in_map_style(source: Path, tmp_path: Path) -> None:
    limit = 5 * largest(source)
    dataset = whole(source, tmp_path / "cache", limit)
    for step in (1, 7):
        assert [dataset[i]["id"] for i in range(0, 800, step)] == list(range(0, 800, step))
        assert copies(tmp_path / "cache") <= limit
        assert held(tmp_path / "cache") <= limit // 4
    ids = [sample["id"] for sample in dataset.__getitems__(list(range(799, -1, -1)))]
    assert ids == list(range(799, -1, -1))
    assert held(tmp_path / "cache") <= limit // 4


def ids_of(samples: list[dict[str, Any]]) -> list[int]:
    return [sample["id"] for sample in samples]


def test_workers_of_a_dataloader_share_the_limit(source: Path, tmp_path: Path) -> None:
    limit = 12 * largest(source)
    dataset = whole(source, tmp_path / "cache", limit, **ORDERS["windows"])
    for data in (dataset, Subset(dataset, range(800))):
        found = [i for batch in DataLoader(data, batch_size=4, num_workers=2, collate_fn=ids_of) for i in batch]
        assert sorted(found) == list(range(800))
        assert copies(tmp_path / "cache") <= limit


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shuffle": True}, r"at a time, .* shuffle_block_size=3[34]\d\)"),
        ({"shuffle": True, "shuffle_algo": "naive"}, r"at a time, .* .raise the limit\)"),
        ({"shuffle": True, "shuffle_block_size": 600}, r"shuffle_block_size=3[34]\d\)"),
        ({"shuffle": True, "shuffle_block_size": 100}, None),
        ({"shuffle": True, "shuffle_algo": "py1s", "num_canonical_nodes": 2}, None),
        ({"shuffle": True, "shuffle_algo": "py1s", "num_canonical_nodes": 10}, r"at a time, .* .raise the limit\)"),
        ({"shuffle": False}, None),
    ],
)
def test_a_limit_below_what_a_shuffle_draws_from_is_logged(
    settings: dict[str, Any], words: str | None, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole(source, tmp_path / "cache", 8 * largest(source), **settings)
    assert bool(words) == bool(caplog.messages)
    assert re.search(words or "", "".join(caplog.messages))


@pytest.mark.parametrize("block", [100, 600])
def test_shards_are_fetched_several_times_exactly_if_that_was_logged(
    block: int, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = whole(source, tmp_path / "cache", 8 * largest(source), shuffle=True, shuffle_block_size=block)
    assert len(list(islice(dataset, 200))) == 200
    provider = dataset._samples.streams[0].shards.provider_of(0)  # type: ignore[union-attr]
    assert (provider.fetched.shards > dataset.num_shards) == bool(caplog.messages) == (block == 600)


AT_EXIT = """
import sys

from mx8shards.streaming import StreamingDataset

dataset = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], batch_size=4, cache_limit=100_000)
assert sum(1 for _ in dataset) == 800
"""


def test_a_program_that_ends_with_an_open_dataset_prints_nothing(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_EXIT, str(source), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_order_with_few_shards_at_a_time_fetches_each_once_an_epoch(source: Path, tmp_path: Path) -> None:
    dataset = whole(source, tmp_path / "cache", 6 * largest(source))
    provider = dataset._samples.streams[0].shards.provider_of(0)  # type: ignore[union-attr]
    counts = []
    for _ in range(3):
        before = provider.fetched.shards
        assert len(list(dataset)) == 800
        counts.append(provider.fetched.shards - before)
    assert counts[0] == dataset.num_shards
    assert max(counts[1:]) <= dataset.num_shards - 3  # of the six that are here, those needed first stayed


def test_workers_with_little_room_fetch_few_shards_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, fetch = tmp_path / "fetched", fetching.fetch

    def logged(*arguments: Any, **settings: Any) -> Path:
        with log.open("a") as file:
            file.write("1")
        return fetch(*arguments, **settings)

    monkeypatch.setattr(fetching, "fetch", logged)
    dataset = whole(source, tmp_path / "cache", 6 * largest(source), shuffle=True, shuffle_block_size=200)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=ids_of, multiprocessing_context="fork")
    assert sorted(i for batch in loader for i in batch) == list(range(800))
    # A window of the shuffle is as large as the limit. About 22 are fetched, as without workers.
    assert dataset.num_shards <= len(log.read_text()) <= 2 * dataset.num_shards


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_more_workers_than_samples_in_the_cache_read_all(tmp_path: Path) -> None:
    shard = 1 << 14
    with MDSWriter(out=str(tmp_path / "ones"), columns={"x": "bytes"}, size_limit=shard) as writer:
        for i in range(60):
            writer.write({"x": bytes([i]) * 15_000})
    settings: dict[str, Any] = {"shuffle": True, "download_timeout": 3}
    dataset = whole(tmp_path / "ones", tmp_path / "cache", 7 * shard, **settings)
    loader = DataLoader(dataset, batch_size=2, num_workers=9, multiprocessing_context="fork", collate_fn=list)
    assert sorted(sample["x"][0] for batch in loader for sample in batch) == list(range(60))


@pytest.mark.filterwarnings("ignore:predownload")
def test_a_small_cache_needs_no_predownload(source: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"shuffle": True, "predownload": 0, "download_timeout": 3}
    dataset = whole(source, tmp_path / "cache", 5 * largest(source), **settings)
    assert sorted(sample["id"] for sample in dataset) == list(range(800))


def test_a_limit_has_room_for_four_shards(source: Path, large: Path, tmp_path: Path) -> None:
    shards = [path.stat().st_size for path in source.glob("*.mds")]
    with pytest.raises(ValueError, match="cache_limit: expected more than the indices take"):
        whole(source, tmp_path / "cache", 3 * max(shards))
    with pytest.raises(ValueError, match=r"cache_limit: expected at least \d+ bytes, four times") as raised:
        whole(large, tmp_path / "another", 3 * largest(large))
    found = re.search(r"least (\d+) bytes", str(raised.value))
    assert found
    assert len(list(whole(large, tmp_path / "another", int(found[1])))) == 800


def test_all_streams_share_the_limit(large: Path, tmp_path: Path) -> None:
    caches = [tmp_path / f"{i}" for i in range(8)]
    streams = [Stream(remote=str(large), local=str(cache)) for cache in caches]
    limit = 6 * largest(large)  # less than a shard for each stream
    dataset = StreamingDataset(streams=streams, batch_size=4, cache_limit=limit)
    for each in (dataset, pickle.loads(pickle.dumps(dataset))):
        for read, _ in enumerate(each):
            if read % 200 == 0:
                assert copies(*caches) <= limit
        assert read == 6399
        assert copies(*caches) <= limit


def test_a_loader_knows_that_streams_share_the_limit(source: Path, tmp_path: Path) -> None:
    streams = [Stream(remote=str(source), local=str(tmp_path / f"{i}")) for i in range(2)]
    limit = 12 * largest(source)
    dataset = StreamingDataset(streams=streams, batch_size=4, cache_limit=limit)
    with dataset.loader(output="numpy", threads=1) as loader:
        found = []
        for batch in loader:
            found += batch["id"].tolist()
            assert copies(tmp_path / "0", tmp_path / "1") <= limit
    assert sorted(found) == sorted([*range(800)] * 2)


def room_of(source: Path, cache: Path, limit_bytes: int) -> Room:
    dataset = StreamingDataset(remote=str(source), local=str(cache), batch_size=4)
    (snapshot,) = dataset._samples.streams[0].shards.snapshots  # type: ignore[union-attr]
    return Room(snapshot, Stamps(snapshot.root), limit=Limit(limit_bytes), keep_zip=False, deadline_s=60.0)


def test_a_file_larger_than_the_limit_is_an_error_at_once(source: Path, tmp_path: Path) -> None:
    room = room_of(source, tmp_path / "cache", 5000)
    with pytest.raises(SettingError, match=r"cache_limit: expected at least 6000 bytes, which shard\.x needs"):
        room.reserve({"shard.x": 6000}, "claim", ahead=False)


def test_the_wait_for_room_ends_when_nobody_wants_the_shard(source: Path, tmp_path: Path) -> None:
    room = room_of(source, tmp_path / "cache", largest(source))
    (tmp_path / "cache" / "shard.00000.mds").write_bytes((source / "shard.00000.mds").read_bytes())
    run = room.follow(np.array([0]), np.array([0]), np.array([9]))  # a batch in flight needs shard 0
    answers = iter([False, False, True])
    with pytest.raises(RemoteError, match="closed"):
        room.reserve({"shard.00001.mds": 1000}, "claim", ahead=False, ended=lambda: next(answers))
    assert run is not None
    run.close()


def test_next_uses_are_known_ahead_and_estimated_beyond() -> None:
    uses = Uses(first=np.array([0, 5, 90, 30, -1]), last=np.array([3, 60, 95, 70, -1]))
    coming = Coming(shards=np.array([3, 1, 3, 1]), positions=np.array([40, 41, 42, 43]), stop=50)
    begin = next_uses(uses, 40, coming)
    assert begin[1] == 41  # its next use
    assert begin[2] == 90  # its first use, which is known
    assert begin[3] == 41  # it is needed now, and may leave all the same
    assert next_uses(uses, 50, Coming(np.array([], int), np.array([], int), 50))[1] == 51  # nothing is needed at 50
    assert next_uses(uses, 46, Coming(np.array([3]), np.array([47]), 50))[1] == 50  # used before, and needed again
