"""Are sizes such as "64mb" parsed correctly?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.format.sizes import parse_size_limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        (0, None),  # no limit, stored as null, as Streaming does …
        ("0", 0),  # … for the number alone
        (1, 1),
        ((1 << 32) - 1, (1 << 32) - 1),
        ("64mb", 1 << 26),
        ("64MB", 1 << 26),
        (" 1.5 kb ", 1536),
        (".5gb", 1 << 29),
        ("1.kb", 1024),
        ("100", 100),
        ("100b", 100),
        ("3.999gb", int(3.999 * (1 << 30))),
        ("0.0000001tb", 109951),
    ],
)
def test_numbers_and_strings_are_parsed_to_bytes(text: Any, size: int | None) -> None:
    assert parse_size_limit(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(-1, 1 << 32, 1.5, True, b"1kb", [], "", "kb", "1 k b", "-1kb", "1e3", "1.5", "1.5b", "4gb", "1zb", "1qb"),
        *("1kib", "١kb", "1_000", "0x10", "1..5kb", "nan", "inf", "9" * 400, "8" * 5000 + "kb"),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_invalid_sizes_and_sizes_from_four_gibibytes_are_refused(text: Any) -> None:
    with pytest.raises(mx8.SettingError, match=r"^size_limit: expected 0 to 4294967295 bytes, as a number or as"):
        parse_size_limit(text)


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,6} ?[kmgtpezKMGTPEZ]?[bB]?"))
def test_any_string_is_parsed_or_refused(text: str) -> None:
    try:
        size = parse_size_limit(text)
    except mx8.SettingError:
        return
    assert size is not None
    assert 0 <= size < 1 << 32
