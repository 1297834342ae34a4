"""How do commands print tables, fields, sizes, progress and JSON?

On a terminal, rich prints tables; otherwise the output is plain lines of tab-separated fields. Control characters are
always escaped, because a terminal would execute them and the printed text may come from an untrusted dataset.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mx8shards.errors import visible

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def show_json(value: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(value, allow_nan=False))


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair per line."""
    rows = [(name, str(value)) for name, value in fields]
    if not sys.stdout.isatty():
        return show_plain(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _print(_text(name.ljust(width), "bold").append(f"  {visible(value)}", style="not bold"))
    return None


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> None:
    """Print rows under headings. Columns named in `numbers` are right-aligned."""
    if not sys.stdout.isatty():
        return show_plain(rows)
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(str(value)) for value in row))
    return _print(table)


def show_plain(rows: Iterable[Sequence[object]]) -> None:
    """Print rows as lines of tab-separated fields."""
    for row in rows:
        print(*(visible(str(field)) for field in row), sep="\t")


def say(text: str = "", *, error: bool = False) -> None:
    """Print one line to stdout or stderr."""
    print(visible(text), file=sys.stderr if error else sys.stdout)


def _text(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(visible(text), style)  # a Text, so that rich does not parse brackets in names as markup


def _print(what: Any) -> None:
    from rich.console import Console

    # rich does not wrap long lines, so that they can be copied whole
    Console(file=sys.stdout, highlight=False).print(what, soft_wrap=True)


def id_text(snapshot: str) -> str:
    """A snapshot's id; on a terminal a prefix of it, which links accept."""
    return snapshot[:19] if sys.stdout.isatty() else snapshot


def size_text(size_bytes: float) -> str:
    """A size in a readable unit."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def ranges_text(ranges: Iterable[Sequence[int]], most: int = 8) -> str:
    """Half-open ranges of ids as text with inclusive ends (3-5). Lists only the first few."""
    texts = [f"{start}" if stop == start + 1 else f"{start}-{stop - 1}" for start, stop in ranges]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more ranges" if len(texts) > most else "")


@contextlib.contextmanager
def progress(title: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows progress: call it with the number of bytes, or other units, done and in total.

    It shows a progress bar on stderr if that is a terminal, otherwise an occasional line.
    """
    if not sys.stderr.isatty():
        yield Lines(title, unit=unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counted = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(title), BarColumn(), counted, TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, rate="")
        begun = time.monotonic()
        yield lambda done, total: bar.update(
            task, completed=done, total=total, rate=rate_text(done, time.monotonic() - begun, unit)
        )


def rate_text(done: float, seconds: float, unit: str) -> str:
    """A rate per second in a readable unit."""
    per_second = done / max(seconds, 1e-9)
    if unit == "bytes":
        return f"{size_text(per_second)}/s"
    return f"{per_second:.0f} {unit}/s" if per_second >= 10 else f"{per_second:.2g} {unit}/s"


class Lines:
    """Prints the progress of a long operation after two seconds, then every ten seconds."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic, unit: str = "bytes") -> None:
        self._title = title
        self._unit = unit
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + 2

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + 10
        share = f"{done / total:.0%}" if total else "100%"
        text = size_text if self._unit == "bytes" else "{:.0f}".format
        unit = "" if self._unit == "bytes" else f" {self._unit}"
        seconds = now - self._begun
        left = f", {seconds * (total - done) / done:.0f} s left" if 0 < done < total else ""
        rate = rate_text(done, seconds, self._unit)
        print(
            f"{self._title}: {share} ({text(done)} of {text(total)}{unit}, {rate}{left})", file=sys.stderr, flush=True
        )
