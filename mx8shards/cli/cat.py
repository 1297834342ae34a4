"""mx8shards cat LINK [--sample 7] [--column image] [--raw | --original]: print samples"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mx8shards.cli import add_deadline, add_link

if TYPE_CHECKING:
    from mx8shards.dataset import Dataset

_SHOWN_BYTES = 24
_SHOWN_CHARS = 200

_FILES = frozenset(("jpeg", "png"))  # encodings whose payload is a file and whose value is a Pillow image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_link(parser)
    add_deadline(parser)
    parser.add_argument(
        "--sample",
        type=int,
        action="append",
        metavar="N",
        help="print only sample N, counted from 0; -1 is the last one; may be given several times",
    )
    parser.add_argument(
        "--column", action="append", metavar="NAME", help="print only this column; may be given several times"
    )
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument(
        "--raw", action="store_true", help="write the stored bytes of one --sample and one --column to stdout"
    )
    whole.add_argument(
        "--original", action="store_true", help="like --raw, but restore the original file of a JPEG stored in tiles"
    )


def run(args: argparse.Namespace) -> int:
    """Print samples, or write one payload."""
    from mx8shards.dataset import Dataset
    from mx8shards.maintain.remote_links import current_link

    whole = args.raw or args.original
    if whole and (len(args.column or ()) != 1 or len(args.sample or ()) != 1 or args.json):
        args.parser.error(f"{'--raw' if args.raw else '--original'} takes one --sample, one --column and no --json")
    # raw payloads are not decoded, so unsafe encodings (pickle) are allowed
    with Dataset(
        current_link(args.link, args.deadline_s), columns=args.column, allow_pickle=whole, deadline_s=args.deadline_s
    ) as dataset:
        sample_ids = _sample_ids(dataset, args.sample, args.link)
        if whole:
            payload = dataset.payload(sample_ids[0], args.column[0])
            sys.stdout.buffer.write(_original(payload) if args.original else payload)
        else:
            _print(dataset, sample_ids, args.json)
    return 0


def _original(payload: memoryview) -> bytes:
    """The original bytes of a tiled JPEG; other payloads unchanged."""
    from mx8shards.media.sniff import sniff

    data = bytes(payload)
    if "tiled" not in sniff(data):  # untiling needs Numba, which takes a second to import
        return data
    from mx8shards.media.tiles import untile

    return untile(data)


def _sample_ids(dataset: Dataset, wanted: list[int] | None, link: str) -> range | list[int]:
    from mx8shards.errors import ShardsError

    count = len(dataset)
    for sample_id in wanted or ():
        if not -count <= sample_id < count:
            raise ShardsError(subject=link, expected=f"one of {count} samples", found=f"{sample_id}")
    return range(count) if wanted is None else [sample_id % count for sample_id in wanted]


def _print(dataset: Dataset, sample_ids: Iterable[int], as_json: bool) -> None:
    from mx8shards.cli.output import say, show_json

    classes = dataset.metadata.get("classes")
    for sample_id in sample_ids:
        sample = _values(dataset, sample_id)
        if as_json:
            show_json({"sample": sample_id, "columns": {name: _json(value) for name, value in sample.items()}})
            continue
        say(f"sample {sample_id}")
        for name, value in sample.items():
            text = short(value, dataset.columns[name])
            say(f"  {name}: {text}{_class_name(classes, value) if name == 'label' else ''}")


def _class_name(classes: Any, label: Any) -> str:
    """The class name of a label, in brackets; "" if the metadata have no name for it."""
    known = isinstance(classes, list) and isinstance(label, int) and 0 <= label < len(classes)
    return f" ({classes[label]})" if known else ""


def _values(dataset: Dataset, sample_id: int) -> dict[str, Any]:
    """A sample, with encoded pictures as bytes, because describing them does not need decoding."""
    from mx8shards.errors import FormatError

    if not _FILES & set(dataset.columns.values()):
        return dataset[sample_id]
    values = {}
    for name, encoding in dataset.columns.items():
        payload = bytes(dataset.payload(sample_id, name))
        try:
            values[name] = payload if encoding in _FILES else dataset.picked([name]).coders[0].decode(payload)
        except FormatError as error:
            raise error.at(place=f"sample {sample_id}, column {name!r}") from error.__cause__
    return values


def short(value: Any, encoding: str = "") -> str:
    """Describe a value on one line of bounded length."""
    if isinstance(value, bytes):
        return _bytes(value)
    if hasattr(value, "dtype") and value.shape:
        return f"{value.dtype} array of shape {value.shape}: {_cut(' '.join(map(str, value.flat[:32])))}"
    if encoding == "json":
        return f"JSON {_cut(json.dumps(value, ensure_ascii=False))}"
    if hasattr(value, "mode") and hasattr(value, "size"):  # a Pillow image
        return f"picture {value.size[0]}×{value.size[1]} {value.mode}"
    if isinstance(value, list):
        return _cut(f"[{', '.join(map(short, value[:32]))}{', …' if len(value) > 32 else ''}]")
    if isinstance(value, str):
        text = _cut(repr(value[: 4 * _SHOWN_CHARS]))
        return text if len(text) <= _SHOWN_CHARS - 1 else f"{text} ({len(value)} characters)"
    return _cut(str(value))


def _bytes(value: bytes) -> str:
    """Describe a payload: its kind, its length and, for text and unknown data, how it begins."""
    from mx8shards.media.sniff import sniff

    kind = sniff(value)
    if kind in ("UTF-8 text", "JSON"):
        return f"{len(value)} bytes, {kind}: {_cut(repr(value[: 4 * _SHOWN_CHARS].decode(errors='ignore')))}"
    if kind:
        return f"{len(value)} bytes, {kind}"
    rest = "…" if len(value) > _SHOWN_BYTES else ""
    return f"{len(value)} bytes {value[:_SHOWN_BYTES].hex(' ')}{rest}".rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


def _json(value: Any) -> Any:
    """A value for JSON: bytes as base64, arrays as lists; NaN, infinities and other types as text."""
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
