"""Of which bytes does a vector consist? Payloads, shards, frames, side-cars and draws, written from the rules alone.

Nothing here is the package under test: a mistake in `mx8shards` must not be able to hide in its own test vectors.
Section numbers are those of README.md.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import blake3
import xxhash

Files = dict[str, bytes]
Columns = Mapping[str, str]

# ---------------------------------------------------------------------------------------------- payloads (§3)

# The fixed scalars and NumPy's dtypes, as struct spells them.
SCALARS = {
    "int": "q",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
DTYPE_CODES = {
    "uint8": 8,
    "int8": 9,
    "uint16": 16,
    "int16": 17,
    "float16": 18,
    "uint32": 32,
    "int32": 33,
    "float32": 34,
    "uint64": 64,
    "int64": 65,
    "float64": 66,
}


class Cell(NamedTuple):
    """One value of one column: its payload, and what a reader must make of it (the form is in vectors/README.md)."""

    payload: bytes
    expect: Any


Row = Mapping[str, Cell]


def fixed_size(encoding: str) -> int | None:
    """The size of every payload of this encoding, or None where it varies."""
    if encoding in SCALARS:
        return struct.calcsize("<" + SCALARS[encoding])
    name, *rest = encoding.split(":")
    if name == "ndarray" and len(rest) == 2:
        return math.prod(int(dim) for dim in rest[1].split(",")) * struct.calcsize("<" + SCALARS[rest[0]])
    return None


def plain_number(value: float) -> float | str:
    """A number as JSON can hold it: what is not finite becomes its name."""
    return value if math.isfinite(value) else str(value)


def raw_bytes(data: bytes) -> Cell:
    return Cell(data, {"bytes": data.hex()})


def text(value: str) -> Cell:
    return Cell(value.encode(), value)


def integer(value: int) -> Cell:
    return Cell(struct.pack("<q", value), value)


def scalar(dtype: str, value: float) -> Cell:
    return Cell(struct.pack("<" + SCALARS[dtype], value), {"scalar": {"dtype": dtype, "value": plain_number(value)}})


def written(kind: str, digits: str) -> Cell:
    """A number written out in digits: `kind` is int, float or decimal."""
    return Cell(digits.encode(), int(digits) if kind == "int" else {kind: digits})


def json_value(value: Any) -> Cell:
    return Cell(json.dumps(value).encode(), {"json": value})


def pickled(payload_hex: str, representation: str) -> Cell:
    return Cell(bytes.fromhex(payload_hex), {"pickle": representation})


def shape_header(shape: Sequence[int], width: int | None = None) -> bytes:
    """One byte `(ndim << 2) | k`, then each dimension in 2ᵏ bytes: the fewest that hold the largest, or as told."""
    if width is None:
        width = next(k for k in range(4) if max(shape) < 1 << (8 << k))
    return bytes([len(shape) << 2 | width]) + b"".join(dim.to_bytes(1 << width, "little") for dim in shape)


def array(encoding: str, dtype: str, shape: Sequence[int], values: Sequence[float], width: int | None = None) -> Cell:
    """An ndarray in the form that its encoding asks for: what the encoding fixes is not written again."""
    fixed = [part for part in encoding.split(":")[1:] if part]
    payload = b"" if fixed else bytes([DTYPE_CODES[dtype]])
    payload += shape_header(shape, width) if len(fixed) < 2 else b""
    payload += struct.pack(f"<{len(values)}{SCALARS[dtype]}", *values)
    expect = {"dtype": dtype, "shape": list(shape), "values": [plain_number(value) for value in values]}
    return Cell(payload, {"ndarray": expect})


def pil_picture(mode: str, size: tuple[int, int], pixels: bytes) -> Cell:
    payload = struct.pack("<3I", *size, len(mode)) + mode.encode() + pixels
    return Cell(payload, {"image": {"mode": mode, "size": list(size), "pixels": pixels.hex()}})


def png_picture(mode: str, size: tuple[int, int], pixels: bytes) -> Cell:
    """A PNG file by hand: 8 bits per channel, no filter, one stored deflate block."""
    colour_type, channels = {"L": (0, 1), "RGB": (2, 3), "RGBA": (6, 4)}[mode]
    stride = size[0] * channels
    lines = b"".join(b"\0" + pixels[begin : begin + stride] for begin in range(0, len(pixels), stride))
    stored = b"\x78\x01" + deflate_stored(lines) + struct.pack(">I", zlib.adler32(lines))
    header = struct.pack(">2I5B", *size, 8, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", stored), (b"IEND", b"")]
    payload = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return Cell(payload, {"image": {"mode": mode, "size": list(size), "pixels": pixels.hex()}})


def jpeg_picture(payload: bytes, mode: str, size: tuple[int, int], first_pixel: Sequence[int]) -> Cell:
    """Decoders may differ by a little, so a JPEG is expected to have nearly this first pixel."""
    near = {"mode": mode, "size": list(size), "first_pixel": list(first_pixel), "tolerance": 4}
    return Cell(payload, {"image": near})


def picture_list(pictures: Sequence[Cell], *, placeholder: bool = True) -> Cell:
    """`list[…]`, or, without the placeholder, `jpegarray`."""
    sizes = [len(picture.payload) for picture in pictures]
    head = struct.pack(f"<{len(sizes) + 1}I", len(sizes), *sizes)
    payload = (bytes(4) if placeholder else b"") + head + b"".join(picture.payload for picture in pictures)
    return Cell(payload, {"list": [picture.expect for picture in pictures]})


# ---------------------------------------------------------------------------------------------- shards (§2, §3, §4)

DEFAULT_SIZE_LIMIT = 1 << 26


def _hashlib_digest(name: str) -> Callable[[bytes], str]:
    return lambda data: hashlib.new(name, data).hexdigest()


SHA2_AND_OLDER = ("blake2b", "blake2s", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")
SHA3 = ("sha3_224", "sha3_256", "sha3_384", "sha3_512")
DIGESTS: dict[str, Callable[[bytes], str]] = {name: _hashlib_digest(name) for name in (*SHA2_AND_OLDER, *SHA3)} | {
    "blake3": lambda data: blake3.blake3(data).hexdigest(),
    "xxh32": xxhash.xxh32_hexdigest,
    "xxh64": xxhash.xxh64_hexdigest,
    "xxh128": xxhash.xxh128_hexdigest,
    "xxh3_64": xxhash.xxh3_64_hexdigest,
    "xxh3_128": xxhash.xxh3_128_hexdigest,
}
SEALING = frozenset({"blake3", "sha256", "sha512", "sha3_256", "sha3_512", "blake2b", "blake2s"})


def canonical(value: Any) -> bytes:
    """JSON as Streaming's writer and ours write it: sorted keys, default separators, ASCII, one line, no newline."""
    return json.dumps(value, sort_keys=True).encode("ascii")


def sample_bytes(columns: Columns, row: Row) -> bytes:
    """§3: the sizes of the variable columns, then all payloads, both in the order of the sorted names."""
    names = sorted(columns)
    sizes = [len(row[name].payload) for name in names if fixed_size(columns[name]) is None]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(row[name].payload for name in names)


def raw_shard(config: bytes, samples: Sequence[bytes]) -> bytes:
    """§2: sample count, offsets from the start of the file, config, samples."""
    begin = 4 * (len(samples) + 2) + len(config)
    offsets = accumulate((len(sample) for sample in samples), initial=begin)
    return struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets) + config + b"".join(samples)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of a vector: what the index says of it, and the file that lies on disk."""

    columns: Columns
    rows: Sequence[Row]
    entry: dict[str, Any]
    raw: bytes
    stored: bytes

    @property
    def stored_info(self) -> dict[str, Any]:
        """The index's words on the file that lies on disk: the compressed one, where there is one."""
        info: dict[str, Any] = self.entry["zip_data"] or self.entry["raw_data"]
        return info

    @property
    def files(self) -> Files:
        return {self.stored_info["basename"]: self.stored}


def file_info(basename: str, data: bytes, hashes: Iterable[str]) -> dict[str, Any]:
    return {"basename": basename, "bytes": len(data), "hashes": {name: DIGESTS[name](data) for name in hashes}}


def make_shard(
    columns: Columns,
    rows: Sequence[Row],
    *,
    basename: str = "shard.00000.mds",
    compression: str | None = None,
    squeeze: Callable[[bytes], bytes] | None = None,
    hashes: Sequence[str] = (),
    unlisted: Sequence[str] = (),
    size_limit: int | str | None = DEFAULT_SIZE_LIMIT,
    config: bytes | None = None,
) -> Shard:
    """A shard as a writer makes it: `hashes` are listed and computed, `unlisted` only computed (our blake3, §7.4)."""
    names = sorted(columns)
    common = {
        "column_encodings": [columns[name] for name in names],
        "column_names": names,
        "column_sizes": [fixed_size(columns[name]) for name in names],
        "compression": compression,
        "format": "mds",
        "hashes": sorted(hashes),
        "size_limit": size_limit,
        "version": 2,
    }
    raw = raw_shard(canonical(common) if config is None else config, [sample_bytes(columns, row) for row in rows])
    computed = [*hashes, *unlisted]
    zip_data, stored = None, raw
    if compression is not None:
        algorithm = compression.partition(":")[0]
        stored = (squeeze or SQUEEZE[algorithm])(raw)
        zip_data = file_info(f"{basename}.{algorithm}", stored, computed)
    entry = common | {"raw_data": file_info(basename, raw, computed), "samples": len(rows), "zip_data": zip_data}
    return Shard(columns=columns, rows=rows, entry=entry, raw=raw, stored=stored)


def is_sealed(shards: Sequence[Shard]) -> bool:
    """§7.5: every stored file has at least one hash that stands for its content."""
    return all(SEALING & shard.stored_info["hashes"].keys() for shard in shards)


def foreign_index(shards: Sequence[Shard]) -> dict[str, Any]:
    return {"shards": [shard.entry for shard in shards], "version": 2}


def shard_files(shards: Sequence[Shard]) -> Files:
    return {name: data for shard in shards for name, data in shard.files.items()}


def foreign(shards: Sequence[Shard], index: dict[str, Any] | None = None) -> Files:
    """A dataset as Streaming leaves it: the index and its shards, nothing else."""
    return {"index.json": canonical(foreign_index(shards) if index is None else index)} | shard_files(shards)


# ---------------------------------------------------------------------------------------------- compression (§6)

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_BLOCK = 1 << 17
# Descriptors of frame headers. Those with a content size are a single segment and have no window, but for one.
ZSTD_SIZE_AND_SUM, ZSTD_SUM, ZSTD_SIZE = 0b10_1_00_1_00, 0b00_0_00_1_00, 0b10_1_00_0_00
ZSTD_WINDOW_SIZE_AND_SUM = 0b10_0_00_1_00
ZSTD_SINGLE_SEGMENT = 1 << 5


def zstd_block(kind: int, size: int, content: bytes, *, last: bool) -> bytes:
    """A block header of three bytes and its content: kind 0 is stored, kind 1 one byte repeated `size` times."""
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


def zstd_head(descriptor: int, size: int, *, window: int = 0x38) -> bytes:
    """A frame's first bytes: with a declared content size (then no window), or with a window (0x38 is 128 KiB)."""
    window_byte = b"" if descriptor & ZSTD_SINGLE_SEGMENT else bytes([window])
    return ZSTD_MAGIC + bytes([descriptor]) + window_byte + (struct.pack("<I", size) if descriptor >> 6 else b"")


def zstd_sum(data: bytes) -> bytes:
    return struct.pack("<I", xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)


def zstd_stored(data: bytes, descriptor: int = ZSTD_SIZE_AND_SUM, declared: int | None = None) -> bytes:
    """A zstd frame of stored blocks: equal bytes whatever library is installed."""
    pieces = [data[begin : begin + ZSTD_BLOCK] for begin in range(0, len(data), ZSTD_BLOCK)] or [b""]
    blocks = [zstd_block(0, len(piece), piece, last=piece is pieces[-1]) for piece in pieces]
    head = zstd_head(descriptor, len(data) if declared is None else declared)
    return head + b"".join(blocks) + (zstd_sum(data) if descriptor & 4 else b"")


def deflate_stored(data: bytes) -> bytes:
    """Deflate with one stored block (at most 65,535 bytes)."""
    return struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF) + data


def gzip_stored(data: bytes) -> bytes:
    """One gzip member, mtime 0."""
    head = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
    return head + deflate_stored(data) + struct.pack("<II", zlib.crc32(data), len(data))


def brotli_stored(data: bytes) -> bytes:
    """A 16-bit window, one uncompressed meta-block (at most 65,536 bytes), one empty last meta-block."""
    # Bits from the lowest: WBITS 0 · ISLAST 0 · MNIBBLES 00 · MLEN-1 in 16 bits · ISUNCOMPRESSED 1
    return (1 << 20 | (len(data) - 1) << 4).to_bytes(3, "little") + data + b"\x03"


def snappy_length(size: int) -> bytes:
    """The decompressed size that a snappy block declares: seven bits per byte, lowest first."""
    low, rest = size & 0x7F, size >> 7
    return bytes([low | 0x80]) + snappy_length(rest) if rest else bytes([low])


def snappy_literals(data: bytes, declared: int | None = None) -> bytes:
    """A snappy block of literals of 60 bytes: its tag is (length - 1) << 2."""
    pieces = [data[begin : begin + 60] for begin in range(0, len(data), 60)]
    body = b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)
    return snappy_length(len(data) if declared is None else declared) + body


SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd_stored,
    "gz": gzip_stored,
    "bz2": lambda data: bz2.compress(data, 9),
    "br": brotli_stored,
    "snappy": snappy_literals,
}

# ---------------------------------------------------------------------------------------------- ours (§8, §9, §10)

BLOCK = 1 << 20
BLOCKS_MAGIC, COLUMNS_MAGIC = b"MX8BLK1\n", b"MX8COL1\n"


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def snapshot_id(index: bytes) -> str:
    return "sha256:" + sha256_hex(index)


def kept_path(index: bytes) -> str:
    return f".mx8shards/snapshots/{sha256_hex(index)}.json"


def block_digests(data: bytes, size: int = BLOCK) -> list[bytes]:
    return [blake3.blake3(data[begin : begin + size]).digest() for begin in range(0, len(data), size)]


def eligible(columns: Columns) -> list[str]:
    """§10.6: the columns that a `columns` side-car may hold."""
    return sorted(name for name, encoding in columns.items() if encoding in SCALARS)


def sidecar_bytes(kind: str, shards: Sequence[Shard], block: int = BLOCK) -> bytes:
    """§10.5, §10.6: a magic, then for every shard its block digests, or the values of its eligible columns."""
    if kind == "blocks":
        return BLOCKS_MAGIC + b"".join(digest for shard in shards for digest in block_digests(shard.stored, block))
    parts = [COLUMNS_MAGIC]
    for shard in shards:
        for name in eligible(shard.columns):
            values = b"".join(row[name].payload for row in shard.rows)
            parts.append(values + bytes(-len(values) % 8))
    return b"".join(parts)


@dataclass(frozen=True)
class Sidecar:
    """One side-car: its index entry and its file."""

    entry: dict[str, Any]
    data: bytes

    @property
    def path(self) -> str:
        return f".mx8shards/sidecars/{self.entry['blake3']}"


def make_sidecar(
    kind: str, shards: Sequence[Shard], start: int = 0, *, data: bytes | None = None, block: int = BLOCK
) -> Sidecar:
    """The side-car of a publication whose first shard is number `start`; `data` replaces its right bytes."""
    content = sidecar_bytes(kind, shards, block) if data is None else data
    entry: dict[str, Any] = {
        "blake3": DIGESTS["blake3"](content),
        "bytes": len(content),
        "kind": kind,
        "start": start,
        "stop": start + len(shards),
    }
    if kind == "columns":
        entry["columns"] = eligible(shards[0].columns)
    if block != BLOCK:
        entry["block_bytes"] = block
    return Sidecar(entry, content)


def both_sidecars(shards: Sequence[Shard], start: int = 0) -> list[Sidecar]:
    """What one publication adds by default: block digests, and columns where there is an eligible one."""
    kinds = ["blocks", "columns"] if eligible(shards[0].columns) else ["blocks"]
    return [make_sidecar(kind, shards, start) for kind in kinds]


@dataclass(frozen=True)
class Snapshot:
    """One published state: the index's bytes and every file that the publication left behind."""

    index: bytes
    files: Files

    @property
    def id(self) -> str:
        return snapshot_id(self.index)


def our_key(sidecars: Sequence[Sidecar], metadata: Mapping[str, Any], parent: str | None) -> dict[str, Any]:
    key: dict[str, Any] = {"metadata": metadata, "sidecars": [sidecar.entry for sidecar in sidecars], "spec": 1}
    return key if parent is None else key | {"parent": parent}


def publish(
    shards: Sequence[Shard],
    *,
    sidecars: Sequence[Sidecar] | None = None,
    metadata: Mapping[str, Any] | None = None,
    before: Snapshot | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Snapshot:
    """A snapshot of ours, on top of what stood there `before`: its files stay, index.json is replaced."""
    beside = both_sidecars(shards) if sidecars is None else sidecars
    index = foreign_index(shards)
    index["mx8shards"] = our_key(beside, metadata or {}, before.id if before else None)
    if change:
        change(index)
    data = canonical(index)
    files = dict(before.files) if before else {}
    files |= shard_files(shards) | {sidecar.path: sidecar.data for sidecar in beside}
    return Snapshot(data, files | {kept_path(data): data, "index.json": data})


# ---------------------------------------------------------------------------------------------- randomness (§11)

WORD = (1 << 64) - 1
PHILOX_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
PHILOX_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10: four words of 64 bits from a counter of four and a key of two."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        left, right = PHILOX_MULTIPLIERS[0] * c0, PHILOX_MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (right >> 64) ^ c1 ^ k0, right & WORD, (left >> 64) ^ c3 ^ k1, left & WORD
        k0, k1 = (k0 + PHILOX_WEYL[0]) & WORD, (k1 + PHILOX_WEYL[1]) & WORD
    return c0, c1, c2, c3


def purpose_word(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def draws(seed: int, epoch: int, sample_id: int, purpose: str, count: int, occurrence: int = 0) -> list[int]:
    """§11.2: draw j of a sample is word j % 4 of block j // 4."""
    key = (seed & WORD, purpose_word(purpose))
    blocks = [philox(key, (block, sample_id, epoch & WORD, occurrence & WORD)) for block in range(-(-count // 4))]
    return [word for block in blocks for word in block][:count]


def uniform(word: int) -> float:
    return (word >> 11) * 2.0**-53


def below(word: int, limit: int) -> int:
    return ((word >> 32) * limit) >> 32


# ---------------------------------------------------------------------------------------------- vectors


@dataclass(frozen=True)
class Vector:
    """One folder of vectors/: a sentence for a name, a dataset, and what a reader must make of it."""

    name: str
    files: Files
    expected: dict[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)  # symbolic links and their targets

    @property
    def contents(self) -> Files:
        """Every file of the folder, expected.json among them."""
        pretty = json.dumps(self.expected, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        return self.files | {"expected.json": pretty.encode()}
