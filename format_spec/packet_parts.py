"""What is a packet index (§18)? For the vectors: indices by the text alone, and ones that break a rule."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import gcd
from typing import Any

MAGIC = b"MX8PKT1\n"
HEADER = "<8sHHHBBBBIIIIIIqqqIIBB"
UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
KEYFRAME, DISPOSABLE, SHOWN = 1, 2, 4

B_FRAMES: dict[str, Any] = {
    "facts": {
        "stream": 1,
        "rotation": 90,
        "matrix": 1,
        "range": 2,
        "siting": 1,
        "reorder": 1,
        "width": 64,
        "height": 48,
    }
    | {"time_base": [1, 12_800], "sample_aspect": [4, 3], "end": 2_048, "codec": "h264", "pixel_format": "yuv420p"}
    | {"slices": True, "decoded": True},
    "extradata": "0164",
    "pts": [0, 1_536, 512, 1_024],
    "dts": [-512, 0, 512, 1_024],
    "position": [48, 40_048, 41_000, 41_200],
    "size": [40_000, 900, 200, 150],
    "flags": [5, 4, 6, 6],
}
ONE: dict[str, Any] = {
    "facts": {
        "stream": 0,
        "rotation": 0,
        "matrix": 2,
        "range": 0,
        "siting": 0,
        "reorder": 0,
        "width": 1,
        "height": 65_536,
    }
    | {"time_base": [1_001, 30_000], "sample_aspect": [1, 1], "end": 1 << 52, "codec": "mjpeg", "pixel_format": "gray"}
    | {"slices": False, "decoded": False},
    "extradata": "",
    "pts": [-(1 << 52)],
    "dts": [-(1 << 52)],
    "position": [0],
    "size": [0],
    "flags": [7],
}


def packet_indices() -> dict[str, Any]:
    """Indices with their values, and ones that are refused for a video of 41,350 bytes."""
    good = [B_FRAMES, ONE, {**B_FRAMES, "flags": [5, 4, 6, 2]}]
    return {
        "rule": "§18",
        "indices": [{**values, "index": encoded(values).hex()} for values in good],
        "video_bytes": 41_350,
        "refused": [{"why": why, "index": data.hex()} for why, data in _refused().items()],
    }


def encoded(values: dict[str, Any]) -> bytes:
    """An index with these values."""
    facts, count = values["facts"], len(values["pts"])
    codec, pixels, extradata = (
        facts["codec"].encode(),
        facts["pixel_format"].encode(),
        bytes.fromhex(values["extradata"]),
    )
    header = struct.pack(
        HEADER,
        MAGIC,
        facts["slices"] + 2 * facts["decoded"],
        *(facts[name] for name in ("stream", "rotation", "matrix", "range", "siting", "reorder", "width", "height")),
        *(*facts["time_base"], *facts["sample_aspect"]),
        *(values["dts"][0], facts["end"], values["position"][0]),
        *(count, len(extradata), len(codec), len(pixels)),
    )
    pts, dts, position, size = (values[name] for name in ("pts", "dts", "position", "size"))
    columns = (
        [pts[i] - dts[i] for i in range(count)],
        [dts[i] - dts[i - 1] for i in range(1, count)],
        size,
        [position[i] - position[i - 1] - size[i - 1] for i in range(1, count)],
    )
    return b"".join((header, codec, pixels, extradata, *map(_column, columns), bytes(values["flags"])))


def _column(values: Sequence[int]) -> bytes:
    base = min(values, default=0)
    step = gcd(*(value - base for value in values)) or 1
    stored = [(value - base) // step for value in values]
    width = next(width for width in (0, 1, 2, 4, 8) if max(stored, default=0) < 1 << 8 * width)
    numbers = struct.pack(f"<{len(stored)}{UNSIGNED[width]}", *stored) if width else b""
    return struct.pack("<qQB", base, step, width) + numbers


def _refused() -> dict[str, bytes]:
    good = encoded(B_FRAMES)
    first_column = struct.calcsize(HEADER) + len("h264yuv420p") + 2

    def changed(at: int, *new: int) -> bytes:
        return good[:at] + bytes(new) + good[at + len(new) :]

    def with_values(**values: Any) -> bytes:
        return encoded({**B_FRAMES, **values})

    def with_facts(**facts: Any) -> bytes:
        return encoded({**B_FRAMES, "facts": {**B_FRAMES["facts"], **facts}})

    return {
        "another magic": changed(7, 0),
        "one byte less": good[:-1],
        "one byte more": good + b"\0",
        "nothing after the magic": MAGIC,
        "an unknown flag of the header": changed(8, 7),
        "an unknown flag of a packet": changed(len(good) - 1, 12),
        "a rotation by 45 degrees": with_facts(rotation=45),
        "an unknown range": with_facts(range=3),
        "too many frames that are held back": with_facts(reorder=17),
        "no width": with_facts(width=0),
        "too large a height": with_facts(height=65_537),
        "a time base of zero": with_facts(time_base=[1, 0]),
        "a pixel without width": with_facts(sample_aspect=[0, 1]),
        "a codec in capitals": with_facts(codec="H264"),
        "a codec without a name": with_facts(codec=""),
        "no packets": changed(66, 0, 0, 0, 0),
        "more packets than bytes": changed(66, 255, 255, 255, 255),
        "more extradata than bytes": changed(70, 255, 255, 255, 255),
        "a width of three bytes": changed(first_column + 16, 3),
        "a step of zero": changed(first_column + 8, 0, 0),
        "a step that overflows": changed(first_column + 15, 255),
        "a packet beyond the video": with_values(position=[48, 40_048, 41_000, 41_201]),
        "a packet before the video": with_values(position=[-1, 40_048, 41_000, 41_200]),
        "a negative size": with_values(size=[40_000, -1, 200, 150]),
        "no keyframe first": with_values(flags=[4, 4, 6, 6]),
        "no packet that is shown": with_values(flags=[1, 0, 2, 2]),
        "two frames at one time": with_values(pts=[0, 1_536, 512, 512]),
        "an end before the last frame": with_facts(end=1_536),
        "a time beyond the limit": with_values(pts=[0, (1 << 60) + 1, 512, 1_024]),
        "times whose sum is beyond the limit": with_values(dts=[-(1 << 60), 1, 1 << 60, (1 << 60) + 1]),
    }
