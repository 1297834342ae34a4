"""Does every encoding fulfil the Encoding contract, and write exactly the specified bytes?"""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from PIL import Image

from mx8shards.errors import FormatError, MissingPackageError, SchemaError, SettingError, ShardsError
from mx8shards.format.arrays import CODES, DynamicArray
from mx8shards.format.encodings import Encoding, get_encoding, register_encoding


def picture(mode: str = "RGB", width: int = 5, height: int = 3) -> Image.Image:
    pixels = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(pixels).convert(mode)


def file_of(image: Image.Image, kind: str) -> bytes:
    out = BytesIO()
    image.save(out, format=kind)
    return out.getvalue()


JPEG = file_of(picture(), "JPEG")
PNG = file_of(picture(), "PNG")

# A few distinct values of every encoding.
VALUES: dict[str, list[Any]] = {
    "bytes": [b"", b"\0\xff"],
    "str": ["", "é ☃ \0"],
    "int": [0, -1, 2**63 - 1, -(2**63)],
    **{f"{sign}int{bits}": [0, 1, (1 << bits - 1) - 1] for sign in ("u", "") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": [0.0, -1.5, float("inf")] for bits in (16, 32, 64)},
    "str_int": [0, -(10**50)],
    "str_float": [1.5, -1e-300, float("inf")],
    "str_decimal": [Decimal("1.10"), Decimal("-1E+40"), Decimal("Infinity")],
    "json": [None, [1, {"a": "é"}], "x"],
    "pkl": [None, {1, 2}],
    "ndarray": [np.arange(3, dtype=np.int16), np.ones((2, 300), np.float32)],
    "ndarray:uint8": [np.arange(3, dtype=np.uint8), np.ones((1, 2, 3), np.uint8)],
    "ndarray:float64:2,3": [np.zeros((2, 3)), np.ones((2, 3))],
    "pil": [picture("RGB"), picture("L", 2, 7), picture("1", 9, 2)],
    "jpeg": [picture(), picture("L")],
    "png": [picture(), picture("RGBA"), picture("1")],
    "jpegarray": [[JPEG], [JPEG, JPEG]],
    "jpeg_array": [[JPEG], [JPEG, JPEG]],
    "list[pil]": [[], [picture(), picture("L")]],
    "list[jpeg]": [[], [picture(), picture()]],
    "list[png]": [[], [picture(), picture("L")]],
}
SAFE = [name for name in VALUES if name != "pkl"]
EVERY = pytest.mark.parametrize("name", VALUES)
EVERY_SAFE = pytest.mark.parametrize("name", SAFE)
EVERY_VALUE = pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{i}") for name, values in VALUES.items() for i, value in enumerate(values)],
)


def same(a: Any, b: Any) -> bool:
    """Are two values equal? Pictures are compared by pixels, arrays by dtype and values."""
    if isinstance(a, Image.Image):
        return isinstance(b, Image.Image) and (a.mode, a.size, a.tobytes()) == (b.mode, b.size, b.tobytes())
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def decoded(name: str, value: Any) -> Any:
    """The value that decoding must return for `value`."""
    if name == "jpeg":
        return Image.open(BytesIO(file_of(value, "JPEG")))
    if name in ("jpegarray", "jpeg_array"):
        return [Image.open(BytesIO(item)) for item in value]
    if name == "list[jpeg]":
        return [Image.open(BytesIO(file_of(item, "JPEG"))) for item in value]
    return np.dtype(name).type(value).item() if name in CODES else value


# ---------------------------------------------------------------------------------------------- the contract


@EVERY_VALUE
def test_values_decode_from_bytes_and_from_unaligned_read_only_views(name: str, value: Any) -> None:
    encoding = get_encoding(name)
    payload = encoding.encode(value)
    assert type(payload) is bytes
    for shape in (payload, memoryview(payload), memoryview(b"_" + payload)[1:], memoryview(bytearray(payload))):
        assert same(decoded(name, value), encoding.decode(shape))


@EVERY
def test_get_encoding_returns_one_object_per_name(name: str) -> None:
    encoding = get_encoding(name)
    assert isinstance(encoding, Encoding)
    assert encoding.name == name
    assert encoding is get_encoding(name)
    assert encoding.unsafe == (name == "pkl")


@EVERY
def test_a_fixed_size_is_the_size_of_every_payload_and_of_its_array(name: str) -> None:
    encoding = get_encoding(name)
    sizes = {len(encoding.encode(value)) for value in VALUES[name]}
    if encoding.size_bytes is None:
        assert encoding.dtype is None
        assert encoding.shape is None
        assert len(sizes) > 1
    else:
        assert encoding.dtype is not None
        assert encoding.shape is not None
        assert sizes == {encoding.size_bytes} == {np.dtype(encoding.dtype).itemsize * int(np.prod(encoding.shape))}
        joined = b"".join(map(encoding.encode, VALUES[name]))
        stacked = np.frombuffer(joined, encoding.dtype).reshape(-1, *encoding.shape)
        assert all(map(np.array_equal, stacked, VALUES[name]))


@EVERY
def test_bytes_of_the_right_size_are_stored_unchanged(name: str) -> None:
    encoding = get_encoding(name)
    size = encoding.size_bytes
    data = b"\xff" * (7 if size is None else size)
    assert encoding.encode(data) is data
    if size is not None:
        for wrong in (data[1:], data + b"x", b""):
            with pytest.raises(SchemaError, match=rf"or {size} bytes, got {len(wrong)} bytes"):
                encoding.encode(wrong)


class UnsupportedType:
    """A type that no encoding supports and that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("stay here")


@EVERY
@pytest.mark.parametrize("value", [UnsupportedType(), [UnsupportedType()]], ids=["object", "list"])
def test_an_invalid_value_is_a_schema_error_without_a_subject(name: str, value: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        get_encoding(name).encode(value)
    assert caught.value.subject == ""
    assert caught.value.expected
    assert caught.value.found


@EVERY_SAFE
def test_only_bytes_accepts_bytearrays_and_memoryviews(name: str) -> None:
    for value in (bytearray(b"ab"), memoryview(b"ab")):
        if name == "bytes":
            assert get_encoding(name).encode(value) == b"ab"
            assert type(get_encoding(name).encode(value)) is bytes
        else:
            with pytest.raises(SchemaError):
                get_encoding(name).encode(value)


@contextmanager
def warnings_of_pillow_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings about unusual but readable files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_or_refuse(name: str, payload: bytes | memoryview) -> None:
    """Decode, or raise FormatError. Other exceptions, and messages that are empty or too long, fail the test."""
    refusal: FormatError | None = None
    try:
        get_encoding(name).decode(payload)
    except FormatError as error:
        refusal = error
    if refusal is not None:
        assert refusal.expected
        assert refusal.found
        assert len(str(refusal)) < 500


@EVERY_SAFE
def test_payloads_of_other_lengths_decode_or_are_format_errors(name: str) -> None:
    for value in VALUES[name]:
        payload = get_encoding(name).encode(value)
        for end in {*range(min(len(payload), 80)), *range(max(0, len(payload) - 20), len(payload))}:
            decode_or_refuse(name, payload[:end])
            decode_or_refuse(name, memoryview(payload)[:end])
        for tail in (b"\0", b"\xff" * 9):
            decode_or_refuse(name, payload + tail)


# The number of examples per encoding. It is small, because tests/property/mutations.py damages thousands of datasets.
COUNTS = pytest.mark.parametrize("count", [20, pytest.param(2_000, marks=pytest.mark.hunt)])


@EVERY_SAFE
@COUNTS
def test_damaged_payloads_decode_or_are_format_errors(name: str, count: int) -> None:
    payloads = [get_encoding(name).encode(value) for value in VALUES[name]]
    # sizes and codes, the interesting bytes, are at the start
    places = st.integers(0, 30) | st.integers(0, max(map(len, payloads)))
    bytes_ = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)

    @hypothesis.settings(max_examples=count)
    @given(st.sampled_from(payloads), st.lists(st.tuples(places, bytes_), min_size=1, max_size=4))
    def check(payload: bytes, changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(payload)
        for at, value in changes if payload else ():
            damaged[at % len(payload)] = value
        decode_or_refuse(name, bytes(damaged))

    with warnings_of_pillow_ignored():
        check()


@EVERY_SAFE
@COUNTS
def test_random_bytes_decode_or_are_a_format_error(name: str, count: int) -> None:
    @hypothesis.settings(max_examples=count)
    @given(st.binary(max_size=120))
    def check(garbage: bytes) -> None:
        decode_or_refuse(name, garbage)
        decode_or_refuse(name, memoryview(garbage))

    with warnings_of_pillow_ignored():
        check()


@EVERY_SAFE
def test_random_bytes_after_a_valid_start_decode_or_are_a_format_error(name: str) -> None:
    starts = [b"\x89PNG\r\n\x1a\n", JPEG[:20], PNG[:40], b"[" * 9, b"\x08\xff", struct.pack("<III", 9, 9, 3) + b"RGB"]
    for start in starts:
        for rest in (b"", b"\xff" * 40, bytes(40), bytes(range(40))):
            decode_or_refuse(name, start + rest)
            for prefix in (struct.pack("<II", 1, len(start + rest)), struct.pack("<III", 0, 1, len(start + rest))):
                decode_or_refuse(name, prefix + start + rest)


def test_claimed_sizes_alone_allocate_nothing() -> None:
    """Run in a process that may allocate half a gibibyte."""
    script = """
import resource, struct
from PIL import Image
from mx8shards.errors import FormatError
from mx8shards.format.encodings import get_encoding
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
claims = [
    ("pil", struct.pack("<III", 60000, 60000, 1) + b"L" + bytes(100)),
    ("pil", struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 4) + b"RGBA"),
    ("pil", struct.pack("<III", 0, 0x7FFFFFFF, 1) + b"L"),
    ("pil", struct.pack("<III", 1, 1, 0xFFFFFFFF) + b"L"),
    ("ndarray", b"\\x42" + bytes([1 << 2 | 3]) + struct.pack("<Q", 1 << 40)),
    ("ndarray", b"\\x42" + bytes([2 << 2 | 3]) + struct.pack("<2Q", 1 << 61, 1)),
    ("ndarray", b"\\x08" + bytes([2 << 2 | 3]) + struct.pack("<2Q", 1 << 63, 2)),
    ("ndarray", b"\\x08" + bytes([63 << 2 | 3]) + b"\\xff" * 8 * 63),
    ("jpegarray", struct.pack("<I", 0xFFFFFFFF)),
    ("jpegarray", struct.pack("<II", 1, 0xFFFFFFFF)),
    ("list[png]", struct.pack("<II", 0, 0x40000000)),
    ("list[pil]", struct.pack("<III", 0, 1, 12 + 1) + struct.pack("<III", 1 << 31, 1, 1) + b"L"),
]
for name, payload in claims:
    try:
        found = get_encoding(name).decode(payload)
    except FormatError:
        continue
    raise SystemExit(f"{name} {payload[:20]!r} decoded to {found!r}")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# ------------------------------------------------------------------------------------- bytes computed by hand

BY_HAND: list[tuple[str, Any, str]] = [
    ("bytes", b"ab", "61 62"),
    ("str", "aé", "61 c3 a9"),
    ("int", 258, "02 01 00 00 00 00 00 00"),
    ("int", -2, "fe ff ff ff ff ff ff ff"),
    ("int", True, "01 00 00 00 00 00 00 00"),
    ("uint8", 255, "ff"),
    ("uint16", 258, "02 01"),
    ("uint32", 1 << 31, "00 00 00 80"),
    ("uint64", 2**64 - 1, "ff ff ff ff ff ff ff ff"),
    ("int8", -1, "ff"),
    ("int16", -2, "fe ff"),
    ("int32", -3, "fd ff ff ff"),
    ("int64", -4, "fc ff ff ff ff ff ff ff"),
    ("float16", 1.0, "00 3c"),
    ("float32", -2.0, "00 00 00 c0"),
    ("float64", 0.5, "00 00 00 00 00 00 e0 3f"),
    ("str_int", -10, "2d 31 30"),
    ("str_float", 0.1, "30 2e 31"),
    ("str_float", 1e16, "31 65 2b 31 36"),
    ("str_decimal", Decimal("1.10"), "31 2e 31 30"),
    ("json", {"b": [1, None], "a": "é"}, b'{"b": [1, null], "a": "\\u00e9"}'.hex()),
    ("json", np.array([[1, 2], [3, 4]]), b"[[1, 2], [3, 4]]".hex()),
    # dtype code 17, one dimension in one byte, 2; values
    ("ndarray", np.array([1, -1], np.int16), "11 04 02 01 00 ff ff"),
    ("ndarray", np.array([[1], [2]], ">u4"), "20 08 02 01 01 00 00 00 02 00 00 00"),
    ("ndarray:float32", np.array([[[1.0]]], np.float32), "0c 01 01 01 00 00 80 3f"),
    # one dimension of 300 needs two bytes
    ("ndarray:uint8", np.full(300, 7, np.uint8), "05 2c 01" + "07" * 300),
    ("ndarray:int16:2,1", np.array([[1], [2]], np.int16), "01 00 02 00"),
    ("ndarray:int16:2,1", np.array([[1], [2]], ">i2"), "01 00 02 00"),
    ("ndarray:uint8:2, 3", np.arange(6, dtype=np.uint8).reshape(3, 2).T, "00 02 04 01 03 05"),
    # width 2, height 1, a mode of three letters
    ("pil", Image.frombytes("RGB", (2, 1), b"abcdef"), "02000000 01000000 03000000 524742 616263646566"),
    ("pil", Image.frombytes("1", (9, 1), b"\xaa\x80"), "09000000 01000000 01000000 31 aa80"),
    ("jpegarray", [b"abc", b"d"], "02000000 03000000 01000000 616263 64"),
    ("list[png]", [b"abc", b""], "00000000 02000000 03000000 00000000 616263"),
    ("list[pil]", [], "00000000 00000000"),
]


@pytest.mark.parametrize(
    ("name", "value", "expected"), [pytest.param(*case, id=f"{i}-{case[0]}") for i, case in enumerate(BY_HAND)]
)
def test_payloads_equal_bytes_computed_by_hand(name: str, value: Any, expected: str) -> None:
    assert get_encoding(name).encode(value) == bytes.fromhex(expected)


def test_every_encoding_of_streaming_is_known() -> None:
    known = """bytes str int ndarray uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64 str_int
        str_float str_decimal pil jpeg jpeg_array jpegarray png list[pil] list[jpeg] list[png] pkl json"""
    assert {name for name in VALUES if ":" not in name} == set(known.split())


@pytest.mark.parametrize("name", CODES)
def test_every_dtype_has_its_code(name: str) -> None:
    codes = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32"}
    codes |= {64: "uint64", 65: "int64", 66: "float64"}
    array = np.array([1, 2], name)
    payload = get_encoding("ndarray").encode(array)
    assert codes[payload[0]] == name
    assert payload[1:] == get_encoding(f"ndarray:{name}").encode(array)
    assert get_encoding(f"ndarray:{name}:2").encode(array) == payload[3:]


# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("name", ["int", *(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64))])
def test_integers_accept_only_whole_numbers_in_their_range(name: str) -> None:
    encoding = get_encoding(name)
    limits = np.iinfo("int64" if name == "int" else name)
    for good in (limits.min, limits.max, np.int64(1), np.uint8(7), True):
        assert encoding.decode(encoding.encode(good)) == good
    for bad in (limits.min - 1, limits.max + 1, 1.5, float("nan"), float("inf"), "5", None, 1j, np.arange(2), 10**5000):
        with pytest.raises(SchemaError):
            encoding.encode(bad)


def test_int_refuses_floats_and_numpy_bools_with_a_hint() -> None:
    with pytest.raises(SchemaError, match=r"got float 3.0"):
        get_encoding("int").encode(3.0)
    with pytest.raises(SchemaError, match=r"got bool True \(use int\(value\)\)"):
        get_encoding("int").encode(np.True_)
    with pytest.raises(SchemaError, match=r"got None$"):  # int(None) would not help
        get_encoding("int").encode(None)
    assert type(get_encoding("int").decode(get_encoding("int").encode(np.int8(-3)))) is int


def test_sized_integers_accept_whole_floats_and_numpy_bools_like_streaming() -> None:
    assert get_encoding("uint8").encode(3.0) == get_encoding("uint8").encode(np.float32(3)) == b"\3"
    assert get_encoding("int16").encode(np.True_) == b"\1\0"
    with pytest.raises(SchemaError):
        get_encoding("uint8").encode(np.int64(300))  # in NumPy it would overflow to 44


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@given(value=st.floats(allow_nan=True) | st.integers(-(2**60), 2**60))
@hypothesis.settings(max_examples=100)
def test_floats_are_stored_exactly_as_numpys_or_refused_as_too_large(name: str, value: float) -> None:
    with np.errstate(over="ignore"):
        numpys = np.dtype(name).type(value)
    if np.isinf(numpys) and not np.isinf(np.float64(value)):
        with pytest.raises(SchemaError, match=f"expected a number that fits {name}"):
            get_encoding(name).encode(value)
    else:
        payload = get_encoding(name).encode(value)
        assert payload == numpys.tobytes()
        found = get_encoding(name).decode(payload)
        assert type(found) is float
        assert found != found if np.isnan(numpys) else np.dtype(name).type(found).tobytes() == payload


@pytest.mark.parametrize("name", CODES)
def test_numbers_are_decoded_to_python_numbers(name: str) -> None:
    limits: Any = np.iinfo(name) if "int" in name else np.finfo(name)
    for value in (limits.min, limits.max, np.dtype(name).type(1)):
        found = get_encoding(name).decode(get_encoding(name).encode(value))
        assert type(found) is (int if "int" in name else float)
        assert np.dtype(name).type(found) == value


@pytest.mark.parametrize("value", [None, "1.5", 1j, np.complex64(1j), [1.0], np.ones(2), 10**400], ids=repr)
def test_floats_accept_only_a_single_real_number(value: Any) -> None:
    for name in ("float16", "float32", "float64"):
        with pytest.raises(SchemaError):
            get_encoding(name).encode(value)


def test_numpys_own_floats_keep_all_their_bits() -> None:
    for bits in (0x7E01, 0xFC01, 0x8000, 0x0001):  # NaNs with payloads, minus zero, the smallest
        value = np.frombuffer(struct.pack("<H", bits), np.float16)[0]
        assert get_encoding("float16").encode(value) == struct.pack("<H", bits)


@given(st.integers())
def test_str_int_round_trips(value: int) -> None:
    encoding = get_encoding("str_int")
    assert encoding.decode(encoding.encode(value)) == value


@given(st.floats())
def test_str_float_round_trips_exactly(value: float) -> None:
    encoding = get_encoding("str_float")
    assert struct.pack("<d", encoding.decode(encoding.encode(value))) == struct.pack("<d", value) or value != value
    assert encoding.encode(np.float64(value)) == encoding.encode(value) == repr(value).encode()


@given(st.decimals())
def test_str_decimal_keeps_trailing_zeros(value: Decimal) -> None:
    encoding = get_encoding("str_decimal")
    assert str(encoding.decode(encoding.encode(value))) == str(value)


def test_str_numbers_of_the_wrong_type_are_refused() -> None:
    for name, value in (("str_int", True), ("str_int", 1.0), ("str_float", 1), ("str_decimal", 1), ("str_int", "1")):
        with pytest.raises(SchemaError, match=rf"use {name[4:].replace('decimal', 'Decimal')}\(value\)"):
            get_encoding(name).encode(value)
    assert get_encoding("str_int").encode(np.int64(-7)) == b"-7"


def test_more_digits_than_python_parses_are_refused_when_encoding_and_decoding() -> None:
    with pytest.raises(SchemaError, match="got int of 16610 bits"):
        get_encoding("str_int").encode(10**5000)
    for name in ("str_int", "json"):
        with pytest.raises(FormatError, match="5000"):
            get_encoding(name).decode(b"1" * 5000)


# ---------------------------------------------------------------------------------------------- text and objects


@given(st.text())
def test_any_text_round_trips(value: str) -> None:
    assert get_encoding("str").decode(get_encoding("str").encode(value)) == value


def test_invalid_unicode_is_refused_when_encoding_and_decoding() -> None:
    with pytest.raises(SchemaError, match="surrogates not allowed"):
        get_encoding("str").encode("\ud800")
    with pytest.raises(FormatError, match=r"expected UTF-8, got .* can't decode byte 0xff in position 1"):
        get_encoding("str").decode(b"a\xff")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_any_json_round_trips(value: Any) -> None:
    payload = get_encoding("json").encode(value)
    assert payload == json.dumps(value).encode()
    assert get_encoding("json").decode(payload) == value


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_that_json_cannot_represent_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (np.int64(1), {1, 2}, loop, nested(100_000), {"a": [b"x"]}, [10**5000]):
        with pytest.raises(SchemaError, match="expected a JSON value"):
            get_encoding("json").encode(value)


def test_json_that_is_nested_too_deeply_or_not_utf_8_is_refused() -> None:
    for payload in (b"[" * 100_000, b'{"a":' * 100_000, b'"\xff"', b"\xef\xbb\xbf1", b"", b"1 2", b"{'a': 1}"):
        with pytest.raises(FormatError, match="expected JSON"):
            get_encoding("json").decode(payload)


class Raises:
    """An object whose unpickling raises an unusual exception."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemError('from inside')",)


def test_errors_while_unpickling_are_format_errors() -> None:
    encoding = get_encoding("pkl")
    assert encoding.encode({"a": 1}) == pickle.dumps({"a": 1})
    for payload in (b"", b"garbage", pickle.dumps([1])[:-1], pickle.dumps(Raises()), b"cno_such_module\nx\n."):
        with pytest.raises(FormatError, match="expected a pickle"):
            encoding.decode(payload)


# ---------------------------------------------------------------------------------------------- arrays

DTYPES = st.sampled_from([np.dtype(name) for name in CODES]).flatmap(
    lambda dtype: st.sampled_from([dtype, dtype.newbyteorder(">")])
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: numpy_st.arrays(dtype, numpy_st.array_shapes(max_dims=5), elements={"allow_nan": False})
)


@given(ARRAYS, st.booleans())
def test_arrays_of_any_memory_order_and_byte_order_round_trip_in_every_encoding(
    array: np.ndarray[Any, Any], turned: bool
) -> None:
    array = array.T if turned else array
    dtype = array.dtype.name
    shape = ",".join(map(str, array.shape))
    payloads = set()
    for name in ("ndarray", f"ndarray:{dtype}", f"ndarray:{dtype}:{shape}", "ndarray:"):
        payload = get_encoding(name).encode(array)
        found = get_encoding(name).decode(payload)
        assert found.dtype == array.dtype.newbyteorder("<")
        assert np.array_equal(found, array)
        payloads.add(payload)
    assert len(payloads) == 3
    assert {len(payload) for payload in payloads} == {
        array.nbytes + extra for extra in (0, 1 + array.ndim, 2 + array.ndim)
    }


@pytest.mark.parametrize("name", ["ndarray", "ndarray:int16"])
@given(shape=numpy_st.array_shapes(max_dims=5, max_side=300), cut=st.integers(1, 3))
@hypothesis.settings(max_examples=50)
def test_the_first_two_bytes_give_dtype_and_shape(name: str, shape: tuple[int, ...], cut: int) -> None:
    hypothesis.assume(np.prod(shape) < 1 << 16)
    encoding = get_encoding(name)
    assert isinstance(encoding, DynamicArray)
    payload = encoding.encode(np.zeros(shape, np.int16))
    assert encoding.count(payload[:2], len(payload)) == np.prod(shape)
    for head, size in ((b"", 0), (payload[:2], len(payload) - 2 * int(np.prod(shape)) - cut), (b"\x11\0", 10)):
        with pytest.raises(FormatError, match=f"a payload of {name}"):
            encoding.count(head, size)


def test_arrays_come_back_as_read_only_views_of_the_payload() -> None:
    array = np.arange(1000, dtype=np.float64)
    for name in ("ndarray", "ndarray:float64", "ndarray:float64:1000"):
        buffer = bytearray(b"_" + get_encoding(name).encode(array))
        found = get_encoding(name).decode(memoryview(buffer)[1:])
        assert not found.flags.writeable
        assert np.shares_memory(found, np.frombuffer(buffer, np.uint8))
        buffer[-8:] = struct.pack("<d", 5.5)
        assert found[-1] == 5.5


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_shape_may_be_stored_wider_than_necessary(width: int) -> None:
    payload = (
        bytes((8, 2 << 2 | width.bit_length() - 1)) + b"".join(d.to_bytes(width, "little") for d in (1, 2)) + b"ab"
    )
    assert get_encoding("ndarray").decode(payload).tolist() == [[97, 98]]


@pytest.mark.parametrize(
    ("largest", "width"), [(255, 1), (256, 2), (65535, 2), (65536, 4)], ids=lambda value: f"{value}"
)
def test_a_shape_is_stored_in_the_width_of_its_largest_dimension(largest: int, width: int) -> None:
    array = np.zeros((1, largest), np.int8)
    payload = get_encoding("ndarray:int8").encode(array)
    assert payload[0] == 2 << 2 | width.bit_length() - 1
    assert len(payload) == 1 + 2 * width + largest
    assert get_encoding("ndarray:int8").decode(payload).shape == (1, largest)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3, bool), r"got bool array of shape \(3,\) \(use \.astype\('uint8'\)\)"),
        (np.array([1, "a"], object), "got object array"),
        (np.ones(2, complex), "got complex128 array"),
        (np.array(["a"]), "got <U1 array"),
        (np.array(["2020"], "M8[s]"), "got datetime64"),
        (np.zeros(2, [("a", "i4"), ("b", "i4")]), "array of shape"),
        (np.ones((0, 3)), r"got float64 array of shape \(0, 3\)"),
        (np.array(3), r"got int64 array of shape \(\) \(for a single number, use an encoding such as int or float32\)"),
        (np.ones((1,) * 64), "got float64 array"),
        ([1, 2], r"got list \(use numpy\.asarray\(value\)\)"),
        (np.float64(3), r"use numpy\.asarray\(value\)"),
    ],
)
def test_arrays_that_the_format_cannot_store_are_refused(value: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        get_encoding("ndarray").encode(value)


@pytest.mark.parametrize("name", ["ndarray:uint16", "ndarray:uint16:3"])
def test_the_hint_for_a_list_gives_a_valid_array(name: str) -> None:
    with pytest.raises(SchemaError, match=r"got list \(use numpy\.asarray\(value, 'uint16'\)\)"):
        get_encoding(name).encode([1, 2, 3])
    assert get_encoding(name).encode(np.asarray([1, 2, 3], "uint16"))


def test_a_wrong_dtype_or_shape_is_refused_with_a_hint() -> None:
    array = np.zeros((2, 3), np.float32)
    with pytest.raises(SchemaError, match=r"got float32 array of shape \(2, 3\) \(use \.astype\('int32'\)\)"):
        get_encoding("ndarray:int32").encode(array)
    with pytest.raises(SchemaError, match=r"\(use \.astype\('int32'\)\)"):
        get_encoding("ndarray:int32:2,3").encode(array)
    with pytest.raises(
        SchemaError, match=r"expected float32 array of shape \(3, 2\), got float32 array of shape \(2, 3\)"
    ):
        get_encoding("ndarray:float32:3,2").encode(array)


def test_at_most_sixty_three_dimensions_are_stored() -> None:
    array = np.ones((1,) * 63, np.uint8)
    for name in ("ndarray", "ndarray:uint8:" + ",".join("1" * 63)):
        assert get_encoding(name).decode(get_encoding(name).encode(array)).shape == (1,) * 63


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "07 04 01 00",
        "08",
        "08 00",
        "08 00 01",
        "08 04",
        "08 04 00",
        "08 04 02 00",
        "08 04 01 00 00",
        "08 09 01 00 01",
    ],
)
def test_inconsistent_array_payloads_are_refused(payload: str) -> None:
    with pytest.raises(FormatError, match="expected a payload of ndarray, got"):
        get_encoding("ndarray").decode(bytes.fromhex(payload))


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_pil_images_of_every_mode_round_trip(mode: str) -> None:
    size = (13, 5)
    image = Image.new(mode, size)
    image = Image.frombytes(mode, size, bytes(i % 251 for i in range(len(image.tobytes()))))
    found = get_encoding("pil").decode(get_encoding("pil").encode(image))
    assert (found.mode, found.size, found.tobytes()) == (mode, size, image.tobytes())


def test_pictures_without_pixels_are_refused_when_encoding_and_decoding() -> None:
    for name in ("pil", "jpeg", "png"):
        with pytest.raises(SchemaError):
            get_encoding(name).encode(Image.new("RGB", (0, 4)))
    with pytest.raises(FormatError):
        get_encoding("pil").decode(struct.pack("<III", 0, 4, 1) + b"L")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "got 0 bytes"),
        (struct.pack("<III", 2, 2, 1) + b"L" + b"abc", "got 3 bytes for 2 × 2 pixels of L"),
        (struct.pack("<III", 2, 2, 1) + b"L" + b"abcde", "got 5 bytes for 2 × 2 pixels of L"),
        (struct.pack("<III", 9, 1, 1) + b"1" + b"a", "got 1 bytes for 9 × 1 pixels of 1"),
        (struct.pack("<III", 1, 1, 3) + b"XYZ" + b"a", "got mode 'XYZ'"),
        (struct.pack("<III", 1, 1, 0) + b"a", "got mode ''"),
        (struct.pack("<III", 1, 1, 9) + b"RGBA    " + b"a", "got mode 'RGBA    '"),
        (struct.pack("<III", 1, 1, 1) + b"\xff" + b"a", "got mode"),
    ],
)
def test_pil_payloads_with_too_few_pixels_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        get_encoding("pil").decode(payload)


def test_a_jpeg_opened_from_a_path_is_stored_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture("RGB", 64, 64).save(path, quality=31)
    with Image.open(path) as image:
        assert get_encoding("jpeg").encode(image) == path.read_bytes()
        copy = image.copy()
        copy.filename = str(path)  # type: ignore[attr-defined]
        assert get_encoding("jpeg").encode(copy) == file_of(copy, "JPEG") != path.read_bytes()


def test_a_jpeg_whose_file_is_gone_is_encoded_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture("RGB", 64, 64).save(path, quality=31)
    with Image.open(path) as image:
        image.load()
        path.unlink()
        assert get_encoding("jpeg").encode(image) == file_of(image, "JPEG")


def test_a_jpeg_whose_file_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    with Image.open(path) as image:
        image.load()
        path.unlink()
        path.mkdir()
        with pytest.raises(SchemaError, match="Is a directory"):
            get_encoding("jpeg").encode(image)


def test_pictures_that_are_damaged_or_unsupported_by_jpeg_are_refused() -> None:
    with pytest.raises(SchemaError, match="cannot write mode RGBA as JPEG; its mode is RGBA"):
        get_encoding("jpeg").encode(picture("RGBA"))
    for name in ("pil", "png", "jpeg"):
        with pytest.raises(SchemaError, match="expected PIL image, got PngImageFile"):
            get_encoding(name).encode(Image.open(BytesIO(PNG[:-30])))


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_jpeg_and_png_columns_open_both_formats_and_no_others(name: str) -> None:
    for payload in (JPEG, PNG):
        assert get_encoding(name).decode(payload).size == (5, 3)
    for payload, start in ((file_of(picture("P"), "GIF"), "47 49 46 38"), (b"", "no bytes")):
        with pytest.raises(FormatError, match=f"expected a JPEG or PNG file, got {start}"):
            get_encoding(name).decode(payload)


def test_pictures_are_opened_lazily() -> None:
    cut = PNG[:-30]  # inside the pixels
    image = get_encoding("png").decode(memoryview(cut))
    assert image.size == (5, 3)
    with pytest.raises(OSError, match="truncated"):
        image.load()


def test_a_picture_that_claims_too_many_pixels_is_refused() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]
    with pytest.raises(FormatError, match=r"DecompressionBombError"):
        get_encoding("png").decode(bomb)


# ---------------------------------------------------------------------------------------------- lists


def test_items_of_lists_may_be_encoded_files() -> None:
    payload = get_encoding("list[jpeg]").encode([JPEG, JPEG])
    assert [item.size for item in get_encoding("list[jpeg]").decode(payload)] == [(5, 3)] * 2
    assert get_encoding("list[jpeg]").encode((JPEG, JPEG)) == payload
    assert payload == bytes(4) + get_encoding("jpegarray").encode([JPEG, JPEG])


def test_an_invalid_item_is_an_error_that_names_it() -> None:
    with pytest.raises(SchemaError, match=r"^item 1: expected PIL image, got int 5$"):
        get_encoding("list[png]").encode([picture(), 5])
    with pytest.raises(SchemaError, match=r"^item 1: expected a JPEG file as bytes, got Image"):
        get_encoding("jpegarray").encode([JPEG, picture()])
    with pytest.raises(FormatError, match=r"^item 1: expected a JPEG or PNG file, got 61 62 63"):
        get_encoding("list[png]").decode(get_encoding("list[png]").encode([PNG, b"abc"]))


def test_an_empty_jpegarray_is_refused_when_encoding_and_decoding() -> None:
    for name in ("jpegarray", "jpeg_array"):
        with pytest.raises(SchemaError, match=r"expected list of one or more JPEG files as bytes, got list"):
            get_encoding(name).encode([])
        with pytest.raises(FormatError):
            get_encoding(name).decode(bytes(4))


@pytest.mark.parametrize(
    "payload",
    [
        *("", "00", "00000000", "00000000 000000", "01000000 00000000", "00000000 01000000", "00000000 00000000 61"),
        *("00000000 01000000 02000000 61", "00000000 02000000 01000000 ffffffff 61"),
    ],
)
def test_lists_with_inconsistent_sizes_are_refused(payload: str) -> None:
    with pytest.raises(FormatError, match=r"expected a payload of list\[png\], got"):
        get_encoding("list[png]").decode(bytes.fromhex(payload))


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        *("", "foo", "Int", "int ", " int", "int:", "int:8", "bytes:", "uint128", "list[int]", "list[bytes]", "bool"),
        *("ndarray::3", "ndarray:bool", "ndarray:complex64", "ndarray:uint8:", "ndarray:uint8:0", "ndarray:uint8:-1"),
        *("ndarray:uint8:2,", "ndarray:uint8:2,x", "ndarray:uint8:2:3", "ndarray:uint8:4294967296", "ndarray:Uint8"),
        *("ndarray:uint8:" + ",".join("1" * 64), "ndarray:uint8:" + "9" * 5000, "ndarray:uint8:" + "9," * 62 + "9"),
        *("x" * 5000, None, 3, ["int"], b"int"),
    ],
    ids=lambda name: repr(name)[:20] + str(len(name) if isinstance(name, str) else ""),
)
def test_an_invalid_encoding_name_is_refused(name: Any) -> None:
    with pytest.raises(FormatError) as caught:
        get_encoding(name)
    assert caught.value.expected
    assert len(str(caught.value)) < 1000


def test_the_error_for_an_unknown_name_lists_known_names_and_register_encoding() -> None:
    with pytest.raises(
        FormatError,
        match=r"expected a known encoding, got 'audio' \(The encodings are bytes, str, .*; .*register_encoding",
    ):
        get_encoding("audio")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("float", "float32"), ("double", "float64"), ("string", "str"), ("Int", "int"), ("int ", "int")),
        *(("unt8", "uint8"), ("bool", "uint8"), ("image", "jpeg"), ("JPG", "jpeg"), ("ndaray", "ndarray")),
        *(("jpegs", "jpeg"), ("pickle", "pkl"), ("strint", "str_int"), ("list", "json")),
    ],
)
def test_the_error_for_an_unknown_name_suggests_a_similar_one(name: str, meant: str) -> None:
    with pytest.raises(FormatError) as caught:
        get_encoding(name)
    assert caught.value.hint.startswith(f"did you mean {meant!r}")
    get_encoding(meant)


def test_the_error_for_an_unknown_name_lists_every_encoding() -> None:
    with pytest.raises(FormatError) as caught:
        get_encoding("audio")
    for name in VALUES:
        family = name.partition(":")[0].rstrip("0123456789").replace("jpeg_array", "jpegarray")
        assert family in caught.value.hint, name


def test_each_call_raises_a_new_error_object() -> None:
    errors = []
    for _ in range(2):
        with pytest.raises(FormatError) as caught:
            get_encoding("audio")
        errors.append(caught.value.at(place="$.x"))
    assert errors[0] is not errors[1]
    assert errors[1].place == "$.x"


class Reversed(Encoding):
    """An encoding that reverses bytes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: Any, /) -> bytes:
        return bytes(value)[::-1]

    def decode(self, payload: bytes | memoryview, /) -> Any:
        return bytes(payload)[::-1]


def test_a_user_encoding_works_after_registration() -> None:
    register_encoding("reversed", Reversed("reversed"))
    encoding = get_encoding("reversed")
    assert encoding.encode(b"ab") == b"ba"
    assert (encoding.size_bytes, encoding.dtype, encoding.shape, encoding.unsafe) == (None, None, None, False)
    with pytest.raises(FormatError, match="reversed takes no text after it"):
        get_encoding("reversed:3")
    again = Reversed("reversed")
    register_encoding("reversed", again)
    assert get_encoding("reversed") is again


def test_a_registered_function_makes_encodings_from_the_text_after_the_colon() -> None:
    register_encoding("turned", Reversed)
    assert get_encoding("turned:a:b").name == "a:b"
    assert get_encoding("turned").name == ""

    def refuses(text: str) -> Encoding:
        raise ValueError(f"no {text}")

    register_encoding("picky", refuses)
    with pytest.raises(FormatError, match=r"got 'picky:x' \(no x\)"):
        get_encoding("picky:x")
    register_encoding("empty", lambda text: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(FormatError, match="empty returned None for 'x', not an Encoding"):
        get_encoding("empty:x")


@pytest.mark.parametrize("name", ["int", "ndarray", "pkl", "list[png]", "", "my:own"])
def test_built_in_names_and_names_with_colons_cannot_be_registered(name: str) -> None:
    with pytest.raises(SettingError, match="expected a name of your own without a colon"):
        register_encoding(name, Reversed(name))


def test_objects_that_are_not_encodings_cannot_be_registered() -> None:
    with pytest.raises(SettingError, match="expected an Encoding, or a function that returns one"):
        register_encoding("thing", 5)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- Pillow


def test_pillow_is_imported_only_for_pictures() -> None:
    script = """
import sys
from mx8shards.format.encodings import get_encoding
for name, value in (("int", 3), ("json", [1]), ("bytes", b"x")):
    get_encoding(name).decode(get_encoding(name).encode(value))
get_encoding("jpeg").encode(b"as it is")
assert "PIL" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", ["pil", "jpeg", "png", "list[jpeg]", "jpegarray"])
def test_a_missing_pillow_is_an_error_that_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = get_encoding(name).encode(VALUES[name][-1])
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingPackageError, match=r'pip install "mx8shards\[images\]"') as caught:
        get_encoding(name).decode(payload)
    assert isinstance(caught.value, ShardsError)
    assert isinstance(caught.value, ImportError)
