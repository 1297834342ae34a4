"""Are spans that lie near each other read by one request, without reading much that nobody wants?"""

from __future__ import annotations

import random

import pytest

from mx8shards.remote.spans import merged

MIB = 1 << 20


@pytest.mark.parametrize(
    ("spans", "groups"),
    [
        ([], []),
        ([(5, 9)], [(5, 9)]),
        ([(0, 10), (10, 20)], [(0, 20)]),
        ([(20, 30), (0, 10)], [(0, 30)]),  # a gap as large as half of the spans
        ([(21, 31), (0, 10)], [(0, 10), (21, 31)]),
        ([(0, MIB), (2 * MIB, 3 * MIB)], [(0, 3 * MIB)]),
        ([(0, 8 * MIB), (9 * MIB + 1, 20 * MIB)], [(0, 8 * MIB), (9 * MIB + 1, 20 * MIB)]),
        ([(0, 10), (5, 8), (12, 14)], [(0, 14)]),
    ],
)
def test_small_gaps_are_read_and_large_ones_are_not(
    spans: list[tuple[int, int]], groups: list[tuple[int, int]]
) -> None:
    assert [(group.begin, group.end) for group in merged(spans)] == groups


def test_every_span_is_in_one_group_and_gaps_are_at_most_half_of_what_is_wanted() -> None:
    rng = random.Random(3)
    for _ in range(300):
        begins = [rng.randrange(4_000) for _ in range(rng.randrange(30))]
        spans = [(begin, begin + rng.randrange(60)) for begin in begins]
        groups = merged(spans)
        assert sorted(pair for group in groups for pair in group.spans) == list(enumerate(spans))
        for group in groups:
            assert all(group.begin <= begin <= end <= group.end for _, (begin, end) in group.spans)
            wanted = sum(end - begin for _, (begin, end) in group.spans)
            assert group.end - group.begin <= 1.5 * wanted or len(group.spans) == 1
