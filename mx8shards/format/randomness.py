"""How are a sample's random numbers in an epoch computed (Philox, keyed by seed, epoch, sample_id, purpose)? (spec §11)

The generator is Philox4x64-10 (Salmon et al., SC 2011; NumPy's `Philox`): a pure function of a key and a counter, so
that a sample's numbers do not depend on ranks, threads or resuming.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mx8shards.errors import SettingError

Words = NDArray[np.uint64]
Ids = NDArray[np.int64]

# The key of the extras under which views number the occurrences of a sample: 0, and a distinct number for each repeat.
OCCURRENCE = "occurrence"

_MASK = (1 << 64) - 1
_ROUNDS = 10
_MULTIPLY = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def occurrences_of(extras: Mapping[str, Any]) -> Ids | None:
    """The occurrences in the extras of some rows; None means that all are 0."""
    found = extras.get(OCCURRENCE)
    return None if found is None else np.asarray(found)


def words(seed: int, epoch: int, sample_ids: Ids, purpose: str, count: int, occurrences: Ids | None = None) -> Words:
    """`count` random 64-bit words for each sample: one row per sample.

    `purpose` names their use ("crop", "flip", …), so that different uses draw independently. `occurrences`
    distinguishes repeats of a sample; None means 0 for every row. Seed, epoch and occurrences are taken modulo 2**64.
    """
    ids = np.asarray(sample_ids).astype(np.uint64)
    repeats = np.zeros(len(ids), np.uint64) if occurrences is None else np.asarray(occurrences).astype(np.uint64)
    blocks = -(-count // 4)
    counter = (
        np.tile(np.arange(blocks, dtype=np.uint64), (len(ids), 1)),
        np.repeat(ids[:, None], blocks, axis=1),
        np.full((len(ids), blocks), epoch & _MASK, dtype=np.uint64),
        np.repeat(repeats[:, None], blocks, axis=1),
    )
    drawn = _philox(counter, (seed & _MASK, purpose_key(purpose)))
    return np.stack(drawn, axis=-1).reshape(len(ids), 4 * blocks)[:, :count]


def uniforms(
    seed: int, epoch: int, sample_ids: Ids, purpose: str, count: int, occurrences: Ids | None = None
) -> NDArray[np.float64]:
    """Multiples of 2**-53 in [0, 1), one for each of `words` with these arguments."""
    return (words(seed, epoch, sample_ids, purpose, count, occurrences) >> np.uint64(11)) * 2.0**-53


def integers(
    seed: int, epoch: int, sample_ids: Ids, purpose: str, count: int, n: int, occurrences: Ids | None = None
) -> Ids:
    """Integers in [0, n), 1 <= n <= 2**32, one for each of `words` with these arguments (spec §11.4).

    They are uniform to within n / 2**32: the upper half of each word is scaled, without rejection, so that each draw
    uses exactly one word.
    """
    if not 1 <= n <= 1 << 32:
        raise SettingError(subject="n", expected="an int from 1 to 2**32", found=f"{n}")
    scaled: Words = ((words(seed, epoch, sample_ids, purpose, count, occurrences) >> _HALF) * np.uint64(n)) >> _HALF
    return scaled.astype(np.int64)


@lru_cache(maxsize=256)
def purpose_key(purpose: str) -> int:
    """The second word of the key: the first eight bytes of the purpose's sha256, little-endian."""
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def _philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    c0, c1, c2, c3 = counter
    for i in range(_ROUNDS):
        k0, k1 = (np.uint64((k + i * weyl) & _MASK) for k, weyl in zip(key, _WEYL, strict=True))
        high0, low0 = _multiply(c0, _MULTIPLY[0])
        high2, low2 = _multiply(c2, _MULTIPLY[1])
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def _multiply(a: Words, factor: int) -> tuple[Words, Words]:
    """The upper and lower words of the 128-bit product, computed from 32-bit halves without overflow."""
    f0, f1 = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    a0, a1 = a & _LOW, a >> _HALF
    middle = a1 * f0 + (a0 * f0 >> _HALF)
    other = a0 * f1 + (middle & _LOW)
    return a1 * f1 + (middle >> _HALF) + (other >> _HALF), a * np.uint64(factor)
