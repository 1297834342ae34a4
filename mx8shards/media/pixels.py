"""What are the mean, standard deviation, sizes and class counts of a dataset's pictures? For `summary --pixels`."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mx8shards.errors import SchemaError
from mx8shards.format.encodings import get_encoding
from mx8shards.media.tally import ENCODINGS, Refused, Tally, tally_of

Ints = npt.NDArray[np.int64]
Progress = Callable[[int, int], object]

MOST_CLASSES = 1 << 16  # a column with more distinct values is not treated as labels

_RUN = 64  # pictures per task of a thread
_LABELS = 1 << 20  # labels read at a time


class Samples(Protocol):
    """The part of the Dataset interface that this module uses."""

    def __len__(self) -> int:
        """The number of samples."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The encoding of each column."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata given to the Writer."""

    def payload(self, position: int, column: str) -> memoryview:
        """The bytes of one value."""

    def select(self, sample_ids: Ints) -> Samples:
        """A selection of samples."""

    def column(self, name: str) -> Any:
        """The values of one column."""


class Class(NamedTuple):
    """A label, its name if the metadata's `classes` have one, and the number of samples with it."""

    label: int
    name: str | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSummary:
    """Mean and standard deviation per channel (levels divided by 255), and the number of pictures per size and class.

    They are computed from exact sums, so they do not depend on the number of threads.
    """

    column: str
    samples: int  # number of samples read
    pictures: int  # number of these that could be decoded
    pixels: int
    mean: tuple[float, ...] | None  # None: no pixels
    std: tuple[float, ...] | None
    sizes: tuple[tuple[int, int, int], ...]  # height, width and number of pictures; the most frequent first
    classes: tuple[Class, ...] | None  # None: no column of labels
    refused: tuple[Refused, ...]  # the first ones

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        classes = None if self.classes is None else [each._asdict() for each in self.classes]
        return {**found, "classes": classes, "refused": [each._asdict() for each in self.refused]}


def summarize_pixels(
    dataset: Samples,
    column: str | None = None,
    *,
    share: float = 1.0,
    threads: int = 1,
    progress: Progress | None = None,
) -> PixelSummary:
    """Summarise all pictures of a column, or an evenly spaced share of them; damaged ones are listed."""
    name = picture_column(dataset.columns, column)
    encoding = dataset.columns[name]
    count = math.ceil(share * len(dataset))
    tally = Tally()

    def count_run(positions: Ints) -> Tally:
        return tally_of(((i, dataset.payload(i, name)) for i in positions.tolist()), encoding)

    with ThreadPoolExecutor(threads) as pool:
        for found in _in_order(pool, count_run, _spread(count, len(dataset), _RUN), 2 * threads):
            tally.add(found)
            if progress is not None:
                progress(tally.samples, count)
    return PixelSummary(
        column=name,
        samples=tally.samples,
        pictures=tally.samples - tally.refusals,
        pixels=tally.pixels,
        mean=tally.mean(),
        std=tally.std(),
        sizes=tuple((*size, n) for size, n in sorted(tally.sizes.items(), key=lambda item: (-item[1], item[0]))),
        classes=_classes(dataset, count),
        refused=tuple(tally.refused),
    )


def picture_column(columns: Mapping[str, str], wanted: str | None) -> str:
    """The column of pictures: `wanted`, or the only possible one; SchemaError if none or several are possible."""
    possible = [name for name, encoding in columns.items() if encoding in ENCODINGS]
    if wanted is not None and wanted not in possible:
        found = repr(columns[wanted]) if wanted in columns else f"the columns {', '.join(columns)}"
        raise SchemaError(subject=f"column {wanted!r}", expected=f"one of {', '.join(ENCODINGS)}", found=found)
    surely = [name for name in possible if columns[name] != "bytes"]
    for likely in ([wanted] if wanted else [], surely, [name for name in possible if name == "image"], possible):
        if len(likely) == 1:
            return likely[0]
    found = f"{len(possible)} possible ones among {', '.join(columns) or 'no columns'}"
    raise SchemaError(subject="pictures", expected="one column", found=found, hint="choose one with `column`")


def _classes(dataset: Samples, count: int) -> tuple[Class, ...] | None:
    """The number of samples with each label, among `count` evenly spaced samples."""
    encoding = get_encoding(dataset.columns["label"]) if "label" in dataset.columns else None
    if encoding is None or encoding.shape != () or np.dtype(encoding.dtype).kind not in "iu":
        return None
    counted: Counter[int] = Counter()
    for positions in _spread(count, len(dataset), _LABELS):
        labels, numbers = np.unique(dataset.select(positions).column("label"), return_counts=True)
        counted.update(dict(zip(labels.tolist(), numbers.tolist(), strict=True)))
        if len(counted) > MOST_CLASSES:
            return None
    names = _names(dataset.metadata.get("classes"))
    return tuple(Class(label, names.get(label), counted[label]) for label in sorted(counted))


def _names(classes: object) -> dict[int, str]:
    """The names of labels, if `classes` in the metadata is a list."""
    return {i: str(name) for i, name in enumerate(classes)} if isinstance(classes, list) else {}


def _spread(count: int, length: int, run: int) -> Iterator[Ints]:
    """Yield `count` evenly spaced positions below `length`, `run` at a time."""
    for start in range(0, count, run):
        yield np.arange(start, min(start + run, count)) * length // count


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Ints], Tally], items: Iterable[Ints], most: int
) -> Iterator[Tally]:
    """Map items in the pool, with at most `most` pending, and yield the results in order."""
    waiting: deque[Future[Tally]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
