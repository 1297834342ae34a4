"""Which settings does a Loader have, and which values are allowed?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mx8shards.errors import SettingError, one_of, real_number, shown, whole_number
from mx8shards.loading.output_kinds import OUTPUT_KINDS, OutputKind
from mx8shards.loading.planning.shard_table import IO, IOS
from mx8shards.loading.reporting.lost_samples import ON_ERROR, OnError
from mx8shards.order.blocks import BlockShuffle
from mx8shards.order.checked_order import require_order
from mx8shards.order.orders import Order
from mx8shards.order.steps import MOST_SAMPLES, UNEVEN, Uneven
from mx8shards.stages import Decoder

_DEVICE = re.compile(r"cpu(:0)?|cuda(:[0-9]{1,4})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The keyword arguments of a Loader except rank and pool. They are pickled to DataLoader workers."""

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
    order: Order | None = None
    read_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        choices: dict[str, Sequence[str]] = {
            "uneven": UNEVEN,
            "on_error": ON_ERROR,
            "io": IOS,
            "output": OUTPUT_KINDS,
        }
        for name, known in choices.items():
            one_of(name, getattr(self, name), known)
        self._keep("batch_size", whole_number("batch_size", self.batch_size, 1, MOST_SAMPLES))
        self._keep("seed", whole_number("seed", self.seed, None))  # any int: draws take it modulo 2**64
        self._keep("device", _checked_device(self.device))
        if self.device != "cpu" and self.output == "numpy":
            _refuse("output", f"'torch' for device={self.device!r}", self.output)
        if isinstance(self.shuffle, np.bool_):
            self._keep("shuffle", bool(self.shuffle))
        if not isinstance(self.shuffle, (bool, BlockShuffle)):
            _refuse("shuffle", "False, True or a BlockShuffle", self.shuffle)
        if self.order is not None:
            require_order(self.order)
            if self.shuffle is not False:
                _refuse("shuffle", "False beside order=, which replaces it", self.shuffle)
        given: Any = self.decode
        decoders = given.values() if isinstance(given, Mapping) else [None]
        if not all(callable(getattr(decoder, "stage", None)) and not isinstance(decoder, type) for decoder in decoders):
            _refuse("decode", "a decoder for each column, such as {'image': mx8.CenterCrop(224)}", given)
        self._keep("decode", dict(given))
        if self.transform is not None and not callable(self.transform):
            _refuse("transform", "a function of a batch", self.transform)
        seconds = real_number("read_timeout_s", self.read_timeout_s, "a number of seconds above 0", lambda s: s > 0)
        self._keep("read_timeout_s", seconds)

    def _keep(self, name: str, value: object) -> None:
        """Set a field of this frozen value to its checked form."""
        object.__setattr__(self, name, value)


def _checked_device(device: Any) -> str:
    """The name of a device: torch.device("cuda", 0) means "cuda:0"."""
    name = str(device) if type(device).__name__ == "device" else device
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        _refuse("device", "'cpu', 'cuda' or 'cuda:N'", device)
    return "cpu" if name.startswith("cpu") else name


def _refuse(name: str, expected: str, found: object) -> None:
    raise SettingError(subject=name, expected=expected, found=shown(found))
