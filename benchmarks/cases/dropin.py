"""How fast is the drop-in for mosaicml-streaming, used exactly like the original?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks import data, loader_contenders, per_sample
from benchmarks.harness import Column, Job, Target, Wanted
from benchmarks.loader_contenders import ARRAYS, BLOBS, Contender, Kind, Options, Reading
from benchmarks.process import Numbers

NEEDS_BYTES = 2_500_000_000
NOTES = """\
- The drop-in and streaming run the same code with another import. All read local shards from the page cache, fully
  shuffled, and one byte per page of every value is touched.
- One process: `for sample in dataset`, whole epochs, without a DataLoader. Columns are decoded.
- Cold: one such epoch, from opening on. Its files are dropped from the page cache before it.
- 2 workers: the DataLoader of each library, whose batches are collated to tensors, which workers send through shared
  memory. streaming and litdata may use two or four workers, whichever was faster. The control is torch's
  DataLoader with two workers over samples that are ready: no other can be faster. Where it is less than the wanted
  number of times as fast as a peer, no dataset can reach that number.
- dataset[i], 2 workers: torch's DataLoader with two forked workers over `Subset(dataset, order)`.
- streaming: `predownload` for more samples than there are. litdata: with and without `batch_decode`, in workers
  without, as that is faster there.
- First sample: from opening a dataset to the first sample of an epoch shuffled by py1e, of one rank without workers.
  The shards are sparse files of 100,000 samples of 64 bytes each. Pause: from an epoch's last sample to the first one
  of the next, if the last 20 samples took a second. 10⁸ samples were measured once.
- Workers of a StreamingDataLoader over 10⁶ samples: until each has delivered a batch and all have ended. Bare: torch's
  workers, which read one number.
"""
COLUMNS = (
    Column(title="µs per sample", number="microseconds", digits=2),
    Column(title="time, × mx8shards", number="microseconds", digits=2, ratio=True),
    Column(title="processor, µs per sample", number="core_us", digits=2),
    Column(title="first sample, s", number="first_sample_s", digits=2),
    Column(title="pause, ms", number="pause_ms", digits=1),
    Column(title="peak memory, MB", number="anonymous_mb", digits=0, spread=False),
    Column(title="all workers, s", number="ready_s", digits=2),
    Column(title="their processor time, s", number="workers_cpu_s", digits=2),
)
OURS, MOSAIC, LIT = "mx8shards.streaming", "streaming", "litdata"
LOCAL, READY, BARE = "streaming LocalDataset", "ready samples", "bare torch workers"
SIZES = {"10⁶": 10, "10⁸": 1_000}  # sparse shards
PER_SHARD, SAMPLE_BYTES = 100_000, 64
PAUSE = "10⁶ samples, between epochs"
FORKED, SPAWNED = "32 forked workers", "4 spawned workers"


class Samples(NamedTuple):
    """Samples of one kind: how many, which column is touched, and the batches of a DataLoader."""

    kind: Kind
    folder: str
    column: str
    total: int
    batch_size: int


# both totals are multiples of the batches of four workers
KINDS = (Samples(ARRAYS, "arrays", "array", 40_960, 256), Samples(BLOBS, "blobs", "image", 2_560, 64))


def one_process(kind: Kind) -> str:
    """The group of iterations."""
    return f"{kind.name}, one process"


def cold(kind: Kind) -> str:
    """The group of iterations of files that are not in the page cache."""
    return f"{kind.name}, one process, cold"


def two_workers(kind: Kind) -> str:
    """The group of DataLoaders."""
    return f"{kind.name}, 2 workers"


def indexed(kind: Kind) -> str:
    """The group of map-style DataLoaders."""
    return f"{kind.name}, dataset[i], 2 workers"


def first_sample(size: str) -> str:
    """The group of first samples."""
    return f"{size} samples"


def prepare(directory: Path, *, quick: bool) -> None:
    """Write both kinds of samples in each format, and the sparse shards."""
    written = [Contender(OURS, "ours_streaming", "mds"), Contender(LIT, "lightning", "litdata", needs="litdata")]
    for samples in _kinds(quick):
        loader_contenders.write(directory / samples.folder, samples.kind, samples.total, written[: 1 if quick else 2])
    for size, shards in _sizes(quick).items():
        data.sparse(directory / size, shards, PER_SHARD // (100 if quick else 1), SAMPLE_BYTES)


def _kinds(quick: bool) -> tuple[Samples, ...]:
    return (KINDS[0]._replace(total=2_048),) if quick else KINDS


def _sizes(quick: bool) -> Mapping[str, int]:
    return {"10⁶": 2} if quick else SIZES


def jobs(directory: Path, *, quick: bool) -> list[Job]:
    """All contenders of each group."""
    found = []
    for samples in _kinds(quick):
        for asked, contenders in _readings(directory / samples.folder, samples, 0.05 if quick else 0.6):
            chosen = [contenders[0], contenders[-1]] if quick else contenders
            found += loader_contenders.jobs(asked, chosen, quick=quick)
    found += [job for size in _sizes(quick) for job in _first_samples(directory, size)]
    if quick:
        return found
    few = directory / "10⁶"
    return found + _pair(per_sample.pause, PAUSE, few, {"shuffle_block_size": None}) + _starts(few)


def _readings(root: Path, samples: Samples, seconds: float) -> list[tuple[Reading, list[Contender]]]:
    """The tasks that read samples, and who does them."""
    counts, batches = [{"workers": n} for n in (2, 4)], {"samples": samples.total, "batch_size": samples.batch_size}
    decoding: list[Options] = [{}, {"batch_decode": 0}]
    loaded = batches | {"seconds": seconds, "opener": "open_loader"}
    found = batches | {"seconds": seconds, "opener": "open_indexed"}
    one = {"seconds": seconds, "column": samples.column}
    two: list[Options] = [{"workers": 2}]
    iterating = [
        Contender(OURS, "ours_streaming", "mds"),
        Contender(LIT, "lightning", "litdata", decoding, "litdata"),
        Contender(MOSAIC, "mosaicml", "mds", needs="streaming"),
    ]
    return [
        (Reading(one_process(samples.kind), root, per_sample.iterated, one), iterating),
        (Reading(cold(samples.kind), root, per_sample.cold, {"column": samples.column}), iterating),
        (
            Reading(two_workers(samples.kind), root, per_sample.batched, loaded),
            [
                Contender(OURS, "ours_streaming", "mds", two),
                Contender(LIT, "lightning", "litdata", [a | decoding[1] for a in counts], "litdata"),
                Contender(MOSAIC, "mosaicml", "mds", counts, "streaming"),
                Contender(READY, "ready_samples", "mds", two),
            ],
        ),
        (
            Reading(indexed(samples.kind), root, per_sample.batched, found),
            [
                Contender(OURS, "ours_streaming", "mds", two),
                Contender(MOSAIC, "mosaicml", "mds", two, "streaming"),
                Contender(LOCAL, "mosaicml", "mds", [{**two[0], "name": "LocalDataset"}], "streaming"),
                Contender(READY, "ready_samples", "mds", two),
            ],
        ),
    ]


def _first_samples(directory: Path, size: str) -> list[Job]:
    """The drop-in and streaming, once if there are many samples."""
    once = 1 if SIZES[size] > 100 else None
    pair = _pair(per_sample.first_sample, first_sample(size), directory / size, {"shuffle_block_size": None})
    return [replace(job, rounds=once) for job in pair]


def _pair(run: Callable[..., Numbers], group: str, root: Path, options: Options) -> list[Job]:
    """A job of the drop-in, and one of streaming."""
    return [
        Job(
            group=group,
            contender=contender,
            run=run,
            arguments={"adapter": adapter, "root": str(root), "options": options},
            needs=needs,
        )
        for contender, adapter, needs in ((OURS, "ours_streaming", ""), (MOSAIC, "mosaicml", "streaming"))
    ]


def _starts(root: Path) -> list[Job]:
    """Many forked workers, and some spawned ones, which import everything again. Bare ones are the control."""
    found = []
    for group, workers, start in ((FORKED, 32, "fork"), (SPAWNED, 4, "spawn")):
        options: Options = {"workers": workers, "start": start}
        mine, peer = _pair(per_sample.started, group, root, options)
        bare = replace(mine, contender=BARE, arguments=mine.arguments | {"adapter": "ready_samples"})
        found += (
            [mine, peer, bare] if start == "fork" else [mine, bare]
        )  # a spawned worker cannot import the peer's stub
    return found


def targets() -> list[Target]:
    """Ratios of the peers' time to ours, and the start of workers."""

    def faster(group: str, peer: str, least: float) -> Target:
        wanted = Wanted(group=group, contender=peer, against=OURS, number="microseconds", least=least)
        return Target(f"{group}: at least {least:g} × as fast as {peer}", (wanted,))

    def most(group: str, number: str, bound: float, claim: str, against: str = "") -> Target:
        return Target(
            f"{group}: {claim}",
            (Wanted(group=group, contender=OURS, number=number, most=bound, against=against),),
        )

    both = (ARRAYS, BLOBS)
    return [
        faster(one_process(ARRAYS), MOSAIC, 10),
        faster(one_process(ARRAYS), LIT, 2),
        faster(one_process(BLOBS), MOSAIC, 3),
        *(faster(two_workers(kind), MOSAIC, 3) for kind in both),
        *(faster(two_workers(kind), LIT, 1.2) for kind in both),
        *(faster(indexed(kind), MOSAIC, 3) for kind in both),
        most(first_sample("10⁸"), "first_sample_s", 20, "the first sample within 20 s"),
        most(first_sample("10⁸"), "anonymous_mb", 1_000, "within 1 GB"),
        most(FORKED, "workers_cpu_s", 3, "within 3 s of processor time"),
        most(SPAWNED, "workers_cpu_s", 1.2, "within 1.2 × the processor time of bare workers", BARE),
    ]
