"""mx8shards info LINK"""

from __future__ import annotations

import argparse

from mx8shards.cli import add_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes."""
    add_link(parser)


def run(args: argparse.Namespace) -> int:
    """Print what the index says of a snapshot as a whole."""
    from mx8shards.cli.output import show_fields, show_json, size_text
    from mx8shards.maintain.info import info

    found = info(args.link)
    if args.json:
        show_json(found.to_json())
        return 0
    fields: list[tuple[str, object]] = [
        ("snapshot", found.snapshot),
        ("parent", found.parent or "none"),
        ("sealed", "yes" if found.sealed else "no: `mx8shards verify --seal` gives it content hashes"),
        ("samples", found.samples),
        ("shards", found.shards),
        ("raw bytes", f"{found.raw_bytes} ({size_text(found.raw_bytes)})"),
        ("stored bytes", f"{found.stored_bytes} ({size_text(found.stored_bytes)})"),
        ("compression", ", ".join(found.compression) or "none"),
        ("hashes", ", ".join(found.hashes) or "none"),
        ("side-cars", ", ".join(found.sidecars) or "none"),
    ]
    fields += [(f"column {name}", encoding) for name, encoding in found.columns.items()]
    fields += [(f"metadata {key}", value) for key, value in found.metadata.items()]
    show_fields(fields)
    return 0
