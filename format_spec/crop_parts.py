"""Which part of a picture is a random crop made of? The rules of §17 for the vectors."""

from __future__ import annotations

import math
from typing import Any

from vector_parts import draws, uniform

TRIES = 10
COUNT = 2 * TRIES + 3


def box(width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], u: list[float]) -> list[int]:
    """§17.2: left, top, width and height."""
    for i in range(TRIES):
        area = width * height * (scale[0] + u[2 * i] * (scale[1] - scale[0]))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(low + u[2 * i + 1] * (high - low))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(u[2 * TRIES] * (width - w + 1)), int(u[2 * TRIES + 1] * (height - h + 1))
            return [left, top, w, h]
    w, h = width, height
    if width < ratio[0] * height:
        h = max(1, round(width / ratio[0]))
    elif width > ratio[1] * height:
        w = max(1, round(height * ratio[1]))
    return [(width - w) // 2, (height - h) // 2, w, h]


def crops() -> dict[str, Any]:
    """Boxes of pictures of ordinary and of extreme shapes."""
    usual = ((0.08, 1.0), (3 / 4, 4 / 3))
    asked = [
        (size, scale, ratio, seed, sample)
        for size in ((500, 375), (375, 500), (1, 1), (3000, 7), (7, 3000))
        for scale, ratio in (usual, ((0.9, 1.0), (3.0, 4.0)))
        for seed, sample in ((0, 0), (0, 1), (17, 123))
    ]
    found = []
    for (width, height), scale, ratio, seed, sample in asked:
        u = [uniform(word) for word in draws(seed, 2, sample, "crop:image", COUNT)]
        picture = {"width": width, "height": height, "scale": scale, "ratio": ratio}
        drawn = {"seed": seed, "epoch": 2, "sample_id": sample, "purpose": "crop:image"}
        found.append({**picture, **drawn, "box": box(width, height, scale, ratio, u), "flip": u[22].hex()})
    return {"rule": "§17.2", "crops": found}
