"""How does mx8shards decode pictures?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mx8shards as mx8
from benchmarks import turbojpeg
from benchmarks.crops import CROPS, Centre, Crop


def open_loader(
    root: Path, batch_size: int, crops: str, exact: bool = False, library: str | None = None, **options: Any
) -> Any:
    """The Loader, fully shuffled; uint8 [B, 3, height, width]. `library`: a name that `turbojpeg.path_of` takes."""
    if library is not None:
        path = turbojpeg.path_of(library)
        assert path is not None
        os.environ["MX8SHARDS_TURBOJPEG"] = path  # read when the first picture is decoded
    decode = {"image": _spec(CROPS[crops], exact)}
    return mx8.Loader(
        mx8.Dataset(root),
        batch_size=batch_size,
        columns=["image", "label"],
        decode=decode,
        **{"shuffle": True, "seed": 17} | options,
    )


def _spec(crops: dict[str, Crop], exact: bool) -> Any:
    specs = {name: _one(crop, exact) for name, crop in crops.items()}
    return specs["image"] if len(specs) == 1 else mx8.MultiCrop(specs)


def _one(crop: Crop, exact: bool) -> Any:
    if isinstance(crop, Centre):
        return mx8.CenterCrop(crop.size, resize=crop.resize, exact=exact)
    return mx8.RandomResizedCrop(crop.size, scale=crop.scale, flip=0, exact=exact)
