"""The processes of distributed training and DataLoader tests.

`python -m tests.loader.ranks SCENARIO DATA OUT …` writes its results to OUT, as JSON. Without arguments, the scenarios
are lines of the standard input, each runs in a fork, and its exit status is printed. Scenarios and ranks are forks of
one process that has imported torch, because the import takes longer than everything else.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import mx8shards as mx8
from tests.forked import forked
from tests.loader.leak_checks import ids_of

AT = 3  # the step after which a state is taken


def train(data: str) -> dict[str, Any]:
    """Train two epochs with a collective operation in each step, then resume from the state of another rank."""
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = mx8.Loader(mx8.Dataset(data), batch_size=8, shuffle=True, threads=1, memory="64mb")
    epochs: list[list[list[int]]] = [[], []]
    state: dict[str, Any] = {}
    for batches in epochs:
        for batch in loader:
            optimizer.zero_grad()
            model(batch["number"].float()[:, None] / 100).square().mean().backward()
            optimizer.step()
            batches.append(ids_of(batch))
            if not state and len(batches) == AT:
                state = loader.state_dict()
    loader.close()
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    with mx8.Loader(mx8.Dataset(data), batch_size=8, shuffle=True, threads=1, memory="64mb") as loader:
        loader.load_state_dict(states[(loader.rank + 1) % loader.world_size])
        rest = [ids_of(batch) for batch in loader]
    found = {"rank": loader.rank, "world_size": loader.world_size, "epochs": epochs, "rest": rest, "states": states}
    return {**found, "length": len(loader), "weight": model.module.weight.item()}


def rank_of(data: str, out: str, rank: int, world_size: int) -> None:
    """One rank under gloo."""
    store = f"file://{out}/store-{world_size}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    found = train(data)
    dist.destroy_process_group()
    Path(out, f"{world_size}-{rank}.json").write_text(json.dumps(found))


def ranks(data: str, out: str, *world_sizes: str) -> None:
    """Train with each of these world sizes in turn."""
    import torch._dynamo  # once here: an optimizer would import it in every rank, which takes over a second

    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=8) as loader:
        list(loader)  # loads the kernels
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    for world_size in map(int, world_sizes):
        children = [forked(partial(rank_of, data, out, rank, world_size)) for rank in range(world_size)]
        failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
        assert not failed


def under_torchrun(data: str, out: str) -> None:
    """One rank under torchrun: first with only the environment variables, then with a process group."""
    with mx8.Loader(mx8.Dataset(data), batch_size=8, output="numpy", memory="64mb") as loader:
        assert (loader.rank, loader.world_size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    dist.init_process_group("gloo")
    found = train(data)
    dist.destroy_process_group()
    Path(out, f"{found['world_size']}-{found['rank']}.json").write_text(json.dumps(found))


def numbers(batches: Any, most: int | None = None) -> list[list[int]]:
    """The numbers in the batches of one iteration, or in the first `most` batches."""
    return [batch["number"].tolist() for batch in itertools.islice(batches, most)]


def workers(data: str, out: str, context: str, *counts: str) -> None:
    """A plain DataLoader with these numbers of workers, persistent or not, with and without set_epoch."""
    found: dict[str, Any] = {}
    settings: Any = {"batch_size": 8, "shuffle": True, "memory": "3mb", "threads": 1}
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, **settings) as loader:
        list(itertools.islice(loader, AT))
        state = loader.state_dict()
    for count, persistent in itertools.product(map(int, counts), (False, True)):
        if persistent and not count:
            continue
        options: Any = {"num_workers": count, "persistent_workers": persistent}
        options |= {"multiprocessing_context": context} if count else {}
        with mx8.Dataset(data) as dataset, mx8.Loader(dataset, **settings) as loader:
            batches = loader.as_iterable_dataset()
            plain: Any = DataLoader(batches, **options)
            epochs = [numbers(plain), [batch["number"].tolist() for batch in list(plain)], numbers(plain, 1)]
            told = []
            for epoch in (1, 2, 0):
                batches.set_epoch(epoch)
                torch.manual_seed(7)  # also works if each epoch starts with an equal torch seed
                told.append(numbers(plain))
            torch.manual_seed(7)
            told.append(numbers(plain))
            batches.load_state_dict(state)
            loaded = [numbers(plain), numbers(plain)]
            loader.load_state_dict(state)
            batches = loader.as_iterable_dataset()
            batches.set_epoch(0)  # as Accelerate does before every epoch
            other: Any = DataLoader(batches, **options)
            resumed = [numbers(other), numbers(other)]
            name = f"{count} {persistent}"
            found[name] = {"epochs": epochs, "set": told, "loaded": loaded, "resumed": resumed, "length": len(plain)}
            del plain, other
    Path(out, f"{context}.json").write_text(json.dumps(found))


def spawned(data: str, out: str) -> None:
    """Spawned workers: two in one epoch, one in the next. Few, because a start takes seconds."""
    settings: Any = {"batch_size": 8, "shuffle": True, "memory": "3mb", "threads": 1}
    with mx8.Dataset(data) as dataset, mx8.Loader(dataset, **settings) as loader:
        batches = loader.as_iterable_dataset()
        plain: list[Any] = [DataLoader(batches, num_workers=n, multiprocessing_context="spawn") for n in (2, 1)]
        found = [numbers(each) for each in plain]
    Path(out, "spawned.json").write_text(json.dumps(found))


def stateful(data: str, out: str) -> None:
    """torchdata's StatefulDataLoader resumes where another one stopped, and continues with the next epochs."""
    from torchdata.stateful_dataloader import StatefulDataLoader  # type: ignore[import-not-found]

    found: dict[str, Any] = {}
    for count, at, persistent in [
        (0, 0, False),
        (0, 5, False),
        (2, 0, False),
        (2, 1, False),
        (2, 5, False),
        (2, 5, True),
    ]:
        with mx8.Dataset(data) as dataset, mx8.Loader(dataset, batch_size=8, shuffle=True, memory="8mb") as loader:

            def made(loader: Any = loader, count: int = count, persistent: bool = persistent) -> Any:
                return StatefulDataLoader(
                    loader.as_iterable_dataset(), num_workers=count, persistent_workers=persistent
                )

            first = made()
            batches = iter(first)
            before = numbers(batches, at)
            state = first.state_dict()
            rest = numbers(batches)
            second = made()
            second.load_state_dict(state)
            again, following = numbers(second), numbers(second)
            third = made()
            third.load_state_dict(second.state_dict())  # at the end of an epoch
            found[f"{count} {at} {persistent}"] = [before, rest, again, following, numbers(third)]
            del batches, first, second, third
    Path(out, "stateful.json").write_text(json.dumps(found))


SCENES: dict[str, Callable[..., None]] = {f.__name__: f for f in (ranks, under_torchrun, workers, spawned, stateful)}


def run(scenario: str, *arguments: str) -> None:
    SCENES[scenario](*arguments)


def run_in_forks() -> None:
    """Run the scenarios of the standard input, each a list in JSON."""
    for line in sys.stdin:
        pid = forked(partial(run, *json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        run(*sys.argv[1:])
    else:
        run_in_forks()
