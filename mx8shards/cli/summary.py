"""mx8shards summary LINK"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mx8shards.cli import add_link

if TYPE_CHECKING:
    from mx8shards.maintain.statistics import Numbers
    from mx8shards.maintain.summary import Summary

_BAR = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes."""
    add_link(parser)


def run(args: argparse.Namespace) -> int:
    """Print counts, sizes and the distribution of every column of numbers."""
    from mx8shards.cli.output import show_json
    from mx8shards.maintain.summary import summary

    found = summary(args.link)
    if args.json:
        show_json(found.to_json())
    else:
        _show(found)
    return 0


def _show(found: Summary) -> None:
    from mx8shards.cli.output import show_fields, show_table, size_text

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
    for column in found.columns:
        size = "differing sizes" if column.payload_bytes is None else size_text(column.payload_bytes)
        print(f"\n{column.name}: {column.encoding}, {size}")
        if column.numbers is not None:
            numbers = column.numbers
            print(f"from {numbers.minimum} to {numbers.maximum}, mean {numbers.mean}, {numbers.not_finite} not finite")
            show_table(("value", "samples", ""), _histogram(numbers), numbers=("value", "samples"))


def _histogram(numbers: Numbers) -> list[tuple[str, int, str]]:
    rows = [(f"{value}", count) for value, count in (numbers.values or {}).items()]
    rows += [(f"{begin:.6g} to {end:.6g}", count) for begin, end, count in numbers.bins or ()]
    most = max((count for _, count in rows), default=1)
    return [(label, count, "█" * -(-_BAR * count // most)) for label, count in rows]
