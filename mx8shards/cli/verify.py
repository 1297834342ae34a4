"""mx8shards verify LINK [--data | --subset 5%] [--seal | --repair]: check a dataset for damage"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mx8shards.cli import add_deadline, add_link

if TYPE_CHECKING:
    from mx8shards.maintain.report import Damage, Repair, Report

_CHECKED = {
    "structure": "sizes and offsets",
    "subset": "sizes and offsets, and every byte of some shards",
    "data": "every byte",
}
_DEPTH = "Without options, only sizes and offsets are checked; samples are not read."
_NOT_READ = "--data reads every byte"
_SOUND = {
    "structure": f"the structure is sound; contents were not read ({_NOT_READ})",
    "subset": f"the structure and the shards that were read are sound; the others were not read ({_NOT_READ})",
    "data": "sound",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)
    parser.description = f"{parser.description} {_DEPTH}"
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--data", action="store_true", help="check every byte of the current and all kept snapshots")
    depth.add_argument(
        "--subset", type=fraction, metavar="5%", help="check every byte of a random fraction of the shards"
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--seal",
        action="store_true",
        help="if content hashes are missing, check every byte and publish a snapshot that has them",
    )
    change.add_argument(
        "--repair",
        action="store_true",
        help="check every byte of a remote dataset's mirror (or --subset), and replace what is damaged or missing by "
        "what the store has; exit code 0 if all damage was repaired, 3 if some is left, 1 if the store failed",
    )


def fraction(text: str) -> float:
    """Parse a fraction, such as 5% or 0.05."""
    from mx8shards.errors import SettingError
    from mx8shards.maintain.verify import parse_fraction

    try:
        return parse_fraction(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(f"expected {error.expected}, got {error.found}") from None


def run(args: argparse.Namespace) -> int:
    """Check a dataset. Returns 3 if anything is damaged and was not repaired."""
    from mx8shards.cli.output import progress, show_json
    from mx8shards.maintain.verify import verify

    with progress("verify") as tell:
        report = verify(
            args.link,
            data=args.data,
            subset=args.subset,
            seal=args.seal,
            repair=args.repair,
            deadline_s=args.deadline_s,
            progress=tell,
        )
    if args.json:
        show_json(report.to_json())
    else:
        _show(report)
    return 0 if report.ok else 3


def _show(report: Report) -> None:
    from mx8shards.cli.output import show_fields, size_text

    data = f", {report.data_shards} of them byte by byte" if report.data_shards else ""
    fields: list[tuple[str, object]] = [
        ("snapshot", report.snapshot),
        ("sealed", "yes" if report.sealed else "no"),
        ("checked", f"{_CHECKED[report.mode]}: {report.shards} shards{data}, {size_text(report.bytes_checked)} read"),
    ]
    if report.unchecked:
        fields.append(
            ("unchecked", f"the payload bytes of {report.unchecked} shards have no known hash; --seal computes them")
        )
    if report.absent:
        fields.append(("absent", f"{report.absent} shards are not in this mirror, which has a limit"))
    fields += [("repaired", _repair_line(repair)) for repair in report.repaired]
    fields += [("damaged", _line(damage)) for damage in report.damage]
    sound = "sound where hashes are known" if report.mode == "data" and report.unchecked else _SOUND[report.mode]
    fields.append(("result", sound if report.ok else f"{len(report.damage)} damaged files"))
    show_fields(fields)


def _repair_line(repair: Repair) -> str:
    if repair.blocks is None:
        return repair.file
    size = repair.block_bytes or 0
    unit = f" of {size >> 20} MiB" if size >> 20 else f" of {size >> 10} KiB" if size else ""
    return f"{repair.file}: {len(repair.blocks)} blocks{unit} fetched"


def _line(damage: Damage) -> str:
    from mx8shards.cli.output import ranges_text

    touched = f"; samples {ranges_text(damage.samples)}" if damage.samples else ""
    return f"{damage.file}: {damage.reason}: {damage.error}{touched}"
