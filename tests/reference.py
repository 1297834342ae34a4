"""Reference implementation of MDS with only struct and json.

Slow, simple and independent of the package: payloads in, payloads out, without checks. Streaming and mx8shards are
compared with it, and it writes foreign datasets for tests.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

Payloads = dict[str, bytes]

SCALAR_SIZES = {"int": 8, "float16": 2, "float32": 4, "float64": 8} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def fixed_size(encoding: str) -> int | None:
    """The size of every payload of an encoding, or None if sizes differ."""
    if encoding in SCALAR_SIZES:
        return SCALAR_SIZES[encoding]
    if encoding.startswith("ndarray:") and encoding.count(":") == 2:
        _, dtype, shape = encoding.split(":")
        size = SCALAR_SIZES[dtype]
        for dim in shape.split(","):
            size *= int(dim)
        return size
    return None


def config(columns: Mapping[str, str], compression: str | None, hashes: Sequence[str], limit: object) -> dict[str, Any]:
    names = sorted(columns)
    return {
        "column_encodings": [columns[name] for name in names],
        "column_names": names,
        "column_sizes": [fixed_size(columns[name]) for name in names],
        "compression": compression,
        "format": "mds",
        "hashes": list(hashes),
        "size_limit": limit,
        "version": 2,
    }


def sample_bytes(columns: Mapping[str, str], sample: Mapping[str, bytes]) -> bytes:
    names = sorted(columns)
    sizes = [len(sample[name]) for name in names if fixed_size(columns[name]) is None]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(sample[name] for name in names)


def shard_bytes(head: bytes, samples: Sequence[bytes]) -> bytes:
    """The bytes of a raw shard, whose config JSON is `head`."""
    offsets = [4 + 4 * (len(samples) + 1) + len(head)]
    for sample in samples:
        offsets.append(offsets[-1] + len(sample))
    return struct.pack(f"<{len(offsets) + 1}I", len(samples), *offsets) + head + b"".join(samples)


def write_dataset(
    root: Path,
    columns: Mapping[str, str],
    shards: Sequence[Sequence[Mapping[str, bytes]]],
    *,
    compression: str | None = None,
    hashes: Sequence[str] = (),
    size_limit: object = 1 << 26,
) -> Path:
    """Write a dataset of exactly these shards, as a foreign MDS writer would."""
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    common = config(columns, compression, hashes, size_limit)
    for number, samples in enumerate(shards):
        name = f"shard.{number:05}.mds"
        raw = shard_bytes(json.dumps(common, sort_keys=True).encode(), [sample_bytes(columns, s) for s in samples])
        stored, zipped = raw, None
        if compression:
            stored = compress(compression, raw)
            zipped = f"{name}.{compression.partition(':')[0]}"
        (root / (zipped or name)).write_bytes(stored)
        entries.append(
            common
            | {"raw_data": file_info(name, raw, hashes), "samples": len(samples)}
            | {"zip_data": file_info(zipped, stored, hashes) if zipped else None}
        )
    write_index(root, {"version": 2, "shards": entries})
    return root


def file_info(name: str, data: bytes, hashes: Sequence[str]) -> dict[str, Any]:
    return {"basename": name, "bytes": len(data), "hashes": {h: hashlib.new(h, data).hexdigest() for h in hashes}}


def write_index(root: Path, index: object) -> None:
    (root / "index.json").write_text(json.dumps(index, sort_keys=True))


def read_index(root: Path) -> dict[str, Any]:
    return json.loads((root / "index.json").read_bytes())  # type: ignore[no-any-return]


def read_dataset(root: Path) -> list[Payloads]:
    """The payloads of all samples, in order."""
    return [sample for entry in read_index(root)["shards"] for sample in read_shard(root, entry)]


def read_shard(root: Path, entry: Mapping[str, Any]) -> list[Payloads]:
    if entry["zip_data"]:
        raw = decompress(entry["compression"], (root / entry["zip_data"]["basename"]).read_bytes())
    else:
        raw = (root / entry["raw_data"]["basename"]).read_bytes()
    (count,) = struct.unpack_from("<I", raw)
    offsets = struct.unpack_from(f"<{count + 1}I", raw, 4)
    return [split_sample(entry, raw[begin:end]) for begin, end in pairwise(offsets)]


def split_sample(entry: Mapping[str, Any], data: bytes) -> Payloads:
    sizes = list(entry["column_sizes"])
    begin = 4 * sizes.count(None)
    lengths = iter(struct.unpack_from(f"<{sizes.count(None)}I", data))
    found = {}
    for name, size in zip(entry["column_names"], sizes, strict=True):
        end = begin + (next(lengths) if size is None else size)
        found[name] = data[begin:end]
        begin = end
    return found


def compress(text: str, data: bytes) -> bytes:
    name, _, level = text.partition(":")
    if name == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=int(level or 3)).compress(data)
    if name == "gz":
        return gzip.compress(data, int(level or 9), mtime=0)
    if name == "bz2":
        return bz2.compress(data, int(level or 9))
    if name == "br":
        import brotli

        return bytes(brotli.compress(data, quality=int(level or 11)))
    import snappy

    return bytes(snappy.compress(data))


def decompress(text: str, data: bytes) -> bytes:
    name = text.partition(":")[0]
    if name == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if name in ("gz", "bz2"):
        return {"gz": gzip.decompress, "bz2": bz2.decompress}[name](data)
    if name == "br":
        import brotli

        return bytes(brotli.decompress(data))
    import snappy

    return bytes(snappy.uncompress(data))
