"""mx8shards merge PART… OUT [--append] [--how link|copy|move]"""

from __future__ import annotations

import argparse

HOWS = {"link": "hard links where that is possible", "copy": "copies", "move": "links, and the parts are removed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes."""
    parser.add_argument("parts", metavar="PART", nargs="+", help="a dataset, or a directory of datasets at any depth")
    parser.add_argument(
        "out", metavar="OUT", help="the directory of the new dataset; may be a PART that ranks wrote to"
    )
    parser.add_argument(
        "--how", choices=HOWS, default="link", help="; ".join(f"{how}: {what}" for how, what in HOWS.items())
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add to the dataset in OUT; OUT as the only PART stands for what ranks wrote there to append",
    )


def run(args: argparse.Namespace) -> int:
    """Join datasets and print the new snapshot's id."""
    from mx8shards.cli.output import progress, show_json
    from mx8shards.maintain.merge import merge

    with progress("merge") as tell:
        snapshot = merge(args.parts, args.out, how=args.how, mode="append" if args.append else "create", progress=tell)
    if args.json:
        show_json({"snapshot": snapshot})
    else:
        print(snapshot)
    return 0
