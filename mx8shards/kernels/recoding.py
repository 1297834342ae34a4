"""How do the entropy-coded data of a JPEG get restart markers at other places?

A restart marker changes two things: the bits before it are padded to whole bytes, and the first DC coefficient of each
component after it is coded as it is, not as the difference to the one before. All other bits are copied as they are, in
runs that are as long as possible; they are decoded only to find where each block ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.bit_runs import append_bits, append_packed, append_run, load_word, unpack
from mx8shards.kernels.huffman_tables import CATEGORIES, HUFFMAN, LOOKUPS, PEEK, meaning_of, symbol_at
from mx8shards.kernels.jit import BYTES, INT, MEMORY, array, helper, inlined_helper, kernel, record, several
from mx8shards.kernels.jpeg import BAD_ENTROPY, HEAD, NO_CODE, NO_ROOM

Array = npt.NDArray[Any]
Record = Any

SPARE = 512  # bytes that must be free behind unpacked bits: a block of nonsense is read to its end before that is seen

# What `recode` found out, in an array of so many numbers. The rest of them are its own.
FOUND = 28
END = 0  # where the entropy-coded data end
PADDING = 1  # the bits that intervals end with: the last n bits of this number where n are missing
PADDED = 2  # how many bits of it are known
USED = 3  # whether codes were written that the file's tables don't have
_READ = 4  # by component: the DC coefficient that came before it, where it was read
_WRITTEN = 8  # and where it is written
_BLOCKS = 12  # how many blocks of it are in an MCU
_DC = 16  # which table its DC coefficients have
_AC = 20  # and its AC coefficients
_LIMIT = 24  # how many bits the interval has that is read
_SIZE = 25  # how many bytes are written
_BEGUN = 26  # of these, how many before the interval that is written

_TABLES = several(array(HUFFMAN), LOOKUPS)  # types
_ROOMS = several(MEMORY, MEMORY, MEMORY)


@kernel(INT, BYTES, record(HEAD), _TABLES, INT, INT, _ROOMS, array(np.int64), array(np.int64))
def recode(
    data: Array,
    head: Record,
    codes: tuple[Array, Array],
    interval: int,
    padding: int,
    rooms: tuple[Array, Array, Array],
    sizes: Array,
    found: Array,
) -> Any:
    """Write the entropy-coded data with another restart interval; how many bytes they are, or a status below zero.

    `codes` are the tables and lookups that `prepare` filled in. `rooms` are for the bits of one interval as they are
    read, for those of one as they are written, and for what is written. `sizes` gets the size of each interval that is
    written, without its marker.
    """
    bits, fresh, out = rooms
    _begin(head, found)
    total = head["columns"] * head["rows"]
    interval = interval if interval > 0 else total
    read_interval = head["restart_interval"] if head["restart_interval"] > 0 else total
    run = np.int64(0)  # the bits before this one are copied
    filled = np.int64(0)  # how many bits of the interval are written; or a status below zero
    window = valid = at = np.uint64(0)
    for mcu in range(total):
        if mcu % read_interval == 0:
            filled = _read_interval(data, mcu // read_interval, _position(at, valid), run, filled, bits, fresh, found)
            if filled < 0:
                return filled
            run = np.int64(0)
            window = valid = at = np.uint64(0)
        if mcu % interval == 0:
            position = _position(at, valid)
            filled = append_run(bits, run, position, fresh, filled)
            filled = _end_interval(mcu // interval - 1, True, fresh, filled, padding, out, sizes, found)
            if filled < 0:
                return filled
            run = position
        for component in range(head["components"]):
            for _ in range(found[_BLOCKS + component]):
                window, valid, at, run, filled = _recode_block(
                    bits, window, valid, at, run, filled, component, codes, fresh, found
                )
                if filled < 0:
                    return filled
    position = _position(at, valid)
    if not _check_end(bits, position, found):
        return -BAD_ENTROPY
    filled = append_run(bits, run, position, fresh, filled)
    filled = _end_interval((total - 1) // interval, False, fresh, filled, padding, out, sizes, found)
    return filled if filled < 0 else found[_SIZE]


@helper
def _begin(head: Record, found: Array) -> None:
    """What is known before the first interval."""
    found[:] = 0
    for component in range(head["components"]):
        found[_BLOCKS + component] = head["h"][component] * head["v"][component] if head["components"] > 1 else 1
        found[_DC + component] = head["dc_table"][component]
        found[_AC + component] = 4 + head["ac_table"][component]
    found[END] = head["entropy"] - 2


@helper
def _read_interval(
    data: Array, number: Any, position: Any, run: Any, filled: Any, bits: Array, fresh: Array, found: Array
) -> Any:
    """Copy the rest of the interval that was read, and unpack the next one; how many bits are written, or a status."""
    end = found[END]
    if number > 0:
        if not _check_end(bits, position, found):
            return -BAD_ENTROPY
        if end + 2 > len(data) or data[end + 1] != 0xD0 + (number - 1) % 8:
            return -BAD_ENTROPY
        filled = append_run(bits, run, position, fresh, filled)
        if filled < 0:
            return filled
    if len(data) - end + SPARE > len(bits):
        return -NO_ROOM
    found[END], count = unpack(data, end + 2, bits)
    found[_LIMIT] = 8 * count
    found[_READ : _READ + 4] = 0
    return filled


@helper
def _end_interval(
    number: Any, marked: Any, fresh: Array, filled: Any, padding: Any, out: Array, sizes: Array, found: Array
) -> Any:
    """Pack the interval of this number, if there is one, with a marker behind it; 0, or a status below zero."""
    if number >= 0 and filled >= 0:
        size = append_packed(fresh, filled, padding, out, found[_SIZE])
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
    window: Any,
    valid: Any,
    at: Any,
    run: Any,
    filled: Any,
    component: Any,
    codes: tuple[Array, Array],
    fresh: Array,
    found: Array,
) -> Any:
    """Read one block, and write its DC coefficient if that is coded in another way now.

    Returns where reading is (`window`, `valid`, `at`), which bits are copied, and how many are written, or a status.
    """
    tables, lookups = codes
    dc, ac = np.uint64(found[_DC + component]), np.uint64(found[_AC + component])
    window |= load_word(bits, at) >> valid
    at += (np.uint64(63) - valid) >> np.uint64(3)
    valid |= np.uint64(56)
    position = _position(at, valid)
    element = np.int64(lookups[dc, window >> np.uint64(64 - PEEK)])
    if element == 0:
        symbol = symbol_at(tables[dc], window)
        element = meaning_of(symbol & 255, symbol >> 8, False) if symbol >= 0 else np.int64(CATEGORIES << 6)
    category = element >> 6 & 127
    if category >= CATEGORIES:
        return window, valid, at, run, np.int64(-BAD_ENTROPY)
    window <<= np.uint64(element & 63)
    value = np.int64(window >> np.uint64(63 - category) >> np.uint64(1))
    if value < (1 << category) >> 1:
        value -= (1 << category) - 1
    window <<= np.uint64(category)
    valid -= np.uint64((element & 63) + category)
    value += found[_READ + component]
    if found[_READ + component] != found[_WRITTEN + component]:
        filled = append_run(bits, run, position, fresh, filled)
        if filled >= 0:
            filled = _append_dc(tables[dc], value - found[_WRITTEN + component], fresh, filled, found)
        run = _position(at, valid)
    found[_READ + component] = value
    found[_WRITTEN + component] = value
    window, valid, at, good = _skip_ac(bits, window, valid, at, tables, ac, lookups)
    if filled >= 0 and (not good or _position(at, valid) > found[_LIMIT]):
        filled = np.int64(-BAD_ENTROPY)
    return window, valid, at, run, filled


@helper
def _append_dc(table: Record, difference: Any, out: Array, filled: Any, found: Array) -> Any:
    """Append a DC difference; how many bits are there then, or -NO_CODE if there is no code for it."""
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
def _ends(k: Any, steps: Any) -> Any:
    """Whether a block ends with these steps, and not beyond its last coefficient."""
    return k + steps == 64 if steps < 64 else k + steps < 128


@inlined_helper
def _skip_ac(
    bits: Array, window: Any, valid: Any, at: Any, tables: Array, number: Any, lookups: Array
) -> tuple[Any, Any, Any, bool]:
    """Read to the end of a block, and say whether it has one.

    The highest `valid` bits of the window are the next ones, those from byte `at` on come after them.
    """
    k = np.int64(1)
    while True:
        window |= load_word(bits, at) >> valid
        at += (np.uint64(63) - valid) >> np.uint64(3)
        valid |= np.uint64(56)
        element = np.int64(lookups[number + np.uint64(4), window >> np.uint64(64 - PEEK)])
        steps = element >> 6 & 127
        if k + steps < 64:  # once more: at least 34 bits are left, and no symbol has more than 26
            window <<= np.uint64(element & 63)
            valid -= np.uint64(element & 63)
            k += steps
            element = np.int64(lookups[number + np.uint64(4), window >> np.uint64(64 - PEEK)])
            steps = element >> 6 & 127
        if k + steps >= 64 and (not _ends(k, steps) or element & 63 == 0):  # one by one, then
            element = np.int64(lookups[number, window >> np.uint64(64 - PEEK)])
            if element == 0:
                found = symbol_at(tables[number], window)
                element = meaning_of(found & 255, found >> 8, True) if found >= 0 else np.int64(0)
            steps = element >> 6 & 127
            if element == 0 or (k + steps >= 64 and not _ends(k, steps)):
                return window, valid, at, False
        window <<= np.uint64(element & 63)
        valid -= np.uint64(element & 63)
        k += steps
        if k >= 64:
            return window, valid, at, True


@helper
def _position(at: Any, valid: Any) -> Any:
    """Where the next bit is."""
    return np.int64(at) * 8 - np.int64(valid)


@helper
def _check_end(bits: Array, position: Any, found: Array) -> Any:
    """Whether an interval ends within its last byte, padded with the same bits as those before it."""
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
