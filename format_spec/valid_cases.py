"""Which datasets must every reader accept, and what must it find in them?"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vector_parts import (
    DIGESTS,
    SCALARS,
    ZSTD_SIZE,
    ZSTD_SUM,
    ZSTD_WINDOW_SIZE_AND_SUM,
    Cell,
    Columns,
    Files,
    Row,
    Shard,
    Snapshot,
    Vector,
    array,
    both_sidecars,
    canonical,
    fixed_size,
    foreign,
    foreign_index,
    integer,
    is_sealed,
    jpeg_picture,
    json_value,
    make_shard,
    make_sidecar,
    pickled,
    picture_list,
    pil_picture,
    png_picture,
    publish,
    raw_bytes,
    scalar,
    snapshot_id,
    text,
    written,
    zstd_head,
    zstd_stored,
)

OURS: dict[str, Any] = {"hashes": ("blake3", "xxh128")}

# A grey and a coloured JPEG of one tint each, so that every decoder agrees on their pixels.
GREY_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0"
    "Hyc5PTgyPC4zNDL/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8A"
    "P//Z"
)
COLOUR_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hn"
    "Pk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2P/wAARCAAIABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAX/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAA"
    "AAAAAAAAAAAAAQb/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCcAFI//9k="
)
# What libzstd 1.5.7 makes of REPEATED at level 7: entropy-coded blocks, content size, no checksum.
SQUEEZED_SHARD = base64.b64decode(
    "KLUv/WD6B40IAGINMDGAS9IBwMzADMwQI40YWahNkG3bFm3Lz9mktb3tDRAiIWdgIKYpikobj2EjaaSRRloKAgEAEQWaPBInogyyzcvS"
    "9jKK8VJ2C7O0mYwU2uBqbdM8xoWBbBOrCmGB4MBB9yoFa+qp19QMzgVlvCRIbPZmVVqOrrvJDHxPw6oUNq5nRZvc4GJVEitnr6qd7DZC"
    "pW0MOxYt3CoMNS9a1uKPQv4I4qdw/BDIDz38k43/+fgfh1+i8Tsev9PwRzL+d/wfCB8g4AIROw8jlJxQd0qxE5ScUndCsVNKTlB3SrET"
    "Sk6PzpUVDlbCUL+H61KBB9s5IhGLaVULHI2Ec0LdcdgS6Aoe74chzhSwd2hQdwhkBg=="
)
REPEATED = "the same words again and again, sample after sample; " * 3


def found_sample(row: Row, picked: Sequence[str] | None) -> dict[str, Any]:
    return {name: cell.expect for name, cell in row.items() if picked is None or name in picked}


def valid(
    name: str,
    rule: str,
    shards: Sequence[Shard],
    files: Files | Snapshot | None = None,
    *,
    index: bytes | None = None,
    directory: str = ".",
    link: str = "",
    metadata: Mapping[str, Any] | None = None,
    needs: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Vector:
    """A vector whose expectations follow from the rows that its shards were made of."""
    published = files.files if isinstance(files, Snapshot) else foreign(shards) if files is None else files
    opened = published[f"{directory}/index.json" if directory != "." else "index.json"] if index is None else index
    picked = (options or {}).get("columns")
    columns = shards[0].columns if shards else {}
    expected = {
        "columns": {column: columns[column] for column in sorted(columns) if picked is None or column in picked},
        "directory": directory,
        "link": link,
        "metadata": metadata or {},
        "needs": list(needs),
        "options": options or {},
        "rule": rule,
        "samples": sum(len(shard.rows) for shard in shards),
        "sealed": is_sealed(shards),
        "shards": [len(shard.rows) for shard in shards],
        "snapshot": snapshot_id(opened),
        "values": [found_sample(row, picked) for shard in shards for row in shard.rows],
    }
    return Vector(name, published, expected)


def one_shard(
    name: str, rule: str, columns: Columns, rows: Sequence[Row], *, needs: Sequence[str] = (), **shard: Any
) -> Vector:
    """A foreign dataset of a single shard."""
    return valid(name, rule, [make_shard(columns, rows, **shard)], needs=needs)


def one_column(name: str, rule: str, encoding: str, cells: Sequence[Cell], needs: Sequence[str] = ()) -> Vector:
    """A foreign dataset whose only column is called `value`."""
    return one_shard(name, rule, {"value": encoding}, [{"value": cell} for cell in cells], needs=needs)


# ---------------------------------------------------------------------------------------------- shard and sample bytes

WORKED_EXAMPLE = "three-samples-of-a-string-and-an-integer"
SAMPLE_COLUMNS = {"x": "int", "s": "str"}


def numbered_rows(start: int, stop: int) -> list[Row]:
    return [{"x": integer(i), "s": text(f"v{i}")} for i in range(start, stop)]


def layout() -> Iterator[Vector]:
    yield one_shard(WORKED_EXAMPLE, "§2.1", SAMPLE_COLUMNS, numbered_rows(0, 3))
    yield one_shard(
        "samples-without-a-size-header",
        "§3.2",
        {"a": "int", "b": "uint8"},
        [{"a": integer(-1), "b": scalar("uint8", 9)}],
    )
    yield one_shard(
        "samples-with-only-variable-columns",
        "§3.2",
        {"a": "bytes", "b": "str"},
        [{"a": raw_bytes(b"\1\2"), "b": text("")}, {"a": raw_bytes(b""), "b": text("long " * 60)}],
    )
    yield one_shard(
        "fixed-and-variable-columns-in-turn",
        "§3.3",
        {"a": "int16", "b": "bytes", "c": "float64", "d": "str", "e": "uint8"},
        [
            {
                "a": scalar("int16", -2),
                "b": raw_bytes(bytes(range(n))),
                "c": scalar("float64", n / 4),
                "d": text("é" * n),
                "e": scalar("uint8", n),
            }
            for n in (0, 5, 2)
        ],
    )
    yield one_column("samples-whose-only-payload-is-empty", "§3.4", "bytes", [raw_bytes(b"")] * 3)
    yield one_shard("shard-whose-config-is-not-json", "§2.5", SAMPLE_COLUMNS, numbered_rows(0, 2), config=b"\xff{not")
    yield one_shard("shard-without-a-config", "§2.5", SAMPLE_COLUMNS, numbered_rows(0, 2), config=b"")


def order_of_columns() -> Iterator[Vector]:
    upper_first = {"b": "str", "Z": "str", "a": "str", "_": "str"}
    yield one_shard(
        "columns-sorted-by-code-point-not-by-dictionary",
        "§3.1",
        upper_first,
        [{name: text(f"{name}{n}") for name in upper_first} for n in range(2)],
    )
    # As UTF-16, U+1F600 would come before U+FF5E.
    many_scripts = {"größe": "int", "名前": "str", "\uff5e": "str", "\U0001f600": "str", 'a "quoted" name': "str"}
    yield one_shard(
        "column-names-in-many-scripts",
        "§3.1",
        many_scripts,
        [{name: integer(7) if encoding == "int" else text(name) for name, encoding in many_scripts.items()}],
    )


# ---------------------------------------------------------------------------------------------- encodings


def extremes(dtype: str) -> list[Cell]:
    """The least value, the greatest and one between, of one scalar type."""
    bits = 8 * (fixed_size(dtype) or 0)
    if dtype.startswith("float"):
        largest = {16: 65504.0, 32: 3.4028234663852886e38, 64: 1.7976931348623157e308}[bits]
        return [scalar(dtype, value) for value in (-largest, largest, 0.15625)]
    least = 0 if dtype.startswith("u") else -(1 << bits - 1)
    values = (least, least + (1 << bits) - 1, 100)
    return [integer(value) if dtype == "int" else scalar(dtype, value) for value in values]


def numbers() -> Iterator[Vector]:
    columns = {dtype: dtype for dtype in SCALARS}
    cells = {dtype: extremes(dtype) for dtype in SCALARS}
    rows = [{dtype: cells[dtype][i] for dtype in SCALARS} for i in range(3)]
    yield one_shard("the-extremes-of-every-fixed-scalar", "§3.3", columns, rows)
    floats = {dtype: dtype for dtype in ("float16", "float32", "float64")}
    yield one_shard(
        "floats-that-are-infinite-or-not-a-number",
        "§3.3",
        floats,
        [{name: scalar(name, float(value)) for name in floats} for value in ("inf", "-inf", "nan", "-0.0")],
    )
    yield one_shard(
        "numbers-written-in-digits",
        "§3.3",
        {"f": "str_float", "i": "str_int", "d": "str_decimal"},
        [
            {"f": written("float", "0.1"), "i": written("int", str(-(10**40))), "d": written("decimal", "1.50")},
            {"f": written("float", "inf"), "i": written("int", "0"), "d": written("decimal", "1E+7")},
            {"f": written("float", "-1e-300"), "i": written("int", "7"), "d": written("decimal", "NaN")},
        ],
    )


def written_otherwise() -> Iterator[Vector]:
    """Numbers in forms that no writer of ours makes, and every reader has to accept."""
    ints = [("+1", 1), ("-0", 0), ("007", 7)]
    yield one_column("integers-written-otherwise", "§3.6", "str_int", [Cell(t.encode(), n) for t, n in ints])
    floats = ["5.", ".5", "+1E+2", "-Infinity", "INF", "-nan", "1e999", "007.50"]
    cells = [Cell(t.encode(), {"float": t}) for t in floats]
    yield one_column("floats-written-otherwise", "§3.6", "str_float", cells)
    decimals = [("5.", "5"), (".5", "0.5"), ("+1e2", "1E+2"), ("-sNaN12", "-sNaN12"), ("inf", "Infinity")]
    cells = [Cell(t.encode(), {"decimal": value}) for t, value in decimals]
    yield one_column("decimals-written-otherwise", "§3.6", "str_decimal", cells)
    lenient = [
        Cell(b"NaN", {"float": "nan"}),
        Cell(b"-Infinity", {"float": "-inf"}),
        Cell(b'{"a": 1, "a": 2}', {"json": {"a": 2}}),
        Cell(b"1" + b"0" * 400, {"json": 10**400}),
        Cell(b" \n[1 ,2]\t", {"json": [1, 2]}),
        Cell('"\u00fc"'.encode(), {"json": "\u00fc"}),
        Cell(json.dumps(nested(64)).encode(), {"json": nested(64)}),
    ]
    yield one_column("json-that-few-writers-make", "§3.6", "json", lenient)


def strings_and_objects() -> Iterator[Vector]:
    yield one_column("bytes-of-every-value", "§3.3", "bytes", [raw_bytes(bytes(range(256))), raw_bytes(b"")])
    scripts = ["", "plain", "größer", "日本語", "👩‍👧 family", "nul \0 inside", "line\r\nbreak", "\ufeffmark"]
    yield one_column("strings-in-many-scripts", "§3.3", "str", [text(value) for value in scripts])
    values: list[Any] = [None, True, -1, 2.5, "ü", [], {"a": [1, {"b": None}]}, [[0.5, "x"], []]]
    yield one_column("json-values-of-every-kind", "§3.3", "json", [json_value(value) for value in values])
    pickle = pickled(
        "8004951c000000000000007d948c0161945d94284b014740040000000000004e8c01789465732e", "{'a': [1, 2.5, None, 'x']}"
    )
    shard = make_shard({"value": "pkl"}, [{"value": pickle}])
    yield valid("pickles-where-they-are-allowed", "§3.7", [shard], options={"allow_pickle": True})


def arrays() -> Iterator[Vector]:
    dtypes = [dtype for dtype in SCALARS if dtype != "int"]
    yield one_column(
        "arrays-of-every-dtype", "§3.3", "ndarray", [array("ndarray", dtype, (2, 3), range(6)) for dtype in dtypes]
    )
    yield one_column(
        "arrays-of-many-shapes",
        "§3.3",
        "ndarray",
        [array("ndarray", "uint8", shape, bytes(n)) for shape, n in (((1,), 1), ((1, 1, 1, 1, 5), 5), ((7, 2), 14))],
    )
    sides = ",".join("1" * 63)
    for name, encoding in (
        ("array-of-sixty-three-dimensions", "ndarray"),
        ("array-of-a-fixed-shape-of-sixty-three-dimensions", f"ndarray:uint8:{sides}"),
    ):
        yield one_column(name, "§3.3", encoding, [array(encoding, "uint8", (1,) * 63, [9])])
    yield one_column("array-with-a-two-byte-shape", "§3.3", "ndarray", [array("ndarray", "int8", (1, 300), [3] * 300)])
    yield one_column(
        "arrays-with-a-wider-shape-than-needed",
        "§3.3",
        "ndarray",
        [array("ndarray", "float32", (2, 1), [0.5, -0.5], width) for width in (0, 1, 2, 3)],
    )
    for name, encoding, dtype, shapes in (
        ("arrays-of-a-fixed-dtype", "ndarray:float16", "float16", ((2,), (2, 2))),
        ("arrays-of-a-fixed-shape", "ndarray:int16:2,3", "int16", ((2, 3), (2, 3))),
        ("arrays-of-a-fixed-shape-written-with-zeros", "ndarray:uint8:02,003", "uint8", ((2, 3),)),
        ("arrays-of-a-fixed-shape-written-with-a-space", "ndarray:uint8:2, 3", "uint8", ((2, 3),)),
        ("array-encoding-that-ends-in-a-colon", "ndarray:", "int64", ((1,), (2, 1))),
    ):
        sizes = [(shape, shape[0] * (shape[1] if len(shape) > 1 else 1)) for shape in shapes]
        yield one_column(name, "§3.3", encoding, [array(encoding, dtype, shape, range(n)) for shape, n in sizes])
    cells = [array("ndarray:uint16:", "uint16", (n,), range(n)) for n in (3, 1)]
    rows = [{"value": Cell(cell.payload[-2 * n :], cell.expect)} for cell, n in zip(cells, (3, 1), strict=True)]
    made = make_shard({"value": "bytes"}, rows)
    entry = made.entry | {"column_encodings": ["uint16"]}
    yield valid("numbers-of-a-replaced-encoding", "§4.7", [replace(made, columns={"value": "uint16"}, entry=entry)])


def pictures() -> Iterator[Vector]:
    grey, colour = bytes([0, 50, 100, 150, 200, 255]), bytes(range(0, 240, 20))
    raw = [pil_picture("L", (3, 2), grey), pil_picture("RGB", (2, 2), colour)]
    png = [png_picture("L", (3, 2), grey), png_picture("RGB", (2, 2), colour), png_picture("RGBA", (3, 1), colour)]
    jpeg = [jpeg_picture(GREY_JPEG, "L", (8, 8), [128]), jpeg_picture(COLOUR_JPEG, "RGB", (16, 8), [202, 40, 90])]
    pillow = ["PIL"]
    yield one_column("pictures-stored-as-pixels", "§3.3", "pil", raw, pillow)
    rows_of_bits = [pil_picture("1", (9, 2), b"\xaa\x80\x55\x00")]
    modes = {1: ("L", "P"), 2: ("LA", "La", "PA", "I;16", "I;16L", "I;16B", "I;16N"), 3: ("RGB", "YCbCr", "LAB", "HSV")}
    modes[4] = ("RGBA", "RGBa", "RGBX", "CMYK", "I", "F")
    others = [pil_picture(mode, (3, 1), bytes(range(1, 3 * size + 1))) for size in modes for mode in modes[size]]
    yield one_column("pictures-of-every-mode", "§3.3", "pil", rows_of_bits + others, pillow)
    yield one_column("pictures-stored-as-png-files", "§3.3", "png", png, pillow)
    yield one_column("pictures-stored-as-jpeg-files", "§3.3", "jpeg", jpeg, pillow)
    for kind, cells in (("pil", raw), ("png", png), ("jpeg", jpeg)):
        lists = [picture_list(cells), picture_list([]), picture_list(cells[:1])]
        yield one_column(f"lists-of-{kind}-pictures", "§3.3", f"list[{kind}]", lists, pillow)
    array_cell = picture_list(jpeg, placeholder=False)
    yield one_shard(
        "jpeg-arrays-under-both-names",
        "§3.3",
        {"a": "jpegarray", "b": "jpeg_array"},
        [{"a": array_cell, "b": array_cell}],
        needs=pillow,
    )


# ---------------------------------------------------------------------------------------------- index and size_limit


def numbered_shards(counts: Sequence[int], **shard: Any) -> list[Shard]:
    """Shards with these numbers of samples, named and numbered as a writer does."""
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [
        make_shard(SAMPLE_COLUMNS, numbered_rows(start, start + count), basename=f"shard.{i:05}.mds", **shard)
        for i, (start, count) in enumerate(zip(starts, counts, strict=True))
    ]


def how_many() -> Iterator[Vector]:
    yield valid("no-shards-at-all", "§4.2", [])
    yield valid("one-shard-without-samples", "§2.6", numbered_shards([0]))
    yield valid("shard-without-samples-between-others", "§2.6", numbered_shards([2, 0, 1]))
    big = [{"value": raw_bytes(bytes([n]) * 400)} for n in range(3)]
    oversized = [
        make_shard({"value": "bytes"}, rows, basename=f"shard.{i:05}.mds", size_limit=500)
        for i, rows in enumerate([[], big[:1], big[1:2], big[2:]])
    ]
    yield valid("oversized-first-sample-leaves-an-empty-shard", "§5.4", oversized)
    # Two samples fill a shard to the last byte of its limit: 8 + 176 of config + 2 · (4 + 14) = 220.
    exact = numbered_shards([2, 2, 1], size_limit=220)
    yield valid("shards-filled-to-the-last-byte-of-the-limit", "§5.2", exact)
    yield valid("size-limit-as-a-string", "§4.6", numbered_shards([1], size_limit="64mb"))
    yield valid("hash-list-that-names-one-twice", "§4.6", numbered_shards([1], hashes=("md5", "md5")))
    yield valid("no-size-limit", "§4.6", numbered_shards([3], size_limit=None))


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def spelled(index: dict[str, Any], **how: Any) -> bytes:
    return json.dumps(index, **how).encode()


def index_forms() -> Iterator[Vector]:
    shards = numbered_shards([2, 1])
    index, files = foreign_index(shards), foreign(shards)
    for name, data in (
        ("index-indented-and-with-a-final-newline", spelled(index, indent=4) + b"\n"),
        ("index-with-unsorted-keys", spelled(dict(reversed(index.items())))),
        ("index-with-an-integer-of-4300-digits-that-nobody-reads", canonical(index | {"note": 10**4299})),
        ("index-nested-sixty-four-deep", canonical(index | {"note": nested(63)})),
        ("index-with-unknown-top-level-keys", canonical(index | {"note": {"by": "someone", "1.5": [0.5]}, "": None})),
    ):
        yield valid(name, "§4.1", shards, files | {"index.json": data})
    accented = [make_shard({"größe": "int"}, [{"größe": integer(1)}])]
    unescaped = spelled(foreign_index(accented), ensure_ascii=False)
    yield valid("index-in-unescaped-utf-8", "§4.1", accented, foreign(accented) | {"index.json": unescaped})


def directories() -> Iterator[Vector]:
    shards = numbered_shards([2])
    in_split = {f"train/{path}": data for path, data in foreign(shards).items()}
    yield valid("split-in-a-sub-directory", "§1.3", shards, in_split, directory="train")
    nested = [
        make_shard(SAMPLE_COLUMNS, numbered_rows(i, i + 2), basename=f"{folder}/shard.00000.mds")
        for i, folder in enumerate(["0", "1", "_part-2"])
    ]
    merged = spelled({"version": 2, "shards": [dict(reversed(shard.entry.items())) for shard in nested]})
    yield valid("merged-by-streaming-from-sub-directories", "§1.4", nested, foreign(nested) | {"index.json": merged})
    odd = [
        make_shard(SAMPLE_COLUMNS, numbered_rows(i, i + 1), basename=name)
        for i, name in enumerate(["-dash/_under/9..mds", "A", "a", "data.bin"])
    ]
    yield valid("basenames-in-odd-but-safe-forms", "§1.4", odd)


def picked_columns() -> Iterator[Vector]:
    rows: list[Row] = [{"x": integer(n), "s": text(f"v{n}")} for n in range(2)]
    wide: list[Row] = [{"x": integer(n), "t": text(f"w{n}"), "s": text(f"v{n}")} for n in range(2, 4)]
    shards = [
        make_shard(SAMPLE_COLUMNS, rows),
        make_shard(SAMPLE_COLUMNS | {"t": "str"}, wide, basename="shard.00001.mds"),
    ]
    yield valid("columns-picked-from-shards-that-differ", "§4.9", shards, options={"columns": ["s", "x"]})


# ---------------------------------------------------------------------------------------------- compression and hashes


def wide(raw: bytes) -> bytes:
    """A frame with a window of 128 MiB, 2²⁷ bytes: the exponent less 10 stands in the upper five bits."""
    return zstd_head(ZSTD_SUM, 0, window=17 << 3) + zstd_stored(raw, ZSTD_SUM)[6:]


def compressions() -> Iterator[Vector]:
    for name, compression, needs in (
        ("compressed-with-zstd", "zstd", []),
        ("compressed-with-zstd-at-a-level", "zstd:19", []),
        ("compressed-with-gzip", "gz", []),
        ("compressed-with-bzip2-at-a-level", "bz2:9", []),
        ("compressed-with-brotli", "br:11", ["brotli"]),
        ("compressed-with-snappy", "snappy", ["snappy"]),
    ):
        yield valid(name, "§6.1", numbered_shards([2, 1], compression=compression), needs=needs)
    for name, descriptor in (
        ("zstd-frame-without-a-content-size", ZSTD_SUM),
        ("zstd-frame-without-a-checksum", ZSTD_SIZE),
        ("zstd-frame-with-a-window-and-a-content-size", ZSTD_WINDOW_SIZE_AND_SUM),
    ):
        shards = numbered_shards([3], compression="zstd", squeeze=lambda raw, kind=descriptor: zstd_stored(raw, kind))
        yield valid(name, "§6.3", shards)
    yield valid(
        "zstd-frame-with-the-largest-window-allowed", "§6.4", numbered_shards([3], compression="zstd", squeeze=wide)
    )
    both = numbered_shards([2], compression="zstd")
    beside = foreign(both) | {"shard.00000.mds": both[0].raw}
    yield valid("compressed-shard-beside-its-raw-file", "§1.8", both, beside)
    alone = {name: data for name, data in beside.items() if not name.endswith(".zstd")}
    yield valid("compressed-shard-of-which-only-the-raw-file-is-left", "§1.8", both, alone)
    squeezed = make_shard(
        {"text": "str", "n": "int"},
        [{"text": text(REPEATED), "n": integer(n)} for n in range(12)],
        compression="zstd:7",
        squeeze=lambda _raw: SQUEEZED_SHARD,
        hashes=("sha1",),
        size_limit=4096,
    )
    yield valid("zstd-frame-made-by-libzstd", "§6.3", [squeezed])
    mixed = [
        make_shard(SAMPLE_COLUMNS, numbered_rows(i, i + 1), basename=f"shard.{i:05}.mds", compression=compression)
        for i, compression in enumerate([None, "zstd", "gz"])
    ]
    yield valid("shards-compressed-in-different-ways", "§6.1", mixed)


def hashes() -> Iterator[Vector]:
    streaming = tuple(sorted(DIGESTS.keys() - {"blake3"}))
    yield valid("every-hash-that-streaming-knows", "§7.1", numbered_shards([1], hashes=streaming))
    yield valid("sealed-by-sha256-alone", "§7.5", numbered_shards([1, 1], hashes=("sha256",)))
    yield valid(
        "unsealed-because-its-hashes-are-short", "§7.5", numbered_shards([2], hashes=("md5", "sha1", "xxh3_128"))
    )
    yield valid(
        "unsealed-because-sha384-is-no-sealing-hash", "§7.5", numbered_shards([1], hashes=("sha384", "sha3_384"))
    )
    half = [
        *numbered_shards([1], hashes=("sha256",)),
        make_shard(SAMPLE_COLUMNS, numbered_rows(1, 2), basename="b.mds"),
    ]
    yield valid("unsealed-because-one-shard-has-no-hash", "§7.5", half)
    raw_only = make_shard(SAMPLE_COLUMNS, numbered_rows(0, 2), compression="zstd", hashes=("sha256",))
    raw_only.entry["zip_data"]["hashes"] = {}
    yield valid("unsealed-because-only-the-raw-file-is-hashed", "§7.5", [raw_only])
    unknown = make_shard(SAMPLE_COLUMNS, numbered_rows(0, 2))
    unknown.entry["hashes"] = ["crc32c", "k12"]
    unknown.entry["raw_data"]["hashes"] = {"crc32c": "not even hex", "k12": "0"}
    yield valid("hashes-with-names-from-the-future", "§7.3", [unknown])


# ---------------------------------------------------------------------------------------------- ours


def our_shards(counts: Sequence[int], folder: str = "", first: int = 0, start: int = 0, **shard: Any) -> list[Shard]:
    """Shards of our writer: both default hashes listed, samples numbered from `start`."""
    made = []
    for i, count in enumerate(counts):
        rows = numbered_rows(start, start + count)
        made.append(make_shard(SAMPLE_COLUMNS, rows, basename=f"{folder}shard.{first + i:05}.mds", **(OURS | shard)))
        start += count
    return made


def first_publications() -> Iterator[Vector]:
    shards = our_shards([2, 1])
    metadata = {"classes": ["cat", "dog"], "scale": 0.5, "ü": None}
    yield valid("published-by-us", "§8.2", shards, publish(shards, metadata=metadata), metadata=metadata)
    squeezed = our_shards([2, 1], compression="zstd:3")
    yield valid("published-by-us-and-compressed", "§10.5", squeezed, publish(squeezed))
    listed = our_shards([2], hashes=("sha1",), unlisted=("blake3",))
    yield valid("blake3-that-the-user-did-not-ask-for", "§7.4", listed, publish(listed))
    bare = our_shards([2])
    yield valid("published-by-us-without-side-cars", "§8.3", bare, publish(bare, sidecars=[]))
    videos = [make_shard({"video": "bytes"}, [{"video": raw_bytes(bytes([n]) * 3000)} for n in range(4)], **OURS)]
    blocks = [make_sidecar("blocks", videos, block=1 << 12)]
    yield valid("side-car-of-blocks-of-4096-bytes", "§10.5", videos, publish(videos, sidecars=blocks))
    padded = {"f": "float16", "n": "uint8", "picture": "bytes", "y": "int32"}
    rows = [
        {
            "f": scalar("float16", n / 2),
            "n": scalar("uint8", n),
            "picture": raw_bytes(bytes(n)),
            "y": scalar("int32", -n),
        }
        for n in range(5)
    ]
    halves = [
        make_shard(padded, part, basename=f"shard.{i:05}.mds", **OURS) for i, part in enumerate([rows[:3], rows[3:]])
    ]
    yield valid("side-car-columns-padded-to-eight-bytes", "§10.6", halves, publish(halves))
    plain = [make_shard({"value": "str"}, [{"value": text("no number here")}], **OURS)]
    yield valid("no-columns-side-car-where-no-column-is-eligible", "§10.6", plain, publish(plain))
    yield valid("no-shards-published-by-us", "§8.2", [], publish([], sidecars=[]))


def later_publications() -> Iterator[Vector]:
    old = our_shards([2, 1])
    before = publish(old, metadata={"made": "first"})
    new = our_shards([1, 2], first=2, start=3)
    grown = [*old, *new]
    appended = publish(grown, sidecars=[*both_sidecars(old), *both_sidecars(new, 2)], before=before)
    yield valid("appended-to", "§9.5", grown, appended)
    yield valid(
        "kept-snapshot-beside-a-newer-one",
        "§9.3",
        old,
        appended,
        index=before.index,
        link=f"@{before.id}",
        metadata={"made": "first"},
    )
    again = our_shards([3], folder="g0001/", start=100)
    yield valid("overwritten-by-a-new-generation", "§9.6", again, publish(again, before=before))
    merged = [*our_shards([2], folder="p0000/"), *our_shards([1, 1], folder="p0001/", start=2)]
    carried = [*both_sidecars(merged[:1]), *both_sidecars(merged[1:], 1)]
    yield valid("merged-from-parts-with-their-side-cars", "§9.7", merged, publish(merged, sidecars=carried))
    theirs = numbered_shards([1, 2], hashes=("md5",))
    found = foreign(theirs)
    data = found["index.json"]
    stranger = Snapshot(data, found | {f".mx8shards/snapshots/{snapshot_id(data).partition(':')[2]}.json": data})
    sealed = numbered_shards([1, 2], hashes=("md5",), unlisted=("blake3",))
    for ours, foreigner in zip(sealed, theirs, strict=True):
        ours.entry["hashes"] = foreigner.entry["hashes"]
    yield valid("sealed-where-streaming-had-written", "§9.8", sealed, publish(sealed, before=stranger))


def tolerance() -> Iterator[Vector]:
    shards = our_shards([2])

    def add_unknown(index: dict[str, Any]) -> None:
        key = index["mx8shards"]
        key["colour"] = "blue"
        key["sidecars"].append({"kind": "bloom", "bits": [1, 2, 3]})
        key["sidecars"][0]["note"] = "kept"

    yield valid("our-key-with-unknown-keys-and-kinds", "§8.4", shards, publish(shards, change=add_unknown))
    everything = publish(shards, sidecars=[make_sidecar("blocks", shards)], metadata={"from": "elsewhere"})
    visible = {path: data for path, data in everything.files.items() if not path.startswith(".mx8shards/")}
    index = foreign_index(shards)
    index["mx8shards"] = {"metadata": {"from": "elsewhere"}, "sidecars": [], "spec": 1}
    visible["index.json"] = canonical(index)
    yield valid("ours-copied-without-its-hidden-directory", "§9.4", shards, visible, metadata={"from": "elsewhere"})


GROUPS = (
    layout,
    order_of_columns,
    numbers,
    written_otherwise,
    strings_and_objects,
    arrays,
    pictures,
    how_many,
    index_forms,
    directories,
    picked_columns,
    compressions,
    hashes,
    first_publications,
    later_publications,
    tolerance,
)


def all_valid() -> list[Vector]:
    return [vector for group in GROUPS for vector in group()]
