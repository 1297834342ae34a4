"""What are the planes of a picture as a payload (§15)? For the vectors: pictures of odd and even sides."""

from __future__ import annotations

import struct
from typing import Any

MAGIC = b"mx8yuv\0\1"
SIZES = ((1, 1), (2, 4), (3, 5))


def planes() -> list[dict[str, Any]]:
    """Payloads, and what is in them, in hex: Y without what stands beyond the picture."""
    return [_picture(height, width) for height, width in SIZES]


def refused() -> list[dict[str, str]]:
    """Payloads that begin with the magic and are a breach of §15.2, in hex."""
    good = bytes.fromhex(_picture(3, 5)["payload"])
    wrapping = MAGIC + struct.pack("<II", 1 << 31, 1 << 31) + bytes(8)
    cases = {
        "one byte less": good[:-1],
        "one byte more": good + b"\0",
        "no height": MAGIC + struct.pack("<II", 0, 5) + good[16:],
        "no width": MAGIC + struct.pack("<II", 3, 0) + good[16:],
        "a size whose product wraps in 64 bits": wrapping,
        "nothing after the magic": MAGIC,
    }
    return [{"why": why, "payload": payload.hex()} for why, payload in cases.items()]


def _picture(height: int, width: int) -> dict[str, Any]:
    down, across = height + height % 2, width + width % 2
    luma = [[(16 * y + x) % 256 for x in range(width)] for y in range(height)]
    padded = [[*row, row[-1]][:across] for row in luma]
    padded = [*padded, padded[-1]][:down]
    blue, red = (bytes(first + i for i in range(down * across // 4)) for first in (100, 200))
    payload = MAGIC + struct.pack("<II", height, width) + b"".join(map(bytes, padded)) + blue + red
    return {
        "height": height,
        "width": width,
        "payload": payload.hex(),
        "y": b"".join(map(bytes, luma)).hex(),
        "cb": blue.hex(),
        "cr": red.hex(),
    }
