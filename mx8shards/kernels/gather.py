"""Where do the payloads of a batch lie, and how do they get into its rows?

Samples are named by the address of their shard's map and their row in it. One batch goes through three kernels:

    sample_spans    offsets of the samples, from the tables alone: an upper bound of the bytes that will be read
    payload_spans   where in them the wanted columns lie, from their size headers
    copy_payloads   the bytes of one column, to where its rows begin

Each takes a range of rows, so that threads can share a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import kernel
from mx8shards.kernels.memory import load_uint32, memcpy

Array = npt.NDArray[Any]

OK = 0
SIZES_DIFFER = 1  # a sample's size header does not add up to its length

# What `payload_spans` must know of each wanted column, one row of `layout` each.
LAYOUT_FIELDS = 3
FIXED_BEFORE = 0  # bytes of fixed columns before it
VARIABLE_BEFORE = 1  # how many columns of variable size stand before it
FIXED_SIZE = 2  # its own size, or -1 if that varies


@kernel
def sample_spans(bases: Array, shards: Array, rows: Array, start: int, stop: int, begins: Array, ends: Array) -> None:
    """Each sample's span in its shard. `bases` has the address of every shard's map, `rows` were checked against it."""
    for i in range(start, stop):
        entry = bases[shards[i]] + np.uint64(4) * np.uint64(rows[i] + 1)
        begins[i] = load_uint32(entry)
        ends[i] = load_uint32(entry + np.uint64(4))


@kernel
def payload_spans(
    bases: Array,
    shards: Array,
    begins: Array,
    ends: Array,
    variable: int,
    fixed_bytes: int,
    layout: Array,
    start: int,
    stop: int,
    payload_begins: Array,
    payload_sizes: Array,
    status: Array,
) -> None:
    """Where the wanted columns of each sample begin in its shard, and their sizes: row by column.

    `variable` columns of varying size have a uint32 each in the sample's header; all others together have
    `fixed_bytes`. A sample whose sizes do not add up gets the status SIZES_DIFFER and spans of no bytes.
    """
    for i in range(start, stop):
        sample = bases[shards[i]] + np.uint64(begins[i])
        total = np.int64(4) * variable + fixed_bytes
        for v in range(variable):
            total += np.int64(load_uint32(sample + np.uint64(4 * v)))
        good = total == ends[i] - begins[i]
        status[i] = OK if good else SIZES_DIFFER
        for column in range(layout.shape[0]):
            at = begins[i] + np.int64(4) * variable + layout[column, FIXED_BEFORE]
            size = layout[column, FIXED_SIZE]
            before = layout[column, VARIABLE_BEFORE]
            if good:
                for v in range(before):
                    at += np.int64(load_uint32(sample + np.uint64(4 * v)))
                if size < 0:
                    size = np.int64(load_uint32(sample + np.uint64(4 * before)))
            else:
                size = np.int64(0)
            payload_begins[i, column] = at
            payload_sizes[i, column] = size


@kernel
def copy_payloads(
    bases: Array,
    shards: Array,
    begins: Array,
    sizes: Array,
    offsets: Array,
    start: int,
    stop: int,
    out: Array,
) -> None:
    """Copy each row's payload to `offsets[i]` of the bytes `out`."""
    target = np.uint64(out.ctypes.data)
    for i in range(start, stop):
        memcpy(target + np.uint64(offsets[i]), bases[shards[i]] + np.uint64(begins[i]), np.uint64(sizes[i]))
