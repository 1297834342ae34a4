"""mx8shards merge PART… OUT [--append] [--how link|copy|move] [--metadata JSON]: merge datasets"""

from __future__ import annotations

import argparse
import json
from typing import Any

from mx8shards.cli import add_deadline
from mx8shards.cli.sync import add_single_writer

HOWS = {
    "link": "hard links where possible, copies elsewhere",
    "copy": "copies",
    "move": "like link, then remove the parts",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "parts", metavar="PART", nargs="+", help="a dataset, or a directory: then all datasets in it, at any depth"
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="the directory or URL of the merged dataset; give it as PART too, to merge parts that ranks wrote there",
    )
    parser.add_argument(
        "--how", choices=HOWS, default="link", help="; ".join(f"{how}: {what}" for how, what in HOWS.items())
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the samples to the dataset in OUT instead of making a new one",
    )
    parser.add_argument(
        "--metadata",
        type=json_object,
        metavar="JSON",
        help="a JSON object: the metadata of the merged dataset (default: the union of the parts' metadata)",
    )
    add_single_writer(parser)
    add_deadline(parser)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, such as '{{\"a\": 1}}', got {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Merge datasets and print the new snapshot's id."""
    from mx8shards.cli.output import progress, show_json
    from mx8shards.maintain.merge import Mode, merge

    with progress("merge") as tell:
        mode: Mode = "append" if args.append else "create"
        snapshot = merge(
            args.parts,
            args.out,
            how=args.how,
            mode=mode,
            metadata=args.metadata,
            progress=tell,
            single_writer=args.single_writer,
            deadline_s=args.deadline_s,
        )
    if args.json:
        show_json({"snapshot": snapshot})
    else:
        print(snapshot)
    return 0
