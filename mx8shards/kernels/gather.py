"""Where do the payloads of a batch lie, and how do they get into its rows?

One batch goes through these, between which shards are opened and memory is found:

    locate          the shard of each sample, and its row there
    sample_spans    offsets of the samples, from the tables alone: an upper bound of the bytes that will be read
    payload_spans   where in them the wanted columns lie, from their size headers
    fixed_spans     the same, where no column needs one, and rows are few
    place           where in the bank each row of a ragged column begins
    copy_payloads   the bytes of all columns, to their rows
    check_arrays    whether the headers of arrays fit their payloads
    conclude        whether all of that went well
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import INT, MEMORY, NOTHING, array, brief_kernel, helper, kernel
from mx8shards.kernels.memory import (
    copy_past_caches,
    load_int64,
    load_uint8,
    load_uint32,
    memcpy,
    prefetch,
    store_int64,
    wait_for_copies,
)
from mx8shards.kernels.payloads import copy_payload, payload_at
from mx8shards.kernels.records import (
    NOT_OPENED,
    OK,
    OUT_OF_SHARD,
    READ_FAILED,
    REFUSED,
    ROW,
    SHARD,
    SIZES_DIFFER,
    SPAN,
)

Array = npt.NDArray[Any]

# types
_INTS, _TABLE, _LAYOUTS = array(np.int64), array(np.int64, 2), array(np.int64, 3)
_SHARDS, _ROWS, _SPANS = array(SHARD), array(ROW), array(SPAN, 2)

# What `payload_spans` must know of each kind of shards, one row of `kinds` each.
VARIABLE = 0  # how many columns have no fixed size
FIXED_BYTES = 1  # how many bytes all others have together

# What it and `fixed_spans` must know of each wanted column in each kind, one row of `layouts[kind]` each.
LAYOUT_FIELDS = 3
FIXED_BEFORE = 0  # bytes of fixed columns before it
VARIABLE_BEFORE = 1  # how many columns of variable size stand before it
FIXED_SIZE = 2  # its own size, or -1 if that varies

# What `place` and `copy_payloads` must know of each wanted column, one row of `targets` each.
TARGET_FIELDS = 4
COLUMN = 0  # which column of the spans it is
VALUES_AT = 1  # the address where its values begin
OFFSETS_AT = 2  # that of its offsets; 0 if all its values are of one size
VALUE_SIZE = 3  # that size

_SEARCHES = 256
_ENTRIES_AHEAD = 16
_ROWS_AHEAD = 8


@kernel(NOTHING, _INTS, array(np.int64, readonly=True), _ROWS)
def locate(starts: Array, sample_ids: Array, rows: Array) -> None:
    """The shard that holds each sample, and for now its row there as `begin`.

    Many are searched for side by side: each step of a search has to wait for the one before.
    """
    low = rows["begin"]
    for first in range(0, len(sample_ids), _SEARCHES):
        last = min(first + _SEARCHES, len(sample_ids))
        low[first:last] = 0
        left = np.int64(len(starts) - 1)
        while left > 1:  # starts[low] <= sample_id < starts[low + left]
            half = left >> 1
            for i in range(first, last):
                low[i] += half if starts[np.uint64(low[i] + half)] <= sample_ids[i] else 0
            left -= half
        for i in range(first, last):
            rows[i]["sample_id"] = sample_ids[i]
            rows[i]["shard"] = low[i]
            rows[i]["begin"] = sample_ids[i] - starts[low[i]]


@brief_kernel(NOTHING, _ROWS, INT, _INTS, _INTS, _INTS)
def list_unseen(rows: Array, mark: int, marks: Array, count: Array, out: Array) -> None:
    """The shards of these rows that do not bear the mark yet, each once; they bear it now."""
    count[0] = 0
    for i in range(len(rows)):
        shard = rows[i]["shard"]
        if marks[shard] != mark:
            marks[shard] = mark
            out[count[0]] = shard
            count[0] += 1


@kernel(NOTHING, _SHARDS, _ROWS)
def sample_spans(shards: Array, rows: Array) -> None:
    """Each sample's span in its shard. The table was checked when the shard was opened, and is not believed blindly.

    Entries are fetched some rows ahead: in large tables, each of them is on a page of its own.
    """
    for i in range(len(rows)):
        if i + _ENTRIES_AHEAD < len(rows):
            ahead = rows[i + _ENTRIES_AHEAD]
            prefetch(shards[ahead["shard"]]["table"] + np.uint64(4) * np.uint64(ahead["begin"] + 1))
        shard = rows[i]["shard"]
        if shards[shard]["table"] == 0:
            rows[i]["begin"] = 0
            rows[i]["end"] = 0
            rows[i]["status"] = NOT_OPENED
            continue
        entry = shards[shard]["table"] + np.uint64(4) * np.uint64(rows[i]["begin"] + 1)
        begin = np.int64(load_uint32(entry))
        end = np.int64(load_uint32(entry + np.uint64(4)))
        good = begin <= end and end <= shards[shard]["size"]
        rows[i]["begin"] = begin if good else np.int64(0)
        rows[i]["end"] = end if good else np.int64(0)
        rows[i]["status"] = OK if good else OUT_OF_SHARD


@brief_kernel(NOTHING, _ROWS, _INTS, INT, _INTS)
def sum_lengths(rows: Array, bounds: Array, overhead: int, out: Array) -> None:
    """How many bytes the samples of each part have, from bounds[k] to before bounds[k + 1], beyond an overhead each."""
    for k in range(len(out)):
        total = np.int64(0)
        for i in range(bounds[k], bounds[k + 1]):
            total += max(rows[i]["end"] - rows[i]["begin"] - overhead, 0)
        out[k] = total


@kernel(NOTHING, _SHARDS, _TABLE, _LAYOUTS, MEMORY, _ROWS, _SPANS, _INTS)
def payload_spans(
    shards: Array, kinds: Array, layouts: Array, header: Array, rows: Array, spans: Array, totals: Array
) -> None:
    """Where the wanted columns of each sample begin in its shard, and their sizes: row by column, and in all.

    `header` is scratch for one sample's size header. A row that is not OK, or whose sizes do not add up, gets spans of
    no bytes.
    """
    totals[:] = 0
    for i in range(len(rows)):
        shard = rows[i]["shard"]
        kind = shards[shard]["kind"]
        variable = kinds[kind, VARIABLE]
        header_bytes = np.int64(4) * variable
        begin = rows[i]["begin"]
        if variable > 0 and i + 4 < len(rows):
            prefetch(shards[rows[i + 4]["shard"]]["base"] + np.uint64(rows[i + 4]["begin"]))
        length = rows[i]["end"] - begin
        sample = np.uint64(0)
        if rows[i]["status"] == OK and length < header_bytes:
            rows[i]["status"] = SIZES_DIFFER
        if rows[i]["status"] == OK and variable > 0:
            # what is checked and what is used must be one copy: somebody may write to the file between the two
            sample = np.uint64(header.ctypes.data)
            if not copy_payload(shards, rows[i], begin, header_bytes, sample):
                rows[i]["status"] = READ_FAILED
        if rows[i]["status"] == OK:
            total = header_bytes + kinds[kind, FIXED_BYTES]
            for v in range(variable):
                total += np.int64(load_uint32(sample + np.uint64(4 * v)))
            if total != length:
                rows[i]["status"] = SIZES_DIFFER
        good = rows[i]["status"] == OK
        for column in range(spans.shape[1]):
            at = begin + header_bytes + layouts[kind, column, FIXED_BEFORE]
            size = layouts[kind, column, FIXED_SIZE]
            before = layouts[kind, column, VARIABLE_BEFORE]
            if not good:
                size = np.int64(0)
            else:
                for v in range(before):
                    at += np.int64(load_uint32(sample + np.uint64(4 * v)))
                if size < 0:
                    size = np.int64(load_uint32(sample + np.uint64(4 * before)))
            spans[i, column]["begin"] = at
            spans[i, column]["size"] = size
            totals[column] += size


@brief_kernel(NOTHING, _SHARDS, _TABLE, _LAYOUTS, _ROWS, _SPANS, _INTS)
def fixed_spans(shards: Array, kinds: Array, layouts: Array, rows: Array, spans: Array, totals: Array) -> None:
    """What `payload_spans` gives where all columns have one size: no byte of a sample is read. For small batches."""
    totals[:] = 0
    for i in range(len(rows)):
        kind = shards[rows[i]["shard"]]["kind"]
        begin = rows[i]["begin"]
        if rows[i]["status"] == OK and rows[i]["end"] - begin != kinds[kind, FIXED_BYTES]:
            rows[i]["status"] = SIZES_DIFFER
        good = rows[i]["status"] == OK
        for column in range(spans.shape[1]):
            size = layouts[kind, column, FIXED_SIZE] if good else np.int64(0)
            spans[i, column]["begin"] = begin + layouts[kind, column, FIXED_BEFORE]
            spans[i, column]["size"] = size
            totals[column] += size


@kernel(NOTHING, _SPANS, _TABLE)
def place(spans: Array, targets: Array) -> None:
    """Write the offsets of all ragged columns: where each row begins among the values, and where the last one ends."""
    for target in range(len(targets)):
        if targets[target, OFFSETS_AT] != 0:
            at = np.uint64(targets[target, OFFSETS_AT])
            total = np.int64(0)
            for i in range(len(spans)):
                store_int64(at + np.uint64(8 * i), total)
                total += spans[i, targets[target, COLUMN]]["size"]
            store_int64(at + np.uint64(8 * len(spans)), total)


@kernel(NOTHING, _SHARDS, _SPANS, _TABLE, INT, INT, INT, _ROWS)
def copy_payloads(
    shards: Array, spans: Array, targets: Array, start: int, stop: int, large_bytes: int, rows: Array
) -> None:
    """The payloads of rows from start to before stop, each to its place. Rows that are not OK are left alone.

    Those of `large_bytes` and more are copied past the caches. The first lines of rows to come are fetched meanwhile:
    their pages are not in the TLB, and small rows would wait.
    """
    waits = False
    for i in range(start, stop):
        if i + _ROWS_AHEAD < stop:
            prefetch(shards[rows[i + _ROWS_AHEAD]["shard"]]["base"] + np.uint64(rows[i + _ROWS_AHEAD]["begin"]))
        if rows[i]["status"] != OK:
            continue
        for target in range(len(targets)):
            size = spans[i, targets[target, COLUMN]]["size"]
            begin = spans[i, targets[target, COLUMN]]["begin"]
            to = np.uint64(targets[target, VALUES_AT])
            offsets = np.uint64(targets[target, OFFSETS_AT])
            if offsets != 0:
                to += np.uint64(load_int64(offsets + np.uint64(8 * i)))
            else:
                to += np.uint64(i) * np.uint64(targets[target, VALUE_SIZE])
            source = payload_at(shards, rows[i], begin, size, to)
            if source == 0:
                rows[i]["status"] = READ_FAILED
            elif source == to:
                continue  # it was read to its place
            elif size >= large_bytes:
                copy_past_caches(to, source, np.uint64(size))
                waits = True
            else:
                memcpy(to, source, np.uint64(size))
    if waits:
        wait_for_copies()


@kernel(NOTHING, INT, INT, INT, INT, INT, _ROWS)
def check_arrays(values_at: int, offsets_at: int, itemsize: int, start: int, stop: int, rows: Array) -> None:
    """Refuse the rows from start to before stop whose payload is not an array that fills it (spec: registry, "Arrays").

    `itemsize` is that of the dtype in the encoding's name, or 0 where each payload begins with a dtype code.
    """
    for i in range(start, stop):
        if rows[i]["status"] == OK:
            begin = load_int64(np.uint64(offsets_at) + np.uint64(8 * i))
            end = load_int64(np.uint64(offsets_at) + np.uint64(8 * (i + 1)))
            if not _is_array(np.uint64(values_at) + np.uint64(begin), end - begin, itemsize):
                rows[i]["status"] = REFUSED


@helper
def _is_array(at: Any, size: Any, itemsize: Any) -> bool:
    """Whether the bytes at this address are the header of an array and all of its values, which are not looked at."""
    if itemsize == 0:
        if size < 1:
            return False
        code = np.int64(load_uint8(at))  # eight times the size of a number, and 0, 1 or 2: unsigned, signed or float
        itemsize = code >> 3
        kinds = 2 if itemsize == 1 else 3
        if code & 7 >= kinds or not (itemsize == 1 or itemsize == 2 or itemsize == 4 or itemsize == 8):
            return False
        at += np.uint64(1)
        size -= 1
    if size < 1:
        return False
    shape = np.int64(load_uint8(at))
    dims, width = shape >> 2, np.int64(1) << (shape & 3)
    room = size - 1 - dims * width
    values = room // itemsize
    if dims == 0 or room < 1 or values * itemsize != room:
        return False
    count = np.int64(1)
    for d in range(dims):
        side = np.int64(0)
        for byte in range(width):
            part = np.int64(load_uint8(at + np.uint64(1 + d * width + byte)))
            if byte > 3 and part > 0:  # a payload is shorter than 4 GiB
                return False
            side |= part << (8 * (byte & 3))
        if side == 0 or side > values // count:
            return False
        count *= side
    return bool(count == values)


@brief_kernel(NOTHING, _ROWS, _INTS, _INTS)
def conclude(rows: Array, sample_ids: Array, bad: Array) -> None:
    """The samples of these rows, and how many of them are not OK."""
    bad[0] = 0
    for i in range(len(rows)):
        sample_ids[i] = rows[i]["sample_id"]
        bad[0] += rows[i]["status"] != OK
