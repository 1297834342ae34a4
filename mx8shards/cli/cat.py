"""mx8shards cat LINK [--sample 7] [--column image] [--raw]"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mx8shards.cli import add_link

if TYPE_CHECKING:
    from mx8shards.dataset import Dataset

_SHOWN_BYTES = 24
_SHOWN_CHARS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this command takes."""
    add_link(parser)
    parser.add_argument(
        "--sample", type=int, action="append", metavar="N", help="only this one; -1 is the last; repeatable"
    )
    parser.add_argument("--column", action="append", metavar="NAME", help="only this one; repeatable")
    parser.add_argument(
        "--raw", action="store_true", help="write the payload of one sample's column to stdout, as it is"
    )


def run(args: argparse.Namespace) -> int:
    """Print samples, or write one payload."""
    from mx8shards.dataset import Dataset

    if args.raw and (len(args.column or ()) != 1 or len(args.sample or ()) != 1 or args.json):
        args.parser.error("--raw takes one --sample, one --column and no --json")
    # a payload is not decoded, so that an unsafe encoding does no harm
    with Dataset(args.link, columns=args.column, allow_pickle=args.raw) as dataset:
        positions = _positions(dataset, args.sample, args.link)
        if args.raw:
            sys.stdout.buffer.write(dataset.payload(positions[0], args.column[0]))
        else:
            _print(dataset, positions, args.json)
    return 0


def _positions(dataset: Dataset, wanted: list[int] | None, link: str) -> range | list[int]:
    from mx8shards.errors import ShardsError

    count = len(dataset)
    for position in wanted or ():
        if not -count <= position < count:
            raise ShardsError(subject=link, expected=f"a position among {count} samples", found=f"{position}")
    return range(count) if wanted is None else [position % count for position in wanted]


def _print(dataset: Dataset, positions: Iterable[int], as_json: bool) -> None:
    from mx8shards.cli.output import show_json

    for position in positions:
        sample = dataset[position]
        if as_json:
            show_json({"sample": position, "columns": {name: _json(value) for name, value in sample.items()}})
        else:
            print(f"sample {position}")
            for name, value in sample.items():
                print(f"  {name}: {short(value)}")


def short(value: Any) -> str:
    """A value on one line of bounded length."""
    if isinstance(value, bytes):
        rest = "…" if len(value) > _SHOWN_BYTES else ""
        return f"{len(value)} bytes {value[:_SHOWN_BYTES].hex(' ')}{rest}"
    if hasattr(value, "dtype") and value.shape:
        return f"{value.dtype} array of shape {value.shape}: {_cut(' '.join(map(str, value.flat[:32])))}"
    if isinstance(value, list):
        return _cut(f"[{', '.join(map(short, value[:32]))}{', …' if len(value) > 32 else ''}]")
    return _cut(repr(value) if isinstance(value, str) else str(value))


def _cut(text: str) -> str:
    text = " ".join(text.splitlines())
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _json(value: Any) -> Any:
    """What JSON can hold: bytes as base64, arrays as lists, numbers that it has not and anything else as text."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if hasattr(value, "tolist"):
        return _json(value.tolist())
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # NaN or infinite
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
