"""mx8shards gc LINK [--keep 3] [--older-than 7]: remove old snapshots and the files that only they use"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_deadline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("link", metavar="LINK", help="the directory or URL of a dataset")
    parser.add_argument(
        "--keep", type=count, default=3, metavar="N", help="number of newest snapshots to keep (default: 3)"
    )
    parser.add_argument(
        "--older-than",
        type=days,
        metavar="DAYS",
        help="of a URL, keep objects that are younger than this (7): writers and readers may still need them",
    )
    add_deadline(parser)


def days(text: str) -> float:
    """Parse a number of days ≥ 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number of days from 0, got {text!r}")
    return number


def count(text: str) -> int:
    """Parse an int ≥ 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an int from 0, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Remove old snapshots and print what was removed."""
    from mx8shards.cli.output import progress, show_fields, show_json, size_text
    from mx8shards.maintain.gc import gc
    from mx8shards.maintain.merge_inputs import append_command
    from mx8shards.shards.links import parse_link

    with progress("gc") as tell:
        removed = gc(
            args.link, keep=args.keep, older_than_days=args.older_than, deadline_s=args.deadline_s, progress=tell
        )
    if args.json:
        show_json(removed.to_json())
        return 0
    fields: list[tuple[str, object]] = [("removed", name) for name in removed.snapshots]
    fields += [("kept", name) for name in removed.kept]
    fields += [("files", len(removed.files)), ("freed", size_text(removed.freed_bytes))]
    fields += [("part", f"{name}: removed") for name in removed.removed_parts]
    fields += [("part", f"{name}: kept, because no snapshot has its samples") for name in removed.parts]
    if removed.parts:
        root = parse_link(args.link).root
        command = append_command([root / name for name in removed.parts], root)
        fields.append(
            ("hint", f"once all ranks have ended, run {command} to add their samples, or remove these directories")
        )
    show_fields(fields)
    return 0
