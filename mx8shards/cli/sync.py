"""mx8shards sync FROM TO [--single-writer]: copy a whole snapshot between a store and a local directory"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_deadline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.description = f"{parser.description} Every byte is verified, index.json comes last, and nothing is deleted."
    parser.add_argument(
        "source", metavar="FROM", help="the snapshot: s3://bucket/train or a directory, perhaps with @sha256:…"
    )
    parser.add_argument("target", metavar="TO", help="a directory or a URL; it may have an earlier snapshot")
    add_single_writer(parser)
    add_deadline(parser)


def add_single_writer(parser: argparse.ArgumentParser) -> None:
    """Add the option --single-writer."""
    parser.add_argument(
        "--single-writer",
        action="store_true",
        help="also write to a store without conditional puts; no other process may write there at that time",
    )


def run(args: argparse.Namespace) -> int:
    """Copy a snapshot and print its id."""
    from mx8shards.cli.output import progress, show_json
    from mx8shards.maintain.sync import sync

    with progress("sync") as tell:
        snapshot = sync(
            args.source, args.target, single_writer=args.single_writer, deadline_s=args.deadline_s, progress=tell
        )
    if args.json:
        show_json({"snapshot": snapshot})
    else:
        print(snapshot)
    return 0
