"""What is a loader's epoch worth? Batches are taken as a training loop would: one byte per page of each is touched."""

from __future__ import annotations

import importlib
import math
import os
import resource
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cgroup, family, page_cache
from benchmarks.process import MB, Measured, Numbers

PAGE = 4096


def open_loader(adapter: str, root: str, batch_size: int, options: Mapping[str, Any]) -> Any:
    """What an adapter opens: it is iterated once for every epoch, and closed at last."""
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    return module.open_loader(Path(root), batch_size, **options)


def begun(adapter: str, root: str, batch_size: int, options: Mapping[str, Any]) -> tuple[Any, Iterator[int], float]:
    """An open loader, its batches from the second on, and how long the first one took, opening included."""
    start = time.perf_counter()
    loader = open_loader(adapter, root, batch_size, options)
    taken = batches(loader)
    next(taken)
    return loader, taken, time.perf_counter() - start


def import_all(adapter: str) -> None:
    """What is imported takes memory, and is not what is asked for."""
    for module in ("torch", "numba", f"benchmarks.adapters.{adapter}"):
        importlib.import_module(module)


def touch(value: Any) -> int:
    """The sum of one byte per page of all that a batch holds."""
    if isinstance(value, bytes | bytearray | memoryview):
        return sum(bytes(value[::PAGE]))
    if isinstance(value, Mapping):
        return sum(map(touch, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(touch, value))
    if hasattr(value, "padded"):  # ours, ragged
        return touch(value.values) + touch(value.offsets)
    if hasattr(value, "sample_ids"):  # ours, a batch
        return sum(touch(value[key]) for key in value)
    if hasattr(value, "numpy"):
        return touch(value.numpy())
    if isinstance(value, np.ndarray):
        return int(value.reshape(-1).view(np.uint8)[::PAGE].sum())
    return int(value)


def batches(loader: Any, seconds: float = math.inf) -> Iterator[int]:
    """Batches of epoch after epoch, each touched: its number in its epoch. It ends within an epoch when time is up."""
    end = time.perf_counter() + seconds
    while True:
        for number, batch in enumerate(loader):
            touch(batch)
            yield number
            if time.perf_counter() > end:
                return


def warmed_rate(taken: Iterator[int], samples: int, batch_size: int, seconds: float) -> float:
    """Samples per second, after an epoch or so many seconds. A new epoch begins where one comes, and not for us."""
    return warmed(taken, samples, batch_size, seconds)[0]


def warmed(taken: Iterator[int], samples: int, batch_size: int, seconds: float) -> tuple[float, float]:
    """The same, and the processor's seconds for each sample."""
    last = -(-samples // batch_size) - 1
    end = time.perf_counter() + 2 * seconds
    for number in taken:
        if number == last or time.perf_counter() > end:
            break
    start, processor_s, delivered = time.perf_counter(), family.processor_s(), 0
    for number in taken:
        delivered += samples - last * batch_size if number == last else batch_size
        if time.perf_counter() > start + seconds:
            break
    return delivered / (time.perf_counter() - start), (family.processor_s() - processor_s) / delivered


def warm(
    adapter: str, root: str, options: dict[str, Any], samples: int, sample_bytes: int, batch_size: int, seconds: float
) -> Numbers:
    """What a loader delivers from files in the page cache, after it has seen each sample once or for as long."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = begun(adapter, root, batch_size, options)
        per_second = warmed_rate(taken, samples, batch_size, seconds)
        loader.close()
    return {
        "samples_per_s": per_second,
        "gb_per_s": per_second * sample_bytes / 1e9,
        "microseconds": MB / per_second,
        "first_batch_s": first_batch_s,
        **whole.numbers,
    }


def decoded(adapter: str, root: str, options: dict[str, Any], samples: int, batch_size: int, seconds: float) -> Numbers:
    """Pictures from files in the page cache: how many come, and what each takes of a core's time."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = begun(adapter, root, batch_size, options)
        per_second, processor_s = warmed(taken, samples, batch_size, seconds)
        loader.close()
    return {
        "images_per_s": per_second,
        "core_us": MB * processor_s,
        "images_per_core_s": 1 / processor_s if processor_s else 0.0,
        "microseconds": MB / per_second,
        "first_batch_s": first_batch_s,
        **whole.numbers,
    }


def cold(
    adapter: str, root: str, options: dict[str, Any], samples: int, sample_bytes: int, batch_size: int, practice: str
) -> Numbers:
    """One epoch of files that are not in the page cache, opening included, by a process that read `practice` before."""
    one_epoch(open_loader(adapter, practice, batch_size, options))
    page_cache.drop(Path(root))
    resident = page_cache.resident_share(Path(root))
    before = _blocks_read()
    with Measured() as whole:
        one_epoch(open_loader(adapter, root, batch_size, options))
    return {
        "samples_per_s": samples / whole.seconds,
        "mb_per_s": samples * sample_bytes / whole.seconds / MB,
        "microseconds": whole.seconds / samples * MB,
        "read_per_byte": (_blocks_read() - before) * 512 / (samples * sample_bytes),
        "resident_percent": 100 * resident,
        **whole.numbers,
    }


def one_epoch(loader: Any) -> None:
    """All batches touched, and the loader closed."""
    for batch in loader:
        touch(batch)
    loader.close()


def _blocks_read() -> int:
    return sum(resource.getrusage(who).ru_inblock for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def utilisation(
    adapter: str, root: str, options: dict[str, Any], batch_size: int, step_s: float, seconds: float
) -> Numbers:
    """How busy an accelerator is that takes `step_s` for every batch. What it waits for a batch, it is not.

    It is emulated by sleeping; the batch is touched within the step, as a copy to the device would. The first batches,
    before anything is ahead, do not count.
    """
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader = open_loader(adapter, root, batch_size, options)
        one_pass(loader, step_s, seconds / 4)
        start, processor_s = time.perf_counter(), family.processor_s()
        steps, waited = one_pass(loader, step_s, seconds)
        wall, processor_s = time.perf_counter() - start, family.processor_s() - processor_s
        loader.close()
    cores = len(os.sched_getaffinity(0))
    return {
        "busy_percent": 100 * steps * step_s / (steps * step_s + waited),
        "processor_left_percent": 100 * max(0.0, 1 - processor_s / (wall * cores)),
        "samples_per_s": steps * batch_size / wall,
        "steps": steps,
        **whole.numbers,
    }


def one_pass(loader: Any, step_s: float, seconds: float) -> tuple[int, float]:
    """The steps of some epochs, and for how long they waited."""
    steps, waited, end = 0, 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        asked = time.perf_counter()
        for batch in loader:
            got = time.perf_counter()
            waited += got - asked
            steps += 1
            touch(batch)
            time.sleep(max(0.0, got + step_s - time.perf_counter()))
            asked = time.perf_counter()
            if asked > end:
                break
    return steps, waited


def memory(adapter: str, root: str, options: dict[str, Any], batch_size: int, practice: str, seconds: float) -> Numbers:
    """The highest anonymous memory of the loader and its workers while it reads, over what there was before it."""
    page_cache.fill(Path(root))
    one_epoch(open_loader(adapter, practice, batch_size, options))
    before = family.anonymous_mb()
    with Measured() as whole, family.Peak() as peak:
        loader = open_loader(adapter, root, batch_size, options)
        warmed = before
        if hasattr(loader, "warm_up"):
            loader.warm_up()
            warmed = family.anonymous_mb()
        start, count = time.perf_counter(), 0
        for _ in batches(loader, seconds):
            count += 1
        seconds = time.perf_counter() - start
        loader.close()
    return {
        "anonymous_mb": peak.mb - before,
        "over_warm_up_mb": peak.mb - warmed,
        "samples_per_s": count * batch_size / seconds,
        **whole.numbers,
    }


def first_batch(adapter: str, root: str, options: dict[str, Any], batch_size: int) -> Numbers:
    """From a process that has imported torch and numba, and nothing of a loader yet, to its first batch."""
    start = time.perf_counter()
    importlib.import_module("torch")
    importlib.import_module("numba")
    shared_s = time.perf_counter() - start
    with Measured() as whole:
        start = time.perf_counter()
        importlib.import_module(f"benchmarks.adapters.{adapter}")
        imported_s = time.perf_counter() - start
        loader = open_loader(adapter, root, batch_size, options)
        opened_s = time.perf_counter() - start
        for batch in loader:
            touch(batch)
            break
    numbers = {"first_batch_s": whole.seconds, "import_s": imported_s, "open_s": opened_s - imported_s}
    return {**numbers, "torch_and_numba_s": shared_s, **whole.numbers}


def resume(adapter: str, root: str, options: dict[str, Any], batch_size: int, delivered: int, times: int) -> Numbers:
    """Loading a state and getting the batch that comes next, in a process that has read before."""
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    taken = []
    with Measured() as whole:
        loader = open_loader(adapter, root, batch_size, options)
        for k in range(times + 1):
            start = time.perf_counter()
            module.resume(loader, delivered if k else 0)
            for batch in loader:
                touch(batch)
                break
            taken.append(time.perf_counter() - start)
        loader.close()
    return {"resume_ms": 1000 * statistics.median(taken[1:]), **whole.numbers}


def scale(adapter: str, root: str, options: dict[str, Any], samples: int, batch_size: int, seconds: float) -> Numbers:
    """What a sample costs and how much is held for it, once the loader has run for a while."""
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = begun(adapter, root, batch_size, options)
        per_second = warmed_rate(taken, samples, batch_size, seconds)
        held_mb = family.anonymous_mb()
        loader.close()
    return {
        "nanoseconds": 1e9 / per_second,
        "first_batch_s": first_batch_s,
        "anonymous_mb": held_mb,
        **whole.numbers,
        "held_bytes_per_sample": whole.numbers["anonymous_growth_mb"] * MB / samples,
    }


def larger_than_ram(
    adapter: str,
    root: str,
    options: dict[str, Any],
    sample_bytes: int,
    batch_size: int,
    limit_bytes: int,
    held_bytes: int,
    seconds: float,
) -> Numbers:
    """The pace at first, from an empty page cache, and after so many bytes, when it is full."""
    page_cache.drop(Path(root))
    group = cgroup.limit_memory(limit_bytes) if limit_bytes else None
    with Measured() as whole:
        loader = open_loader(adapter, root, batch_size, options)
        taken = batches(loader)
        batch_bytes = batch_size * sample_bytes
        next(taken)
        cold = _pace(taken, seconds) * batch_bytes
        for _ in range(held_bytes // batch_bytes):
            next(taken)
        steady = _pace(taken, seconds) * batch_bytes
        loader.close()
    if group:
        cgroup.leave(group)
    return {
        "cold_mb_per_s": cold / MB,
        "steady_mb_per_s": steady / MB,
        "steady_per_cold": steady / cold,
        "limit_gb": (limit_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 1e9,
        **whole.numbers,
    }


def _pace(taken: Iterator[int], seconds: float) -> float:
    """Batches per second."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        next(taken)
        count += 1
    return count / (time.perf_counter() - start)
