"""How are pictures mirrored, changed in colour and mixed at random? The rules of §17.3 to §17.5 for the vectors."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import Any

from vector_parts import draws, uniform

Pixel = tuple[float, float, float]
Picture = Sequence[Pixel]  # its pixels, row by row
SEED, EPOCH, SAMPLES = 17, 3, (0, 1, 5, 40, 41, 2**40)
PICTURE: Picture = ((0.0, 0.5, 1.0), (0.25, 0.25, 0.25), (1.0, 0.75, 0.5), (0.125, 0.875, 0.375))


def uniforms(sample: int, purpose: str, count: int) -> list[float]:
    return [uniform(word) for word in draws(SEED, EPOCH, sample, purpose, count)]


def clamped(level: float) -> float:
    return min(max(level, 0.0), 1.0)


def luma(pixel: Pixel) -> float:
    return 0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def blended(pixel: Pixel, other: float, amount: float) -> Pixel:
    red, green, blue = (clamped(amount * level + (1 - amount) * other) for level in pixel)
    return red, green, blue


def brightness(picture: Picture, amount: float) -> Picture:
    return [blended(pixel, 0.0, amount) for pixel in picture]


def contrast(picture: Picture, amount: float) -> Picture:
    mean = math.fsum(map(luma, picture)) / len(picture)
    return [blended(pixel, mean, amount) for pixel in picture]


def saturation(picture: Picture, amount: float) -> Picture:
    return [blended(pixel, luma(pixel), amount) for pixel in picture]


def hue(picture: Picture, amount: float) -> Picture:
    turned = []
    for pixel in picture:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        turned.append(colorsys.hsv_to_rgb((h + amount) % 1, s, v))
    return turned


STEPS: tuple[Callable[[Picture, float], Picture], ...] = (brightness, contrast, saturation, hue)


def jitter(sample: int, ranges: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """§17.4"""
    u = uniforms(sample, "jitter:image", 8)
    amounts = [low + u[k] * (high - low) for k, (low, high) in enumerate(ranges)]
    order = sorted(range(4), key=lambda k: u[4 + k])
    picture = PICTURE
    for k in order:
        picture = STEPS[k](picture, amounts[k])
    return {"sample_id": sample, "ranges": ranges, "amounts": amounts, "order": order, "pixels": picture}


def chosen(purpose: str, probability: float) -> dict[str, Any]:
    """§17.3: which of the samples take part."""
    found = [uniforms(sample, purpose, 1)[0] < probability for sample in SAMPLES]
    return {"purpose": purpose, "p": probability, "chosen": found}


def quantile(alpha: float, u: float) -> float:
    """Of Beta(alpha, alpha), where a formula gives it."""
    return {1.0: u, 0.5: math.sin(math.pi * u / 2) ** 2}[alpha]


def partners(keys: Sequence[float]) -> list[int]:
    """The next row in ascending order of the keys, and the first one for the last."""
    order = sorted(range(len(keys)), key=lambda row: keys[row])
    after = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [after[row] for row in range(len(keys))]


def box(share: float, x: float, y: float, width: int, height: int) -> list[int]:
    """Left, top, right and bottom of what CutMix pastes."""
    across, down = math.floor(x * width), math.floor(y * height)
    half = math.sqrt(1 - share) / 2
    w, h = math.floor(width * half), math.floor(height * half)
    return [max(across - w, 0), max(down - h, 0), min(across + w, width), min(down + h, height)]


def mix(kind: str, alpha: float, probability: float, width: int, height: int) -> dict[str, Any]:
    """§17.5"""
    drawn = [uniforms(sample, f"{kind}:image", 5) for sample in SAMPLES]
    shares = [quantile(alpha, u[1]) if u[0] < probability else 1.0 for u in drawn]
    found = {"kind": kind, "alpha": alpha, "p": probability, "width": width, "height": height}
    found["partners"] = partners([u[2] for u in drawn])
    if kind == "cutmix":
        boxes = [box(share, u[3], u[4], width, height) for share, u in zip(shares, drawn, strict=True)]
        found["boxes"] = boxes
        shares = [1 - (right - left) * (bottom - top) / (width * height) for left, top, right, bottom in boxes]
    return {**found, "shares": shares}


def colours(samples: Sequence[int] = SAMPLES) -> dict[str, Any]:
    """What is done to a batch of these samples."""
    every = [(0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)]
    some = [(1.0, 1.0), (0.0, 3.0), (1.0, 1.0), (-0.5, 0.5)]
    return {
        "rule": "§17.3",
        "seed": SEED,
        "epoch": EPOCH,
        "sample_ids": list(samples),
        "chosen": [chosen("flip:image", 0.5), chosen("grayscale:image", 0.3)],
        "picture": PICTURE,
        "grey": [[luma(pixel)] * 3 for pixel in PICTURE],
        "jitters": [jitter(sample, ranges) for ranges in (every, some) for sample in samples],
        "mixes": [
            mix(kind, alpha, probability, 40, 30)
            for kind in ("mixup", "cutmix")
            for alpha, probability in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.5))
        ],
    }
