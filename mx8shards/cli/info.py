"""mx8shards info LINK: show a dataset's size, columns, hashes and metadata"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mx8shards import __version__
from mx8shards.cli import add_deadline, add_link

if TYPE_CHECKING:
    from mx8shards.maintain.info import Info

_SHOWN = 5
_SHOWN_CHARS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)


def run(args: argparse.Namespace) -> int:
    """Print a description of a snapshot."""
    from mx8shards.cli.output import show_fields, show_json
    from mx8shards.maintain.info import info

    found = info(args.link, deadline_s=args.deadline_s)
    if args.json:
        show_json(found.to_json())
    else:
        show_fields(_fields(found))
    return 0


def _fields(found: Info) -> list[tuple[str, object]]:
    from mx8shards.cli.output import size_text

    share = f", {found.stored_bytes / found.raw_bytes:.0%} of raw" if found.compression and found.raw_bytes else ""
    fields: list[tuple[str, object]] = [
        ("dataset", found.root),
        ("snapshot", found.snapshot),
        ("state", "the current snapshot" if found.current else "an earlier snapshot"),
        ("snapshots kept", found.kept or "0: this index was written by another program"),
        ("parent", found.parent or "none"),
        ("sealed", "yes" if found.sealed else "no: `mx8shards verify --seal` adds content hashes"),
        ("samples", found.samples),
        ("shards", found.shards),
        ("files", _files_text(found)),
        ("raw bytes", f"{found.raw_bytes} ({size_text(found.raw_bytes)})"),
        ("stored bytes", f"{found.stored_bytes} ({size_text(found.stored_bytes)}{share})"),
        ("bytes per sample", size_text(found.raw_bytes / found.samples) if found.samples else "none"),
        ("compression", ", ".join(found.compression) or "none"),
        ("hashes", ", ".join(found.hashes) or "none"),
        ("side-cars", ", ".join(found.sidecars) or "none"),
    ]
    fields += [(f"column {name}", encoding) for name, encoding in found.columns.items()]
    fields += [(f"metadata {key}", _metadata_text(value)) for key, value in found.metadata.items()]
    return [*fields, ("read by", f"mx8shards {__version__}")]


def _files_text(found: Info) -> str:
    """Whether all shard files exist, with the right sizes."""
    wrong = [f"{name} (missing)" for name in found.missing] + [f"{name} (wrong size)" for name in found.resized]
    wrong += [f"{name} (not a regular file)" for name in found.irregular]
    if not wrong:
        return "all exist, with the right sizes"
    rest = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"{len(wrong)} of {found.shards} are wrong: {', '.join(wrong[:_SHOWN])}{rest}"


def _metadata_text(value: object) -> str:
    """A value on one line; for a long list, its length and first items."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"{len(value)}: {', '.join(str(item)[:_SHOWN_CHARS] for item in value[:_SHOWN])}, …"
    text = str(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
