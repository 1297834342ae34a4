"""mx8shards diff A B: show which samples differ between two snapshots"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_deadline, add_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser, "a", "the earlier snapshot: ")
    add_link(parser, "b", "the later snapshot: ")
    add_deadline(parser)


def run(args: argparse.Namespace) -> int:
    """Print how B differs from A."""
    from mx8shards.cli.output import progress, ranges_text, show_fields, show_json
    from mx8shards.maintain.diff import diff
    from mx8shards.maintain.report import ranges

    with progress("diff") as tell:
        found = diff(args.a, args.b, deadline_s=args.deadline_s, progress=tell)
    if args.json:
        show_json(found.to_json())
        return 0
    fields: list[tuple[str, object]] = [("a", found.a), ("b", found.b)]
    for name in ("added", "removed", "changed"):
        ids = getattr(found, name)
        fields.append((name, f"{len(ids)} samples" + (f": {ranges_text(ranges(ids))}" if len(ids) else "")))
    fields += [(f"column {name} added", encoding) for name, encoding in found.columns_added.items()]
    fields += [(f"column {name} removed", encoding) for name, encoding in found.columns_removed.items()]
    fields += [(f"column {name} changed", f"{old} to {new}") for name, (old, new) in found.columns_changed.items()]
    fields += [("metadata", "changed" if found.metadata_changed else "equal")]
    fields += [("shards", f"{found.shared_shards} in both, {found.read_shards} read")]
    show_fields(fields)
    return 0
