"""What is delivered, and written down, in the place of samples that cannot be?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.randomness import integers
from tests.loader.faults import Weigh
from tests.loader.parts import digests, ids_of, nothing_left, shards, write

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
    """All that is tried in its place, up to the first that is good."""
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
def test_every_rank_gets_all_its_batches_of_what_is_good(data: Path, on_error: str, world_size: int) -> None:
    with nothing_left(data):
        dataset = mx8.Dataset(data)
        for rank in range(world_size):
            with loader_of(dataset, on_error, rank=rank, world_size=world_size) as loader:
                for epoch in range(2):
                    planned = [loader.ids(epoch=epoch, step=k).tolist() for k in range(len(loader))]
                    assert delivered(loader) == [expected(ids, epoch, on_error) for ids in planned]
        dataset.close()
        del loader, dataset


def test_a_batch_in_which_nothing_is_good_is_empty_and_counts(data: Path) -> None:
    with nothing_left(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, "skip", shuffle=False) as loader:
            sizes = [len(ids) for ids in delivered(loader)]
            assert sizes == [7, 10, 0, 0, 10, 10, 10, 9, *[10] * 11, 9]
            assert loader.stats()["batches"] == len(loader)
            assert loader.stats()["samples"] == SAMPLES - len(BAD)
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_what_was_lost_is_counted_hashed_and_named(data: Path, on_error: str) -> None:
    with nothing_left(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, on_error) as loader:
            delivered(loader)
            lost, last = loader.state_dict()["lost"], loader.stats()["lost_last"]
            planned = [loader.ids(epoch=0, step=k).tolist() for k in range(len(loader))]
        entries = []
        for step, ids in enumerate(planned):
            tried = {row: [i] for row, i in enumerate(ids) if i in BAD}
            rounds = max((len(substitute(chain[0], 0)) for chain in tried.values()), default=0)
            for attempt in range(1 if on_error == "skip" and tried else rounds):
                for chain in tried.values():
                    if on_error == "skip":
                        entries.append((0, step * BATCH, chain[0], None))
                    elif attempt < len(found := substitute(chain[0], 0)):
                        entries.append((0, step * BATCH, [chain[0], *found][attempt], found[attempt]))
        assert [(entry.epoch, entry.position, entry.sample_id, entry.substitute) for entry in last] == entries
        assert all("sample" in entry.reason for entry in last)
        digest = ""
        for entry in entries:
            digest = hashlib.sha256(json.dumps([digest, *entry]).encode()).hexdigest()
        assert lost == {"count": len(entries), "digest": digest}
        dataset.close()
        del loader, dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_threads_memory_and_interruptions_change_nothing(data: Path, on_error: str) -> None:
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

    with nothing_left(data):
        first = run()
        assert run(threads=1) == first
        assert run(threads=5, io="pread") == first
        assert run(threads=2, memory="300kb", shuffle=True) == first  # nearly every substitute needs a restart
        for cut in (1, 7, 19):
            assert run(cut=cut) == first
            assert run(cut=cut, memory="300kb") == first


def test_substitutes_that_are_bad_themselves_end_in_an_error_that_names_the_first(data: Path) -> None:
    bad = frozenset(range(40, SAMPLES))  # whatever is drawn, it is most likely bad again
    hopeless = next(i for i in sorted(bad) if bad.issuperset(integers(SEED, 0, np.array([i]), "substitute", 8, 200)[0]))
    with nothing_left(data):
        dataset = mx8.Dataset(data)
        loader = loader_of(dataset, "substitute", shuffle=False, decode={"blob": Weigh(bad=bad | BAD)})
        with loader, pytest.raises(mx8.LoaderError, match="substitutes") as caught:
            delivered(loader)
        assert "no better" in str(caught.value)
        assert hopeless in bad
        del caught, loader
        dataset.close()
        del dataset


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_what_a_decoder_refuses_is_replaced_like_what_cannot_be_read(data: Path, on_error: str) -> None:
    with nothing_left(data):
        dataset = mx8.Dataset(data)
        with loader_of(dataset, on_error, decode={"blob": Weigh(bad=frozenset([8, 9, 10]))}, shuffle=False) as loader:
            batches = list(loader)
            for batch in batches:
                assert batch["weight"].tolist() == digests(ids_of(batch))
            found = [i for batch in batches for i in ids_of(batch)]
            assert not BAD.union([8, 9, 10]).intersection(found)
            assert len(batches) == len(loader)
            del batch, batches
        dataset.close()
        del loader, dataset


def test_the_last_thousand_are_kept(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 1500)
    with nothing_left(root):
        dataset = mx8.Dataset(root)
        bad = frozenset(range(1200))
        with loader_of(dataset, "skip", shuffle=False, decode={"blob": Weigh(bad=bad)}, batch_size=100) as loader:
            assert [len(ids) for ids in delivered(loader)] == [0] * 12 + [100] * 3
            assert loader.state_dict()["lost"]["count"] == 1200
            assert [entry.sample_id for entry in loader.stats()["lost_last"]] == list(range(200, 1200))
        dataset.close()
        del loader, dataset
