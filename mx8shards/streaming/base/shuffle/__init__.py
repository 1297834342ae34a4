"""The names of `streaming.base.shuffle` in MosaicML Streaming."""

from __future__ import annotations

from mx8shards.streaming.order_functions import (
    get_shuffle,
    get_shuffle_naive,
    get_shuffle_py1br,
    get_shuffle_py1e,
    get_shuffle_py1s,
    get_shuffle_py2s,
)
from mx8shards.streaming.order_functions import shuffle_algos as algos

__all__ = [
    "algos",
    "get_shuffle",
    "get_shuffle_naive",
    "get_shuffle_py1br",
    "get_shuffle_py1e",
    "get_shuffle_py1s",
    "get_shuffle_py2s",
]
