"""The result of a conversion: how many samples and rejects are there, and how is it printed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mx8shards.errors import visible

_MOST_SHOWN = 5


class Reject(NamedTuple):
    """An item that could not be converted, and the reason."""

    item: str
    reason: str


@dataclass(frozen=True, repr=False)
class Conversion:
    """The result of a conversion. `print` shows a summary.

    With `split`, samples, rejects and counts are totals of all splits, `splits` has the result of each split, and
    `snapshot` is None.
    """

    out: Path | str = field(compare=False)  # a directory or a URL
    snapshot: str | None  # the current snapshot of `out`
    samples: int  # number of samples added
    rejects: tuple[Reject, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # other counts of the source, such as turned pictures
    known: int = 0  # items skipped because the dataset has them already
    splits: Mapping[str, Conversion] = field(default_factory=dict)
    rejects_file: Path | str | None = field(default=None, compare=False)  # a line of JSON for each reject
    seconds: float = field(default=0.0, compare=False)

    @property
    def details(self) -> list[str]:
        """The source's counts and the number of known items, as text."""
        words = [f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items()]
        return [*words, f"{self.known} already in the dataset"] if self.known else words

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        found: dict[str, Any] = {**self.counts, "snapshot": self.snapshot, "samples": self.samples}
        found["rejects"] = [reject._asdict() for reject in self.rejects]
        if self.known:
            found["known"] = self.known
        if self.splits:
            found["splits"] = {name: split.to_json() for name, split in self.splits.items()}
        return found

    def __repr__(self) -> str:
        return f"<Conversion {visible(self._headline())}>"

    def __str__(self) -> str:
        lines = [self._headline()]
        lines += [f"  {name}: {split._headline(times=False)}" for name, split in self.splits.items()]
        lines += [f"  {reject.item}: {reject.reason}" for reject in self.rejects[:_MOST_SHOWN]]
        if len(self.rejects) > _MOST_SHOWN:
            where = "" if self.rejects_file is None else f": see {self.rejects_file}"
            lines.append(f"  and {len(self.rejects) - _MOST_SHOWN} more rejects{where}")
        return "\n".join(map(visible, lines))

    def _headline(self, *, times: bool = True) -> str:
        snapshot = f"@{self.snapshot}" if self.snapshot else ""
        words = [counted(self.samples, "sample"), *self.details, counted(len(self.rejects), "reject")]
        return f"{self.out}{snapshot}: {', '.join(words)}" + (f" in {self.seconds:.1f} s" if times else "")


def counted(count: int, name: str) -> str:
    """A count with its noun in the singular or plural."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several mappings of counts, by name."""
    found: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            found[name] = found.get(name, 0) + count
    return dict(sorted(found.items()))
