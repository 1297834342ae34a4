"""`on_error`: which samples replace bad ones, and how are lost samples reported?"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.randomness import integers
from mx8shards.loading.reporting.lost_samples import reason_of
from mx8shards.shards.open_shard import Shards
from tests.loader.damage import BEFORE, break_sizes, cut_short, make_longer, put_another
from tests.loader.faults import ChecksumDecoder
from tests.loader.leak_checks import digests, ids_of, no_leaks, shards, write

SAMPLES, BATCH, SEED = 200, 10, 5
BAD = frozenset([3, 4, 5, *range(20, 40), 77, 199])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in which the size headers of some samples are broken."""
    root = write(tmp_path_factory.mktemp("policies") / "data", SAMPLES)
    with mx8.Dataset(root) as dataset:
        starts = dataset.shards.starts.tolist()
    for path, start, stop in zip(shards(root), starts[:-1], starts[1:], strict=True):
        raw = bytearray(path.read_bytes())
        for sample_id in BAD.intersection(range(start, stop)):
            row = sample_id - start
            raw[int.from_bytes(raw[4 + 4 * row : 8 + 4 * row], "little")] ^= 0x5A
        path.write_bytes(raw)
    return root


def loader_of(dataset: mx8.Dataset, on_error: str, **options: Any) -> mx8.Loader:
    settings = {"batch_size": BATCH, "shuffle": True, "seed": SEED, "threads": 2, "output": "numpy"}
    return mx8.Loader(dataset, on_error=on_error, **settings | options)  # type: ignore[arg-type]


def substitute(sample_id: int, epoch: int, bad: frozenset[int] = BAD) -> list[int]:
    """The substitutes tried for a sample, up to the first good one."""
    drawn = integers(SEED, epoch, np.array([sample_id]), "substitute", 8, SAMPLES)[0].tolist()
    return next(drawn[: i + 1] for i, found in enumerate(drawn) if found not in bad)


def expected(ids: list[int], epoch: int, on_error: str) -> list[int]:
    if on_error == "skip":
        return [i for i in ids if i not in BAD]
    return [substitute(i, epoch)[-1] if i in BAD else i for i in ids]


def delivered(loader: mx8.Loader) -> list[list[int]]:
    return [ids_of(batch) for batch in loader]


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_rank_gets_all_batches_of_its_good_samples(data: Path, on_error: str, world_size: int) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        for rank in range(world_size):
            with loader_of(dataset, on_error, rank=rank, world_size=world_size) as loader:
                for epoch in range(2):
                    planned = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                    assert delivered(loader) == [expected(ids, epoch, on_error) for ids in planned]
        dataset.close()
        del loader, dataset


def test_only_the_first_lost_sample_is_logged(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mx8.Dataset(data) as dataset, loader_of(dataset, "skip") as loader:
        with caplog.at_level(logging.WARNING, "mx8shards"):
            delivered(loader)
        first = loader.stats()["lost_last"][0]
    assert loader.stats()["lost"] > 1
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"sample {first['sample_id']} was lost" in told


def test_a_batch_of_only_bad_samples_is_empty_and_counts(data: Path) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, "skip", shuffle=False) as loader:
            sizes = [len(ids) for ids in delivered(loader)]
            assert sizes == [7, 10, 0, 0, 10, 10, 10, 9, *[10] * 11, 9]
            assert loader.stats()["batches"] == len(loader)
            assert loader.stats()["samples"] == SAMPLES - len(BAD)
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_lost_samples_are_counted_hashed_and_listed(data: Path, on_error: str) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, on_error) as loader:
            delivered(loader)
            lost, last = loader.state_dict()["lost"], loader.stats()["lost_last"]
            planned = [loader.ids(epoch=0, step=k).tolist() for k in range(len(loader))]
        entries = []
        for step, ids in enumerate(planned):
            for lost_id in (i for i in ids if i in BAD):  # once, also if substitutes were bad
                other = None if on_error == "skip" else substitute(lost_id, 0)[-1]
                entries.append((0, step * BATCH, lost_id, other))
        assert [
            (entry["epoch"], entry["position"], entry["sample_id"], entry["substitute"]) for entry in last
        ] == entries
        assert all("sample" in entry["reason"] for entry in last)
        digest = ""
        for entry in entries:
            digest = hashlib.sha256(json.dumps([digest, *entry]).encode()).hexdigest()
        assert lost == {"count": len(entries), "digest": digest}
        assert json.loads(json.dumps(last)) == last
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_the_result_does_not_depend_on_threads_memory_and_interruptions(data: Path, on_error: str) -> None:
    def run(*, cut: int | None = None, **options: Any) -> tuple[list[list[int]], Any]:
        with mx8.Dataset(data) as dataset, loader_of(dataset, on_error, **options) as loader:
            found = []
            if cut is not None:
                for batch in loader:
                    found.append(ids_of(batch))
                    if len(found) == cut:
                        break
                state = json.loads(json.dumps(loader.state_dict()))
                loader.close()
                loader = loader_of(dataset, on_error, **options)
                loader.load_state_dict(state)
            found += delivered(loader)
            result = found, loader.state_dict()
            loader.close()
            return result

    with no_leaks(data):
        first = run()
        assert run(threads=1) == first
        assert run(threads=5, io="pread") == first
        assert run(threads=2, memory="300kb", shuffle=True) == first  # nearly every substitute needs a restart
        for cut in (1, 7, 19):
            assert run(cut=cut) == first
            assert run(cut=cut, memory="300kb") == first


def test_if_all_substitutes_are_bad_the_error_names_the_first_bad_sample(data: Path) -> None:
    bad = frozenset(range(40, SAMPLES))  # most substitutes are bad too
    hopeless = next(i for i in sorted(bad) if bad.issuperset(integers(SEED, 0, np.array([i]), "substitute", 8, 200)[0]))
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        loader = loader_of(dataset, "substitute", shuffle=False, decode={"blob": ChecksumDecoder(bad=bad | BAD)})
        with loader, pytest.raises(mx8.LoaderError, match="substitutes") as caught:
            delivered(loader)
        assert "were bad, too" in str(caught.value)
        assert hopeless in bad
        del caught, loader
        dataset.close()
        del dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_undecodable_samples_are_replaced_like_unreadable_ones(data: Path, on_error: str) -> None:
    with no_leaks(data):
        dataset = mx8.Dataset(data)
        with loader_of(
            dataset, on_error, decode={"blob": ChecksumDecoder(bad=frozenset([8, 9, 10]))}, shuffle=False
        ) as loader:
            batches = list(loader)
            for batch in batches:
                assert batch["checksum"].tolist() == digests(ids_of(batch))
            found = [i for batch in batches for i in ids_of(batch)]
            assert not BAD.union([8, 9, 10]).intersection(found)
            assert len(batches) == len(loader)
            del batch, batches
        dataset.close()
        del loader, dataset


def test_the_last_thousand_lost_samples_are_listed(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 1500)
    with no_leaks(root):
        dataset = mx8.Dataset(root)
        bad = frozenset(range(1200))
        with loader_of(
            dataset, "skip", shuffle=False, decode={"blob": ChecksumDecoder(bad=bad)}, batch_size=100
        ) as loader:
            assert [len(ids) for ids in delivered(loader)] == [0] * 12 + [100] * 3
            assert loader.state_dict()["lost"]["count"] == 1200
            assert [entry["sample_id"] for entry in loader.stats()["lost_last"]] == list(range(200, 1200))
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_stats_of_any_lost_samples_are_json_with_short_reasons(tmp_path: Path, on_error: str) -> None:
    root = write(tmp_path / "data", 40)
    shards(root)[0].rename(root / ("long " * 45))
    with (
        mx8.Dataset(root) as dataset,
        loader_of(dataset, on_error, decode={"blob": ChecksumDecoder(bad=frozenset([30]))}) as loader,
    ):
        delivered(loader)
        found = loader.stats()
    assert found["lost"] > 0
    assert json.loads(json.dumps(found)) == found
    assert max(len(entry["reason"]) for entry in found["lost_last"]) <= 500
    assert reason_of(ValueError("x" * 1_000_000)).startswith("xxx")
    assert len(reason_of(ValueError("x" * 1_000_000))) == 500


# shards that cannot be opened -----------------------------------------------------------------------------------------


def whole_shard(root: Path, number: int) -> frozenset[int]:
    """The samples of one shard."""
    with mx8.Dataset(root) as dataset:
        start, stop = dataset.shards.starts[number : number + 2].tolist()
    return frozenset(range(start, stop))


def expected_ids(ids: list[int], epoch: int, on_error: str, bad: frozenset[int]) -> list[int]:
    if on_error == "skip":
        return [i for i in ids if i not in bad]
    return [substitute(i, epoch, bad)[-1] if i in bad else i for i in ids]


@pytest.mark.parametrize("damage", [damage for damage in BEFORE if damage is not break_sizes])
@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_a_shard_that_cannot_be_opened_loses_its_samples_but_no_batch(
    tmp_path: Path, on_error: str, damage: Callable[[Path], None]
) -> None:
    root = write(tmp_path / "data", SAMPLES)
    lost, path = whole_shard(root, 2), shards(root)[2]
    with no_leaks(root):
        dataset = mx8.Dataset(root)
        damage(path)
        with loader_of(dataset, on_error) as loader:
            for epoch in range(2):
                planned = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                assert delivered(loader) == [expected_ids(ids, epoch, on_error, lost) for ids in planned]
            entries = [entry for entry in loader.stats()["lost_last"] if entry["epoch"] == 1]
            assert {entry["sample_id"] for entry in entries} == lost
            assert all(entry["reason"].startswith(f"data/{path.name}: ") for entry in entries)
            assert loader.stats()["bytes_reserved"] == 0
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("io", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_each_epoch_tries_again_to_open_a_shard_that_failed(tmp_path: Path, on_error: str, io: str) -> None:
    root = write(tmp_path / "data", SAMPLES)
    lost, path = whole_shard(root, 2), shards(root)[2]
    intact = path.read_bytes()
    with no_leaks(root):
        dataset = mx8.Dataset(root)
        with loader_of(dataset, on_error, io=io) as loader:
            for epoch, damage in enumerate([None, cut_short, None, make_longer, None]):
                with path.open("r+b") as file:  # the same inode, which stays open
                    file.truncate(len(intact))
                    file.write(intact)
                if damage is not None:
                    damage(path)
                planned = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                bad = frozenset() if damage is None else lost
                assert delivered(loader) == [expected_ids(ids, epoch, on_error, bad) for ids in planned]
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("on_error", "memory"), [("skip", "64mb"), ("substitute", "300kb")])
def test_a_shard_that_failed_is_not_opened_again_in_that_epoch(
    tmp_path: Path, world_size: int, on_error: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "data", SAMPLES)
    gone = [shards(root)[i] for i in (1, 2, 5)]
    lost = frozenset.union(*(whole_shard(root, i) for i in (1, 2, 5)))
    for path in gone:
        path.unlink()
    asked: list[str] = []
    opened = Shards._open_checked

    def noted(self: Shards, parts: Any, entry: Any, path: Any) -> Any:
        asked.append(entry.stored.basename)
        return opened(self, parts, entry, path)

    monkeypatch.setattr(Shards, "_open_checked", noted)
    options = {"rank": 0, "world_size": world_size, "memory": memory}
    with mx8.Dataset(root) as dataset, loader_of(dataset, on_error, **options) as loader:
        for epoch in (1, 2):
            found = [i for ids in delivered(loader) for i in ids]
            assert not lost.intersection(found)
            counts = [asked.count(path.name) for path in gone]  # two threads may open it at once
            assert all(epoch <= count <= 2 * epoch for count in counts)


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_memory_is_bounded_and_results_are_the_same_with_a_shard_that_cannot_be_opened(
    tmp_path: Path, on_error: str
) -> None:
    root = write(tmp_path / "data", SAMPLES)
    shards(root)[3].unlink()
    shards(root)[6].unlink()

    def run(**options: Any) -> tuple[list[list[int]], Any]:
        with mx8.Dataset(root) as dataset, loader_of(dataset, on_error, **options) as loader:
            found = delivered(loader), loader.state_dict()
            assert loader.stats()["memory_high_water_bytes"] <= loader.stats()["memory_limit_bytes"]
            return found

    with no_leaks(root):
        first = run()
        assert run(threads=1, io="pread") == first
        assert run(memory="300kb") == first  # nearly every substitute needs a restart


@pytest.mark.parametrize("change", [put_another, os.unlink])
@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_a_shard_removed_before_it_is_reopened_is_lost_from_then_on(
    tmp_path: Path, on_error: str, change: Callable[[Path], None]
) -> None:
    root = write(tmp_path / "data", 5 * SAMPLES)
    with no_leaks(root):
        dataset = mx8.Dataset(root)
        dataset.shards._files.most = 1  # no descriptor of another shard stays open
        with loader_of(dataset, on_error, io="pread", threads=1, batch_size=4, memory="1mb") as loader:
            batches = iter(loader)
            found = ids_of(next(batches))
            for path in shards(root)[2:6]:
                change(path)
            steps = 1
            for batch in batches:
                found += ids_of(batch)
                steps += 1
            lost = [entry for entry in loader.stats()["lost_last"] if entry["substitute"] is None]
            assert steps == len(loader)
            assert loader.stats()["lost"] >= len(lost)
            assert loader.stats()["lost"] > 0
            assert len(found) == (5 * SAMPLES - len(lost))
        dataset.close()
        del loader, dataset, batch, batches


def test_running_out_of_file_descriptors_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "data", SAMPLES)

    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with mx8.Dataset(root) as dataset, loader_of(dataset, "skip") as loader:
        monkeypatch.setattr(Shards, "_open_checked", refuse)
        with pytest.raises(mx8.LoaderError, match="Too many open files"):
            delivered(loader)
        monkeypatch.undo()
        assert sum(map(len, delivered(loader))) == SAMPLES


# damaged headers of arrays --------------------------------------------------------------------------------------------

HEADERS = {
    "63 dimensions": lambda head: b"\xff" + head[1:],
    "a number too few": lambda head: head[:1] + (int.from_bytes(head[1:3], "little") - 1).to_bytes(2, "little"),
    "a number too many": lambda head: head[:1] + (int.from_bytes(head[1:3], "little") + 1).to_bytes(2, "little"),
    "a side of 0": lambda head: head[:1] + b"\0\0",
    "no dimensions": lambda head: bytes([head[0] & 3]) + head[1:],
}


@pytest.mark.parametrize("damage", HEADERS)
@pytest.mark.parametrize("encoding", ["ndarray", "ndarray:uint16"])
def test_a_row_with_a_damaged_array_header_is_a_bad_sample_and_affects_no_other(
    damage: str, encoding: str, tmp_path: Path
) -> None:
    with mx8.Writer(tmp_path / "data", columns={"tokens": encoding}) as writer:
        for i in range(40):
            writer.write({"tokens": np.arange(300 + i, dtype=np.uint16)})
    [path] = shards(tmp_path / "data")
    raw = bytearray(path.read_bytes())
    at = int.from_bytes(raw[4 + 4 * 7 : 8 + 4 * 7], "little") + 4 + (encoding == "ndarray")
    raw[at : at + 3] = HEADERS[damage](bytes(raw[at : at + 3]))
    path.write_bytes(raw)
    dataset = mx8.Dataset(tmp_path / "data")
    with loader_of(dataset, "skip", shuffle=False) as loader:
        first = next(iter(loader))
        assert first.sample_ids.tolist() == [i for i in range(10) if i != 7]
        assert first["tokens"].lengths.tolist() == [300 + i for i in range(10) if i != 7]
        assert first["tokens"].padded()[8, :309].tolist() == list(range(309))
        assert loader.stats()["lost_last"][0]["sample_id"] == 7
    with loader_of(dataset, "raise", shuffle=False) as loader, pytest.raises(mx8.LoaderError) as caught:
        next(iter(loader))
    assert (
        "shard.00000.mds: sample 7 of this shard, column 'tokens': expected a payload of"
        in f"{caught.value} {caught.value.__cause__}"
    )
