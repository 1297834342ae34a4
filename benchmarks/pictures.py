"""Which pictures are decoded? Generated pictures with the statistics of photographs, and real photographs.

Photographs have edges and a power spectrum that falls with the square of the frequency. The generated pictures are
overlapping ellipses of all sizes, each shaded with noise of that spectrum, plus a little grain.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # width, height

SIZES: tuple[Size, ...] = ((500, 375), (500, 375), (500, 375), (500, 333), (375, 500), (500, 400), (480, 360))
QUALITY = 95  # of generated pictures: gives about 108 KB, like ImageNet's files
REAL_QUALITY = 95
LARGE: Size = (4000, 3000)
LARGE_BITS = 2.0  # bits per pixel, like files of cameras and phones
CLASSES = 10

# Colour photographs of at least about 500 × 375 pixels in scikit-image and scikit-learn.
REAL = {
    "skimage": tuple(
        f"data/{name}"
        for name in (
            *("astronaut.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "motorcycle_right.png"),
            *("retina.jpg", "rocket.jpg"),
        )
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def generated(count: int, seed: int = 17) -> list[bytes]:
    """JPEG files, 4:2:0, of about 500 × 375 pixels and 108 KB."""
    sizes = itertools.islice(itertools.cycle(SIZES), count)
    return _each(lambda job: encoded(picture(job[1], seed + job[0])), enumerate(sizes))


def large(count: int, seed: int = 17, size: Size = LARGE) -> list[bytes]:
    """JPEG files of 12 megapixels, at two bits per pixel."""
    return _each(lambda k: _of_size(picture(size, seed + k), LARGE_BITS), range(count))


def real(count: int, seed: int = 17) -> list[bytes]:
    """Crops of real photographs, re-encoded at about 500 × 375 pixels."""
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in real_files()]
    turns = itertools.islice(zip(itertools.cycle(photos), itertools.cycle(SIZES), itertools.count(seed)), count)
    return _each(lambda job: encoded(_cropped(*job), REAL_QUALITY), turns)


def labelled(count: int, seed: int = 17) -> list[bytes]:
    """JPEG files of 160 × 120 pixels in ten classes: waves in five directions and two pairs of colours."""
    return _each(lambda k: encoded(_waves(k % CLASSES, seed + k), 85), range(count))


def _waves(label: int, seed: int) -> Pixels:
    """Waves that are partly hidden by a texture."""
    rng = np.random.default_rng(seed)
    size = (160, 120)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    angle = np.pi * (label % 5 + rng.uniform(-0.35, 0.35)) / 5
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.25, 0.7) + rng.uniform(0, 6))
    colours = np.array(((14, 4, -14), (-14, 10, 8))[label // 5], np.float32) * rng.uniform(0.2, 1.2)
    noise = np.stack([_field(rng, size, power) * 22 for power in (0.6, 0.7, 0.6)], axis=-1)
    pixels: Pixels = (128 + wave[..., None] * colours + noise).clip(0, 255).astype(np.uint8)
    return pixels


def real_files() -> list[Path]:
    """The photographs in the installed packages, without importing these."""
    found = {package: importlib.util.find_spec(package) for package in REAL}
    return [
        Path(spec.submodule_search_locations[0]) / name
        for package, spec in found.items()
        if spec is not None and spec.submodule_search_locations
        for name in REAL[package]
    ]


def write_folder(root: Path, payloads: Sequence[bytes], count: int) -> None:
    """Write `count` files into ten folders, one per class, repeating the payloads."""
    for label in range(min(CLASSES, count)):  # the converter refuses empty folders
        (root / f"class{label}").mkdir(parents=True)
    for number in range(count):
        path = root / f"class{number % CLASSES}" / f"{number:06}.jpg"
        path.write_bytes(payloads[number % len(payloads)])


def files(root: Path) -> list[tuple[Path, int]]:
    """The files in such a folder, with their labels."""
    return [(path, int(path.parent.name.removeprefix("class"))) for path in sorted(root.glob("*/*.jpg"))]


def encoded(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode a picture as JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def picture(size: Size, seed: int) -> Pixels:
    """One generated picture."""
    rng = np.random.default_rng(seed)
    light = _field(rng, size, 1.1) * rng.uniform(16, 31)
    tint = [_field(rng, size, 1.5) * rng.uniform(4, 12) for _ in range(2)]
    shapes = np.asarray(_leaves(rng, size), np.float32)
    grain = rng.standard_normal((*light.shape, 1), np.float32) * rng.uniform(1, 4.5)
    colours = np.stack([light + tint[0], light, light + tint[1]], axis=-1) + grain
    pixels: Pixels = (shapes * 0.7 + 38 + colours).clip(0, 255).astype(np.uint8)
    return pixels


def _field(rng: np.random.Generator, size: Size, power: float) -> npt.NDArray[np.float32]:
    """Noise of variance 1 whose amplitude falls with a power of the frequency."""
    width, height = size
    shape = (_smooth(height), _smooth(width))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]).astype(np.float32)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape, np.float32)) * frequency**-power
    found = np.fft.irfft2(spectrum, shape)[:height, :width]
    return np.asarray((found - found.mean()) / found.std(), np.float32)


def _smooth(length: int) -> int:
    """The next size that is fast for an FFT: a multiple of 128 with small prime factors."""
    return -(-length // 128) * 128


def _leaves(rng: np.random.Generator, size: Size) -> Image.Image:
    """Overlapping ellipses, few large ones and many small ones."""
    width, height = size
    canvas = Image.new("RGB", size, tuple(rng.integers(40, 216, 3).tolist()))
    draw = ImageDraw.Draw(canvas)
    radii = min(size) / 3 / rng.uniform(0.1, 1, 60) ** -1.5
    for radius in sorted(radii.tolist(), reverse=True):
        x, y, stretch = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.4, 1.6)
        base = rng.integers(20, 236)
        colour = tuple((base + rng.integers(-40, 41, 3)).clip(0, 255).tolist())
        draw.ellipse((x - radius * stretch, y - radius, x + radius * stretch, y + radius), fill=colour)
    return canvas


def _of_size(pixels: Pixels, bits: float) -> bytes:
    """Encode with the quality that gives about `bits` per pixel."""
    wanted = pixels.shape[0] * pixels.shape[1] * bits / 8
    tried = {quality: encoded(pixels, quality) for quality in (96, 93, 90, 86, 82, 76, 70, 60)}
    return min(tried.values(), key=lambda payload: abs(len(payload) - wanted))


def _cropped(photo: Pixels, size: Size, seed: int) -> Pixels:
    """A random crop of a photograph, not smaller than the result, mirrored at random."""
    rng = np.random.default_rng(seed)
    height, width = photo.shape[:2]
    most = min(width / size[0], height / size[1])
    scale = rng.uniform(min(1.0, most), most)
    w, h = size[0] * scale, size[1] * scale
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    piece = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS, box=(x, y, x + w, y + h))
    return np.asarray(piece)[:, :: rng.choice([1, -1])].copy()


def _each(make: Callable[[Any], bytes], jobs: Iterable[Any]) -> list[bytes]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, jobs))
