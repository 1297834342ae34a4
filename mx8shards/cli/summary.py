"""mx8shards summary LINK [--pixels [--column image] [--subset 5%]]: show counts, sizes and distributions"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mx8shards.cli import add_deadline, add_link
from mx8shards.cli.verify import fraction

if TYPE_CHECKING:
    from mx8shards.maintain.statistics import Numbers
    from mx8shards.maintain.summary import ColumnSummary, Summary
    from mx8shards.media.pixels import PixelSummary

_BAR = 40
_MOST_ROWS = 20  # rows of a table; --json has all
_RANGES = 20  # ranges of a histogram of heights or widths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="decode the pictures, and show the mean and std of their pixels, their sizes and classes",
    )
    parser.add_argument(
        "--column", metavar="NAME", help="with --pixels: the column of pictures; needed if there are several"
    )
    parser.add_argument(
        "--subset",
        type=fraction,
        metavar="5%",
        help="with --pixels: decode only this fraction of the pictures, evenly spaced",
    )


def run(args: argparse.Namespace) -> int:
    """Print counts, sizes and distributions. Returns 4 if pictures could not be decoded."""
    from mx8shards.cli.output import show_json
    from mx8shards.maintain.summary import summary

    if (args.column or args.subset) and not args.pixels:
        args.parser.error("--column and --subset need --pixels")
    found = summary(args.link, deadline_s=args.deadline_s)
    pixels = _pixel_summary(args) if args.pixels else None
    if args.json:
        show_json(found.to_json() | ({} if pixels is None else {"pixels": pixels.to_json()}))
    else:
        _show(found)
        if pixels is not None:
            _show_pixels(pixels)
        _show_columns([column for column in found.columns if pixels is None or not _shown_with(pixels, column)])
    if pixels is None or pixels.pictures == pixels.samples:
        return 0
    print(f"{pixels.samples - pixels.pictures} of {pixels.samples} pictures could not be decoded", file=sys.stderr)
    return 4


def _shown_with(pixels: PixelSummary, column: ColumnSummary) -> bool:
    """Whether the class counts of the pictures were already shown with the column of labels."""
    return pixels.classes is not None and column.name == "label"


def _pixel_summary(args: argparse.Namespace) -> PixelSummary:
    from mx8shards.cli.output import progress
    from mx8shards.dataset import Dataset
    from mx8shards.maintain.remote_links import current_link
    from mx8shards.media.pixels import summarize_pixels
    from mx8shards.shards.cores import core_count

    # only pictures and labels are decoded, so other columns may have unsafe encodings
    link, deadline_s = current_link(args.link, args.deadline_s), args.deadline_s
    with Dataset(link, allow_pickle=True, deadline_s=deadline_s) as dataset, progress("pixels", "pictures") as tell:
        return summarize_pixels(dataset, args.column, share=args.subset or 1.0, threads=core_count(), progress=tell)


def _show(found: Summary) -> None:
    from mx8shards.cli.output import show_fields, size_text

    least, median, most = found.samples_per_shard
    smallest, middle, largest = map(size_text, found.stored_bytes_per_shard)
    show_fields(
        (
            ("snapshot", found.snapshot),
            ("samples", found.samples),
            ("shards", found.shards),
            ("raw", size_text(found.raw_bytes)),
            ("stored", size_text(found.stored_bytes)),
            ("raw per sample", size_text(found.bytes_per_sample)),
            ("samples per shard", f"{least} least, {median:g} median, {most} most"),
            ("stored per shard", f"{smallest} least, {middle} median, {largest} most"),
        )
    )


def _show_columns(columns: Sequence[ColumnSummary]) -> None:
    from mx8shards.cli.output import say

    for column in columns:
        say()
        say(f"{column.name}: {column.encoding}{_length_text(column)}")
        if column.numbers is not None and column.numbers.minimum is not None:
            _show_numbers(column, column.numbers)
        elif column.numbers is not None and column.numbers.not_finite:
            say(f"{column.numbers.not_finite} values, all NaN or infinite")


def _length_text(column: ColumnSummary) -> str:
    """The lengths of the values, as text."""
    from mx8shards.cli.output import size_text

    if column.payload_bytes is not None:
        return f", {size_text(column.payload_bytes)}"
    lengths = column.lengths
    if lengths is None:
        return ", differing sizes"
    text = partial(_count_text, unit=lengths.unit)
    if lengths.minimum == lengths.maximum:
        found = f", {text(lengths.minimum)} each"
    else:
        found = (
            f", {text(lengths.minimum)} to {text(lengths.maximum)}, "
            f"median {text(lengths.median)}, mean {text(lengths.mean)}"
        )
    return f"{found} (from {lengths.samples} samples)"


def _count_text(number: float, unit: str) -> str:
    from mx8shards.cli.output import size_text

    return size_text(number) if unit == "bytes" else f"{number:.6g} {unit}"


def _range_text(numbers: Numbers) -> str:
    not_finite = f", {numbers.not_finite} not finite" if numbers.not_finite else ""
    return f"from {numbers.minimum} to {numbers.maximum}, mean {numbers.mean:.6g}{not_finite}"


def _show_numbers(column: ColumnSummary, numbers: Numbers) -> None:
    """Print classes by frequency, or values and ranges in ascending order. Empty ranges are left out."""
    from mx8shards.cli.output import say, show_table

    names = column.classes
    if names is not None and numbers.values is not None:
        counts = sorted(numbers.values.items(), key=lambda pair: (-pair[1], pair[0]))
        rows = [
            (f"{label} {names[int(label)]}" if 0 <= label < len(names) else f"{label}", count)
            for label, count in counts
        ]
        return _show_counts("class", "samples", rows)
    say(_range_text(numbers))
    rows = _rows(numbers)
    most = max((count for _, count in rows), default=1)
    shown = [(label, count, _bar(count, most)) for label, count in rows if count]
    return show_table(("value", "samples", ""), shown, numbers=("value", "samples"))


def _rows(numbers: Numbers) -> list[tuple[str, int]]:
    """Each value, or each range of values, with its number of samples."""
    if numbers.values is not None:
        return [(f"{value}", count) for value, count in numbers.values.items()]
    bins = numbers.bins or ()
    if isinstance(numbers.minimum, int):  # the integers in a range
        ends = [math.ceil(end) - 1 for _, end, _ in bins[:-1]] + [numbers.maximum]
        return [(f"{math.ceil(begin)} to {end}", count) for (begin, _, count), end in zip(bins, ends, strict=True)]
    return [(f"{begin:.6g} to {end:.6g}", count) for begin, end, count in bins]


def _show_pixels(found: PixelSummary) -> None:
    from mx8shards.cli.output import say, show_fields

    say()
    say(f"{found.column}: pixels")
    fields: list[tuple[str, object]] = [("pictures", f"{found.pictures} decoded, of {found.samples} tried")]
    if found.mean is not None and found.std is not None:
        fields.append(("mean", "  ".join(f"{value:.6f}" for value in found.mean)))
        fields.append(("std", "  ".join(f"{value:.6f}" for value in found.std)))
    fields += [("refused", f"sample {sample}: {reason}") for sample, reason in found.refused]
    show_fields(fields)
    if len(found.sizes) > _MOST_ROWS:
        _show_sides(found.sizes)
    _show_counts("height x width", "pictures", [(f"{high} x {wide}", count) for high, wide, count in found.sizes])
    if found.classes is not None:
        rows = [(str(label) if name is None else f"{label} {name}", count) for label, name, count in found.classes]
        _show_counts("class", "samples", rows)


def _show_sides(sizes: Sequence[tuple[int, int, int]]) -> None:
    """Print histograms of heights and widths, for datasets with too many sizes to list."""
    import numpy as np

    from mx8shards.cli.output import show_table

    *sides, counts = np.array(sizes).T
    for name, side in zip(("height", "width"), sides, strict=True):
        width = -(-int(np.ptp(side) + 1) // _RANGES)
        starts = np.arange(side.min(), side.max() + 1, width)
        found = np.bincount((side - starts[0]) // width, weights=counts).astype(int).tolist()
        print(f"\n{name}: from {side.min()} to {side.max()}")
        rows = [(f"{a} to {a + width - 1}", n, _bar(n, max(found))) for a, n in zip(starts, found, strict=True) if n]
        show_table((name, "pictures", ""), rows, numbers=("pictures",))


def _show_counts(what: str, counted: str, rows: list[tuple[str, int]]) -> None:
    from mx8shards.cli.output import show_table

    print(f"\n{what}: {len(rows)} different")
    most = max((count for _, count in rows), default=1)
    shown = [(label, count, _bar(count, most)) for label, count in rows[:_MOST_ROWS]]
    show_table((what, counted, ""), shown, numbers=(counted,))
    left = [count for _, count in rows[_MOST_ROWS:]]
    if left:
        print(f"and {len(left)} more, with {sum(left)} {counted}: --json has all")


def _bar(count: int, most: int) -> str:
    return "█" * -(-_BAR * count // most)
