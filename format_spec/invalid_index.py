"""Which indices must every reader refuse, and what must its error say?

Every vector breaks one rule and is otherwise sound, so that a reader which overlooks the rule would go on and succeed.
They lie in foreign directories (no .mx8shards), so that nothing but the index itself can be found wrong.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vector_parts import (
    Cell,
    Files,
    Row,
    Shard,
    Vector,
    canonical,
    foreign,
    foreign_index,
    integer,
    make_shard,
    make_sidecar,
    our_key,
    text,
)

FIRST_SHARD = "shard.00000.mds"
COLUMNS = {"s": "str", "x": "int"}
HOSTILE_DIGITS = "9" * 5000


def rows(count: int, start: int = 0) -> list[Row]:
    return [{"s": text(f"v{i}"), "x": integer(i)} for i in range(start, start + count)]


def invalid(
    name: str,
    rule: str,
    files: Files,
    why: str,
    *,
    error: str = "FormatError",
    when: str = "open",
    path: str = "index.json",
    link: str = "",
    needs: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Vector:
    expected = {
        "directory": ".",
        "error": error,
        "link": link,
        "needs": list(needs),
        "options": options or {},
        "path": path,
        "rule": rule,
        "when": when,
        "why": why,
    }
    return Vector(name, files, expected)


# ---------------------------------------------------------------------------------------------- changing a JSON value


class Gone:
    """Stands for a key that is taken away."""


GONE = Gone()


def assign(value: Any, path: str, new: Any) -> None:
    """`value` with what `path` (like $.shards[0].samples) names replaced, added, or taken away."""
    keys = [int(number) if number else key for key, number in re.findall(r"\.(\w+)|\[(\d+)]", path)]
    for key in keys[:-1]:
        value = value[key]
    if new is GONE:
        del value[keys[-1]]
    elif isinstance(value, list) and keys[-1] == len(value):
        value.append(new)
    else:
        value[keys[-1]] = new


def changed(index: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(index)
    for path, new in changes.items():
        assign(result, path, new)
    return result


# A parser may meet a float before it knows whose value it is: then the path ends at the entry.
ENTRY = "$.shards[0]"
INDEX = "index.json"  # what is no JSON has no places


class Breach(NamedTuple):
    """One broken rule of an index: where, what stands there instead, and the path an error must name (else `where`)."""

    name: str
    rule: str
    where: str
    value: Any
    why: str
    path: str = ""
    also: Mapping[str, Any] = {}


def from_breaches(shards: Sequence[Shard], index: dict[str, Any], breaches: Sequence[Breach]) -> Iterator[Vector]:
    """One vector per breach of a sound index."""
    for breach in breaches:
        broken = changed(index, {breach.where: breach.value, **breach.also})
        yield invalid(breach.name, breach.rule, foreign(shards, broken), breach.why, path=breach.path or breach.where)


PLAIN = [make_shard(COLUMNS, rows(3))]
SQUEEZED = [make_shard(COLUMNS, rows(3), compression="zstd")]
TWO = [make_shard(COLUMNS, rows(2, 2 * i), basename=f"shard.{i:05}.mds") for i in range(2)]
TWO_SQUEEZED = [make_shard(COLUMNS, rows(2, 2 * i), basename=f"shard.{i:05}.mds", compression="zstd") for i in range(2)]

# ---------------------------------------------------------------------------------------------- index.json as bytes


def index_bytes() -> Iterator[Vector]:
    good = foreign(PLAIN)
    text_of = good["index.json"].decode()
    deep = "[" * 5000 + "]" * 5000
    for name, data, why in (
        ("index-that-is-empty", b"", "no JSON value at all"),
        ("index-cut-off-in-the-middle", good["index.json"][:-40], "the publication was torn"),
        ("index-with-garbage-after-its-end", good["index.json"] + b"x", "one JSON value, then nothing"),
        ("index-twice-in-one-file", good["index.json"] * 2, "one JSON value, then nothing"),
        ("index-followed-by-nul-bytes", good["index.json"] + bytes(8), "a preallocated file that was never cut"),
        ("index-with-a-byte-order-mark", b"\xef\xbb\xbf" + good["index.json"], "UTF-8 without a mark"),
        ("index-in-utf-16", text_of.encode("utf-16"), "UTF-8 is the only encoding"),
        ("index-in-utf-32", text_of.encode("utf-32-le"), "UTF-8 is the only encoding"),
        ("index-that-is-not-utf-8", good["index.json"][:-1] + b', "note": "\xff"}', "a byte that UTF-8 does not know"),
        ("index-with-a-trailing-comma", good["index.json"][:-1] + b",}", "JSON has no trailing commas"),
        ("index-with-a-comment", b"// index\n" + good["index.json"], "JSON has no comments"),
        ("index-in-single-quotes", good["index.json"].replace(b'"', b"'"), "JSON strings stand in double quotes"),
        ("index-nested-five-thousand-deep", deep.encode(), "a parser must not die of its own recursion"),
        (
            "index-nested-deeply-inside-an-entry",
            text_of.replace("67108864", deep).encode(),
            "a parser must not die of its own recursion, wherever it happens",
        ),
        (
            "index-with-nan-in-a-key-that-nobody-reads",
            good["index.json"][:-1] + b', "note": [NaN]}',
            "Python reads NaN, JSON has none",
        ),
        (
            "number-of-five-thousand-digits",
            text_of.replace('"samples": 3', f'"samples": {HOSTILE_DIGITS}').encode(),
            "Python refuses to convert so many digits with a ValueError that is no JSON error",
        ),
    ):
        yield invalid(name, "§4.1", good | {"index.json": data}, why)
    twice = text_of.replace('"version": 2}', '"version": 2, "shards": []}')
    yield invalid(
        "shard-list-twice-in-one-index",
        "§4.1",
        good | {"index.json": "".join(twice.rsplit("}", 1)).encode() + b"}"},
        "one parser takes the first, another the last",
    )
    for name, value in (("index-that-is-a-list", [foreign_index(PLAIN)]), ("index-that-is-null", None)):
        yield invalid(name, "§4.2", good | {"index.json": canonical(value)}, "the top level is an object", path="$")
    alone = {path: data for path, data in good.items() if path != "index.json"}
    yield invalid(
        "no-index-at-all", "§1.1", alone, "without index.json there is no dataset", error="DatasetNotFoundError"
    )


TOP_LEVEL = (
    Breach("version-missing", "§4.2", "$.version", GONE, "the version says how to read the rest", "$"),
    Breach("version-one", "§4.2", "$.version", 1, "only version 2 is known"),
    Breach("version-three", "§4.2", "$.version", 3, "only version 2 is known"),
    Breach("version-as-a-string", "§4.2", "$.version", "2", "an integer, not its digits"),
    Breach("version-as-a-float", "§4.2", "$.version", 2.0, "2.0 equals 2 in Python and is no integer"),
    Breach("version-as-null", "§4.2", "$.version", None, "an integer"),
    Breach("shards-missing", "§4.2", "$.shards", GONE, "an index without a shard list", "$"),
    Breach("shards-as-an-object", "§4.2", "$.shards", {}, "a list, also an empty one"),
    Breach("shard-as-null", "§4.3", "$.shards[0]", None, "every shard is an object"),
    Breach("shard-as-a-string", "§4.3", "$.shards[0]", FIRST_SHARD, "every shard is an object"),
)

ENTRY_KEYS = (
    "column_encodings",
    "column_names",
    "column_sizes",
    "compression",
    "format",
    "hashes",
    "raw_data",
    "samples",
    "size_limit",
    "version",
    "zip_data",
)
MISSING_KEYS = tuple(
    Breach(
        f"shard-without-{key.replace('_', '-')}",
        "§4.3",
        f"$.shards[0].{key}",
        GONE,
        "Streaming's reader takes each key as a mandatory argument",
        "$.shards[0]",
    )
    for key in ENTRY_KEYS
) + tuple(
    Breach(
        f"raw-data-without-{key}",
        "§4.4",
        f"$.shards[0].raw_data.{key}",
        GONE,
        "Streaming's reader takes each key as a mandatory argument",
        "$.shards[0].raw_data",
    )
    for key in ("basename", "bytes", "hashes")
)

UNKNOWN_KEYS = (
    Breach("shard-with-an-unknown-key", "§4.3", "$.shards[0].note", 1, "Streaming raises a TypeError", "$.shards[0]"),
    Breach("shard-with-an-empty-key", "§4.3", "$.shards[0]", {**PLAIN[0].entry, "": 1}, "Streaming raises a TypeError"),
    Breach(
        "raw-data-with-an-unknown-key",
        "§4.4",
        "$.shards[0].raw_data.size",
        1,
        "a TypeError too",
        "$.shards[0].raw_data",
    ),
    Breach("raw-data-as-null", "§4.4", "$.shards[0].raw_data", None, "every shard has an uncompressed form"),
    Breach("raw-data-as-a-list", "§4.4", "$.shards[0].raw_data", [], "an object of three keys"),
)

JSON_ENTRY: dict[str, Any] = {
    "columns": {"x": "int"},
    "compression": None,
    "format": "json",
    "hashes": [],
    "newline": "\n",
    "raw_data": {"basename": "shard.00000.json", "bytes": 9, "hashes": {}},
    "raw_meta": {"basename": "shard.00000.json.meta", "bytes": 150, "hashes": {}},
    "samples": 1,
    "size_limit": 67108864,
    "version": 2,
    "zip_data": None,
    "zip_meta": None,
}
ENTRY_VALUES = (
    Breach("shard-version-one", "§4.3", "$.shards[0].version", 1, "every entry repeats version 2"),
    Breach("shard-version-as-a-float", "§4.3", "$.shards[0].version", 2.0, "no float in an entry", ENTRY),
    Breach(
        "shard-in-json-format",
        "§4.10",
        "$.shards[0]",
        JSON_ENTRY,
        "a format of Streaming's that is not MDS is refused by its name, not by its keys",
        "$.shards[0].format",
    ),
    Breach("shard-in-an-unknown-format", "§4.10", "$.shards[0].format", "parquet", "only mds is known"),
    Breach("shard-format-as-a-number", "§4.10", "$.shards[0].format", 2, "a string"),
    Breach("samples-that-are-negative", "§4.5", "$.shards[0].samples", -1, "a count"),
    Breach("samples-as-a-float", "§4.5", "$.shards[0].samples", 3.0, "3.0 equals 3 in Python and is no integer", ENTRY),
    Breach("samples-as-a-string", "§4.5", "$.shards[0].samples", "3", "an integer, not its digits"),
    Breach("samples-as-a-boolean", "§4.5", "$.shards[0].samples", True, "true is an int in Python and no count"),
    Breach("samples-as-null", "§4.5", "$.shards[0].samples", None, "an integer"),
    Breach("samples-of-two-to-the-thirty-second", "§4.5", "$.shards[0].samples", 1 << 32, "the count is a uint32"),
    Breach(
        "more-samples-than-the-file-has-room-for",
        "§4.5",
        "$.shards[0].samples",
        1000,
        "8 + 4·samples bytes of table",
        ENTRY,
    ),
    Breach(
        "samples-not-a-number", "§4.1", "$.shards[0].samples", float("nan"), "Python reads NaN, JSON has none", INDEX
    ),
    Breach("raw-bytes-negative", "§4.5", "$.shards[0].raw_data.bytes", -243, "a size"),
    Breach("raw-bytes-as-a-float", "§4.5", "$.shards[0].raw_data.bytes", 243.0, "no float in an entry", ENTRY),
    Breach("raw-bytes-as-a-boolean", "§4.5", "$.shards[0].raw_data.bytes", True, "true is an int in Python"),
    Breach("raw-bytes-as-a-string", "§4.5", "$.shards[0].raw_data.bytes", "243", "an integer, not its digits"),
    Breach("raw-bytes-infinite", "§4.1", "$.shards[0].raw_data.bytes", float("inf"), "Python reads Infinity", INDEX),
    Breach(
        "raw-bytes-not-a-number", "§4.1", "$.shards[0].raw_data.bytes", float("nan"), "comparisons with NaN pass", INDEX
    ),
    Breach("raw-bytes-of-four-gibibytes", "§4.5", "$.shards[0].raw_data.bytes", 1 << 32, "offsets are uint32 and wrap"),
    Breach(
        "raw-bytes-of-a-file-without-a-table",
        "§4.5",
        "$.shards[0].raw_data.bytes",
        7,
        "an empty shard still has a count and one offset: 8 bytes",
        "$.shards[0]",
        {"$.shards[0].samples": 0},
    ),
    Breach("hash-list-as-an-object", "§4.6", "$.shards[0].hashes", {}, "a list of names"),
    Breach(
        "hash-list-unsorted", "§4.6", "$.shards[0].hashes", ["sha1", "md5"], "Streaming's writer refuses it unsorted"
    ),
    Breach("hash-list-with-a-number", "§4.6", "$.shards[0].hashes[0]", 5, "a list of names"),
    Breach("hash-list-of-65-names", "§4.6", "$.shards[0].hashes", [f"h{i:02}" for i in range(65)], "a limit"),
    Breach("size-limit-of-1025-characters", "§4.6", "$.shards[0].size_limit", "1" * 1025, "a limit"),
    Breach("size-limit-as-a-float", "§4.6", "$.shards[0].size_limit", 1e6, "no float in an entry", ENTRY),
    Breach("size-limit-negative", "§4.6", "$.shards[0].size_limit", -1, "a size, and Streaming raises a ValueError"),
    Breach("size-limit-as-a-boolean", "§4.6", "$.shards[0].size_limit", True, "true is an int in Python"),
    Breach("size-limit-as-a-list", "§4.6", "$.shards[0].size_limit", [1], "null, an integer or a string"),
)

# ---------------------------------------------------------------------------------------------- basenames

HOSTILE_BASENAMES = (
    ("of-the-parent-directory", "../shard.00000.mds", "the classic way out of the root"),
    ("that-is-absolute", "/etc/hostname", "os.path.join forgets the root at an absolute path"),
    ("that-climbs-in-its-middle", "a/../../shard.00000.mds", "every component counts, not only the first"),
    ("that-is-two-dots", "..", "a directory, and not ours"),
    ("that-is-a-dot", ".", "a directory"),
    ("with-a-dot-component", "./shard.00000.mds", "a second spelling of one file defeats the check for duplicates"),
    ("with-an-empty-component", "a//shard.00000.mds", "a second spelling of one file"),
    ("that-ends-in-a-slash", "shard.00000.mds/", "a directory"),
    ("that-is-hidden", ".shard.00000.mds", "hidden names are ours: .mx8shards"),
    ("below-a-hidden-directory", "a/.mx8shards/shard.00000.mds", "hidden names are ours"),
    ("with-a-backslash", "..\\shard.00000.mds", "a separator elsewhere"),
    ("with-a-drive-letter", "C:shard.00000.mds", "absolute elsewhere"),
    ("with-a-nul-byte", "shard.00000.mds\0.txt", "C ends the name here"),
    ("with-a-newline-at-its-end", "shard.00000.mds\n", "in a regular expression $ also matches before a last newline"),
    ("with-a-space", "shard 0.mds", "outside the allowed characters"),
    ("with-a-tilde", "~/shard.00000.mds", "a shell's home"),
    ("with-a-percent-escape", "%2e%2e/shard.00000.mds", "becomes .. when a server decodes it"),
    ("with-a-letter-outside-ascii", "schärd.mds", "file systems normalise it differently"),
    ("with-an-arabic-digit", "shard.0000\u0660.mds", "\\w and \\d match more than ASCII"),
    ("that-is-empty", "", "joins to the root itself"),
    ("with-a-component-of-256-characters", "a" * 256, "longer than file systems allow"),
    ("of-more-than-4096-characters", "/".join(["a" * 63] * 65), "longer than a path may be"),
    ("that-is-a-number", 0, "a string"),
    ("that-is-null", None, "a string"),
    ("that-is-a-list", ["shard.00000.mds"], "a string"),
)


def basenames() -> Iterator[Vector]:
    raw_path, zip_path = "$.shards[0].raw_data.basename", "$.shards[0].zip_data.basename"
    yield from from_breaches(
        PLAIN,
        foreign_index(PLAIN),
        [Breach(f"basename-{name}", "§1.4", raw_path, value, why) for name, value, why in HOSTILE_BASENAMES],
    )
    zipped = foreign_index(SQUEEZED)
    yield from from_breaches(
        SQUEEZED,
        zipped,
        [
            Breach(
                "zip-basename-of-the-parent-directory",
                "§1.4",
                zip_path,
                "../x.zstd",
                "both files of a shard are joined",
            ),
            Breach(
                "zip-basename-that-is-absolute", "§1.4", zip_path, "/var/x.zstd", "both files of a shard are joined"
            ),
            Breach(
                "raw-basename-of-the-parent-of-a-zip", "§1.4", raw_path, "../x.mds", "written when decompressed to disk"
            ),
            Breach(
                "raw-and-zip-basenames-that-are-equal", "§1.5", zip_path, FIRST_SHARD, "one file for two", "$.shards[0]"
            ),
        ],
    )
    two, two_zipped = foreign_index(TWO), foreign_index(TWO_SQUEEZED)
    second = "$.shards[1].raw_data.basename"
    yield from from_breaches(
        TWO,
        two,
        [Breach("two-shards-in-one-file", "§1.5", second, FIRST_SHARD, "merge_index makes these", "$.shards[1]")],
    )
    yield from from_breaches(
        TWO_SQUEEZED,
        two_zipped,
        [
            Breach(
                "raw-file-named-as-another-shards-zip",
                "§1.5",
                second,
                f"{FIRST_SHARD}.zstd",
                "overwrites it",
                "$.shards[1]",
            )
        ],
    )


# ---------------------------------------------------------------------------------------------- columns


def column_change(names: Sequence[Any], encodings: Sequence[Any], sizes: Sequence[Any]) -> dict[str, Any]:
    """All three parallel lists at once."""
    lists = {"column_names": names, "column_encodings": encodings, "column_sizes": sizes}
    return {f"$.shards[0].{key}": list(value) for key, value in lists.items()}


def column_breach(name: str, lists: Mapping[str, Any], why: str, path: str) -> Breach:
    where, *others = lists
    also = {other: lists[other] for other in others}
    return Breach(name, "§4.7", where, lists[where], why, f"$.shards[0].{path}", also)


COLUMN_BREACHES = (
    column_breach("no-columns", column_change([], [], []), "a sample has at least one column", "column_names"),
    column_breach(
        "columns-in-written-order",
        column_change(["x", "s"], ["int", "str"], [8, None]),
        "payloads lie in the order of the sorted names, whatever the index says",
        "column_names",
    ),
    column_breach(
        "columns-sorted-without-regard-to-case",
        column_change(["s", "X"], ["str", "int"], [None, 8]),
        "X comes before s: names are sorted by code point",
        "column_names",
    ),
    column_breach(
        "column-named-twice",
        column_change(["s", "s"], ["str", "int"], [None, 8]),
        "one value hides another",
        "column_names",
    ),
    column_breach(
        "column-lists-of-unequal-length",
        column_change(["s", "x"], ["str", "int"], [None, 8, None]),
        "zip() would drop the rest silently",
        "column_",
    ),
    column_breach(
        "fewer-encodings-than-names", column_change(["s", "x"], ["str"], [None, 8]), "parallel lists", "column_"
    ),
    column_breach(
        "columns-of-more-than-4096",
        column_change([f"{i:03x}" for i in range(4097)], ["str"] * 4097, [None] * 4097),
        "a limit, so that a small index cannot ask for unbounded work",
        "column_names",
    ),
    column_breach(
        "columns-too-large-for-any-shard",
        column_change(["s"], ["ndarray:float64:4294967296,4294967296"], [(1 << 64) * 8]),
        "sizes that wrap in 64 bits; no sample of four gibibytes fits a shard",
        "column_",
    ),
    column_breach(
        "columns-too-large-in-sum",
        column_change(["s", "x"], ["ndarray:uint8:65536,65535"] * 2, [65536 * 65535] * 2),
        "each fits a shard, both together wrap in 32 bits",
        "column_sizes",
    ),
)

UNKNOWN_ENCODINGS = (
    ("of-an-unknown-name", "tensor"),
    ("of-an-unknown-width", "uint7"),
    ("in-capitals", "STR"),
    ("with-a-space-after-it", "str "),
    ("with-an-argument-it-does-not-take", "str:8"),
    ("that-is-a-list-of-numbers", "list[int]"),
    ("that-is-empty", ""),
    ("of-a-complex-array", "ndarray:complex64"),
    ("of-an-array-without-a-dtype-but-a-shape", "ndarray::3"),
    ("of-an-array-with-a-zero-dimension", "ndarray:uint8:0"),
    ("of-an-array-with-a-negative-dimension", "ndarray:uint8:-1,-1"),
    ("of-an-array-whose-shape-is-no-number", "ndarray:uint8:2,x"),
    ("of-an-array-with-three-arguments", "ndarray:uint8:2:3"),
    ("of-an-array-with-64-dimensions", "ndarray:uint8:" + ",".join("1" * 64)),
    ("of-an-array-with-a-tab-in-its-shape", "ndarray:uint8:2,\t3"),
    ("of-an-array-with-arabic-digits", "ndarray:uint8:٣"),
)


def columns() -> Iterator[Vector]:
    at = "$.shards[0].column"
    names, encodings, sizes = f"{at}_names", f"{at}_encodings", f"{at}_sizes"
    single = (
        Breach("column-name-as-a-number", "§4.7", f"{names}[0]", 5, "names are strings"),
        Breach("column-name-as-null", "§4.7", f"{names}[0]", None, "names are strings"),
        Breach("column-name-that-is-empty", "§4.7", f"{names}[0]", "", "a name has at least one character"),
        Breach("column-name-of-1025-characters", "§4.7", f"{names}[1]", "x" * 1025, "a limit"),
        Breach("column-names-as-a-string", "§4.7", names, "sx", "iterating a string gives its characters"),
        Breach(
            "encoding-of-1025-characters",
            "§4.7",
            f"{encodings}[0]",
            f"ndarray:uint8:1{' ' * 1010}",
            "a limit",
            also={f"{sizes}[0]": 1},
        ),
        Breach("column-encoding-as-null", "§4.7", f"{encodings}[0]", None, "encodings are strings"),
        Breach(
            "column-size-given-for-a-variable-column", "§4.7", f"{sizes}[0]", 2, "readers would skip the size header"
        ),
        Breach("column-size-other-than-the-encodings", "§4.7", f"{sizes}[1]", 4, "an int has eight bytes"),
        Breach("column-size-of-zero", "§4.7", f"{sizes}[0]", 0, "Streaming takes 0 for a variable size: `if size:`"),
        Breach("column-size-as-a-float", "§4.7", f"{sizes}[1]", 8.0, "8.0 equals 8 in Python", ENTRY),
        Breach("column-size-negative", "§4.7", f"{sizes}[1]", -8, "a size"),
    )
    unknown = [
        Breach(f"encoding-{name}", "§4.7", f"{encodings}[0]", value, "an encoding that no registry entry describes")
        for name, value in UNKNOWN_ENCODINGS
    ]
    index = foreign_index(PLAIN)
    yield from from_breaches(PLAIN, index, (*COLUMN_BREACHES, *single, *unknown))
    unsized = canonical(foreign_index(PLAIN)).replace(b"[null, 8]", b"[null, null]")
    why = "a null size of numbers promises a size header, which the samples of this shard lack"
    files = foreign(PLAIN) | {"index.json": unsized}
    yield invalid(
        "column-size-missing-for-a-fixed-column", "§4.7", files, why, when="read", path=PLAIN[0].stored_info["basename"]
    )
    byte_column = [make_shard({"x": "uint8"}, [{"x": Cell(b"\1", 1)}])]
    boolean = Breach("column-size-as-a-boolean", "§4.7", f"{sizes}[0]", True, "true equals 1 in Python")
    yield from from_breaches(byte_column, foreign_index(byte_column), [boolean])
    others: tuple[tuple[str, Mapping[str, str], Sequence[Row]], ...] = (
        ("shards-with-different-column-names", {"s": "str", "y": "int"}, [{"s": text("v"), "y": integer(1)}]),
        ("shards-with-different-encodings", {"s": "bytes", "x": "int"}, [{"s": text("v"), "x": integer(1)}]),
        ("shards-with-a-column-more", COLUMNS | {"z": "int"}, [{"s": text("v"), "x": integer(1), "z": integer(2)}]),
    )
    for name, other, row in others:
        shards = [PLAIN[0], make_shard(other, row, basename="shard.00001.mds")]
        why = "no sample type fits all shards, and the reader picked no columns that do"
        yield invalid(name, "§4.9", foreign(shards), why, path="$.shards[1]")
    differing = [PLAIN[0], make_shard({"s": "bytes", "x": "int"}, others[1][2], basename="shard.00001.mds")]
    yield invalid(
        "picked-column-that-differs-between-shards",
        "§4.9",
        foreign(differing),
        "the picked column has two encodings",
        path="$.shards[1]",
        options={"columns": ["s"]},
    )
    shorter = [PLAIN[0], make_shard({"x": "int"}, [{"x": integer(1)}], basename="shard.00001.mds")]
    yield invalid(
        "picked-column-that-a-later-shard-lacks",
        "§4.9",
        foreign(shorter),
        "the picked columns are not equal in all shards",
        path="$.shards[1]",
        options={"columns": ["s"]},
    )


# ---------------------------------------------------------------------------------------------- hashes and zip_data

HASH_AT = "$.shards[0].raw_data.hashes"
MD5_SIZED = "0123456789abcdef0123456789abcdef"
HASH_BREACHES = (
    Breach("hashes-as-a-list", "§4.4", HASH_AT, [], "an object from algorithm to hex"),
    Breach("hash-as-a-number", "§7.2", HASH_AT, {"md5": 5}, "a string"),
    Breach("hash-as-null", "§7.2", HASH_AT, {"sha256": None}, "a string"),
    Breach("hash-in-capitals", "§7.2", HASH_AT, {"md5": MD5_SIZED.upper()}, "one spelling per hash"),
    Breach("hash-too-short", "§7.2", HASH_AT, {"sha256": MD5_SIZED}, "sha256 has 64 hex digits"),
    Breach("hash-too-long", "§7.2", HASH_AT, {"xxh64": MD5_SIZED}, "xxh64 has 16 hex digits"),
    Breach("hash-that-is-empty", "§7.2", HASH_AT, {"blake3": ""}, "blake3 has 64 hex digits"),
    Breach("hash-that-is-not-hex", "§7.2", HASH_AT, {"md5": "g" * 32}, "hex digits only"),
    Breach("hash-in-digits-outside-ascii", "§7.2", HASH_AT, {"md5": "\u0661" * 32}, "isdigit() takes these for digits"),
    Breach(
        "hash-with-a-newline-at-its-end",
        "§7.2",
        HASH_AT,
        {"md5": MD5_SIZED + "\n"},
        "in a regular expression $ lets it by",
    ),
    Breach("unknown-hash-with-a-strange-name", "§7.3", HASH_AT, {"Hash!": "00"}, "names are [a-z0-9_]{1,32}"),
    Breach("unknown-hash-with-an-empty-name", "§7.3", HASH_AT, {"": "00"}, "names are [a-z0-9_]{1,32}"),
    Breach("unknown-hash-with-a-long-name", "§7.3", HASH_AT, {"k" * 33: "00"}, "names are [a-z0-9_]{1,32}"),
    Breach("unknown-hash-with-a-long-value", "§7.3", HASH_AT, {"k12": "0" * 257}, "at most 256 characters"),
    Breach("unknown-hash-with-a-number", "§7.3", HASH_AT, {"k12": 7}, "a string"),
    Breach("unknown-hash-with-a-nul", "§7.3", HASH_AT, {"k12": "a\0b"}, "no U+0000"),
    Breach("unknown-hash-with-a-lone-surrogate", "§7.3", HASH_AT, {"k12": "\ud800"}, "no text in UTF-8"),
)

COMPRESSION_AT, ZIP_AT = "$.shards[0].compression", "$.shards[0].zip_data"
UNKNOWN_COMPRESSIONS = (
    ("of-an-unknown-name", "lz4"),
    ("in-capitals", "ZSTD"),
    ("that-is-empty", ""),
    ("with-a-level-below-its-range", "zstd:0"),
    ("with-a-level-above-its-range", "gz:10"),
    ("with-a-negative-level", "zstd:-3"),
    ("with-a-level-it-does-not-take", "snappy:1"),
    ("without-a-level-after-its-colon", "zstd:"),
    ("with-two-levels", "zstd:3:3"),
    ("with-a-level-that-begins-with-a-zero", "zstd:03"),
    ("with-a-space-before-its-level", "zstd: 3"),
    ("that-is-a-number", 3),
    ("that-is-false", False),
)
ZIP_BREACHES = (
    Breach("compression-without-a-zip-file", "§6.2", ZIP_AT, None, "both are null or neither", "$.shards[0]"),
    Breach("zip-file-without-a-compression", "§6.2", COMPRESSION_AT, None, "both are null or neither", "$.shards[0]"),
    Breach("zip-data-that-is-empty", "§4.4", ZIP_AT, {}, "an object of three keys"),
    Breach("zip-data-that-is-false", "§4.4", ZIP_AT, False, "null or an object; false only looks like null"),
    Breach("zip-data-with-an-unknown-key", "§4.4", f"{ZIP_AT}.level", 3, "Streaming raises a TypeError", ZIP_AT),
    Breach("zip-bytes-negative", "§4.5", f"{ZIP_AT}.bytes", -1, "a size"),
    Breach("zip-bytes-as-a-float", "§4.5", f"{ZIP_AT}.bytes", 1.5, "no float in an entry", ENTRY),
    Breach("zip-bytes-of-eight-gibibytes", "§4.5", f"{ZIP_AT}.bytes", 1 << 33, "no compression makes so much"),
    Breach("zip-bytes-beyond-64-bits", "§4.5", f"{ZIP_AT}.bytes", 1 << 63, "no signed 64-bit integer"),
    Breach("zip-hash-too-short", "§7.2", f"{ZIP_AT}.hashes", {"sha1": "00"}, "the rule holds for both files"),
)


def hashes_and_zips() -> Iterator[Vector]:
    yield from from_breaches(PLAIN, foreign_index(PLAIN), HASH_BREACHES)
    unknown = [
        Breach(f"compression-{name}", "§6.1", COMPRESSION_AT, value, "a name and a level of the registry")
        for name, value in UNKNOWN_COMPRESSIONS
    ]
    yield from from_breaches(SQUEEZED, foreign_index(SQUEEZED), (*unknown, *ZIP_BREACHES))


# ---------------------------------------------------------------------------------------------- our key

KEY = "$.mx8shards"
PARENT = "sha256:" + "0" * 64
KEY_BREACHES = (
    Breach("our-key-as-a-list", "§8.2", KEY, [], "an object"),
    Breach("our-key-as-null", "§8.2", KEY, None, "an object, or no key at all"),
    Breach("our-spec-missing", "§8.2", f"{KEY}.spec", GONE, "always present", KEY),
    Breach("our-spec-as-a-string", "§8.2", f"{KEY}.spec", "1", "an integer"),
    Breach("our-spec-as-a-boolean", "§8.2", f"{KEY}.spec", True, "true equals 1 in Python"),
    Breach("our-spec-zero", "§8.2", f"{KEY}.spec", 0, "the first spec is 1"),
    Breach(
        "our-spec-newer-with-an-unknown-key",
        "§8.4",
        f"{KEY}.spec",
        2,
        "a newer writer may have meant something that must not be overlooked",
        KEY,
        {f"{KEY}.deleted": [0]},
    ),
    Breach("our-metadata-missing", "§8.2", f"{KEY}.metadata", GONE, "always present", KEY),
    Breach("our-metadata-as-a-list", "§8.2", f"{KEY}.metadata", [1], "an object"),
    Breach("our-side-cars-missing", "§8.2", f"{KEY}.sidecars", GONE, "always present", KEY),
    Breach("our-side-cars-as-an-object", "§8.2", f"{KEY}.sidecars", {}, "a list"),
    Breach("our-parent-as-null", "§8.2", f"{KEY}.parent", None, "a snapshot id, or no key at all"),
    Breach("our-parent-without-its-algorithm", "§8.2", f"{KEY}.parent", "0" * 64, "sha256: and 64 hex digits"),
    Breach("our-parent-in-capitals", "§8.2", f"{KEY}.parent", "sha256:" + "A" * 64, "one spelling per id"),
    Breach("our-parent-with-a-newline-at-its-end", "§8.2", f"{KEY}.parent", PARENT + "\n", "$ lets it by"),
)


def side(kind: int, key: str) -> str:
    return f"{KEY}.sidecars[{kind}].{key}"


BLOCKS, VALUES = 0, 1
SIDECAR_BREACHES = (
    Breach("side-car-as-a-string", "§8.3", f"{KEY}.sidecars[0]", "blocks", "an object"),
    Breach(
        "side-car-without-a-kind",
        "§8.3",
        side(BLOCKS, "kind"),
        GONE,
        "the kind says how to read it",
        f"{KEY}.sidecars[0]",
    ),
    Breach(
        "side-car-without-a-hash", "§8.3", side(BLOCKS, "blake3"), GONE, "its hash is its name", f"{KEY}.sidecars[0]"
    ),
    Breach("side-car-hash-that-climbs", "§8.3", side(BLOCKS, "blake3"), "../" * 21 + "x", "64 characters, and a path"),
    Breach("side-car-hash-in-capitals", "§8.3", side(BLOCKS, "blake3"), "AB" * 32, "one spelling per hash"),
    Breach("side-car-size-negative", "§8.3", side(BLOCKS, "bytes"), -1, "a size"),
    Breach("side-car-size-beyond-64-bits", "§8.3", side(BLOCKS, "bytes"), 1 << 63, "no signed 64-bit integer"),
    Breach("side-car-size-of-seven", "§8.3", side(BLOCKS, "bytes"), 7, "less than the magic"),
    Breach("side-car-size-as-a-float", "§8.3", side(BLOCKS, "bytes"), 72.0, "an integer"),
    Breach(
        "side-car-range-that-is-negative",
        "§10.2",
        side(BLOCKS, "start"),
        -1,
        "shards are counted from 0",
        f"{KEY}.sidecars[0]",
    ),
    Breach("side-car-range-that-is-empty", "§10.2", side(BLOCKS, "start"), 1, "start < stop", f"{KEY}.sidecars[0]"),
    Breach(
        "side-car-range-past-the-last-shard",
        "§10.2",
        side(BLOCKS, "stop"),
        9,
        "shards of this index",
        f"{KEY}.sidecars[0]",
    ),
    Breach("side-car-blocks-of-1000-bytes", "§10.5", side(BLOCKS, "block_bytes"), 1000, "no power of two"),
    Breach("side-car-blocks-of-2048-bytes", "§10.5", side(BLOCKS, "block_bytes"), 1 << 11, "at least 4 KiB"),
    Breach("side-car-blocks-of-two-mebibytes", "§10.5", side(BLOCKS, "block_bytes"), 1 << 21, "at most 1 MiB"),
    Breach("side-car-blocks-as-a-string", "§10.5", side(BLOCKS, "block_bytes"), "16384", "an integer"),
    Breach("side-car-range-as-a-boolean", "§10.2", side(BLOCKS, "stop"), True, "true equals 1 in Python"),
    Breach(
        "side-car-of-columns-without-names",
        "§10.6",
        side(VALUES, "columns"),
        GONE,
        "which columns?",
        f"{KEY}.sidecars[1]",
    ),
    Breach("side-car-with-a-column-twice", "§10.6", side(VALUES, "columns"), ["x", "x"], "sorted strictly"),
)


def in_descending_order(kind: str) -> tuple[list[Shard], dict[str, Any]]:
    """Two side-cars of one kind that do not overlap, the later one first."""
    shards, index = overlapping(kind)
    parts = [make_sidecar(kind, shards[start : start + 1], start) for start in (1, 0)]
    index["mx8shards"]["sidecars"] = [part.entry for part in parts]
    return shards, index


def overlapping(kind: str) -> tuple[list[Shard], dict[str, Any]]:
    """An index with two side-cars of one kind that both cover the first shard."""
    sidecars = [make_sidecar(kind, TWO[:1]), make_sidecar(kind, TWO)]
    return TWO, foreign_index(TWO) | {"mx8shards": our_key(sidecars, {}, None)}


def keys() -> Iterator[Vector]:
    sidecars = [make_sidecar("blocks", PLAIN), make_sidecar("columns", PLAIN)]
    index = foreign_index(PLAIN) | {"mx8shards": our_key(sidecars, {}, None)}
    yield from from_breaches(PLAIN, index, (*KEY_BREACHES, *SIDECAR_BREACHES))
    for kind in ("blocks", "columns"):
        shards, twice = overlapping(kind)
        why = "two side-cars of one kind would both answer for a shard"
        yield invalid(f"side-cars-of-{kind}-that-overlap", "§10.2", foreign(shards, twice), why, path=f"{KEY}.sidecars")
        shards, turned = in_descending_order(kind)
        why = "ranges of one kind ascend, so that a reader can search them"
        name = f"side-cars-of-{kind}-in-descending-order"
        yield invalid(name, "§10.2", foreign(shards, turned), why, path=f"{KEY}.sidecars")


def entries() -> Iterator[Vector]:
    index = foreign_index(PLAIN)
    yield from from_breaches(PLAIN, index, (*TOP_LEVEL, *MISSING_KEYS, *UNKNOWN_KEYS, *ENTRY_VALUES))


GROUPS = (index_bytes, entries, basenames, columns, hashes_and_zips, keys)


def invalid_indices() -> list[Vector]:
    return [vector for group in GROUPS for vector in group()]
