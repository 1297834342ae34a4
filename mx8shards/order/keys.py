"""How are the key words of an epoch's permutation derived from snapshot, view and seed? (spec §12.3)"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from mx8shards.order.permutation import WORDS, Words

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Key:
    """The inputs of an order besides the epoch: the snapshot's id, the view's hash and the user's seed."""

    snapshot: str
    view: str
    seed: int

    def words(self, purpose: str, epoch: int) -> Words:
        """The words that select a permutation; they differ for each purpose and epoch."""
        parts = ["mx8shards order 1", purpose, self.snapshot, self.view, self.seed & _MASK, epoch & _MASK]
        digest = hashlib.shake_256(json.dumps(parts).encode()).digest(8 * WORDS)
        return np.frombuffer(digest, "<u8").astype(np.uint64)
