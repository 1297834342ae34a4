"""Are ragged rows converted correctly to padded, packed and nested tensors?"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mx8shards as mx8
from mx8shards.errors import FormatError, LoaderError, SchemaError, SettingError
from mx8shards.format.array_rows import Numbers, numbers_of
from mx8shards.format.arrays import CODES
from mx8shards.format.encodings import get_encoding
from mx8shards.loading.ragged import EncodingDecoder, Ragged

OUTPUTS = pytest.mark.parametrize("output", ["numpy", "torch"])
TOKENS = pytest.mark.parametrize("encoding", ["ndarray:uint16", "ndarray"])


def ragged_of(payloads: list[bytes], encoding: str, output: str = "numpy") -> Ragged:
    """Rows as they lie in a bank."""
    values = np.frombuffer(b"".join(payloads), np.uint8).copy()
    offsets = np.cumsum([0, *map(len, payloads)], dtype=np.int64)
    wrap: Any = torch.from_numpy if output == "torch" else lambda array: array
    return Ragged(wrap(values), wrap(offsets), EncodingDecoder(encoding))


def tokens(rows: list[Any], encoding: str, output: str = "numpy", dtype: str = "uint16") -> Ragged:
    return ragged_of([get_encoding(encoding).encode(np.array(row, dtype)) for row in rows], encoding, output)


@OUTPUTS
@TOKENS
def test_a_slice_has_the_rows_of_a_list(encoding: str, output: str) -> None:
    rows = [[1], [2, 3], [4, 5, 6], [7], [8, 9]]
    ragged = tokens(rows, encoding, output)
    for part in (slice(1, 4), slice(None), slice(-2, None), slice(3, 1), slice(4, 99), slice(9, 9)):
        found = ragged[part]
        assert [row.tolist() for row in found] == rows[part]
        assert (len(found), np.asarray(found.lengths).tolist()) == (len(rows[part]), [len(row) for row in rows[part]])
    assert np.asarray(ragged[1:4][1:].padded(0, 3)).tolist() == [[4, 5, 6], [7, 0, 0]]
    numbers = ragged.padded(0, 3)  # from now on the rows are kept as numbers, too
    assert np.asarray(ragged[1:4].padded(0, 3)).tolist() == np.asarray(numbers).tolist()[1:4]


@pytest.mark.parametrize("rows", [slice(None, None, 2), slice(None, None, -1), [0, 1], "first", True])
def test_rows_that_do_not_follow_each_other_are_refused(rows: Any) -> None:
    with pytest.raises(SettingError, match=r"expected (rows that follow each other|an int)"):
        tokens([[1], [2, 3]], "ndarray:uint16")[rows]


# numbers --------------------------------------------------------------------------------------------------------------


@st.composite
def some_arrays(draw: st.DrawFn) -> tuple[str, list[np.ndarray[Any, Any]]]:
    dtype = draw(st.sampled_from(sorted(CODES)))
    shapes = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=8))
    long = draw(st.sampled_from([1, 260, 70_000]))  # dimensions of 1, 2 and 4 bytes
    shapes[0][0] *= long
    rng = np.random.default_rng(len(shapes))
    return dtype, [
        rng.integers(0, 256, (*s, np.dtype(dtype).itemsize)).astype("u1").view(dtype)[..., 0] for s in shapes
    ]


@given(some_arrays(), st.booleans())
def test_values_concatenate_the_numbers_of_each_row(arrays: tuple[str, list[Any]], dynamic: bool) -> None:
    dtype, rows = arrays
    encoding = get_encoding("ndarray" if dynamic else f"ndarray:{dtype}")
    payloads = [encoding.encode(row) for row in rows]
    found = numbers_of(
        np.frombuffer(b"".join(payloads), np.uint8), np.cumsum([0, *map(len, payloads)]), None if dynamic else dtype
    )
    assert isinstance(found, Numbers)
    assert found.values.dtype == dtype
    assert found.values.tobytes() == b"".join(row.tobytes() for row in rows)
    assert found.offsets.tolist() == np.cumsum([0, *(row.size for row in rows)]).tolist()
    assert [tuple(dims[dims > 0]) for dims in found.dims] == [row.shape for row in rows]


@given(some_arrays(), st.booleans(), st.data())
def test_a_damaged_payload_is_an_error_or_decodes_as_the_dataset_decodes_it(
    arrays: tuple[str, list[Any]], dynamic: bool, data: st.DataObject
) -> None:
    dtype, rows = arrays
    text = "ndarray" if dynamic else f"ndarray:{dtype}"
    payloads = [bytearray(get_encoding(text).encode(row)) for row in rows[-3:]]
    victim = data.draw(st.integers(0, len(payloads) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "empty"]))
    if damage == "flip":
        payloads[victim][data.draw(st.integers(0, min(12, len(payloads[victim])) - 1))] ^= data.draw(
            st.integers(1, 255)
        )
    else:
        del payloads[victim][data.draw(st.integers(0, len(payloads[victim]) - 1)) if damage == "cut" else 0 :]
    ragged = ragged_of([bytes(each) for each in payloads], text)
    try:
        values, offsets = ragged.values, ragged.offsets
    except (FormatError, SchemaError):
        with pytest.raises((FormatError, AssertionError)):
            assert len({ragged[i].dtype for i in range(len(payloads))}) == 1
    else:
        for i in range(len(payloads)):
            assert values[offsets[i] : offsets[i + 1]].tobytes() == ragged[i].tobytes()


@TOKENS
@OUTPUTS
def test_values_and_offsets_of_arrays_are_numbers(encoding: str, output: str) -> None:
    ragged = tokens([[1, 2, 65_535], range(300), [7]], encoding, output)
    assert str(ragged.values.dtype).removeprefix("torch.") == "uint16"
    assert ragged.values.tolist() == [1, 2, 65_535, *range(300), 7]
    assert ragged.offsets.tolist() == [0, 3, 303, 304]
    assert ragged.lengths.tolist() == [3, 300, 1]
    assert [row.tolist() for row in ragged] == [[1, 2, 65_535], [*range(300)], [7]]


def test_rows_of_several_dtypes_can_only_be_read_one_by_one() -> None:
    encode = get_encoding("ndarray").encode
    ragged = ragged_of([encode(np.array([1, 2], "u2")), encode(np.array([1.5], "f4"))], "ndarray")
    with pytest.raises(SchemaError, match="row 1: expected an array of uint16, as row 0, got float32"):
        _ = ragged.values
    assert ragged[1].tolist() == [1.5]
    moved = ragged.map(np.copy)
    assert [row.tolist() for row in moved] == [[1, 2], [1.5]]


def test_values_of_other_columns_are_bytes() -> None:
    ragged = ragged_of([b"ab", b"", b"cde"], "str")
    assert ragged.values.tobytes() == b"abcde"
    assert ragged.offsets.tolist() == [0, 2, 2, 5]
    assert [*ragged] == ["ab", "", "cde"]
    assert ragged.padded(-1).tolist() == [[97, 98, -1], [-1, -1, -1], [99, 100, 101]]


@OUTPUTS
def test_bytes_can_be_viewed_as_numbers(output: str) -> None:
    ragged = ragged_of([np.arange(3, dtype="u2").tobytes(), b"", np.arange(2, dtype="u2").tobytes()], "bytes", output)
    found = ragged.view("uint16")
    assert found.values.tolist() == [0, 1, 2, 0, 1]
    assert found.offsets.tolist() == [0, 3, 3, 5]
    assert [row.tolist() for row in found] == [[0, 1, 2], [], [0, 1]]
    assert found.padded(9, 2).tolist() == [[0, 1], [9, 9], [0, 1]]
    with pytest.raises(SchemaError, match="row 0: expected a multiple of 4 bytes, got 6 bytes"):
        ragged.view("int32")
    with pytest.raises(SettingError, match="dtype"):
        ragged.view("bool")
    with pytest.raises(SchemaError, match="rows of bytes"):
        found.view("uint16")


# padded ---------------------------------------------------------------------------------------------------------------


@TOKENS
@OUTPUTS
@pytest.mark.parametrize("length", [None, 1, 2, 3, 7])
def test_padded_rows_are_filled_or_cut_to_one_length(encoding: str, output: str, length: int | None) -> None:
    rows = [[1, 2, 65_535], [4], [5, 6]]
    found = tokens(rows, encoding, output).padded(-100, length)
    wide = 3 if length is None else length
    assert found.tolist() == [(row + [-100] * wide)[:wide] for row in rows]
    assert found.dtype == (np.int64 if output == "numpy" else torch.int64)


@OUTPUTS
@pytest.mark.parametrize("dtype", sorted(CODES))
def test_padded_integers_become_int64_and_floats_keep_their_dtype(output: str, dtype: str) -> None:
    found = tokens([[1, 2], [3]], f"ndarray:{dtype}", output, dtype).padded(0)
    wanted = "int64" if np.dtype(dtype).kind in "iu" and dtype != "uint64" else dtype
    assert str(found.dtype).removeprefix("torch.") == wanted
    assert found.tolist() == [[1, 2], [3, 0]]


def test_floats_are_padded_with_floats() -> None:
    ragged = tokens([[1.5], [2, 3]], "ndarray:float32", "torch", "float32")
    assert ragged.padded(-0.5).tolist() == [[1.5, -0.5], [2, 3]]
    assert ragged.padded(float("nan")).isnan().tolist() == [[False, True], [False, False]]
    for fill in ("0", None, [0.0]):
        with pytest.raises(SettingError, match="fill: expected a number that float32 holds"):
            ragged.padded(fill)


@OUTPUTS
def test_rows_that_cannot_be_padded_are_refused(output: str) -> None:
    ragged = tokens([[1], [2, 3]], "ndarray:uint16", output)
    for fill in (0.5, "0", None, 1 << 70, float("nan"), [0]):
        with pytest.raises(SettingError, match="fill: expected an int that int64 holds, got "):
            ragged.padded(fill)
    for length in (0, -1, 2.0, True, "8"):
        with pytest.raises(SettingError, match="length"):
            ragged.padded(0, length)
    with pytest.raises(SchemaError, match=r"padded: row 1: expected one dimension, got the shape \(1, 2\)"):
        tokens([[1], [[2, 3]]], "ndarray:uint16", output).padded()


def test_ragged_without_rows_gives_empty_results() -> None:
    assert ragged_of([], "ndarray:uint16").padded(0, 4).shape == (0, 4)
    assert ragged_of([], "ndarray").values.size == 0
    packed = ragged_of([], "ndarray:uint16").packed(4)
    assert packed.tokens.shape == (0, 4)
    assert packed.cu_seqlens.tolist() == [0]


# packed ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=5),
    st.integers(1, 12),
    st.sampled_from(["numpy", "torch"]),
)
def test_packing_loses_nothing_over_all_batches(batches: list[list[int]], length: int, output: str) -> None:
    carry, number, stream = None, 0, []
    for sizes in batches:
        rows = [list(range(number + i * 100, number + i * 100 + size)) for i, size in enumerate(sizes)]
        number += 100 * len(sizes)
        stream += [token for row in rows for token in row]
        starts = set() if carry is None else {int(at) for at in carry[1][:-1]}
        before = 0 if carry is None else len(carry[0])
        starts |= {before + int(at) for at in np.cumsum([0, *sizes])[:-1]}
        found = tokens(rows, "ndarray:uint16", output).packed(length, carry)
        kept, cu, positions = found.tokens.reshape(-1).tolist(), found.cu_seqlens.tolist(), found.position_ids
        assert kept == stream[: len(kept)]
        assert tuple(found.tokens.shape) == tuple(positions.shape) == (len(kept) // length, length)
        begins = sorted({at for at in starts if at < len(kept)} | set(range(0, len(kept), length)))
        assert cu == [*begins, len(kept)] or (not kept and cu == [0])
        assert str(found.cu_seqlens.dtype).endswith("int32")
        assert positions.reshape(-1).tolist() == [i - max(b for b in begins if b <= i) for i in range(len(kept))]
        stream, carry = stream[len(kept) :], found.carry
        assert carry[0].tolist() == stream
        assert len(stream) < length
        assert carry[1].tolist()[0] == 0
        assert carry[1].tolist()[-1] == len(stream)


def test_the_carry_can_be_saved_in_a_checkpoint(tmp_path: Path) -> None:
    first = tokens([[1, 2, 3], [4, 5]], "ndarray:uint16", "torch").packed(4)
    torch.save({"carry": first.carry}, tmp_path / "checkpoint")
    carry = torch.load(tmp_path / "checkpoint", weights_only=True)["carry"]
    second = tokens([[6, 7], [8, 9]], "ndarray:uint16", "torch").packed(4, carry)
    assert first.tokens.tolist() == [[1, 2, 3, 4]]
    assert second.tokens.tolist() == [[5, 6, 7, 8]]
    assert second.cu_seqlens.tolist() == [0, 1, 3, 4]
    assert second.position_ids.tolist() == [[0, 0, 1, 0]]
    assert second.carry[0].tolist() == [9]


# nested ---------------------------------------------------------------------------------------------------------------


@TOKENS
def test_rows_become_a_nested_tensor(encoding: str) -> None:
    rows = [[1, 2, 65_535], [4], [5, 6]]
    found = tokens(rows, encoding, "torch").to_nested()
    assert found.is_nested
    assert [row.tolist() for row in found.unbind()] == rows
    assert found.dtype == torch.int64
    with pytest.raises(LoaderError, match='output="torch"'):
        tokens(rows, encoding).to_nested()


# lifetime -------------------------------------------------------------------------------------------------------------


@OUTPUTS
@pytest.mark.parametrize("encoding", ["ndarray:uint16", "ndarray", "str", "bytes"])
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy", "map"])
def test_copies_of_rows_stay_valid_even_after_indexing(output: str, encoding: str, how: str) -> None:
    texts = {"str": [b"a", b"", b"bc"], "bytes": [b"a", b"", b"bc"]}
    rows = texts.get(encoding) or [get_encoding(encoding).encode(np.arange(n + 1, dtype="u2")) for n in range(3)]
    ragged = ragged_of(rows, encoding, output)
    wanted = [np.asarray(row).tolist() if encoding.startswith("ndarray") else row for row in ragged]
    _ = ragged.padded()
    copies: dict[str, Any] = {
        "pickle": lambda: pickle.loads(pickle.dumps(ragged)),
        "deepcopy": lambda: copy.deepcopy(ragged),
        "copy": ragged.copy,
        "map": lambda: ragged.map(lambda part: part + 0 if str(part.dtype)[-4:] != "nt16" else part),
    }
    found = copies[how]()
    assert [row.tolist() if hasattr(row, "tolist") else row for row in found] == wanted
    assert found.padded(3).tolist() == ragged.padded(3).tolist()
    assert found.offsets.tolist() == ragged.offsets.tolist()
    with pytest.raises(IndexError):
        found[3]


def test_tokens_of_a_loader_equal_those_of_the_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 65_536, 1 + i * 7).astype("u2") for i in range(50)]
    with mx8.Writer(tmp_path / "data", columns={"tokens": "ndarray:uint16"}, size_limit="8kb") as writer:
        for document in documents:
            writer.write({"tokens": document})
    with mx8.Loader(mx8.Dataset(tmp_path / "data"), batch_size=7, shuffle=True) as loader:
        carry, packed, seen = None, [], []
        for batch in loader:
            assert batch["tokens"].values.dtype == torch.uint16
            for i, sample_id in enumerate(batch.sample_ids.tolist()):
                assert batch["tokens"][i].tolist() == documents[sample_id].tolist()
                seen += documents[sample_id].tolist()
            *found, carry = batch["tokens"].packed(64, carry)
            packed += found[0].flatten().tolist()
        assert packed + carry[0].tolist() == seen


@pytest.mark.parametrize("carry", ["x", (1, 2), (), [torch.zeros(3)], torch.zeros(3), (torch.zeros(3), [0, 3])])
def test_an_invalid_carry_is_refused(carry: Any) -> None:
    with pytest.raises(SettingError, match="carry: expected None, or the carry that `packed` returned"):
        tokens([[1, 2, 3]], "ndarray:uint16", "torch").packed(2, carry)


@OUTPUTS
def test_map_does_not_change_offsets(output: str) -> None:
    rows = tokens([[1, 2, 3], [4]], "ndarray:uint16", output)
    found = rows.map(lambda values: values * 0.5)
    assert found.offsets.tolist() == [0, 3, 4]
    assert found.padded().tolist() == [[0.5, 1, 1.5], [2, 0, 0]]
    if output == "torch":
        assert found.map(lambda values: values.to("meta")).offsets.device.type == "meta"
