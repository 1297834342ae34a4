"""Which files must every reader refuse, at which moment, and what must its error say?

Shards, samples, compressed files, payloads, kept snapshots and side-cars, each with one thing wrong.
"""

from __future__ import annotations

import bz2
import copy
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from invalid_index import COLUMNS, FIRST_SHARD, PLAIN, invalid, rows
from vector_parts import (
    BLOCKS_MAGIC,
    COLUMNS_MAGIC,
    DIGESTS,
    SQUEEZE,
    ZSTD_BLOCK,
    ZSTD_SIZE,
    ZSTD_SIZE_AND_SUM,
    ZSTD_SUM,
    Cell,
    Files,
    Shard,
    Vector,
    array,
    block_digests,
    both_sidecars,
    brotli_stored,
    canonical,
    foreign,
    gzip_stored,
    kept_path,
    make_shard,
    make_sidecar,
    picture_list,
    pil_picture,
    png_picture,
    publish,
    sample_bytes,
    sha256_hex,
    sidecar_bytes,
    snappy_literals,
    zstd_block,
    zstd_head,
    zstd_stored,
    zstd_sum,
)

# ---------------------------------------------------------------------------------------------- shard bytes


def words(raw: bytes, count: int) -> list[int]:
    return list(struct.unpack_from(f"<{count}I", raw))


def with_words(raw: bytes, changes: Mapping[int, int]) -> bytes:
    """The file with some of its first uint32 words replaced: word 0 is the count, word 1 + i is offset i."""
    data = bytearray(raw)
    for number, value in changes.items():
        struct.pack_into("<I", data, 4 * number, value)
    return bytes(data)


def damaged(shard: Shard, raw: bytes, *, told: int | None = None) -> Files:
    """A foreign dataset whose one shard has other bytes; the index tells their true length unless `told` another."""
    entry = copy.deepcopy(shard.entry)
    entry["raw_data"]["bytes"] = len(raw) if told is None else told
    return {"index.json": canonical({"shards": [entry], "version": 2}), FIRST_SHARD: raw}


def at_read(name: str, rule: str, files: Files, why: str, **more: Any) -> Vector:
    return invalid(name, rule, files, why, **({"when": "read", "path": FIRST_SHARD} | more))


def shard_bytes() -> Iterator[Vector]:
    shard = PLAIN[0]
    raw = shard.raw
    _, first, second, third, end = words(raw, 5)
    table_end = 4 * 5
    for name, rule, data, why in (
        ("shard-shorter-than-the-index-says", "§2.2", raw[:-1], "Streaming returns a shortened last sample"),
        ("shard-cut-inside-its-table", "§2.2", raw[:10], "the table itself is not there"),
        ("shard-that-is-an-empty-file", "§2.2", b"", "an empty file cannot even be mapped"),
        ("shard-longer-than-the-index-says", "§2.2", raw + b"\0", "bytes that no sample owns"),
    ):
        yield at_read(name, rule, damaged(shard, data, told=len(raw)), why)
    for name, rule, changes, why in (
        ("shard-that-counts-fewer-samples", "§2.3", {0: 2}, "the index and the file disagree"),
        ("shard-that-counts-more-samples", "§2.3", {0: 4}, "the index and the file disagree"),
        ("shard-that-counts-four-billion-samples", "§2.3", {0: 0xFFFFFFFF}, "4·(n+1) wraps in 32 bits"),
        ("first-offset-inside-the-table", "§2.4", {1: table_end - 4}, "a sample would begin in the table"),
        ("first-offset-zero", "§2.4", {1: 0}, "offsets count from the start of the file"),
        ("offsets-that-decrease", "§2.4", {2: third, 3: second}, "a sample of negative length"),
        ("offset-beyond-the-end-of-the-file", "§2.4", {3: end + 1000}, "past the end, then back"),
        ("last-offset-before-the-end-of-the-file", "§2.4", {4: end - 1}, "bytes that no sample owns"),
        ("last-offset-after-the-end-of-the-file", "§2.4", {4: end + 1}, "reads past the map"),
        ("last-offset-four-gibibytes-away", "§2.4", {4: 0xFFFFFFFF}, "reads far past the map"),
        ("sample-without-bytes", "§3.4", {2: first}, "equal offsets: no room for the size header"),
        ("sample-shorter-than-its-header-and-fixed-columns", "§3.4", {2: first + 11}, "4 of header and 8 of x are 12"),
    ):
        yield at_read(name, rule, damaged(shard, with_words(raw, changes)), why)
    none = make_shard(COLUMNS, [])
    longer = none.raw + b"\0" * 14
    yield at_read(
        "bytes-after-the-config-of-an-empty-shard",
        "§2.4",
        damaged(none, longer),
        "offset 0 is also the last; nothing is read from a shard without samples, so only verify looks",
        when="verify",
    )


def sample_headers() -> Iterator[Vector]:
    shard = PLAIN[0]
    begin = words(shard.raw, 5)[1]

    def with_size(size: int) -> bytes:
        return shard.raw[:begin] + struct.pack("<I", size) + shard.raw[begin + 4 :]

    for name, size, why in (
        ("sample-whose-sizes-add-up-to-less", 1, "a byte of the sample belongs to no column"),
        ("sample-whose-sizes-add-up-to-more", 3, "a column reaches into the next sample"),
        ("sample-whose-size-reaches-past-the-file", 0x7FFFFFFF, "a column reaches past the map"),
        ("sample-whose-size-is-minus-one", 0xFFFFFFFF, "taken as signed it is -1"),
    ):
        yield at_read(name, "§3.4", damaged(shard, with_size(size)), why)
    two = make_shard({"a": "bytes", "b": "bytes"}, [{"a": Cell(b"12345", ""), "b": Cell(b"67", "")}])
    start = words(two.raw, 3)[1]
    wrapping = two.raw[:start] + struct.pack("<II", 0xFFFFFFFF, 8) + two.raw[start + 8 :]
    yield at_read(
        "sample-whose-sizes-add-up-only-modulo-two-to-the-thirty-second", "§3.5", damaged(two, wrapping), "uint32 wraps"
    )


# ---------------------------------------------------------------------------------------------- compressed files


def squeezed(compression: str, data: bytes, *, told: int | None = None) -> Files:
    """A foreign dataset whose one compressed file has these bytes; no hash stands in the way of the decompressor."""
    shard = make_shard(COLUMNS, rows(3), compression=compression, squeeze=lambda _raw: data)
    if told is not None:
        shard.entry["zip_data"]["bytes"] = told
    return foreign([shard])


def of_config(compression: str) -> bytes:
    """The raw bytes that a file compressed in this way should hold: the config names the compression."""
    return make_shard(COLUMNS, rows(3), compression=compression).raw


def zstd_frames() -> Iterator[tuple[str, bytes, str]]:
    raw = of_config("zstd")
    good = zstd_stored(raw)
    runs = [zstd_block(1, ZSTD_BLOCK, b"\0", last=i == 63) for i in range(64)]
    yield "zstd-frame-cut-off", good[:-20], "a torn file"
    yield "zstd-frame-without-its-checksum-bytes", good[:-4], "the header promises a checksum"
    yield "zstd-frame-with-a-wrong-checksum", good[:-1] + bytes([good[-1] ^ 1]), "the frame's own checksum differs"
    yield (
        "zstd-frame-with-a-damaged-byte",
        good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "the frame's own checksum differs",
    )
    yield "zstd-frame-followed-by-a-byte", good + b"\0", "libraries ignore what follows a frame"
    yield "zstd-frame-followed-by-another-frame", zstd_stored(raw[:100]) + zstd_stored(raw[100:]), "exactly one frame"
    yield "zstd-frame-followed-by-a-skippable-frame", good + b"\x50\x2a\x4d\x18\x04\0\0\0skip", "exactly one frame"
    yield "zstd-file-that-is-no-frame", b"\0" * len(good), "no magic number"
    yield "zstd-file-that-is-empty", b"", "no frame at all"
    yield "zstd-file-that-holds-the-raw-shard", raw, "stored without being compressed"
    yield "zstd-frame-of-fewer-bytes", zstd_stored(raw[:-1]), "one byte less than raw_data.bytes"
    yield "zstd-frame-of-more-bytes", zstd_stored(raw + b"\0"), "one byte more than raw_data.bytes"
    yield (
        "zstd-frame-that-declares-a-gibibyte",
        zstd_stored(raw, declared=1 << 30),
        "an allocation of 1 GiB for 250 bytes",
    )
    yield (
        "zstd-frame-that-declares-less-than-it-holds",
        zstd_stored(raw + bytes(64), declared=len(raw)),
        "its declared size is right, its content is not",
    )
    yield (
        "zstd-frame-that-swells-without-declaring-it",
        zstd_head(ZSTD_SUM, 0) + b"".join(runs) + zstd_sum(bytes(64 * ZSTD_BLOCK)),
        "300 bytes that become 8 MiB: output must be bounded while it is made",
    )
    yield (
        "zstd-frame-without-a-size-and-with-fewer-bytes",
        zstd_stored(raw[:-1], ZSTD_SUM),
        "without a declared size the result must be measured",
    )
    yield (
        "zstd-frame-that-asks-for-a-window-of-two-tebibytes",
        zstd_head(ZSTD_SUM, 0, window=0xF8) + zstd_stored(raw, ZSTD_SUM)[6:],
        "memory is asked for before a byte is decoded",
    )
    yield (
        "zstd-frame-that-asks-for-a-window-of-144-mebibytes",
        zstd_head(ZSTD_SUM, 0, window=17 << 3 | 1) + zstd_stored(raw, ZSTD_SUM)[6:],
        "the next larger window than the largest that is allowed",
    )
    yield (
        "zstd-frame-that-needs-a-dictionary",
        good[:4] + bytes([ZSTD_SIZE_AND_SUM | 1]) + b"\x07" + good[5:],
        "a shard brings no dictionary",
    )


def single_segment(config_bytes: int) -> Files:
    """A sound shard whose config is zeros, in one zstd frame of a few kilobytes that is a single segment."""
    samples = [sample_bytes(COLUMNS, row) for row in rows(3)]
    offsets = accumulate(map(len, samples), initial=4 * 5 + config_bytes)
    table, end = struct.pack("<5I", 3, *offsets), b"".join(samples)
    runs = [zstd_block(1, ZSTD_BLOCK, b"\0", last=False)] * (config_bytes // ZSTD_BLOCK)
    blocks = [zstd_block(0, len(table), table, last=False), *runs, zstd_block(0, len(end), end, last=True)]
    content = len(table) + config_bytes + len(end)
    frame = zstd_head(ZSTD_SIZE, content) + b"".join(blocks)
    shard = make_shard(COLUMNS, rows(3), compression="zstd", squeeze=lambda _raw: frame)
    shard.entry["raw_data"]["bytes"] = content
    return foreign([shard])


def gzip_members() -> Iterator[tuple[str, bytes, str]]:
    raw = of_config("gz")
    good = gzip_stored(raw)
    yield "gzip-member-cut-off", good[:-9], "a torn file"
    yield "gzip-member-with-a-wrong-checksum", good[:-8] + bytes(4) + good[-4:], "its CRC-32 differs"
    yield "gzip-member-followed-by-zeros", good + bytes(8), "Python's gzip module skips trailing zeros"
    yield (
        "gzip-member-followed-by-another-member",
        gzip_stored(raw[:100]) + gzip_stored(raw[100:]),
        "exactly one member",
    )
    yield "gzip-member-of-more-bytes", gzip_stored(raw + b"\0"), "one byte more than raw_data.bytes"


def bzip2_streams() -> Iterator[tuple[str, bytes, str]]:
    raw = of_config("bz2")
    good = bz2.compress(raw, 9)
    yield "bzip2-stream-cut-off", good[:-5], "a torn file"
    yield "bzip2-stream-followed-by-bytes", good + b"tail", "Python's bz2 module skips what is no stream"
    yield (
        "bzip2-stream-followed-by-another-stream",
        bz2.compress(raw[:100], 9) + bz2.compress(raw[100:], 9),
        "exactly one",
    )
    yield "bzip2-stream-that-swells", bz2.compress(bytes(4 << 20), 9), "45 bytes that become 4 MiB"


def brotli_streams() -> Iterator[tuple[str, bytes, str]]:
    raw = of_config("br")
    good = brotli_stored(raw)
    yield "brotli-stream-cut-off", good[:-10], "a torn file"
    yield "brotli-stream-followed-by-bytes", good + b"tail", "exactly one stream"
    yield "brotli-stream-of-more-bytes", brotli_stored(raw + b"\0"), "one byte more than raw_data.bytes"


def snappy_blocks() -> Iterator[tuple[str, bytes, str]]:
    raw = of_config("snappy")
    good = snappy_literals(raw)
    yield "snappy-block-cut-off", good[:-10], "a torn file"
    yield (
        "snappy-block-that-declares-four-gibibytes",
        snappy_literals(raw, (1 << 32) - 1),
        "a size to check before allocating",
    )
    yield "snappy-block-of-more-bytes", snappy_literals(raw + b"\0"), "one byte more than raw_data.bytes"
    yield (
        "snappy-block-that-copies-from-before-its-start",
        snappy_literals(raw)[:2] + b"\xfe\xff\x00",
        "a copy of nothing",
    )
    yield "snappy-block-followed-by-bytes", good + b"\x00x", "a literal past the declared size"


def compressed_files() -> Iterator[Vector]:
    families: tuple[tuple[str, Callable[[], Iterator[tuple[str, bytes, str]]], list[str]], ...] = (
        ("zstd", zstd_frames, []),
        ("gz", gzip_members, []),
        ("bz2", bzip2_streams, []),
        ("br", brotli_streams, ["brotli"]),
        ("snappy", snappy_blocks, ["snappy"]),
    )
    for compression, cases, needs in families:
        for name, data, why in cases():
            yield at_read(name, "§6.4", squeezed(compression, data), why, needs=needs)
    yield at_read(
        "zstd-frame-of-a-single-segment-beyond-128-mebibytes",
        "§6.4",
        single_segment(128 << 20),
        "a single segment has no smaller window than its content",
    )
    good = SQUEEZE["zstd"](of_config("zstd"))
    yield at_read(
        "zip-file-shorter-than-the-index-says", "§6.4", squeezed("zstd", good, told=len(good) + 1), "a torn file"
    )
    yield at_read(
        "zip-file-longer-than-the-index-says", "§6.4", squeezed("zstd", good, told=len(good) - 1), "bytes too many"
    )
    swapped = make_shard(COLUMNS, rows(3), compression="zstd", squeeze=lambda raw: zstd_stored(with_words(raw, {0: 4})))
    yield at_read(
        "compressed-shard-whose-table-is-wrong",
        "§6.5",
        foreign([swapped]),
        "what was decompressed is checked like a raw shard",
    )


# ---------------------------------------------------------------------------------------------- payloads


def payloads() -> Iterator[Vector]:
    whole = array("ndarray", "float32", (2, 2), [1, 2, 3, 4]).payload
    refused: tuple[tuple[str, str, bytes, str], ...] = (
        ("str-that-is-not-utf-8", "str", b"ab\xff", "bytes pass through every encoder, also wrong ones"),
        ("str-cut-inside-a-character", "str", "日".encode()[:2], "half a character"),
        ("str-int-that-is-no-number", "str_int", b"12x", "no integer"),
        ("str-int-that-is-empty", "str_int", b"", "no integer"),
        ("str-int-with-an-underscore", "str_int", b"1_0", "Python's int() takes it"),
        ("str-int-in-arabic-digits", "str_int", "٣".encode(), "Python's int() takes it"),
        ("str-int-with-a-space-before-it", "str_int", b" 1", "Python's int() takes it"),
        ("str-float-with-an-underscore", "str_float", b"1_0.5", "Python's float() takes it"),
        ("str-float-with-a-newline-after-it", "str_float", b"1.5\n", "Python's float() takes it"),
        ("str-decimal-in-arabic-digits", "str_decimal", "٣".encode(), "Python's Decimal() takes it"),
        ("str-float-that-is-no-number", "str_float", b"1.5.2", "no float"),
        ("str-decimal-that-is-no-number", "str_decimal", b"one", "decimal raises an ArithmeticError, not a ValueError"),
        ("json-that-is-cut-off", "json", b'{"a": [1, 2', "no JSON"),
        ("json-that-is-not-utf-8", "json", b'"\xff"', "no UTF-8"),
        ("json-with-a-byte-order-mark", "json", b"\xef\xbb\xbf1", "JSON begins with a value"),
        ("json-with-a-trailing-comma", "json", b"[1,]", "no JSON"),
        ("json-of-a-number-with-a-plus-sign", "json", b"+1", "no JSON"),
        ("str-that-holds-a-surrogate", "str", b"\xed\xa0\x80", "surrogates have no form in UTF-8"),
        ("str-float-in-hexadecimal", "str_float", b"0x1p3", "C reads it, the grammar does not"),
        ("str-float-without-digits-in-its-exponent", "str_float", b"1e", "no float"),
        ("json-nested-five-thousand-deep", "json", b"[" * 5000 + b"]" * 5000 + b"x", "a RecursionError in Python"),
        ("array-that-is-empty", "ndarray", b"", "no dtype byte"),
        ("array-with-an-unknown-dtype", "ndarray", b"\x07" + whole[1:], "code 7 is no dtype"),
        ("array-without-a-shape", "ndarray", whole[:1], "no shape byte"),
        ("array-cut-inside-its-shape", "ndarray", whole[:3], "one dimension of two"),
        ("array-with-a-value-too-few", "ndarray", whole[:-4], "three values for a shape of four"),
        ("array-with-a-byte-too-few", "ndarray", whole[:-1], "not a whole number of values"),
        ("array-with-a-value-too-many", "ndarray", whole + bytes(4), "five values for a shape of four"),
        (
            "array-whose-shape-overflows",
            "ndarray",
            b"\x08" + bytes([2 << 2 | 3]) + struct.pack("<2Q", 1 << 63, 2),
            "2⁶³ · 2 wraps to 0 in 64 bits, and 0 values are there",
        ),
        ("array-without-dimensions", "ndarray", b"\x08\x00\x05", "scalars have encodings of their own"),
        ("array-with-a-zero-dimension", "ndarray", b"\x08\x08\x02\x00", "every dimension is at least 1"),
        (
            "array-of-a-known-dtype-with-bytes-too-few",
            "ndarray:int64",
            b"\x04\x02" + bytes(15),
            "two values need 16 bytes",
        ),
    )
    pickle = make_shard({"value": "pkl"}, [{"value": Cell(b"\x80\x04N.", None)}])
    yield invalid(
        "pickles-where-nobody-allowed-them",
        "§3.7",
        foreign([pickle]),
        "reading a pickle runs code of whoever wrote it",
        error="SchemaError",
        path="value",
    )
    for name, encoding, payload, why in refused:
        yield refused_payload(name, encoding, payload, why)


def refused_payload(name: str, encoding: str, payload: bytes, why: str, **more: Any) -> Vector:
    shard = make_shard({"value": encoding}, [{"value": Cell(payload, None)}])
    return at_read(name, "§3.6", foreign([shard]), why, **({"path": "value"} | more))


def picture_payloads() -> Iterator[Vector]:
    png = png_picture("L", (1, 1), b"\x80")
    pair = picture_list([png, png]).payload
    loose = pair[:8] + struct.pack("<I", len(png.payload) - 1) + pair[12:]
    pixels = pil_picture("L", (2, 2), bytes(4)).payload
    for name, encoding, payload, why in (
        ("picture-list-with-a-placeholder-in-use", "list[png]", b"\x01" + pair[1:], "a feature of the future"),
        ("picture-list-without-its-count", "list[png]", pair[:4], "no count"),
        ("picture-list-that-counts-four-billion", "list[png]", pair[:4] + b"\xff" * 4, "no room for so many sizes"),
        ("picture-list-whose-sizes-do-not-add-up", "list[png]", loose, "a byte that belongs to no picture"),
        ("jpeg-array-without-its-count", "jpegarray", b"\x01\x00", "no count"),
        ("jpeg-array-of-no-pictures", "jpegarray", bytes(4), "Streaming writes an empty one and cannot read it"),
        ("pixels-of-an-unknown-mode", "pil", pil_picture("RGB9", (1, 1), bytes(3)).payload, "no mode of the table"),
        ("pixels-of-no-width", "pil", pil_picture("L", (0, 1), b"").payload, "a side is at least 1"),
        ("pixels-whose-rows-are-not-whole-bytes", "pil", pil_picture("1", (4, 2), b"\0").payload, "a row is a byte"),
        ("pixels-followed-by-a-byte", "pil", pixels + b"\0", "a byte that belongs to no pixel"),
        ("pixels-cut-inside-their-header", "pil", pixels[:7], "no mode"),
        ("pixels-fewer-than-their-size", "pil", pixels[:-1], "three pixels for a size of four"),
    ):
        yield refused_payload(name, encoding, payload, why, needs=["PIL"])
    for encoding in ("png", "jpeg"):
        why = "no picture decoder knows this"
        yield refused_payload(f"{encoding}-that-is-no-picture", encoding, b"not a picture", why, needs=["PIL"])


# ---------------------------------------------------------------------------------------------- hashes and side-cars


def flip(data: bytes, position: int) -> bytes:
    """The bytes with the lowest bit of one of them turned over."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def damaged_payloads() -> Iterator[Vector]:
    """One flipped bit inside a payload: well-formed, and found by its hash alone."""
    for algorithm in ("blake3", "sha256", "sha512", "md5", "xxh64", "xxh128"):
        shard = make_shard(COLUMNS, rows(3), hashes=(algorithm,))
        files = foreign([shard]) | {FIRST_SHARD: flip(shard.raw, len(shard.raw) - 1)}
        why = f"the last byte of a payload was changed, and {algorithm} stands in the index"
        yield invalid(
            f"payload-that-differs-from-its-{algorithm}",
            "§7.6",
            files,
            why,
            error="IntegrityError",
            when="verify",
            path=FIRST_SHARD,
        )
    for strong, weak in (("blake3", "sha256"), ("sha256", "sha384"), ("md5", "sha1")):
        shard = make_shard(COLUMNS, rows(3), hashes=(strong, weak))
        changed = flip(shard.raw, len(shard.raw) - 1)
        shard.entry["raw_data"]["hashes"][weak] = DIGESTS[weak](changed)
        yield invalid(
            f"payload-that-differs-from-its-{strong}-and-not-from-its-{weak}",
            "§7.6",
            foreign([shard]) | {FIRST_SHARD: changed},
            f"of these two, {strong} is the one to check",
            error="IntegrityError",
            when="verify",
            path=FIRST_SHARD,
        )
    squeezed_shard = make_shard(COLUMNS, rows(3), compression="zstd", hashes=("sha256",))
    entry = squeezed_shard.entry
    entry["raw_data"]["hashes"]["sha256"] = sha256_hex(b"something else")
    yield invalid(
        "raw-hash-that-differs-after-decompression",
        "§7.6",
        foreign([squeezed_shard]),
        "the compressed file is as promised, the shard in it is not",
        error="IntegrityError",
        when="verify",
        path=FIRST_SHARD,
    )


def snapshots() -> Iterator[Vector]:
    before = publish(PLAIN, metadata={"n": 1})
    after = publish(PLAIN, metadata={"n": 2}, before=before)
    edited = after.index.replace(b'"n": 2', b'"n": 3')
    yield invalid(
        "index-changed-by-hand",
        "§9.4",
        after.files | {"index.json": edited},
        "its id is not among the kept snapshots: changed outside mx8shards",
        error="IntegrityError",
    )
    yield invalid(
        "index-rewritten-by-another-tool",
        "§9.4",
        after.files | {"index.json": after.index + b"\n"},
        "one newline more is another id",
        error="IntegrityError",
    )
    old = kept_path(before.index)
    tampered = before.index.replace(b'"n": 1', b'"n": 9')
    short = before.id.partition(":")[2][:12]
    yield invalid(
        "kept-snapshot-changed-by-hand",
        "§9.3",
        after.files | {old: tampered},
        "a kept copy's name is its hash, and the hash differs",
        error="IntegrityError",
        link=f"@{before.id}",
        path=short,
    )
    yield invalid(
        "older-snapshot-changed-by-hand",
        "§9.10",
        after.files | {old: tampered},
        "the current snapshot can be read; verifying looks at the kept ones as well",
        error="IntegrityError",
        when="verify",
        path=short,
    )
    first, second = (
        make_shard(COLUMNS, rows(3), unlisted=("blake3",)),
        make_shard(COLUMNS, rows(2), basename=f"g0001/{FIRST_SHARD}", unlisted=("blake3",)),
    )
    newer = publish([second], before=publish([first]))
    yield invalid(
        "shard-of-an-older-snapshot-that-differs-from-its-hash",
        "§9.10",
        newer.files | {FIRST_SHARD: flip(first.raw, len(first.raw) - 1)},
        "the kept snapshot promises samples that are no longer there",
        error="IntegrityError",
        when="verify",
        path=FIRST_SHARD,
    )
    without = {path: data for path, data in after.files.items() if path != old}
    yield invalid(
        "snapshot-that-is-not-kept",
        "§9.3",
        without,
        "the link pins a snapshot that this directory does not have",
        error="DatasetNotFoundError",
        link=f"@{before.id}",
        path=short,
    )


def sidecar_files() -> Iterator[Vector]:
    """The index and the shards are sound; the side-car's file is not the one that the index names."""
    for kind, magic in (("blocks", BLOCKS_MAGIC), ("columns", COLUMNS_MAGIC)):
        sound = make_sidecar(kind, PLAIN)
        strange = make_sidecar(kind, PLAIN, data=b"MX8????\n" + sound.data[len(magic) :])
        for what, sidecar, data, error, why in (
            ("that-is-cut-off", sound, sound.data[:-1], "FormatError", "its length follows from the index"),
            ("that-is-too-long", sound, sound.data + bytes(8), "FormatError", "its length follows from the index"),
            ("that-differs-from-its-hash", sound, flip(sound.data, -1), "IntegrityError", "its name is its hash"),
            ("with-a-strange-magic", strange, strange.data, "FormatError", "its name is right, its kind is not"),
        ):
            files = publish(PLAIN, sidecars=[sidecar]).files | {sidecar.path: data}
            short = sidecar.entry["blake3"][:12]
            name = f"side-car-of-{kind}-{what}"
            yield invalid(name, "§10.4", files, why, error=error, when="verify", path=short)


def missing_files() -> Iterator[Vector]:
    """The index names what is not there."""
    published = publish(PLAIN)
    yield invalid(
        "shard-whose-file-is-missing",
        "§1.1",
        {path: data for path, data in published.files.items() if path != FIRST_SHARD},
        "the index is sound, so it opens; its samples are not there",
        error="DatasetNotFoundError",
        when="read",
        path=FIRST_SHARD,
    )
    squeezed_shard = make_shard(COLUMNS, rows(3), compression="zstd")
    yield invalid(
        "compressed-shard-whose-file-is-missing",
        "§1.8",
        {"index.json": foreign([squeezed_shard])["index.json"]},
        "neither the compressed file nor a raw one is there",
        error="DatasetNotFoundError",
        when="read",
        path=FIRST_SHARD,
    )
    for kind in ("blocks", "columns"):
        sidecar = make_sidecar(kind, PLAIN)
        files = publish(PLAIN, sidecars=[sidecar]).files
        yield invalid(
            f"side-car-of-{kind}-whose-file-is-missing",
            "§10.4",
            {path: data for path, data in files.items() if path != sidecar.path},
            "reading does without it; verifying reports it",
            error="DatasetNotFoundError",
            when="verify",
            path=sidecar.entry["blake3"][:12],
        )


def untrue_sidecars() -> Iterator[Vector]:
    """Side-cars that are what the index names, and say of the shards what is not so."""
    blocks = make_sidecar("blocks", PLAIN, data=BLOCKS_MAGIC + b"".join(block_digests(flip(PLAIN[0].raw, 0))))
    columns = make_sidecar("columns", PLAIN, data=flip(sidecar_bytes("columns", PLAIN), len(COLUMNS_MAGIC)))
    for sidecar, path in ((blocks, FIRST_SHARD), (columns, columns.entry["blake3"][:12])):
        yield invalid(
            f"side-car-of-{sidecar.entry['kind']}-that-contradicts-the-shards",
            "§10.4",
            publish(PLAIN, sidecars=[sidecar]).files,
            "a side-car only repeats what the shards say",
            error="IntegrityError",
            when="verify",
            path=path,
        )

    sealed = [make_shard(COLUMNS, rows(3), unlisted=("blake3",))]
    blocks = make_sidecar("blocks", sealed, data=BLOCKS_MAGIC + b"".join(block_digests(flip(sealed[0].raw, 0))))
    yield invalid(
        "side-car-of-blocks-that-contradicts-a-shard-whose-hash-is-right",
        "§10.4",
        publish(sealed, sidecars=[blocks]).files,
        "the hash of the whole file does not make the digests of its blocks true",
        error="IntegrityError",
        when="verify",
        path=blocks.entry["blake3"][:12],
    )


def sidecar_entries() -> Iterator[Vector]:
    """Side-cars whose files are sound, while the index says of them what cannot be."""
    for name, rule, number, changes, why in (
        ("side-car-of-blocks-with-another-size", "§10.3", 0, {"bytes": 1000}, "the size follows from the index"),
        ("side-car-of-columns-with-another-size", "§10.3", 1, {"bytes": 8}, "the size follows from the index"),
        ("side-car-with-an-unknown-column", "§10.6", 1, {"columns": ["y"]}, "no column of the index"),
        ("side-car-with-a-column-of-variable-size", "§10.6", 1, {"columns": ["s"]}, "fixed scalars only"),
    ):

        def change(index: dict[str, Any], number: int = number, changes: Mapping[str, Any] = changes) -> None:
            index["mx8shards"]["sidecars"][number].update(changes)

        sidecars = both_sidecars(PLAIN)
        short = sidecars[number].entry["blake3"][:12]
        files = publish(PLAIN, sidecars=sidecars, change=change).files
        yield invalid(name, rule, files, why, when="verify", path=short)


GROUPS = (
    shard_bytes,
    sample_headers,
    compressed_files,
    payloads,
    picture_payloads,
    damaged_payloads,
    snapshots,
    sidecar_files,
    missing_files,
    untrue_sidecars,
    sidecar_entries,
)


def invalid_files() -> list[Vector]:
    return [vector for group in GROUPS for vector in group()]
