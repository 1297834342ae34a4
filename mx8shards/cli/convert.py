"""mx8shards convert SOURCE …: convert a folder of pictures or another source to a dataset"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mx8shards.cli import EXIT_CODES

if TYPE_CHECKING:
    import inspect
    from collections.abc import Mapping

    from mx8shards.convert.outcome import Conversion

_ABOUT = """\
Writes a new dataset into the directory OUT. Files that cannot be converted are called rejects. They are listed with
their reasons in a report, whose path is printed. To resume an interrupted command, run it again.
"""
_SHOWN_ELSEWHERE = ("source", "src", "out", "progress", "options")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments: a source, followed by the source's own arguments."""
    from mx8shards.convert.source import BUILT_IN

    known = "; ".join(f"{name}: {what}" for name, what in BUILT_IN.items())
    parser.description = f"{parser.description}\n\n{_ABOUT}"
    parser.epilog = (
        "`mx8shards convert imagefolder --help` lists the options for pictures, `mx8shards convert RECIPE.py --help` "
        f"those of a recipe.\n\n{EXIT_CODES}"
    )
    parser.add_argument("source", metavar="SOURCE", help=f"{known}; or the path of a recipe's .py file")
    parser.add_argument(
        "rest", metavar="…", nargs=argparse.REMAINDER, help="options and arguments of the source, then OUT"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, print the new snapshot's id, and write a report of the rejects."""
    from mx8shards.cli.output import progress
    from mx8shards.cli.signatures import option_of
    from mx8shards.convert.convert_from import convert_from
    from mx8shards.errors import SettingError

    try:
        parser, ours, theirs = _parser_of(args.source)
    except SettingError as error:
        command: argparse.ArgumentParser = args.parser
        command.error(str(error))
    given = vars(parser.parse_args(args.rest))
    as_json = given.pop("json") or args.json
    first = next((p.name for p in theirs.values() if p.kind is not p.KEYWORD_ONLY), None)
    src = None if first is None else given.pop(first)
    try:
        with progress("convert", "items") as tell:
            report = convert_from(args.source, src, progress=tell, **given)
    except SettingError as error:
        option = "OUT" if error.subject == "out" else option_of(error, {**theirs, **ours})
        if option is None:
            raise
        error.subject = f"argument {option}"
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        raise
    return _show(report, as_json=as_json)


def _parser_of(
    source: str,
) -> tuple[argparse.ArgumentParser, Mapping[str, inspect.Parameter], Mapping[str, inspect.Parameter]]:
    """A parser for the arguments of a source and of `convert_from`, and the parameters of both functions."""
    import inspect

    from mx8shards.cli.signatures import add_parameters, documented
    from mx8shards.convert.convert_from import convert_from
    from mx8shards.convert.source import opener_of, parameters_of

    parser = argparse.ArgumentParser(
        prog=f"mx8shards convert {source}",
        description=_ABOUT,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    theirs = parameters_of(source)
    ours = inspect.signature(convert_from, eval_str=True).parameters
    add_parameters(parser, theirs.values(), documented(opener_of(source)))
    helps = documented(convert_from)
    parser.add_argument("out", metavar="OUT", help=helps["out"])
    add_parameters(parser, [p for p in ours.values() if p.name not in _SHOWN_ELSEWHERE], helps)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser, ours, theirs


def _show(report: Conversion, *, as_json: bool) -> int:
    """Print the result, and return the exit code."""
    from mx8shards.cli.output import show_json, show_plain
    from mx8shards.convert.outcome import counted

    if as_json:
        show_json(report.to_json())
    else:
        for name, part in report.splits.items():
            show_plain([(name, part.snapshot, counted(part.samples, "sample"), *part.details)])
        if not report.splits:
            show_plain([(report.snapshot, counted(report.samples, "sample"), *report.details)])
    for part in report.splits.values() or (report,):
        if part.rejects:
            total = counted(part.samples + part.known + len(part.rejects), "item")
            print(f"{len(part.rejects)} of {total} could not be converted: see {part.rejects_file}", file=sys.stderr)
    return 4 if report.rejects else 0
