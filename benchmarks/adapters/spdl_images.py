"""How does an SPDL pipeline decode pictures? With FFmpeg, which crops and resizes in one filter graph.

The offsets of all pictures in the mapped shards are computed in advance. Each operation makes a whole batch in one
thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import spdl.io

from benchmarks.adapters.spdl_threads import PipelineLoader
from benchmarks.crops import CROPS, Crop


class PicturePipeline(PipelineLoader):
    """The pipeline of `spdl_threads`, with decoded batches."""

    def __init__(self, root: Path, batch_size: int, threads: int, crops: str) -> None:
        super().__init__(root, batch_size, threads)
        self._crops = list(CROPS[crops].values())

    def _batch(self, rows: npt.NDArray[np.int64]) -> list[Any]:
        """Each crop as one array, and the labels (the second column)."""
        found = self._spans
        shards, begins = found.shards[rows].tolist(), found.begins[rows, 0].tolist()
        sizes = found.sizes[rows, 0].tolist()
        payloads = [bytes(self._maps[shard][a : a + n]) for shard, a, n in zip(shards, begins, sizes, strict=True)]
        return [_pixels(payloads, crop) for crop in self._crops]


def _pixels(payloads: list[bytes], crop: Crop) -> Any:
    return spdl.io.to_numpy(spdl.io.convert_frames([_frame(payload, crop) for payload in payloads]))


def _frame(payload: bytes, crop: Crop) -> Any:
    packets: Any = spdl.io.demux_image(payload)
    left, upper, right, lower = crop.box(packets.codec.width, packets.codec.height)
    where = f"crop={right - left}:{lower - upper}:{left}:{upper}:exact=1"
    how = f"scale={crop.size}:{crop.size}:flags=bilinear,format=pix_fmts=rgb24"
    return spdl.io.decode_packets(packets, filter_desc=f"{where},{how}")


def open_loader(root: Path, batch_size: int, crops: str, threads: int) -> PicturePipeline:
    """All pictures, uint8 [B, height, width, 3]."""
    return PicturePipeline(root, batch_size, threads, crops)
