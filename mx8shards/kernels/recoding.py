"""How is the restart interval of a JPEG's entropy-coded data changed without decoding coefficients to pixels?

A restart marker changes two things: the bits before it are padded to whole bytes, and the first DC coefficient of each
component after it is coded as an absolute value instead of as a difference. All other bits are copied in long runs;
they are decoded only to find the end of each block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.bit_runs import append_bits, append_run, append_stuffed, load_word, unstuff
from mx8shards.kernels.huffman_tables import CATEGORIES, HUFFMAN, LOOKUPS, PEEK, lookup_entry, symbol_at
from mx8shards.kernels.jit import BYTES, INT, MEMORY, array, helper, inlined_helper, kernel, record, tuple_of
from mx8shards.kernels.jpeg import BAD_ENTROPY, HEAD, NO_CODE, NO_ROOM

Array = npt.NDArray[Any]
Record = Any

SPARE = 512  # bytes after the unstuffed bits: a damaged block may be read past their end, before that is detected

# Fields of `found`, the state of `recode`. The public ones are results.
FOUND = 28  # number of fields
END = 0  # offset at which the entropy-coded data ends
PADDING = 1  # padding of the intervals that were read: its last n bits fill n missing bits
PADDED = 2  # number of bits of PADDING that are known
USED = 3  # 1 if codes were written that are not in the file's tables
_READ = 4  # by component: the previous DC coefficient that was read
_WRITTEN = 8  # by component: the previous DC coefficient that was written
_BLOCKS = 12  # by component: blocks per MCU
_DC = 16  # by component: Huffman table of the DC coefficients
_AC = 20  # by component: Huffman table of the AC coefficients
_LIMIT = 24  # number of bits of the interval that is read
_SIZE = 25  # number of bytes that are written
_BEGUN = 26  # number of bytes before the interval that is written

_TABLES = tuple_of(array(HUFFMAN), LOOKUPS)  # types
_BUFFERS = tuple_of(MEMORY, MEMORY, MEMORY)


@kernel(INT, BYTES, record(HEAD), _TABLES, INT, INT, _BUFFERS, array(np.int64), array(np.int64))
def recode(
    data: Array,
    head: Record,
    codes: tuple[Array, Array],
    interval: int,
    padding: int,
    buffers: tuple[Array, Array, Array],
    sizes: Array,
    found: Array,
) -> Any:
    """Write the entropy-coded data with another restart interval; return its size in bytes, or a negative status.

    `codes` are the tables and lookups from `prepare`. `buffers` are scratch for the bits of an interval that is read,
    scratch for those of an interval that is written, and the output. `sizes` receives the size of each interval that is
    written, without its marker. `padding` pads the intervals that are written.
    """
    bits, new_bits, out = buffers
    _begin(head, found)
    total = head["columns"] * head["rows"]
    interval = interval if interval > 0 else total
    read_interval = head["restart_interval"] if head["restart_interval"] > 0 else total
    run = np.int64(0)  # the first bit of the interval that is not copied yet
    filled = np.int64(0)  # number of bits written to `new_bits`, or a negative status
    buffer = valid = at = np.uint64(0)
    for mcu in range(total):
        if mcu % read_interval == 0:
            filled = _read_interval(
                data, mcu // read_interval, _position(at, valid), run, filled, bits, new_bits, found
            )
            if filled < 0:
                return filled
            run = np.int64(0)
            buffer = valid = at = np.uint64(0)
        if mcu % interval == 0:
            position = _position(at, valid)
            filled = append_run(bits, run, position, new_bits, filled)
            filled = _end_interval(mcu // interval - 1, True, new_bits, filled, padding, out, sizes, found)
            if filled < 0:
                return filled
            run = position
        for component in range(head["components"]):
            for _ in range(found[_BLOCKS + component]):
                buffer, valid, at, run, filled = _recode_block(
                    bits, buffer, valid, at, run, filled, component, codes, new_bits, found
                )
                if filled < 0:
                    return filled
    position = _position(at, valid)
    if not _check_end(bits, position, found):
        return -BAD_ENTROPY
    filled = append_run(bits, run, position, new_bits, filled)
    filled = _end_interval((total - 1) // interval, False, new_bits, filled, padding, out, sizes, found)
    return filled if filled < 0 else found[_SIZE]


@helper
def _begin(head: Record, found: Array) -> None:
    """Set the state before the first interval."""
    found[:] = 0
    for component in range(head["components"]):
        found[_BLOCKS + component] = head["h"][component] * head["v"][component] if head["components"] > 1 else 1
        found[_DC + component] = head["dc_table"][component]
        found[_AC + component] = 4 + head["ac_table"][component]
    found[END] = head["entropy"] - 2


@helper
def _read_interval(
    data: Array, number: Any, position: Any, run: Any, filled: Any, bits: Array, new_bits: Array, found: Array
) -> Any:
    """Copy the rest of the interval that was read, and unstuff the next one; the bits written, or a negative status."""
    end = found[END]
    if number > 0:
        if not _check_end(bits, position, found):
            return -BAD_ENTROPY
        if end + 2 > len(data) or data[end + 1] != 0xD0 + (number - 1) % 8:
            return -BAD_ENTROPY
        filled = append_run(bits, run, position, new_bits, filled)
        if filled < 0:
            return filled
    if len(data) - end + SPARE > len(bits):
        return -NO_ROOM
    found[END], count = unstuff(data, end + 2, bits)
    found[_LIMIT] = 8 * count
    found[_READ : _READ + 4] = 0
    return filled


@helper
def _end_interval(
    number: Any, marked: Any, new_bits: Array, filled: Any, padding: Any, out: Array, sizes: Array, found: Array
) -> Any:
    """Write interval `number`, if that is not negative, and a restart marker if `marked`; 0, or a negative status."""
    if number >= 0 and filled >= 0:
        size = append_stuffed(new_bits, filled, padding, out, found[_SIZE])
        if size < 0:
            return size
        sizes[number] = size - found[_BEGUN]
        if marked:
            out[size] = 0xFF
            out[size + 1] = 0xD0 + number % 8
            size += 2
        found[_SIZE] = found[_BEGUN] = size
    found[_WRITTEN : _WRITTEN + 4] = 0
    return filled if filled < 0 else np.int64(0)


@inlined_helper
def _recode_block(
    bits: Array,
    buffer: Any,
    valid: Any,
    at: Any,
    run: Any,
    filled: Any,
    component: Any,
    codes: tuple[Array, Array],
    new_bits: Array,
    found: Array,
) -> Any:
    """Read one block, and write its DC coefficient if it has to be coded anew.

    Returns the position of reading (`buffer`, `valid`, `at`), `run`, and `filled`, as in `recode`.
    """
    tables, lookups = codes
    dc, ac = np.uint64(found[_DC + component]), np.uint64(found[_AC + component])
    buffer |= load_word(bits, at) >> valid
    at += (np.uint64(63) - valid) >> np.uint64(3)
    valid |= np.uint64(56)
    position = _position(at, valid)
    entry = np.int64(lookups[dc, buffer >> np.uint64(64 - PEEK)])
    if entry == 0:
        symbol = symbol_at(tables[dc], buffer)
        entry = lookup_entry(symbol & 255, symbol >> 8, False) if symbol >= 0 else np.int64(CATEGORIES << 6)
    category = entry >> 6 & 127
    if category >= CATEGORIES:
        return buffer, valid, at, run, np.int64(-BAD_ENTROPY)
    buffer <<= np.uint64(entry & 63)
    value = np.int64(buffer >> np.uint64(63 - category) >> np.uint64(1))
    if value < (1 << category) >> 1:
        value -= (1 << category) - 1
    buffer <<= np.uint64(category)
    valid -= np.uint64((entry & 63) + category)
    value += found[_READ + component]
    if found[_READ + component] != found[_WRITTEN + component]:
        filled = append_run(bits, run, position, new_bits, filled)
        if filled >= 0:
            filled = _append_dc(tables[dc], value - found[_WRITTEN + component], new_bits, filled, found)
        run = _position(at, valid)
    found[_READ + component] = value
    found[_WRITTEN + component] = value
    buffer, valid, at, good = _skip_ac(bits, buffer, valid, at, tables, ac, lookups)
    if filled >= 0 and (not good or _position(at, valid) > found[_LIMIT]):
        filled = np.int64(-BAD_ENTROPY)
    return buffer, valid, at, run, filled


@helper
def _append_dc(table: Record, difference: Any, out: Array, filled: Any, found: Array) -> Any:
    """Append a DC difference; return the new number of bits, or -NO_CODE if the table has no code for it."""
    category = 0
    while abs(difference) >> category > 0:
        category += 1
    if category >= CATEGORIES or table["lengths"][category] == 0:
        return -NO_CODE
    value = difference if difference >= 0 else difference + (1 << category) - 1
    found[USED] |= table["added"] >> category & 1
    size = table["lengths"][category] + category
    word = np.uint64(table["codes"][category] << category | value)
    append_bits(out, filled, word << np.uint64(64 - size))
    return filled + size


@helper
def _ends(k: Any, advance: Any) -> Any:
    """Whether a block ends exactly after this advance: at coefficient 64, or with an end-of-block code before it."""
    return k + advance == 64 if advance < 64 else k + advance < 128


@inlined_helper
def _skip_ac(
    bits: Array, buffer: Any, valid: Any, at: Any, tables: Array, number: Any, lookups: Array
) -> tuple[Any, Any, Any, bool]:
    """Skip the AC coefficients of a block; the last result is False if they are invalid.

    The `valid` most significant bits of `buffer` are the next bits; the bits from byte `at` on follow them.
    """
    k = np.int64(1)
    while True:
        buffer |= load_word(bits, at) >> valid
        at += (np.uint64(63) - valid) >> np.uint64(3)
        valid |= np.uint64(56)
        entry = np.int64(lookups[number + np.uint64(4), buffer >> np.uint64(64 - PEEK)])
        advance = entry >> 6 & 127
        if k + advance < 64:  # one more lookup: at least 34 valid bits are left, and a symbol has at most 26
            buffer <<= np.uint64(entry & 63)
            valid -= np.uint64(entry & 63)
            k += advance
            entry = np.int64(lookups[number + np.uint64(4), buffer >> np.uint64(64 - PEEK)])
            advance = entry >> 6 & 127
        if k + advance >= 64 and (not _ends(k, advance) or entry & 63 == 0):  # a single symbol
            entry = np.int64(lookups[number, buffer >> np.uint64(64 - PEEK)])
            if entry == 0:
                found = symbol_at(tables[number], buffer)
                entry = lookup_entry(found & 255, found >> 8, True) if found >= 0 else np.int64(0)
            advance = entry >> 6 & 127
            if entry == 0 or (k + advance >= 64 and not _ends(k, advance)):
                return buffer, valid, at, False
        buffer <<= np.uint64(entry & 63)
        valid -= np.uint64(entry & 63)
        k += advance
        if k >= 64:
            return buffer, valid, at, True


@helper
def _position(at: Any, valid: Any) -> Any:
    """The position of the next bit."""
    return np.int64(at) * 8 - np.int64(valid)


@helper
def _check_end(bits: Array, position: Any, found: Array) -> Any:
    """Whether an interval ends within its last byte, and is padded as the earlier ones."""
    limit = found[_LIMIT]
    missing = limit - position
    if not 0 <= missing < 8:
        return False
    if missing == 0:
        return True
    seen = np.int64(bits[(limit >> 3) - 1]) & ((1 << missing) - 1)
    known = (1 << min(missing, found[PADDED])) - 1
    if (seen ^ found[PADDING]) & known != 0:
        return False
    if missing > found[PADDED]:
        found[PADDED] = missing
        found[PADDING] = seen
    return True
