"""What can be asked of a loader?"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError
from mx8shards.loading.batch import OUTPUT_KINDS, OutputKind
from mx8shards.loading.ledger import ON_ERROR, OnError
from mx8shards.loading.reach import IO, IOS
from mx8shards.order.blocks import BlockShuffle
from mx8shards.order.steps import UNEVEN, Uneven
from mx8shards.stages import Decoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The keywords of a Loader, but for its rank and pool. They travel to the workers of a DataLoader."""

    batch_size: int
    shuffle: bool | BlockShuffle = False
    seed: int = 0
    columns: Sequence[str] | None = None
    decode: Mapping[str, Decoder] = field(default_factory=dict)
    transform: Callable[[Any], Any] | None = None
    uneven: Uneven = "split"
    on_error: OnError = "raise"
    memory: int | str | None = None
    threads: int | None = None
    io: IO = "auto"
    device: str = "cpu"
    output: OutputKind = "torch"
    read_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        choices: dict[str, Sequence[str]] = {
            "uneven": UNEVEN,
            "on_error": ON_ERROR,
            "io": IOS,
            "output": OUTPUT_KINDS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                _refuse(name, f"one of {', '.join(map(repr, known))}", getattr(self, name))
        if (
            not hasattr(self.batch_size, "__index__")
            or isinstance(self.batch_size, (bool, np.bool_))
            or self.batch_size < 1
        ):
            _refuse("batch_size", "an int of at least 1", self.batch_size)
        object.__setattr__(self, "batch_size", operator.index(self.batch_size))  # NumPy's ints, too
        if self.device != "cpu" and self.output == "numpy":
            _refuse("output", f"'torch' for device={self.device!r}", self.output)
        if type(self.seed) is not int:
            _refuse("seed", "an int", self.seed)
        if not isinstance(self.shuffle, (bool, BlockShuffle)):
            _refuse("shuffle", "False, True or a BlockShuffle", self.shuffle)
        given: Any = self.decode
        decoders = given.values() if isinstance(given, Mapping) else [None]
        if not all(callable(getattr(decoder, "stage", None)) and not isinstance(decoder, type) for decoder in decoders):
            _refuse("decode", "a decoder for each column, such as {'image': mx8.CenterCrop(224)}", given)
        object.__setattr__(self, "decode", dict(given))
        if self.transform is not None and not callable(self.transform):
            _refuse("transform", "a function of a batch", self.transform)
        if not self.read_timeout_s > 0:
            _refuse("read_timeout_s", "a number of seconds above 0", self.read_timeout_s)


def _refuse(name: str, expected: str, found: object) -> None:
    raise LoaderError(subject=name, expected=expected, found=repr(found))
