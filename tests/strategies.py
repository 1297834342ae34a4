"""Hypothesis strategies for column values, the values read back, and equality of values."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
from hypothesis import strategies as st
from PIL import Image

Sample = dict[str, Any]

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
ARRAY_DTYPES = (*INTEGERS, *FLOATS)
COMPRESSIONS = (None, "zstd", "zstd:7", "br", "bz2", "gz", "snappy")
STREAMING_HASHES = (
    *("blake2b", "blake2s", "md5", "sha1", "sha224", "sha256", "sha384", "sha3_224", "sha3_256", "sha3_384"),
    *("sha3_512", "sha512", "xxh128", "xxh32", "xxh3_128", "xxh3_64", "xxh64"),
)


# values of one encoding -----------------------------------------------------------------------------------------------


def picture(mode: str = "RGB", size: tuple[int, int] = (8, 8), seed: int = 0) -> Image.Image:
    bits = {"L": 1, "RGB": 3, "RGBA": 4, "I": 4, "F": 4, "LA": 2, "P": 1, "CMYK": 4}[mode]
    data = np.random.default_rng(seed).integers(0, 255, size[0] * size[1] * bits, np.uint8).tobytes()
    return Image.frombytes(mode, size, data)


def picture_file(format: str, image: Image.Image) -> bytes:  # noqa: A002 - PIL's own word
    file = io.BytesIO()
    image.save(file, format=format)
    return file.getvalue()


def _arrays(dtypes: Sequence[str], shape: Any = None) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any shape, or of `shape`, with arbitrary values; large arrays have equal values."""
    wide = st.sampled_from([(300,), (1, 257), (1,) * 9])
    shapes = shape if shape is not None else st.one_of(npst.array_shapes(max_dims=4, max_side=4), wide)
    fill = st.nothing() if shape is not None else None
    return st.sampled_from(list(dtypes)).flatmap(lambda dtype: npst.arrays(dtype, shapes, fill=fill))


_PICTURES = st.builds(
    picture,
    st.sampled_from(["L", "RGB", "RGBA", "LA", "I", "F"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 99),
)
_PNGS = _PICTURES.filter(lambda image: image.mode not in ("I", "F"))  # PNG cannot store these two exactly
_JPEGS = _PICTURES.filter(lambda image: image.mode in ("L", "RGB"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=40),
    "str": st.text(max_size=12),
    "int": st.integers(-(1 << 63), (1 << 63) - 1),
    **{name: st.integers(int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in INTEGERS},
    **{name: st.floats(width=int(name[5:])) for name in FLOATS},  # type: ignore[arg-type]
    "str_int": st.integers(-(10**40), 10**40),
    "str_float": st.floats(),
    "str_decimal": st.decimals(allow_nan=False),
    "ndarray": _arrays(ARRAY_DTYPES),
    "ndarray:int16": _arrays(["int16"]),
    "ndarray:float32": _arrays(["float32"]),
    "ndarray:uint8:2,3": _arrays(["uint8"], st.just((2, 3))),
    "ndarray:float64:5": _arrays(["float64"], st.just((5,))),
    "pil": _PICTURES,
    "jpeg": _JPEGS,
    "png": _PNGS,
    "jpegarray": st.lists(_JPEGS.map(lambda image: picture_file("JPEG", image)), min_size=1, max_size=3),
    "jpeg_array": st.lists(_JPEGS.map(lambda image: picture_file("JPEG", image)), min_size=1, max_size=3),
    "list[pil]": st.lists(_PICTURES, max_size=3),
    "list[jpeg]": st.lists(_JPEGS, max_size=3),
    "list[png]": st.lists(_PNGS, max_size=3),
    "pkl": _JSON | st.tuples(st.integers(), st.binary(max_size=4)),
    "json": _JSON,
}
ENCODINGS = tuple(VALUES)


def _examples() -> dict[str, list[Any]]:
    numbers = {name: [0, int(np.iinfo(name).max), int(np.iinfo(name).min)] for name in INTEGERS}
    floats = {name: [0.0, -1.5, float(np.finfo(name).max)] for name in FLOATS}
    arrays = [np.arange(6, dtype=name).reshape(2, 3) for name in ARRAY_DTYPES]
    pictures = [picture("RGB", (8, 8), 1), picture("L", (5, 3), 2), picture("RGB", (17, 1), 3)]
    jpegs = [picture_file("JPEG", image) for image in pictures]
    return {
        "bytes": [b"", b"\0\1\2", bytes(range(256)) * 5],
        "str": ["", "grün", "漢字 🙂 \0"],
        "int": [0, (1 << 63) - 1, -(1 << 63)],
        **numbers,
        **floats,
        "str_int": [0, 10**40, -7],
        "str_float": [0.1, -math.inf, 5e-324],
        "str_decimal": [Decimal("1.10"), Decimal("-1E+30"), Decimal("Infinity")],
        "ndarray": [arrays[0], np.ones((300,), "float16"), np.ones((1, 2, 1, 3), "uint64")],
        **{f"ndarray:{a.dtype}": [a, a[::-1], a.T] for a in arrays},
        **{f"ndarray:{a.dtype}:2,3": [a, a[::-1], a + a.dtype.type(1)] for a in arrays},
        "pil": [*pictures[:2], picture("RGBA", (2, 2), 4)],
        "jpeg": pictures,
        "png": [*pictures[:2], picture("RGBA", (2, 2), 4)],
        "jpegarray": [jpegs, jpegs[:1], jpegs[1:]],
        "jpeg_array": [jpegs, jpegs[:1], jpegs[1:]],
        "list[pil]": [pictures, [], pictures[:1]],
        "list[jpeg]": [pictures, [], pictures[:1]],
        "list[png]": [pictures, [], pictures[:1]],
        "pkl": [{"a": (1, 2)}, None, [b"x"]],
        "json": [{"b": [1, 2.5, None, "ü"], "a": {}}, "text", 3],
    }


# Three values of every encoding and array dtype, which Streaming accepts too.
EXAMPLES = _examples()
EVERY_COLUMN = {encoding.replace(":", "_"): encoding for encoding in EXAMPLES}
EVERY_SAMPLE: list[Sample] = [{name: EXAMPLES[e][i] for name, e in EVERY_COLUMN.items()} for i in range(3)]


def numbered_samples(count: int, *, largest: int = 60) -> list[Sample]:
    """Small distinct samples of different sizes, for NUMBERED."""
    blobs = (bytes([i % 251]) * (i * 7 % (largest + 1)) for i in range(count))
    return [{"data": blob, "id": i, "name": f"#{i}", "x": i / 4} for i, blob in enumerate(blobs)]


NUMBERED = {"data": "bytes", "id": "int", "name": "str", "x": "float32"}


# datasets -------------------------------------------------------------------------------------------------------------


@st.composite
def columns(draw: st.DrawFn, encodings: Sequence[str] = ENCODINGS) -> dict[str, str]:
    names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    return draw(st.dictionaries(names, st.sampled_from(list(encodings)), min_size=1, max_size=5))


@st.composite
def datasets(
    draw: st.DrawFn, encodings: Sequence[str] = ENCODINGS, max_samples: int = 6
) -> tuple[dict[str, str], list[Sample]]:
    """Random columns and samples of these columns."""
    chosen = draw(columns(encodings))
    sample = st.fixed_dictionaries({name: VALUES[encoding] for name, encoding in chosen.items()})
    return chosen, draw(st.lists(sample, max_size=max_samples))


# values that a reader returns -----------------------------------------------------------------------------------------


def as_read(encoding: str, value: Any) -> Any:
    """The value that our reader must return: Python numbers instead of NumPy's, and pixels after JPEG compression."""
    if encoding in ARRAY_DTYPES:
        return np.dtype(encoding).type(value).item()
    if encoding == "jpeg":
        return Image.open(io.BytesIO(picture_file("JPEG", value)))
    if encoding == "list[jpeg]":
        return [as_read("jpeg", item) for item in value]
    if encoding in ("jpegarray", "jpeg_array"):
        return [Image.open(io.BytesIO(item)) for item in value]
    if encoding == "json":
        return json.loads(json.dumps(value))
    return value


def samples_as_read(encodings: Mapping[str, str], samples: Sequence[Sample]) -> list[Sample]:
    return [{name: as_read(encoding, sample[name]) for name, encoding in encodings.items()} for sample in samples]


def samples_as_streaming_reads(encodings: Mapping[str, str], samples: Sequence[Sample]) -> list[Sample]:
    """The values as Streaming returns them: NumPy scalars for encodings named after a dtype."""
    types = {name: np.dtype(encoding).type for name, encoding in encodings.items() if encoding in ARRAY_DTYPES}
    found = samples_as_read(encodings, samples)
    return [sample | {name: kind(sample[name]) for name, kind in types.items()} for sample in found]


def same(found: Any, wanted: Any) -> bool:
    """Are two values of equal type and exactly equal? Pictures are compared by mode, size and pixels."""
    if isinstance(wanted, Image.Image):
        return (
            isinstance(found, Image.Image)
            and (found.mode, found.size) == (wanted.mode, wanted.size)
            and found.tobytes() == wanted.tobytes()
        )
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, np.ndarray):
        return bool(found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes())
    if isinstance(wanted, np.generic):
        return bool(found.dtype == wanted.dtype and _bits(found) == _bits(wanted))
    if isinstance(wanted, float):
        return struct.pack("<d", found) == struct.pack("<d", wanted) or (math.isnan(found) and math.isnan(wanted))
    if isinstance(wanted, Decimal):
        return str(found) == str(wanted)
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (list, tuple)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def _bits(number: np.generic) -> bytes:
    return b"nan" if number != number else number.tobytes()
