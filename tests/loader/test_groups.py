"""Are grouped batches, which share a bank, equal to single batches, even if a neighbour fails?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from tests.loader.leak_checks import ids_of, shards, time_limit

SAMPLES, BATCH = 400, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Columns of fixed and variable size, with some empty payloads."""
    root = tmp_path_factory.mktemp("groups") / "data"
    columns = {"number": "int", "vector": "ndarray:float32:3", "text": "str", "tokens": "ndarray:uint16"}
    with mx8.Writer(root, columns=columns, size_limit=6_000, threads=1) as writer:
        for i in range(SAMPLES):
            tokens = np.arange(i % 7 + 1, dtype=np.uint16) + i
            writer.write({"number": i, "vector": np.full(3, i, np.float32), "text": "x" * (i % 5), "tokens": tokens})
    return root


def loader_of(root: Path, grouped: bool, **options: Any) -> mx8.Loader:
    loader = mx8.Loader(mx8.Dataset(root), **{"batch_size": BATCH, "shuffle": True, "output": "numpy", **options})
    if not grouped:
        loader._assembly = replace(loader._assembly, plan=replace(loader._assembly.plan, group_bytes=0))
    return loader


def contents(batch: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"ids": ids_of(batch), "padding": batch.padding.tolist()}
    for key, value in batch.items():
        ragged = isinstance(value, np.ndarray) is False
        found[key] = [np.asarray(row).tolist() for row in value] if ragged else value.tolist()
        if ragged:
            found[f"{key}: offsets"] = value.offsets.tolist()
            found[f"{key}: values"] = value.values.tolist()
    return found


@pytest.mark.parametrize("uneven", ["split", "pad", "drop", "exact"])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (2, 3)])
def test_batches_that_share_a_bank_equal_single_batches(data: Path, uneven: str, rank: int, world_size: int) -> None:
    options = {"uneven": uneven, "rank": rank, "world_size": world_size}
    with time_limit(), loader_of(data, True, **options) as grouped, loader_of(data, False, **options) as alone:
        assert max(len(group.steps) for group in groups_of(grouped)) > 4
        assert [len(group.steps) for group in groups_of(alone)] == [1] * len(alone)
        for _ in range(2):
            assert [contents(batch) for batch in grouped] == [contents(batch) for batch in alone]


def groups_of(loader: mx8.Loader) -> Iterator[Any]:
    class Here:
        def at(self, begin: int, end: int) -> None:
            pass

        fetch = None

        def are_here(self, _: Any) -> bool:
            return True

        def need(self, _: Any) -> dict[int, Exception]:
            return {}

    return loader._assembly.plan.batches(0, 0, Here())


def test_a_held_batch_keeps_its_values_after_its_neighbours_are_freed(data: Path) -> None:
    with time_limit(), loader_of(data, True, memory="16mb") as loader:
        held = [(batch, contents(batch)) for k, batch in enumerate(loader) if k % 9 == 4]
        for _ in range(3):
            for _ in loader:
                pass
        assert all(contents(batch) == before for batch, before in held)


def damaged(data: Path, root: Path, bad: list[int]) -> Path:
    """A copy of the dataset in which these samples have inconsistent size headers."""
    shutil.copytree(data, root)
    with mx8.Dataset(root) as dataset:
        starts = dataset.shards.starts.tolist()
    for path, start, stop in zip(shards(root), starts[:-1], starts[1:], strict=True):
        raw = bytearray(path.read_bytes())
        for sample_id in set(bad).intersection(range(start, stop)):
            row = sample_id - start
            raw[int.from_bytes(raw[4 + 4 * row : 8 + 4 * row], "little")] ^= 0x5A
        path.write_bytes(raw)
    return root


@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
def test_bad_samples_do_not_affect_other_batches_of_their_group(data: Path, on_error: str, tmp_path: Path) -> None:
    bad = [7, 8, 200, 201, 202, 399]
    root = damaged(data, tmp_path / "damaged", bad)
    options = {"on_error": on_error}
    with time_limit(), loader_of(root, True, **options) as grouped, loader_of(root, False, **options) as alone:
        if on_error != "raise":
            assert [contents(batch) for batch in grouped] == [contents(batch) for batch in alone]
            assert grouped.state_dict() == alone.state_dict()
            assert grouped.stats()["lost_last"] == alone.stats()["lost_last"]
            return
        found: list[list[Any]] = []
        for loader in (grouped, alone):
            found.append([])
            with pytest.raises(mx8.LoaderError) as caught:
                found[-1].extend(contents(batch) for batch in loader)
            found[-1].append((str(caught.value), loader.state_dict()))
        assert found[0] == found[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_loaders_that_share_a_pool_can_iterate_in_a_forked_child(data: Path) -> None:
    """In the child each loader rejoins the pool at its first use, also while the other one iterates."""
    pool = mx8.Pool(memory="16mb", threads=1)
    one, other = (mx8.Loader(mx8.Dataset(data), batch_size=BATCH, pool=pool, output="numpy") for _ in range(2))
    next(iter(one))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            batches = iter(one)
            next(batches)
            code = 0 if len(list(other)) == len(other) and len(list(batches)) == len(one) - 1 else 2
        finally:
            os._exit(code)
    with time_limit():
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    for loader in (one, other):
        loader.close()
    pool.close()
