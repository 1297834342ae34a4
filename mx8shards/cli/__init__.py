"""Which command does the user mean, and how did it end?

Exit codes: 0 fine · 1 our error · 2 usage · 3 format or integrity · 4 finished with rejects · 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mx8shards import __version__
from mx8shards.errors import FormatError, IntegrityError, ShardsError

# Each command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`. Only the one that
# is called is imported, and numpy not before it runs.
COMMANDS = {
    "info": "what the index says of a dataset",
    "ls": "its shards",
    "cat": "its samples",
    "summary": "counts, sizes and distributions",
    "log": "its snapshots",
    "diff": "the samples that two snapshots have not in common",
    "verify": "check it, and give it content hashes",
    "merge": "join datasets without writing a sample anew",
    "convert": "make a dataset of other people's data",
    "gc": "remove old snapshots and what only they need",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a dataset says need not fit the terminal's encoding
    try:
        args = _parser(arguments).parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse has said what there was to say
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough; nothing may be flushed into the pipe at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
        return 141
    except (ShardsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, FormatError | IntegrityError) else 1
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mx8shards", description="MDS datasets with content-hashed snapshots.")
    parser.add_argument("--version", action="version", version=f"mx8shards {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
        if name in arguments[:1]:
            module = import_module(f"mx8shards.cli.{name}")
            module.add_arguments(command)
            command.add_argument("--json", action="store_true", help="print JSON, for machines")
            command.set_defaults(run=module.run, parser=command)
    return parser


def add_link(parser: argparse.ArgumentParser, name: str = "link") -> None:
    """The argument that says which dataset."""
    parser.add_argument(name, metavar=name.upper(), help="a dataset's directory, or DIRECTORY@sha256:… for a snapshot")
