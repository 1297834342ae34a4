"""The command line `mx8shards`: which command runs, and with which exit code does it end?"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import FrameType

from mx8shards import __version__
from mx8shards.errors import FormatError, IntegrityError, ShardsError, visible

EXIT_CODES = """\
exit codes:
  0    success
  1    an error; the message says which
  2    wrong usage
  3    a format or integrity error: damaged data
  4    finished, but some files could not be converted, or some pictures not decoded
  130  interrupted by Ctrl-C
  141  the reader of the output, such as `head`, closed the pipe
  143  terminated by SIGTERM
"""

# Each command is a module of this package with `add_arguments(parser)` and `run(args) -> exit code`. Only the called
# command is imported; it imports numpy only when it runs.
COMMANDS = {
    "info": "show a dataset's size, columns, hashes and metadata",
    "ls": "list the shards of a dataset",
    "cat": "print samples of a dataset",
    "summary": "show counts, sizes and distributions of a dataset",
    "log": "list the snapshots of a dataset",
    "diff": "show which samples differ between two snapshots",
    "verify": "check a dataset for damage, repair a mirror, or add missing content hashes",
    "merge": "merge datasets without rewriting their samples",
    "sync": "copy a whole snapshot between a store and a local directory",
    "convert": "convert a folder of pictures or another source to a dataset",
    "gc": "remove old snapshots and the files that only they use",
    "warm-up": "compile the Numba kernels before their first use",
}

_JSON = {"cat": "JSON Lines, one sample per line"}  # all other commands print one value


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a dataset's text may not fit the terminal's encoding
    try:
        args = _parser(arguments).parse_args(arguments)
        with _interruptible(is_last=argv is None):
            code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse has printed its message
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as interrupt:
        code = 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
        if argv is None:  # this process is the command: cleanup is done, so another Ctrl-C must not interrupt its exit
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)
        return code
    except BrokenPipeError:  # the reader closed the pipe; flushing at exit would fail
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdout.fileno())
        return 141
    except (ShardsError, OSError, MemoryError) as error:
        print(f"error: {visible(str(error) or 'out of memory')}", file=sys.stderr)
        return 3 if isinstance(error, FormatError | IntegrityError) else 1
    return code


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that it cleans up as Ctrl-C does."""


# Signals that end a command: number, Python's default handler, and the handler that cleans up.
_ENDING = (
    (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
    (signal.SIGTERM, signal.SIG_DFL, Terminated),
)


@contextlib.contextmanager
def _interruptible(*, is_last: bool) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM raises an exception, which cleans up; the second one ends the process at once.

    If the process ends after the command anyway (`is_last`), these handlers stay installed after an interrupt. Ending
    at once is safe, because published data survive any kill. Ignored signals (`nohup`) and handlers that a program has
    set are not replaced.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: (action, error) for number, action, error in _ENDING if signal.getsignal(number) == action}
    interrupted = False

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        for each in usual:
            signal.signal(each, _end_now)
        raise usual[signal.Signals(number)][1]

    for number in usual:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if not (interrupted and is_last):
            for number, (action, _) in usual.items():
                signal.signal(number, action)


def _end_now(number: int, _frame: FrameType | None) -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # show the cursor, which the progress bar hides
    os._exit(128 + number)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mx8shards",
        description="Create, inspect and check MDS datasets with content-hashed snapshots.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mx8shards {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments[:1]:
            module = import_module(f"mx8shards.cli.{name.replace('-', '_')}")
            module.add_arguments(command)
            command.add_argument("--json", action="store_true", help=f"print {_JSON.get(name, 'JSON')} instead of text")
            command.set_defaults(run=module.run, parser=command)
    return parser


def add_deadline(parser: argparse.ArgumentParser) -> None:
    """Add the option --deadline-s of commands that may ask a store."""
    text = "of a URL: how many seconds its store may fail to answer before that is an error (default: 300)"
    parser.add_argument("--deadline-s", type=float, default=300.0, metavar="SECONDS", help=text)


def add_link(parser: argparse.ArgumentParser, name: str = "link", kind: str = "") -> None:
    """Add the argument LINK, or a link of another name. `kind` begins its help."""
    where = "a dataset's directory or URL (s3://bucket/train)"
    text = f"{kind}{where}, or LINK@sha256:… for an earlier snapshot (`mx8shards log` lists them)"
    parser.add_argument(name, metavar=name.upper(), help=text)
