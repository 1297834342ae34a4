"""Do the outputs of a batch have separate, aligned regions in its bank?"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.loading.budget.batch_layout import array_of, lay_out, max_bytes
from mx8shards.stages import RAGGED, Output

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
FIXED = st.builds(Output, st.sampled_from(["u1", "i2", "f4", "f8"]).map(np.dtype), SHAPES)
OUTPUTS = st.dictionaries(st.text(max_size=2), FIXED | st.just(RAGGED), max_size=6)


@given(outputs=OUTPUTS, rows=st.integers(0, 40), data=st.data())
def test_offsets_are_aligned_and_do_not_overlap(outputs: dict[str, Output], rows: int, data: st.DataObject) -> None:
    ragged = {key: data.draw(st.integers(0, 5_000)) for key, output in outputs.items() if output.shape is None}
    layout = lay_out(outputs, rows, ragged)
    spans = [(0, 0)]
    for key, output in outputs.items():
        region = layout.regions[key]
        if output.shape is None:
            assert region.value_bytes == ragged[key]
            assert region.offsets is not None
            spans.append((region.offsets, region.offsets + 8 * (rows + 1)))
        else:
            assert region.value_bytes == rows * output.dtype.itemsize * math.prod(output.shape)
            assert region.offsets is None
        spans.append((region.values, region.values + region.value_bytes))
    assert all(begin % 64 == 0 for begin, _ in spans)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] <= layout.size_bytes <= spans[-1][1] + 63
    assert layout.size_bytes <= max_bytes(outputs, rows, sum(ragged.values()))


@given(outputs=OUTPUTS, rows=st.integers(0, 40), more=st.integers(0, 500))
def test_the_largest_size_is_the_fixed_part_plus_the_ragged_bytes(
    outputs: dict[str, Output], rows: int, more: int
) -> None:
    assert max_bytes(outputs, rows, more) == max_bytes(outputs, rows, 0) + more
    assert max_bytes(outputs, rows, 0) <= max_bytes(outputs, rows + 1, 0)


@given(outputs=OUTPUTS, rows=st.integers(0, 9))
def test_arrays_over_a_bank_have_the_declared_shape(outputs: dict[str, Output], rows: int) -> None:
    layout = lay_out(outputs, rows, dict.fromkeys(outputs, 33))
    whole: Any = np.zeros(layout.size_bytes, np.uint8)
    for value, (key, output) in enumerate(outputs.items(), 1):
        array = array_of(whole, output, layout.regions[key], rows)
        assert array.shape == ((33,) if output.shape is None else (rows, *output.shape))
        assert array.dtype == output.dtype
        array[...] = value
    for value, (key, output) in enumerate(outputs.items(), 1):
        assert (array_of(whole, output, layout.regions[key], rows) == value).all()


def test_outputs_without_a_shape_have_no_row_size() -> None:
    assert RAGGED.row_bytes is None
    assert Output(np.dtype("i2"), ()).row_bytes == 2
    assert Output(np.dtype("i2"), (3, 0)).row_bytes == 0
