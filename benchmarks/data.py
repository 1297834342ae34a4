"""Which samples are measured? Generated photos, texts and signals: realistic, and equal on every machine."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageDraw

ARRAY_ITEMS = 1024
BLOB_BYTES = 100_000
TINY_BYTES = 64
TINY_PER_SHARD = 500_000

_VOCABULARY = 20_000
_FOLLOWERS = 32
_LETTERS = "etaoinshrdlucmfwypvbgkjxqz"  # in order of frequency in English


def photos(count: int, seed: int = 17) -> list[bytes]:
    """JPEG files of 640 × 480 pixels and 110 to 130 KB, each with the colour profile that cameras embed."""
    rng = np.random.default_rng(seed)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return [_photo(rng, profile) for _ in range(count)]


def _photo(rng: np.random.Generator, profile: bytes) -> bytes:
    width, height = 640, 480
    light = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    picture = light.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for x, y, radius, *colour in rng.integers(0, [width, height, 120, 256, 256, 256], (30, 6)).tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour))
    grain = rng.integers(-24, 25, (height, width, 1), dtype=np.int16)
    pixels = (np.asarray(picture, np.int16) + grain).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85, icc_profile=profile)
    return out.getvalue()


def blobs(count: int, seed: int = 17) -> list[bytes]:
    """Photos cut to 100,000 bytes each. zstd saves less than 1 %."""
    return [photo[:BLOB_BYTES] for photo in photos(count, seed)]


def arrays(count: int, seed: int = 17) -> npt.NDArray[np.int32]:
    """Signals of 1,024 int32 each: three waves and noise of about six bits."""
    rng = np.random.default_rng(seed)
    time = np.arange(ARRAY_ITEMS) / ARRAY_ITEMS
    found = rng.normal(0, 20, (count, ARRAY_ITEMS))
    for _ in range(3):
        waves, height, phase = (rng.uniform(a, b, (count, 1)) for a, b in ((1.0, 12.0), (200.0, 4000.0), (0.0, 6.3)))
        found += height * np.sin(2 * np.pi * waves * time + phase)
    return found.astype(np.int32)


def texts(count: int, words: int = 500, seed: int = 17) -> list[str]:
    """Documents of about 3 KB. Words follow Zipf's law, and half of them repeat a frequent pair of words."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(_LETTERS) + 1)
    letters = rng.choice(list(_LETTERS), (_VOCABULARY, 10), p=share / share.sum())
    lengths = rng.integers(2, 11, _VOCABULARY)
    vocabulary = np.array(["".join(row[:n]) for row, n in zip(letters, lengths, strict=True)], object)
    followers = _common_words(rng, (_VOCABULARY, _FOLLOWERS))
    chain = np.empty((count, words), np.int64)
    now = _common_words(rng, count)
    for k in range(words):
        chain[:, k] = now
        after = followers[now, (rng.random(count) ** 2 * _FOLLOWERS).astype(int)]
        now = np.where(rng.random(count) < 0.5, after, _common_words(rng, count))
    return [" ".join(row) for row in vocabulary[chain].tolist()]


def _common_words(rng: np.random.Generator, shape: Any) -> npt.NDArray[np.int64]:
    share = np.cumsum(1 / np.arange(1, _VOCABULARY + 1))
    found: npt.NDArray[np.int64] = np.searchsorted(share, rng.random(shape) * share[-1])
    return found


def keep(path: Path, payloads: list[bytes]) -> None:
    """Save payloads for the measuring processes."""
    sizes = np.array([len(payload) for payload in payloads], np.int64)
    np.savez(path, data=np.frombuffer(b"".join(payloads), np.uint8), sizes=sizes)


def load(path: Path) -> list[bytes]:
    """Load saved payloads."""
    with np.load(path) as kept:
        data, sizes = kept["data"].tobytes(), kept["sizes"]
    ends = np.cumsum(sizes)
    return [data[a:b] for a, b in zip((ends - sizes).tolist(), ends.tolist(), strict=True)]


def tiny(out: Path, count: int) -> None:
    """A dataset of samples of 64 bytes. All its shards have equal bytes."""
    from benchmarks.adapters import ours

    per_shard = min(count, TINY_PER_SHARD)
    payloads = np.random.default_rng(17).integers(0, 256, (per_shard, TINY_BYTES), np.uint8)
    ours.write(out, {"x": f"ndarray:uint8:{TINY_BYTES}"}, ({"x": payload} for payload in payloads), size_limit="1gb")
    repeat_shard(out, count // per_shard, shutil.copyfile)


def sparse(out: Path, shards: int, per_shard: int, sample_bytes: int) -> None:
    """A dataset with sparse shards: real offset tables, and samples that are holes, which read as zeros."""
    from benchmarks.adapters import ours

    payload = np.zeros(sample_bytes, np.uint8)
    ours.write(
        out, {"x": f"ndarray:uint8:{sample_bytes}"}, ({"x": payload} for _ in range(per_shard)), size_limit="1gb"
    )
    repeat_shard(out, shards, lambda shard, path: _copy_table(shard, path, per_shard))


def _copy_table(shard: Path, path: Path, samples: int) -> None:
    table = np.fromfile(shard, "<u4", samples + 2)
    with shard.open("rb") as file:
        path.write_bytes(file.read(int(table[1])))
    os.truncate(path, shard.stat().st_size)


def repeat_shard(root: Path, count: int, copy: Callable[[Path, Path], object]) -> None:
    """Repeat a dataset's only shard `count` times. The index has no hashes, like Streaming's by default."""
    entry = json.loads((root / "index.json").read_bytes())["shards"][0]
    shard = root / entry["raw_data"]["basename"]
    entries = []
    for number in range(count):
        raw = entry["raw_data"] | {"basename": f"copy.{number:05}.mds", "hashes": {}}
        copy(shard, root / raw["basename"])
        entries.append(entry | {"raw_data": raw, "hashes": []})
    shutil.rmtree(root / ".mx8shards")
    shard.unlink()
    (root / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
