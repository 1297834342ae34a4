"""Which split (train, val …) does a file belong to? A hash of its path decides, so adding files moves no other file.

The hash is the first 8 bytes of the sha256 of `SEED:PATH` (UTF-8), as a big-endian number, divided by 2⁶⁴: a number
in [0, 1). The splits divide that range in the order in which they are given.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from mx8shards.errors import SettingError, shown, whole_number

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_EXPECTED = "names and their shares, such as train=0.9,val=0.1, that add up to 1"


@dataclass(frozen=True)
class Split:
    """The shares of all splits, and the seed of the hash."""

    shares: tuple[tuple[str, Fraction], ...]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits, in order."""
        return tuple(name for name, _ in self.shares)

    @cached_property
    def _bounds(self) -> list[int]:
        """The upper bound of each split, as a 64-bit hash value."""
        ends = [sum((share for _, share in self.shares[: i + 1]), Fraction()) for i in range(len(self.shares))]
        return [int(end * (1 << 64)) for end in ends]

    def of(self, path: str) -> str:
        """The name of the split of a path."""
        digest = hashlib.sha256(f"{self.seed}:{path}".encode("utf-8", "surrogateescape")).digest()
        return self.names[bisect_right(self._bounds, int.from_bytes(digest[:8], "big"))]

    def facts(self, name: str) -> dict[str, Any]:
        """The entry about the split `name` in the metadata of its dataset."""
        return {"name": name, "seed": self.seed, "shares": {name: str(share) for name, share in self.shares}}


def parse_split(split: Any, seed: Any) -> Split | None:
    """Parse `train=0.9,val=0.1` or `{"train": 0.9, "val": 0.1}`; None stays None."""
    seed = whole_number("seed", seed, 0)
    if split is None:
        if seed:
            raise SettingError(subject="seed", expected="0 without split, as only split uses it", found=f"{seed}")
        return None
    if isinstance(split, str):
        pairs = [tuple(part.split("=")) for part in split.split(",")]
    else:
        pairs = list(split.items()) if isinstance(split, Mapping) else [()]
    try:
        shares = tuple((_checked_name(name), Fraction(str(share))) for name, share in pairs)
    except (ValueError, ZeroDivisionError):
        raise SettingError(subject="split", expected=_EXPECTED, found=shown(split)) from None
    twice = len({name.lower() for name, _ in shares}) < len(shares)  # some file systems ignore case
    if twice or any(share <= 0 for _, share in shares) or sum(share for _, share in shares) != 1:
        raise SettingError(subject="split", expected=_EXPECTED, found=shown(split))
    return Split(shares, seed)


def _checked_name(name: Any) -> str:
    """The name of a split, if it is a valid name for its directory. Otherwise ValueError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(name)
    return name
