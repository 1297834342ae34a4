"""How are all kernels compiled ahead of their first use?"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mx8shards.kernels import libavcodec, turbo
from mx8shards.kernels.jit import KERNELS
from mx8shards.kernels.notice import topic

# For each topic, a module that imports all modules with its kernels.
TOPICS = {
    "gathering": "gather",
    "shuffling": "feistel",
    "pictures": "picture_rows",
    "videos": "clip_decoding",
    "tiling": "recoding",
}


# The library that the kernels of a module call: None if it was not found, so that they cannot be compiled.
_NO_LIBRARY = ""
_LIBRARIES = {
    "mx8shards.kernels.decompress": turbo.library,
    "mx8shards.kernels.clip_decoding": libavcodec.library,
}


class Warmed(NamedTuple):
    """A kernel that was compiled or loaded. `place` is its cache directory, "" if it is not cached."""

    kernel: str
    topic: str
    compiled: bool  # False: it was in the cache
    seconds: float
    place: str


def warm_up(topics: Sequence[str]) -> Iterator[Warmed]:
    """Compile the kernels of these topics, one after another, unless they are cached."""
    for module in TOPICS.values():
        importlib.import_module(f"mx8shards.kernels.{module}")
    for kernel in KERNELS.values():
        of = topic(kernel.__module__)
        name = kernel.__module__
        if of in topics and name.startswith("mx8shards.") and _LIBRARIES.get(name, _NO_LIBRARY) is not None:
            begin = time.monotonic()
            compiled = kernel.load()
            yield Warmed(kernel.name, of, compiled, time.monotonic() - begin, kernel.cache_dir)
