"""The process that loader tests interrupt, kill, fork or let end.

`python -m tests.loader.child` reads scenarios from its standard input, one JSON line each, and runs each in a separate
fork: forking is a hundred times faster than starting Python with NumPy and Numba.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mx8shards as mx8
from tests.loader.leak_checks import ids_of, write

held: list[Any] = []  # kept until the process ends


def say(*words: object) -> None:
    """Report one line to the parent process."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def loader_of(data: str, **options: Any) -> mx8.Loader:
    return mx8.Loader(mx8.Dataset(data), **{"batch_size": 8, "threads": 2, "output": "numpy"} | options)


def slowly(batch: Any) -> Any:
    """A slow transform, which reports its start."""
    say("transform")
    time.sleep(1.0)
    return batch


def interrupted(data: str, where: str) -> None:
    """Iterate until Ctrl-C."""
    loader = loader_of(data, transform=None if where == "body" else slowly)
    try:
        if where == "warm_up":
            loader.warm_up()
        elif where == "body":
            for _ in loader:
                say("transform")
                time.sleep(30)
        else:
            list(loader)
    except KeyboardInterrupt:
        say("interrupted")
    say("further", sum(len(ids_of(batch)) for batch, _ in zip(loader_of(data), range(3), strict=False)))


def switch_gil(batch: Any) -> Any:
    """A transform that releases and acquires the GIL in torch's C++ code most of the time."""
    import torch

    rows = np.zeros(4)
    for _ in range(1000):
        torch.from_numpy(rows).clone()
    return batch


def left_open(data: str, how: str) -> None:
    """Exit the interpreter while threads work and batches are held."""
    transforms: dict[str, Any] = {"transform": lambda batch: (time.sleep(0.05), batch)[1], "torch": switch_gil}
    loader = loader_of(data, transform=transforms.get(how))
    batches = iter(loader)
    held.extend([loader, batches])
    if how == "begun":
        return
    held.extend([next(batches), next(batches)])
    if how == "exit":
        sys.exit(7)
    if how == "error":
        raise RuntimeError("on command")


def forked(data: str, times: int) -> None:
    """Fork while loading; the children load too."""
    loader = loader_of(data, transform=lambda batch: batch, shuffle=True)
    expected = [loader.ids(epoch=0, step=k).tolist() for k in range(len(loader))]
    anew = [loader.ids(epoch=1, step=k).tolist() for k in range(len(loader))]
    found = []
    batches = iter(loader)
    for batch in batches:
        found.append(ids_of(batch))
        if len(found) % (len(expected) // times) == 1:
            pid = os.fork()
            if not pid:
                signal.alarm(20)
                status = 1
                with contextlib.suppress(Exception):
                    try:
                        next(batches)
                    except mx8.LoaderError:
                        status = 2
                    if status == 2 and ids_of(batch) == found[-1] and [ids_of(other) for other in loader] == anew:
                        status = 0
                os._exit(status)
            say("forked", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    say("whole", found == expected)


def clip_ids_of(batch: Any) -> list[int]:
    """Numbers of clips: of the label of the video and the first frame."""
    rows = zip(batch["label"], batch["video.frames"], strict=True)
    return [1000 * int(label) + int(frames[0]) for label, frames in rows]


def trained(
    data: str, state: str, log: str, world_size: int, batch_size: int, epochs: int, seed: int, clips: bool = False
) -> None:
    """Train all ranks in one process. After each step, log the samples, or clips, and write the state atomically."""
    view = mx8.Dataset(data)
    decode = {}
    if clips:
        view, decode = view.clips("video", frames=2, stride=2, every=5), {"video": mx8.Clip(16)}
    found = clip_ids_of if clips else ids_of
    pool = mx8.Pool(memory="64mb", threads=2)
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": True, "decode": decode, "output": "numpy"}
    loaders = [mx8.Loader(view, rank=rank, world_size=world_size, pool=pool, **options) for rank in range(world_size)]
    if os.path.exists(state):
        for loader in loaders:
            loader.load_state_dict(json.loads(Path(state).read_text()))
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write_down(**what: Any) -> None:
        os.write(output, (json.dumps(what) + "\n").encode())

    at = loaders[0].state_dict()
    write_down(run=True, epoch=at["epoch"], position=at["position"])
    while at["epoch"] < epochs:
        for batches in zip(*loaders, strict=True):
            write_down(epoch=at["epoch"], position=at["position"], ids=[i for each in batches for i in found(each)])
            at = loaders[seed % world_size].state_dict()
            Path(state + ".new").write_text(json.dumps(at))
            os.replace(state + ".new", state)
            say("step")
    say("done")


def forked_while_locked(data: str, how: str) -> None:
    """Fork while a thread holds the lock of the loader's memory, which no thread of the child will release."""
    loader = loader_of(data)
    batches = iter(loader)
    next(batches)
    lock = loader._pool.memory.lock
    with lock:
        pid = os.fork()
        if pid:
            say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if pid:
        say("rest", sum(len(ids_of(batch)) for batch in batches))
        return
    lock.acquire()  # leaving the block released the child's copy
    signal.alarm(20)
    if how == "del":
        del loader, batches
    elif how == "stats":
        assert loader.stats()["banks_in_use"] == 0
    elif how == "close":
        loader.close()
    elif how == "for":
        assert len(list(loader)) == len(loader)
    elif how == "pool":
        loader._pool._lock = threading.Lock()
        loader._pool._lock.acquire()
        loader._pool.close()


def few_files(data: str, io: str, most: int) -> None:
    """Load batches that need all shards at once, with a low limit of open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    loader = loader_of(data, io=io, batch_size=1_000, shuffle=True)
    for _ in range(2):
        say("batches", *(len(ids_of(batch)) for batch in loader))


def worked_for(data: str, count: int) -> None:
    """Iterate an iterable dataset in this process before a DataLoader forks its workers."""
    from torch.utils.data import DataLoader

    batches = loader_of(data, columns=["number"], output="torch").as_iterable_dataset()
    first = next(iter(batches)).sample_ids.tolist()
    batches.state_dict()
    loaded = list(DataLoader(batches, batch_size=None, num_workers=count, multiprocessing_context="fork"))
    numbers = sorted(i for batch in loaded for i in batch["number"].tolist())
    keys = sorted({key for batch in loaded for key in batch})
    say(json.dumps({"first": first, "numbers": numbers, "keys": keys}))


def decoded_for(data: str, count: int) -> None:
    """Decode pictures in forked workers of a DataLoader."""
    import zlib

    from torch.utils.data import DataLoader

    decode = {"image": mx8.RandomResizedCrop(32)}
    batches = loader_of(data, decode=decode, shuffle=True, output="torch").as_iterable_dataset()
    loaded = list(DataLoader(batches, batch_size=None, num_workers=count, multiprocessing_context="fork"))
    pairs = [pair for batch in loaded for pair in zip(batch["label"], batch["image"], strict=True)]
    rows = [(int(label), zlib.crc32(image.numpy())) for label, image in pairs]
    say(json.dumps(sorted(rows)))


SCENARIOS: dict[str, Callable[..., None]] = {
    scenario.__name__: scenario
    for scenario in (interrupted, left_open, forked, trained, forked_while_locked, few_files, worked_for, decoded_for)
}


def warm_up() -> None:
    """Import and compile everything that scenarios need."""
    with tempfile.TemporaryDirectory() as directory, mx8.Dataset(write(Path(directory) / "data", 40)) as dataset:
        for options in ({"io": "mmap"}, {"io": "pread"}, {"shuffle": True}):
            with mx8.Loader(dataset, batch_size=8, threads=1, output="numpy", **options) as loader:  # type: ignore[arg-type]
                list(loader)


def main() -> None:
    """Run the scenarios of the standard input, one after the other."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell inherit an ignored SIGINT
    warm_up()
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            SCENARIOS[request.pop("scenario")](**request)  # from here the interpreter exits normally
            return
        say("pid", pid)
        say("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
