"""Which spans of an object are read by one request?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mx8shards.remote.store import Span

_GAP = 1 << 20  # a gap of fewer bytes costs less than another request


class Merged(NamedTuple):
    """Spans that one request reads: from `begin` to `end`, and each span with its number in the caller's list."""

    begin: int
    end: int
    spans: list[tuple[int, Span]]


def merged(spans: Sequence[Span]) -> list[Merged]:
    """The spans in groups, each read by one request. Neighbours whose gap is small are in one group."""
    groups: list[Merged] = []
    for number, span in sorted(enumerate(spans), key=lambda pair: pair[1]):
        if groups and span[0] - groups[-1].end <= _GAP:
            last = groups.pop()
            groups.append(Merged(last.begin, max(last.end, span[1]), [*last.spans, (number, span)]))
        else:
            groups.append(Merged(*span, [(number, span)]))
    return groups
