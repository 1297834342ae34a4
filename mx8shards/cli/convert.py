"""mx8shards convert SOURCE …"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mx8shards.cli import EXIT_CODES

if TYPE_CHECKING:
    from mx8shards.convert.run import Job, Outcome

_ABOUT = """\
Writes a new dataset into the directory OUT. A file that cannot be converted becomes a reject: it is listed with its
reason in a report, whose path is printed. A command that was interrupted goes on where it stopped when it is run again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes: the arguments of a source follow its name."""
    from mx8shards.convert.source import BUILT_IN

    known = "; ".join(f"{name}: {what}" for name, what in BUILT_IN.items())
    parser.description = f"{parser.description}\n\n{_ABOUT}"
    parser.epilog = f"mx8shards convert SOURCE --help lists the options of a source.\n\n{EXIT_CODES}"
    parser.add_argument("source", metavar="SOURCE", help=f"{known}; or the path of a recipe's .py file")
    parser.add_argument("rest", metavar="…", nargs=argparse.REMAINDER, help="arguments of the source, then OUT")


def run(args: argparse.Namespace) -> int:
    """Convert, print the new snapshot's id, and leave a report of what could not be converted."""
    from mx8shards.cli.output import progress
    from mx8shards.convert.run import Job, convert
    from mx8shards.convert.source import load_module
    from mx8shards.convert.source_files import user_path
    from mx8shards.errors import SourceError

    parser = argparse.ArgumentParser(
        prog=f"mx8shards convert {args.source}",
        description=_ABOUT,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    try:
        load_module(args.source).add_arguments(parser)
    except SourceError as error:
        args.parser.error(str(error))
    parser.add_argument("out", metavar="OUT", help="the directory of the new dataset")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="number of processes (1)")
    parser.add_argument(
        "--size-limit", type=_size_limit, default="64mb", metavar="SIZE", help="largest size of a shard (64mb)"
    )
    parser.add_argument(
        "--compression", type=_compression, metavar="NAME", help="compression of shards: zstd, zstd:9, gz … (none)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    wanted = parser.parse_args(args.rest)
    out = user_path(wanted.out)
    _check_places(parser, getattr(wanted, "src", None), out)
    options = {"size_limit": wanted.size_limit, "compression": wanted.compression}
    job = Job(args.source, wanted, out, options)
    try:
        with progress("convert", "items") as tell:
            outcome = convert(job, workers=wanted.workers, progress=tell)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        raise
    return _report(job, outcome, as_json=wanted.json or args.json)


def _check_places(parser: argparse.ArgumentParser, src: str | None, out: Path) -> None:
    """A dataset among the files that it is made of would change them."""
    if src is None:
        return
    from mx8shards.convert.source_files import user_path

    source, target = (Path(os.path.realpath(path)) for path in (user_path(src), out))
    if source == target or source in target.parents:
        parser.error(f"OUT: expected a directory outside of SRC ({src}), got {out}")


def _report(job: Job, outcome: Outcome, *, as_json: bool) -> int:
    """Print what came of it; the exit code."""
    from mx8shards.cli.output import show_json, show_plain
    from mx8shards.maintain.rejects import keep_rejects

    rejects = outcome.rejects
    report = keep_rejects(job.out, outcome.snapshot, rejects) if rejects else None
    if as_json:
        found = {**outcome.counts, "snapshot": outcome.snapshot, "samples": outcome.samples}
        show_json({**found, "rejects": [reject._asdict() for reject in rejects]})
    else:
        counts = [f"{count} {name.replace('_', ' ')}" for name, count in outcome.counts.items()]
        show_plain([(outcome.snapshot, _counted(outcome.samples, "sample"), *counts)])
    if report is None:
        return 0
    total = outcome.samples + len(rejects)
    print(f"{len(rejects)} of {_counted(total, 'item')} could not be converted: see {report}", file=sys.stderr)
    return 4


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return int(text)


def _size_limit(text: str) -> str:
    from mx8shards.format.sizes import parse_size_limit

    return _parsed_by(parse_size_limit, text)


def _compression(text: str) -> str:
    from mx8shards.format.compression import parse

    return _parsed_by(parse, text)


def _parsed_by(parse: Callable[[str], object], text: str) -> str:
    """The text, if `parse` takes it; what that refuses is wrong usage."""
    from mx8shards.errors import FormatError, SettingError

    try:
        parse(text)
    except (FormatError, SettingError) as error:
        raise argparse.ArgumentTypeError(f"expected {error.expected}, got {error.found}") from None
    return text
