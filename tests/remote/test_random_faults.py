"""Does training go on, in the exact order and without wrong or lost samples, while a server fails at random?"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.remote.fault_server import FaultServer, Kind, Place
from tests.remote.jobs import blob, write

pytest.importorskip("obstore")

SHARDS, SIZE, EPOCHS = 16, 20_000, 3
TRANSIENT: tuple[Kind, ...] = (500, 503, "reset", "hang", "cut", "drip")
ERRORS: tuple[Kind, ...] = (403, 404, "stale", "long")  # after an error, training goes on from its state


@contextmanager
def failing(server: FaultServer, kinds: tuple[Kind, ...], draws: random.Random) -> Iterator[None]:
    """One request in two to six has a fault of one of these kinds while the block runs."""
    ended = threading.Event()

    def fail() -> None:
        while not ended.is_set():
            place: Place = draws.choice(("first", "middle", "last"))
            settings = {"key": ".*mds", "skip": draws.randrange(1, 6), "place": place}
            fault = server.fail(draws.choice(kinds), "read", "head", **settings)
            while fault.met <= fault.skip and not ended.wait(0.01):
                pass

    thread = threading.Thread(target=fail)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        server.heal()


def train(url: Any, seed: int, state: Any, **remote: Any) -> tuple[list[int], Any, mx8.LoaderError | None]:
    """The samples of all epochs from a state on; that of the last batch, and the error that ended it."""
    order = {"shuffle": mx8.BlockShuffle(shards=3), "seed": seed, "on_error": "skip"}
    found: list[int] = []
    with (
        mx8.Dataset(url, **remote) as dataset,
        mx8.Loader(dataset, batch_size=8, output="numpy", threads=2, memory="32mb", **order) as loader,
    ):
        if state is not None:
            loader.load_state_dict(state)
        state = loader.state_dict()
        try:
            while state["epoch"] < EPOCHS:
                for batch in loader:
                    for number, data in zip(batch["x"].tolist(), batch["blob"], strict=True):
                        assert data == blob(number, len(data)), f"sample {number} is wrong"
                        found.append(number)
                    state = loader.state_dict()
                state = loader.state_dict()
        except mx8.LoaderError as error:
            return found, state, error
        assert loader.stats()["lost"] == 0
    return found, state, None


@pytest.mark.hunt
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kinds", [TRANSIENT, (*TRANSIENT, *ERRORS)], ids=["transient", "errors"])
def test_epochs_have_all_samples_in_order_while_the_server_fails_at_random(
    kinds: tuple[Kind, ...], seed: int, fault_server: FaultServer, tmp_path: Path
) -> None:
    draws = random.Random(seed)
    write(tmp_path / "data", 25 * SHARDS, SIZE)
    mx8.sync(tmp_path / "data", fault_server.url("set"))
    right, _, _ = train(tmp_path / "data", seed, None)
    limit = draws.choice((None, int(0.6 * 25 * SHARDS * SIZE)))
    remote = {"local": tmp_path / "cache", "cache_limit": limit, "deadline_s": 20.0}
    found: list[int] = []
    state = None
    with failing(fault_server, kinds, draws):
        while True:
            more, state, error = train(fault_server.url("set"), seed, state, **remote)
            found += more
            if error is None:
                break
            assert isinstance(error.__cause__, mx8.RemoteError), repr(error.__cause__)
            assert kinds is not TRANSIENT, repr(error)
    assert found == right
