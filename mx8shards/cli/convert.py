"""mx8shards convert SOURCE …"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes: the arguments of a source follow its name."""
    from mx8shards.convert.source import BUILT_IN

    known = "; ".join(f"{name}: {what}" for name, what in BUILT_IN.items())
    parser.add_argument("source", metavar="SOURCE", help=f"{known}; or the path of a recipe's .py file")
    parser.add_argument("rest", metavar="…", nargs=argparse.REMAINDER, help="what the source takes, and OUT")


def run(args: argparse.Namespace) -> int:
    """Convert, print the new snapshot's id, and leave a report of what could not be converted."""
    from mx8shards.cli.output import progress, show_json
    from mx8shards.convert.run import Job, convert
    from mx8shards.convert.source import load_module
    from mx8shards.errors import SourceError
    from mx8shards.maintain.rejects import keep_rejects

    parser = argparse.ArgumentParser(prog=f"mx8shards convert {args.source}")
    try:
        load_module(args.source).add_arguments(parser)
    except SourceError as error:
        args.parser.error(str(error))
    parser.add_argument("out", metavar="OUT", help="the directory of the new dataset")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes that read and check (1)")
    parser.add_argument("--size-limit", default="64mb", help="of a shard (64mb)")
    parser.add_argument("--compression", help="of shards: zstd, zstd:9, gz … (none)")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    wanted = parser.parse_args(args.rest)
    options = {"size_limit": wanted.size_limit, "compression": wanted.compression}
    job = Job(args.source, wanted, Path(wanted.out), options)
    with progress("convert", "items") as tell:
        outcome = convert(job, workers=wanted.workers, progress=tell)
    report = keep_rejects(job.out, outcome.snapshot, outcome.rejects) if outcome.rejects else None
    if wanted.json or args.json:
        rejects = [reject._asdict() for reject in outcome.rejects]
        show_json({"snapshot": outcome.snapshot, "samples": outcome.samples, "rejects": rejects})
    else:
        print(outcome.snapshot)
    if report is None:
        return 0
    print(f"{len(outcome.rejects)} items could not be converted: see {report}", file=sys.stderr)
    return 4


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)
