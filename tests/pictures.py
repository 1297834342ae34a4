"""Helpers for decoding tests: picture files, and Pillow's crops of them."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

import mx8shards as mx8
from mx8shards.format.randomness import uniforms
from tests.pixels import resized_by_pillow

Array = npt.NDArray[Any]
Part = tuple[int, int, int, int]  # left, top, width, height

TRIES = 10
DRAWS = 2 * TRIES + 3


def jpeg(pixels: Array, subsampling: str = "420", quality: int = 90) -> bytes:
    """A JPEG with chroma of this kind: 444, 422, 420, 440, 411 or Gray."""
    colours = "GRAY" if subsampling == "Gray" else "RGB"
    pixels = pixels[..., :1] if subsampling == "Gray" else pixels
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colours, subsampling)


def file_of(image: Image.Image | Array, kind: str = "JPEG", **options: Any) -> bytes:
    """A picture, encoded by Pillow."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def write(root: Path, files: Iterable[bytes], **options: Any) -> mx8.Dataset:
    """Write a dataset of these pictures, with their sample_ids as labels."""
    with mx8.Writer(root, columns={"image": "bytes", "label": "int"}, **{"size_limit": "100kb", **options}) as writer:
        for label, file in enumerate(files):
            writer.write({"image": file, "label": label})
    return mx8.Dataset(root)


# reference crops ------------------------------------------------------------------------------------------------------


def get_params(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    uniform: Callable[[float, float], float],
    below: Callable[[int], int],
) -> Part:
    """torchvision's RandomResizedCrop.get_params: ten tries, then the centre."""
    for _ in range(TRIES):
        area = width * height * uniform(*scale)
        aspect = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return below(width - w + 1), below(height - h + 1), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


def part_by(draws: Array, width: int, height: int, scale: Any, ratio: Any) -> Part:
    """The same with given random numbers: two per try, and two for the position."""
    tries, places = iter(draws[: 2 * TRIES].tolist()), iter(draws[2 * TRIES :].tolist())
    return get_params(
        width,
        height,
        scale,
        ratio,
        lambda low, high: low + next(tries) * (high - low),
        lambda count: int(next(places) * count),
    )


def sides_of(spec: Any) -> tuple[int, int]:
    """Height and width of a crop."""
    return spec.size if isinstance(spec.size, tuple) else (spec.size, spec.size)


def middle_of(spec: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """The box of a crop that is not random: left, top, right, bottom."""
    down, across = sides_of(spec)
    if getattr(spec, "resize", None):
        short = min(width, height)
        new = [spec.resize if side == short else int(spec.resize * side / short) for side in (width, height)]
        left, top = (round((n - side) / 2) for n, side in zip(new, (across, down), strict=True))
        part_x, part_y = width / new[0], height / new[1]
        return left * part_x, top * part_y, (left + across) * part_x, (top + down) * part_y
    part = min(width / across, height / down)
    if isinstance(spec, mx8.CenterCrop) and part >= 1:
        left, top = round((width - across) / 2), round((height - down) / 2)
        return left, top, left + across, top + down
    across, down = across * part, down * part
    left, top = (width - across) / 2, (height - down) / 2
    return max(left, 0), max(top, 0), min(left + across, width), min(top + down, height)


def crop_of(image: Image.Image, spec: Any, draws: Array) -> Array:
    """The crop by Pillow: height × width × 3, from 0 to 255."""
    shape = sides_of(spec)
    if isinstance(spec, mx8.RandomResizedCrop):
        left, top, width, height = part_by(draws, *image.size, spec.scale, spec.ratio)
        part = np.asarray(image)[top : top + height, left : left + width]
        pixels = resized_by_pillow(part, (0, 0, width, height), shape)
    else:
        pixels = resized_by_pillow(np.asarray(image), middle_of(spec, *image.size), shape)
    return pixels[:, ::-1] if draws[-1] < spec.flip else pixels


def draws_of(spec: Any, name: str, sample_id: int, seed: int = 0, epoch: int = 0) -> Array:
    """The random numbers of one crop of one sample."""
    purpose = f"crop:{name}" if spec.seed is None else f"crops:{spec.seed}"
    return uniforms(seed, epoch, np.array([sample_id]), purpose, DRAWS)[0]


def reference_crop(file: bytes, spec: Any, name: str, sample_id: int, seed: int = 0, epoch: int = 0) -> Array:
    """The reference crop of a picture file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns that a palette's transparency is lost
        image = Image.open(io.BytesIO(file)).convert("RGB")
    return crop_of(image, spec, draws_of(spec, name, sample_id, seed, epoch))


def difference(a: Array, b: Array) -> tuple[float, int]:
    """Mean and greatest difference of two pictures."""
    found = np.abs(a.astype(np.int64) - b)
    return float(found.mean()), int(found.max())
