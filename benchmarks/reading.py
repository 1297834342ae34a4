"""How is a loader measured? Batches are consumed as in a training loop, touching one byte per page of each."""

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

from benchmarks import cgroup, page_cache, process_tree
from benchmarks.process import MB, Measured, Numbers

PAGE = 4096


def open_loader(adapter: str, root: str, batch_size: int, options: Mapping[str, Any]) -> Any:
    """Open an adapter's loader. It is iterated once per epoch and finally closed."""
    module: Any = importlib.import_module(f"benchmarks.adapters.{adapter}")
    return module.open_loader(Path(root), batch_size, **options)


def open_and_take_first(
    adapter: str, root: str, batch_size: int, options: Mapping[str, Any]
) -> tuple[Any, Iterator[int], float]:
    """Open a loader and take its first batch: the loader, its further batches, and the time until the first one."""
    start = time.perf_counter()
    loader = open_loader(adapter, root, batch_size, options)
    taken = batches(loader)
    next(taken)
    return loader, taken, time.perf_counter() - start


def import_all(adapter: str) -> None:
    """Import all modules before the measurement, so that their memory does not count."""
    for module in ("torch", "numba", f"benchmarks.adapters.{adapter}"):
        importlib.import_module(module)


def touch(value: Any) -> int:
    """Touch one byte per page of everything in a batch. Returns their sum."""
    if isinstance(value, bytes | bytearray | memoryview):
        return sum(bytes(value[::PAGE]))
    if isinstance(value, Mapping):
        return sum(map(touch, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(touch, value))
    if hasattr(value, "padded"):  # our ragged rows
        return touch(value.values) + touch(value.offsets)
    if hasattr(value, "sample_ids"):  # our Batch
        return sum(touch(value[key]) for key in value)
    if hasattr(value, "numpy"):
        return touch(value.numpy())
    if isinstance(value, np.ndarray):
        return int(value.reshape(-1).view(np.uint8)[::PAGE].sum())
    return int(value)


def batches(loader: Any, seconds: float = math.inf) -> Iterator[int]:
    """Touch the batches of one epoch after another and yield each one's number in its epoch, until time is up."""
    end = time.perf_counter() + seconds
    while True:
        for number, batch in enumerate(loader):
            touch(batch)
            yield number
            if time.perf_counter() > end:
                return


def warmed_rate(taken: Iterator[int], samples: int, batch_size: int, seconds: float) -> float:
    """Samples per second, after a warm-up of one epoch or 2 × `seconds`. Includes starts of epochs as they come."""
    return warmed(taken, samples, batch_size, seconds)[0]


def warmed(taken: Iterator[int], samples: int, batch_size: int, seconds: float) -> tuple[float, float]:
    """Like `warmed_rate`, with the processor time per sample."""
    last = -(-samples // batch_size) - 1
    end = time.perf_counter() + 2 * seconds
    for number in taken:
        if number == last or time.perf_counter() > end:
            break
    start, processor_s, delivered = time.perf_counter(), process_tree.processor_s(), 0
    for number in taken:
        delivered += samples - last * batch_size if number == last else batch_size
        if time.perf_counter() > start + seconds:
            break
    return delivered / (time.perf_counter() - start), (process_tree.processor_s() - processor_s) / delivered


def warm(
    adapter: str, root: str, options: dict[str, Any], samples: int, sample_bytes: int, batch_size: int, seconds: float
) -> Numbers:
    """The rate of a warmed-up loader that reads from the page cache."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = open_and_take_first(adapter, root, batch_size, options)
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
    """The rate and the processor time per picture of a warmed-up loader that reads from the page cache."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = open_and_take_first(adapter, root, batch_size, options)
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
    """One epoch, including opening, of files that are not in the page cache. The process has read `practice` before."""
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
    """Touch all batches of one epoch, and close the loader."""
    for batch in loader:
        touch(batch)
    loader.close()


def _blocks_read() -> int:
    return sum(resource.getrusage(who).ru_inblock for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def utilisation(
    adapter: str, root: str, options: dict[str, Any], batch_size: int, step_s: float, seconds: float
) -> Numbers:
    """The utilisation of an accelerator that takes `step_s` per batch: the fraction of time it does not wait for data.

    A step is emulated by sleeping. The batch is touched within the step, as a copy to the device would do. A quarter of
    `seconds` is run first as a warm-up, until prefetching is ahead.
    """
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader = open_loader(adapter, root, batch_size, options)
        one_pass(loader, step_s, seconds / 4)
        start, processor_s = time.perf_counter(), process_tree.processor_s()
        steps, waited = one_pass(loader, step_s, seconds)
        wall, processor_s = time.perf_counter() - start, process_tree.processor_s() - processor_s
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
    """Run steps for some seconds. Returns their number and the time they waited for batches."""
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


def memory(
    adapter: str, root: str, options: dict[str, Any], samples: int, batch_size: int, practice: str, seconds: float
) -> Numbers:
    """The peak of anonymous memory of the loader and its workers, minus that before it was opened."""
    page_cache.fill(Path(root))
    one_epoch(open_loader(adapter, practice, batch_size, options))
    before = process_tree.anonymous_mb()
    with Measured() as whole, process_tree.Peak() as peak:
        loader = open_loader(adapter, root, batch_size, options)
        warmed_mb = before
        if hasattr(loader, "warm_up"):
            loader.warm_up()
            warmed_mb = process_tree.anonymous_mb()
        per_second, processor_s = warmed(batches(loader), samples, batch_size, seconds)
        loader.close()
    return {
        "anonymous_mb": peak.mb - before,
        "over_warm_up_mb": peak.mb - warmed_mb,
        "samples_per_s": per_second,
        "core_us": MB * processor_s,
        **whole.numbers,
    }


def first_batch(adapter: str, root: str, options: dict[str, Any], batch_size: int) -> Numbers:
    """The time to the first batch, including the import of the loader's package, but not of torch and numba."""
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
    """The time to load a state and get the next batch, in a process that has read before."""
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
    """Time per sample and memory held per sample of a warmed-up loader."""
    import_all(adapter)
    with Measured() as whole:
        loader, taken, first_batch_s = open_and_take_first(adapter, root, batch_size, options)
        per_second = warmed_rate(taken, samples, batch_size, seconds)
        held_mb = process_tree.anonymous_mb()
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
    """The throughput at first, with an empty page cache, and after `held_bytes`, when the page cache is full."""
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
