"""mx8shards ls LINK: list the shards of a dataset"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_deadline, add_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)


def run(args: argparse.Namespace) -> int:
    """Print the shards of a snapshot."""
    from mx8shards.cli.output import show_json, show_table
    from mx8shards.maintain.info import list_shards

    shards = list_shards(args.link, deadline_s=args.deadline_s)
    if args.json:
        show_json([shard.to_json() for shard in shards])
        return 0
    rows = ((shard.samples, shard.stored_bytes, shard.compression or "none", shard.basename) for shard in shards)
    show_table(("samples", "bytes", "compression", "basename"), rows, numbers=("samples", "bytes"))
    return 0
