"""Which spans of an object are read by one request?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mx8shards.remote.store import Span

_GAP = 1 << 20  # a gap of fewer bytes costs less than another request …
_GAPS_PART = 2  # … but all gaps are at most half of the bytes wanted, which bounds memory and waste


class Merged(NamedTuple):
    """Spans that one request reads: from `begin` to `end`, and each span with its number in the caller's list."""

    begin: int
    end: int
    spans: list[tuple[int, Span]]


def merged(spans: Sequence[Span]) -> list[Merged]:
    """The spans in groups, each read by one request. Neighbours whose gap is small are in one group."""
    groups: list[Merged] = []
    wanted = gaps = 0  # bytes of the last group
    for number, span in sorted(enumerate(spans), key=lambda pair: pair[1]):
        gap = max(0, span[0] - groups[-1].end) if groups else 0
        size = span[1] - span[0]
        if groups and gap <= _GAP and gaps + gap <= (wanted + size) // _GAPS_PART:
            last = groups.pop()
            groups.append(Merged(last.begin, max(last.end, span[1]), [*last.spans, (number, span)]))
            wanted, gaps = wanted + size, gaps + gap
        else:
            groups.append(Merged(*span, [(number, span)]))
            wanted, gaps = size, 0
    return groups
