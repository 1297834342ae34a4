"""mx8shards log LINK: list the snapshots of a dataset"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_deadline, add_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)


def run(args: argparse.Namespace) -> int:
    """Print the snapshots of a dataset, newest first."""
    from mx8shards.cli.output import id_text, show_json, show_table, size_text
    from mx8shards.maintain.log import log

    entries = log(args.link, deadline_s=args.deadline_s)
    if args.json:
        show_json([entry.to_json() for entry in entries])
        return 0
    rows = (
        (
            id_text(entry.snapshot),
            entry.published.astimezone().isoformat(" ", "seconds"),
            entry.samples,
            entry.shards,
            size_text(entry.stored_bytes),
            "current" if entry.current else "",
        )
        for entry in entries
    )
    show_table(
        ("snapshot", "published", "samples", "shards", "stored", ""), rows, numbers=("samples", "shards", "stored")
    )
    return 0
