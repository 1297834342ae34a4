"""Ranks under gloo that train from one mirror, in step with each other.

`python -m tests.remote.ranks URL OUT NAME:DEADLINE_S …` trains once for each name, when there is a file `go` in
OUT/NAME, and writes the results of each rank there, as JSON. A file `begun` says that the first step is done. If the
store fails the ranks, they wait for a file `healed` and resume.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import mx8shards as mx8
from tests.forked import forked

WORLD = 4
BATCH = 4
PATIENCE_S = 300.0


def loader_of(url: str, out: Path, deadline_s: float) -> mx8.Loader:
    cache, rank = out / "cache", dist.get_rank()
    if out.name == "nodes":  # each rank has its own mirror, and only the first one gives up soon
        cache, deadline_s = out / f"cache{rank}", deadline_s if rank == 0 else PATIENCE_S
    dataset = mx8.Dataset(url, local=cache, deadline_s=deadline_s)
    order = mx8.BlockShuffle(shards=2)
    return mx8.Loader(dataset, batch_size=BATCH, shuffle=order, threads=1, memory="16mb", on_error="skip")


def in_step(loader: mx8.Loader, out: Path, seen: list[list[int]]) -> tuple[Any, dict[str, Any]]:
    """Steps until the end of the epoch, or until a rank has an error: that error, and the state before that step."""
    batches = iter(loader)
    state = loader.state_dict()
    while True:
        batch, error = None, None
        try:
            batch = next(batches, None)
        except mx8.ShardsError as caught:
            error = caught
        good = torch.tensor([error is None])
        dist.all_reduce(good, dist.ReduceOp.MIN)
        if not good:
            while error is None:  # another rank's; what this one has ahead ends soon
                try:
                    assert next(batches, None) is not None, "the epoch ended in spite of the outage"
                except mx8.ShardsError as caught:
                    error = caught
            return error, state
        if batch is None:
            return None, state
        seen.append(batch["x"].tolist())
        state = loader.state_dict()
        if dist.get_rank() == 0:
            (out / "begun").touch()


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def rank_of(url: str, out: Path, deadline_s: float) -> dict[str, Any]:
    """An epoch of one rank, in two parts if the store fails."""
    wait_for(out / "go")
    seen: list[list[int]] = []
    found: dict[str, Any] = {"error": None, "reason": None}
    with loader_of(url, out, deadline_s) as loader:
        began = time.monotonic()
        error, state = in_step(loader, out, seen)
        if error is not None:
            found |= {"error": type(error).__name__, "cause": type(error.__cause__).__name__, "message": str(error)}
            found |= {"reason": getattr(error.__cause__, "reason", None), "after_s": time.monotonic() - began}
    if error is not None:
        wait_for(out / "healed")
        with loader_of(url, out, deadline_s) as loader:
            loader.load_state_dict(state)
            again, _ = in_step(loader, out, seen)
            found["error_again"] = None if again is None else repr(again)
    found["seen"] = seen
    return found


def act(url: str, out: Path, scenes: list[str], rank: int) -> None:
    """All scenes of one rank."""
    dist.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=WORLD)
    for scene in scenes:
        name, _, deadline_s = scene.partition(":")
        found = rank_of(url, out / name, float(deadline_s))
        (out / name / f"{rank}.json").write_text(json.dumps(found))
        dist.barrier()
        (out / name / "done").touch()
    dist.destroy_process_group()


def main(url: str, out: Path, scenes: list[str]) -> int:
    """Fork the ranks, because importing torch takes longer than all they do; the number that failed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    children = [forked(partial(act, url, out, scenes, rank)) for rank in range(WORLD)]
    return sum(os.waitpid(pid, 0)[1] != 0 for pid in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
