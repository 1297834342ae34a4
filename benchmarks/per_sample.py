"""How are datasets measured that deliver single samples, and the workers of a DataLoader that read them?"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import page_cache, process_tree, reading
from benchmarks.process import MB, Measured, Numbers

_STEP_S, _STEPS = 0.05, 20  # the training steps before the end of an epoch


def open_with(adapter: str, opener: str, root: str, options: dict[str, Any]) -> Any:
    """Call a function of an adapter that opens something."""
    return getattr(importlib.import_module(f"benchmarks.adapters.{adapter}"), opener)(Path(root), **options)


def import_all(adapter: str) -> None:
    """Import torch and what the adapter needs, so that neither counts."""
    for module in ("torch", "numpy.random", f"benchmarks.adapters.{adapter}"):
        importlib.import_module(module)


def iterated(adapter: str, root: str, options: dict[str, Any], column: str, seconds: float) -> Numbers:
    """The time per sample of `for sample in dataset`, in whole epochs, without a DataLoader. The first is a warm-up."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        dataset = open_with(adapter, "open_samples", root, options)
        one_epoch(dataset, column)
        samples, start, processor_s = 0, time.perf_counter(), process_tree.processor_s()
        while time.perf_counter() < start + seconds:
            samples += one_epoch(dataset, column)
        taken, processor_s = time.perf_counter() - start, process_tree.processor_s() - processor_s
    return {
        "samples_per_s": samples / taken,
        "microseconds": MB * taken / samples,
        "core_us": MB * processor_s / samples,
        **whole.numbers,
    }


def cold(adapter: str, root: str, options: dict[str, Any], column: str) -> Numbers:
    """The time per sample of an epoch of `for sample in dataset` whose files are not in the page cache."""
    import_all(adapter)
    page_cache.drop(Path(root))
    resident = page_cache.resident_share(Path(root))
    with Measured() as whole:
        samples = one_epoch(open_with(adapter, "open_samples", root, options), column)
    return {
        "samples_per_s": samples / whole.seconds,
        "microseconds": MB * whole.seconds / samples,
        "resident_percent": 100 * resident,
        **whole.numbers,
    }


def one_epoch(dataset: Any, column: str) -> int:
    """Touch one item per page of every sample's column. Returns the number of samples."""
    count = 0
    for sample in dataset:
        value = sample[column]
        bytes(value[:: reading.PAGE // getattr(value, "itemsize", 1)])
        count += 1
    return count


def batched(
    adapter: str, opener: str, root: str, options: dict[str, Any], samples: int, batch_size: int, seconds: float
) -> Numbers:
    """The rate of a DataLoader whose workers read from the page cache, as `reading.warm`, by any opener."""
    page_cache.fill(Path(root))
    import_all(adapter)
    with Measured() as whole:
        loader = open_with(adapter, opener, root, {"batch_size": batch_size, **options})
        per_second, processor_s = reading.warmed(reading.batches(loader), samples, batch_size, seconds)
        loader.close()
    return {
        "samples_per_s": per_second,
        "microseconds": MB / per_second,
        "core_us": MB * processor_s,
        **whole.numbers,
    }


def first_sample(adapter: str, root: str, options: dict[str, Any]) -> Numbers:
    """The time until a shuffled epoch's first sample, and the most memory until then."""
    import_all(adapter)
    before = process_tree.anonymous_mb()
    with Measured() as whole, process_tree.Peak(every_s=0.02) as peak:
        iterator = iter(open_with(adapter, "open_samples", root, options))
        opened_s = whole.elapsed_s()
        next(iterator)
        first_s = whole.elapsed_s()
    return {"first_sample_s": first_s, "open_s": opened_s, "anonymous_mb": peak.mb - before, **whole.numbers}


def pause(adapter: str, root: str, options: dict[str, Any]) -> Numbers:
    """The pause between an epoch's end and the first sample of the next.

    A state of the epoch's end is loaded, and its last samples are read as in training, in steps that take a while.
    """
    import_all(adapter)
    with Measured() as whole:
        dataset = open_with(adapter, "open_samples", root, options)
        next(iter(dataset))
        state = dataset.state_dict(0, from_beginning=True)
        dataset.load_state_dict({**state, "epoch": 1, "sample_in_epoch": dataset.size - _STEPS})
        pause_s = _pause(dataset)
    return {"pause_ms": 1000 * pause_s, **whole.numbers}


def _pause(dataset: Any) -> float:
    for _ in dataset:
        time.sleep(_STEP_S)
    start = time.perf_counter()
    next(iter(dataset))
    return time.perf_counter() - start


def started(adapter: str, root: str, options: dict[str, Any]) -> Numbers:
    """The time and processor time until every worker of a DataLoader has delivered a batch, and all have ended."""
    import_all(adapter)
    loader = open_with(adapter, "open_workers", root, options)
    with Measured() as whole:
        batches: Iterator[Any] = iter(loader)
        for _ in range(options["workers"]):
            next(batches)
        ready_s = whole.elapsed_s()
        del batches  # this waits until all workers have ended
    return {"ready_s": ready_s, "workers_cpu_s": whole.numbers["processor_s"], **whole.numbers}
