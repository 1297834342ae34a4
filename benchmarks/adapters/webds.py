"""How does WebDataset write and read samples?

It reads tar files sequentially. It shuffles the order of the files and a buffer of samples, so its batches are less
random than those of the others, and its reads are easier for a disk.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from benchmarks.adapters.torch_loader import Epochs, collate

BUFFERED = 1_000  # samples in the shuffle buffer
ARRAY = ".i4"  # file extension for one-dimensional int32 arrays
LABEL = ".cls"


def write(out: Path, columns: Mapping[str, str], samples: Iterable[Mapping[str, Any]]) -> None:
    """Write tar files of 64 MB, with the column's name as the file's extension."""
    out.mkdir()
    with webdataset.ShardWriter(f"{out}/%05d.tar", maxsize=64_000_000, maxcount=1 << 40, verbose=0) as writer:
        for number, sample in enumerate(samples):
            writer.write(
                {"__key__": f"{number:09}"} | {_file(name, sample[name]): _bytes(sample[name]) for name in columns}
            )


def _file(name: str, value: Any) -> str:
    return name + (ARRAY if isinstance(value, np.ndarray) else LABEL if isinstance(value, int) else ".bin")


def _bytes(value: Any) -> bytes:
    return (
        value.tobytes() if isinstance(value, np.ndarray) else str(value).encode() if isinstance(value, int) else value
    )


def open_loader(root: Path, batch_size: int, workers: int = 0, joined: bool = True) -> Any:
    """Tar files in random order and a shuffle buffer; batches are made in the workers."""
    files = sorted(str(path) for path in root.glob("*.tar"))
    dataset = webdataset.WebDataset(files, shardshuffle=len(files), seed=17, empty_check=False)
    batches = dataset.shuffle(BUFFERED).batched(batch_size, collation_fn=functools.partial(_collated, joined=joined))
    return Epochs(webdataset.WebLoader, workers, dataset=batches, batch_size=None)


def _collated(samples: Sequence[Mapping[str, Any]], *, joined: bool) -> dict[str, Any]:
    return collate([_decoded(sample) for sample in samples], joined=joined)


def _decoded(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in sample.items() if not name.startswith("__")}


def _value(name: str, value: Any) -> Any:
    if name.endswith(ARRAY):
        return np.frombuffer(value, np.int32)
    return int(value) if name.endswith(LABEL) else value
