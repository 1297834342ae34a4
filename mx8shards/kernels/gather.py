"""How are payloads gathered: which bytes of which shards does a batch need, and how are they copied into its rows?

These kernels run in this order. Between them, shards are opened and memory is reserved.

    locate          find the shard of each sample, and its index there
    sample_spans    find the samples in their shards by the offset tables; no sample is read
    payload_spans   find the payloads of the wanted columns in the samples, by the size headers
    fixed_spans     find the payloads of samples without a size header, in small batches
    write_offsets   compute where in the bank each row of a ragged column begins
    copy_payloads   copy the payloads to their rows
    check_arrays    check that array payloads have valid headers and sizes
    count_failed    count the rows that failed
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
_INTS, _INT_ROWS, _LAYOUTS = array(np.int64), array(np.int64, 2), array(np.int64, 3)
_SHARDS, _ROWS, _SPANS = array(SHARD), array(ROW), array(SPAN, 2)

# Fields of `kinds`, which has one row per kind of shards (shards of a kind have the same columns).
VARIABLE = 0  # number of columns of variable size
FIXED_BYTES = 1  # bytes of all columns of fixed size together

# Fields of `layouts[kind]`, which has one row per wanted column.
LAYOUT_FIELDS = 3
FIXED_BEFORE = 0  # bytes of the fixed-size columns before it
VARIABLE_BEFORE = 1  # number of variable-size columns before it
FIXED_SIZE = 2  # its size, or -1 if that varies

# Fields of `targets`, which has one row per output of the batch.
TARGET_FIELDS = 4
COLUMN = 0  # its index among the columns of the spans
VALUES_AT = 1  # address of the values
OFFSETS_AT = 2  # address of the offsets; 0 if all values have one size
VALUE_SIZE = 3  # the size of a value, if all have one size

_SEARCHES = 256
_ENTRIES_AHEAD = 16
_ROWS_AHEAD = 8


@kernel(NOTHING, _INTS, array(np.int64, readonly=True), _ROWS)
def locate(starts: Array, sample_ids: Array, rows: Array) -> None:
    """Find the shard of each sample, and store the index of the sample there in `begin`.

    The binary searches of many samples are interleaved, because each probe of a search depends on the one before.
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
    """List the shards of these rows whose `marks` entry is not `mark`, each once, and set it to `mark`."""
    count[0] = 0
    for i in range(len(rows)):
        shard = rows[i]["shard"]
        if marks[shard] != mark:
            marks[shard] = mark
            out[count[0]] = shard
            count[0] += 1


@kernel(NOTHING, _SHARDS, _ROWS)
def sample_spans(shards: Array, rows: Array) -> None:
    """Read the span of each sample from the offset table of its shard.

    The table was checked when the shard was opened, but the file may have changed since, so spans are checked again.
    Table entries are prefetched some rows ahead: in a large table, each lies on another page.
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
    """Sum the sizes of the samples in rows [bounds[k], bounds[k + 1]) to out[k], each less `overhead` bytes."""
    for k in range(len(out)):
        total = np.int64(0)
        for i in range(bounds[k], bounds[k + 1]):
            total += max(rows[i]["end"] - rows[i]["begin"] - overhead, 0)
        out[k] = total


@kernel(NOTHING, _SHARDS, _INT_ROWS, _LAYOUTS, MEMORY, _ROWS, _SPANS, _INTS)
def payload_spans(
    shards: Array, kinds: Array, layouts: Array, header: Array, rows: Array, spans: Array, totals: Array
) -> None:
    """Compute the spans of the wanted columns of each sample from its size header, and each column's total size.

    `header` is scratch for one size header. A row that is not OK, or whose sizes do not add up, gets empty spans.
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
            # copy the header: the file may change between checking and using the sizes
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


@brief_kernel(NOTHING, _SHARDS, _INT_ROWS, _LAYOUTS, _ROWS, _SPANS, _INTS)
def fixed_spans(shards: Array, kinds: Array, layouts: Array, rows: Array, spans: Array, totals: Array) -> None:
    """As `payload_spans`, for shards whose columns all have fixed sizes; no sample is read. For small batches."""
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


@kernel(NOTHING, _SPANS, _INT_ROWS)
def write_offsets(spans: Array, targets: Array) -> None:
    """Write the offsets of all ragged columns: where each row begins among the values, and the end of the last row."""
    for target in range(len(targets)):
        if targets[target, OFFSETS_AT] != 0:
            at = np.uint64(targets[target, OFFSETS_AT])
            total = np.int64(0)
            for i in range(len(spans)):
                store_int64(at + np.uint64(8 * i), total)
                total += spans[i, targets[target, COLUMN]]["size"]
            store_int64(at + np.uint64(8 * len(spans)), total)


@kernel(NOTHING, _SHARDS, _SPANS, _INT_ROWS, INT, INT, INT, _ROWS)
def copy_payloads(
    shards: Array, spans: Array, targets: Array, start: int, stop: int, large_bytes: int, rows: Array
) -> None:
    """Copy the payloads of rows [start, stop) to the bank. Rows that are not OK are skipped.

    Payloads of at least `large_bytes` are copied past the caches. Some rows ahead, the first cache line is prefetched:
    its page is not in the TLB, and copies of small payloads would wait for it.
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
                continue  # it was read directly into the bank
            elif size >= large_bytes:
                copy_past_caches(to, source, np.uint64(size))
                waits = True
            else:
                memcpy(to, source, np.uint64(size))
    if waits:
        wait_for_copies()


@kernel(NOTHING, INT, INT, INT, INT, INT, _ROWS)
def check_arrays(values_at: int, offsets_at: int, itemsize: int, start: int, stop: int, rows: Array) -> None:
    """Refuse the rows [start, stop) whose payload is not exactly one array (spec: registry, "Arrays").

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
    """Whether these bytes are an array header followed by as many values as it declares. Values are not read."""
    if itemsize == 0:
        if size < 1:
            return False
        code = np.int64(load_uint8(at))  # item size << 3 | kind: 0 unsigned, 1 signed, 2 float
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
            value = np.int64(load_uint8(at + np.uint64(1 + d * width + byte)))
            if byte > 3 and value > 0:  # a payload is shorter than 4 GiB
                return False
            side |= value << (8 * (byte & 3))
        if side == 0 or side > values // count:
            return False
        count *= side
    return bool(count == values)


@brief_kernel(NOTHING, _ROWS, _INTS, _INTS)
def count_failed(rows: Array, sample_ids: Array, bad: Array) -> None:
    """Copy the sample_ids of these rows, and count the rows that are not OK."""
    bad[0] = 0
    for i in range(len(rows)):
        sample_ids[i] = rows[i]["sample_id"]
        bad[0] += rows[i]["status"] != OK
