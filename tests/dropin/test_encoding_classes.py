"""Do programs that subclass Streaming's encodings write and read through their subclasses?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mx8shards.errors import SchemaError
from mx8shards.streaming import LocalDataset, MDSWriter, StreamingDataset
from mx8shards.streaming.base.format.mds.encodings import (
    JPEG,
    Encoding,
    Float16,
    Float64,
    Int16,
    Int64,
    JPEGArray,
    JPEGList,
    List,
    NDArray,
    PNGList,
    Scalar,
    UInt8,
    UInt32,
    _encodings,
    get_mds_encoded_size,
    mds_decode,
    mds_encode,
)


@pytest.fixture(autouse=True)
def _encodings_are_restored() -> Iterator[None]:
    before = dict(_encodings)
    yield
    for name in set(_encodings) - set(before):
        del _encodings[name]
    _encodings.update(before)


class Scaled(JPEG):
    """Pictures that are stored at half their size, and decoded to arrays."""

    def encode(self, obj: Any) -> bytes:
        return super().encode(obj.resize((obj.width // 2, obj.height // 2)))

    def decode(self, data: bytes) -> Any:
        return np.asarray(super().decode(data).convert("L"))


class Latents(UInt8):
    """Arrays of uint8 under the name of the scalar."""

    size = None

    def __init__(self) -> None:
        pass  # programs forget to call the base class

    def encode(self, obj: Any) -> bytes:
        return obj.tobytes()

    def decode(self, data: bytes) -> Any:
        return np.frombuffer(data, np.uint8) if len(data) > 1 else super().decode(data)


class Reversed(NDArray):
    def encode(self, obj: Any) -> bytes:
        return super().encode(obj[::-1])

    def decode(self, data: bytes) -> Any:
        return super().decode(data)[::-1]


class Floats(List):
    def underlying_encoder(self) -> Encoding:
        return Float64()


class BFloat(Scalar):
    def __init__(self) -> None:
        super().__init__(np.float16)


def test_subclasses_replace_built_in_encodings_and_call_their_base_class(tmp_path: Path) -> None:
    _encodings["jpeg"], _encodings["uint8"], _encodings["ndarray"] = Scaled, Latents, Reversed
    _encodings["floats"], _encodings["bfloat"] = Floats, BFloat
    columns = {"a": "jpeg", "b": "uint8", "c": "ndarray", "d": "ndarray:int32:3", "e": "floats", "f": "bfloat"}
    value = {
        "a": Image.new("RGB", (32, 16), (200, 200, 200)),
        "b": np.array([1, 2, 3], np.uint8),
        "c": np.arange(4),
        "d": np.arange(3, dtype=np.int32),
        "e": [0.5, 1.5],
        "f": 0.25,
    }
    with MDSWriter(out=str(tmp_path), columns=columns) as writer:
        assert writer.column_sizes == [None, None, None, 12, None, 2]
        writer.write(value)
        writer.write({**value, "b": np.array([7], np.uint8)})
    for dataset in (LocalDataset(str(tmp_path)), StreamingDataset(local=str(tmp_path), batch_size=1)):
        first, second = dataset[:2]
        assert first["a"].shape == (8, 16)
        assert abs(int(first["a"][0, 0]) - 200) < 3
        assert (first["b"].tolist(), second["b"]) == ([1, 2, 3], 7)
        assert (first["c"].tolist(), first["d"].tolist()) == ([0, 1, 2, 3], [0, 1, 2])
        assert (first["e"], first["f"]) == ([0.5, 1.5], 0.25)
    stored = tmp_path / "shard.00000.mds"
    assert np.arange(3, dtype=np.int32)[::-1].tobytes() in stored.read_bytes()


def test_assigning_a_class_of_ours_to_its_name_restores_it() -> None:
    _encodings["uint8"] = Latents
    assert get_mds_encoded_size("uint8") is None
    _encodings["uint8"] = UInt8
    assert get_mds_encoded_size("uint8") == 1
    _encodings["text8"] = UInt8  # under another name it is an encoding like any other
    assert mds_decode("text8", mds_encode("text8", 7)) == 7


@pytest.mark.parametrize("name", ["bytes", "str", "int", "str_int", "str_float", "str_decimal", "pkl", "json"])
def test_each_class_encodes_as_the_encoding_of_its_name(name: str) -> None:
    values = {"bytes": b"x", "str": "ü", "str_float": 0.5, "str_decimal": Decimal("0.10"), "json": {"a": [1]}}
    value, kind = values.get(name, 5), _encodings[name]
    assert kind().encode(value) == mds_encode(name, value)
    assert kind().decode(mds_encode(name, value)) == value
    assert kind.size == get_mds_encoded_size(name)


def test_classes_of_numbers_and_arrays_have_their_sizes() -> None:
    for kind in (UInt8, Int16, UInt32, Int64, Float16, Float64):
        name = kind.__name__.lower()
        assert kind is _encodings[name]
        assert kind.size == kind().size == np.dtype(name).itemsize
        assert kind().decode(kind().encode(3)) == 3
    assert NDArray().size is NDArray("uint8").size is None
    assert NDArray("uint8", (2, 3)).size == NDArray.from_str("uint8:2,3").size == 6
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for encoding in (NDArray(), NDArray("uint8"), NDArray("uint8", (2, 3))):
        assert np.array_equal(encoding.decode(encoding.encode(array)), array)
    with pytest.raises(ValueError, match="shape: expected None without a dtype"):
        NDArray(None, (2, 3))
    with pytest.raises(AttributeError) as caught:
        NDArray("uint8").encode([1])
    assert isinstance(caught.value, SchemaError)


REFUSED: dict[str, tuple[str, str, Any, type[Exception]]] = {
    "a large int": ("UInt8", "uint8", 300, OverflowError),
    "a negative int": ("UInt16", "uint16", -1, OverflowError),
    "an int of more than 64 bits": ("Int", "int", 1 << 70, OverflowError),
    "text for an int": ("Int", "int", "3", AttributeError),
    "bytes for text": ("Str", "str", 3, AttributeError),
    "another shape": ("NDArray", "ndarray:int16:2", np.zeros(3, np.int16), ValueError),
    "another dtype": ("NDArray", "ndarray:int16:2", np.zeros(2, np.int32), ValueError),
}


@pytest.mark.streaming
@pytest.mark.parametrize(("name", "text", "value", "error"), REFUSED.values(), ids=REFUSED)
def test_values_that_do_not_fit_raise_streamings_exceptions(
    name: str, text: str, value: Any, error: type[Exception], streaming: Any
) -> None:
    for library in ("mx8shards.streaming", "streaming"):
        encodings = import_module(f"{library}.base.format.mds.encodings")
        kind = getattr(encodings, name)
        made = kind.from_str(text.partition(":")[2]) if ":" in text else kind()
        with pytest.raises(error):
            made.encode(value)
        with pytest.raises(error):
            encodings.mds_encode(text, value)


class Short(Encoding):
    size = 4

    def encode(self, obj: Any) -> bytes:
        return bytes(3)

    def decode(self, data: bytes) -> Any:
        return data


def test_a_payload_of_another_size_is_a_key_error_as_in_streaming(tmp_path: Path) -> None:
    _encodings["short"] = Short
    with MDSWriter(out=str(tmp_path), columns={"x": "short"}) as writer:
        for write in (writer.write, writer.encode_sample):
            with pytest.raises(KeyError, match="expected 4 bytes, got 3") as caught:
                write({"x": None})
            assert isinstance(caught.value, SchemaError)


def test_classes_of_pictures_keep_them() -> None:
    picture = Image.new("L", (3, 2), 77)
    file = BytesIO()
    picture.save(file, "JPEG")
    for kind in (_encodings["pil"](), _encodings["png"](), PNGList(), _encodings["list[pil]"]()):
        found = kind.decode(kind.encode([picture] if isinstance(kind, List) else picture))
        assert (found[0] if isinstance(kind, List) else found).getpixel((1, 1)) == 77
    for kind in (JPEGList(), JPEGArray()):
        (found,) = kind.decode(kind.encode([file.getvalue()]))
        assert math.isclose(found.getpixel((1, 1)), 77, abs_tol=2)
