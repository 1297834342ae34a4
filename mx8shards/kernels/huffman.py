"""How do the entropy-coded data of a JPEG get restart markers at other places?

A restart marker changes two things: the bits before it are padded to whole bytes, and the first DC coefficient of each
component after it is coded as it is, not as the difference to the one before. All other bits are copied as they are, in
runs that are as long as possible; they are looked at only to find out where each block ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BYTES, INT, MEMORY, array, helper, kernel, record
from mx8shards.kernels.jpeg import BAD_ENTROPY, BAD_SEGMENT, HEAD, NO_CODE, NO_ROOM, OK, copy, skip_fill, uint16

Array = npt.NDArray[Any]
Record = Any

# One Huffman table: the first four of eight are for DC coefficients, the others for AC.
HUFFMAN = np.dtype(
    [
        ("counts", "i8", (17,)),  # how many codes of each length
        ("symbols", "i8", (256,)),  # what they mean, in the order of the codes
        ("given", "i8"),  # how many of them stood in the file
        ("total", "i8"),  # and with those that `extend` added
        ("added", "i8"),  # which these are, one bit each
        ("first_code", "i8", (17,)),  # of each length
        ("first_symbol", "i8", (17,)),  # the place of its meaning
        ("codes", "i8", (256,)),  # by symbol
        ("lengths", "i8", (256,)),  # 0 where it has none
        ("derived", "i8"),  # whether what follows was derived, and of which table: most pictures have the same ones
        ("derived_counts", "i8", (17,)),
        ("derived_symbols", "i8", (256,)),
    ]
)

PEEK = 12  # bits that are looked up at once: longer codes are rare, and a larger table takes long to make
SPARE = 512  # bytes that must be free behind unpacked bits: a block of nonsense is read to its end before that is seen
_MOST_BITS = 10  # of an AC coefficient
CATEGORIES = 12  # of DC differences, with 8 bits per sample

# What `recode` found out, in an array of so many numbers. The rest of them are its own.
FOUND = 24
END = 0  # where the entropy-coded data end
PADDING = 1  # the bits that intervals end with: the last n bits of this number where n are missing
PADDED = 2  # how many bits of it are known
USED = 3  # whether codes were written that the file's tables don't have
_READ = 4  # by component: the DC coefficient that came before it, where it was read
_WRITTEN = 8  # and where it is written
_BLOCKS = 12  # how many blocks of it are in an MCU
_DC = 16  # which table its DC coefficients have
_AC = 20  # and its AC coefficients


_INTS, _LOOKUPS = array(np.int64), array(np.uint32, 2)  # types


# tables --------------------------------------------------------------------------------------------------------------


@kernel(INT, BYTES, record(HEAD), array(HUFFMAN), _LOOKUPS)
def prepare(data: Array, head: Record, tables: Array, lookups: Array) -> int:
    """Fill in the Huffman tables that the first scan finds, with all that `recode` must know of them; a status."""
    status = _read_tables(data, head, tables)
    if status == OK:
        for component in range(head["components"]):
            extend(tables[head["dc_table"][component]])
        for number in range(8):
            _derive(tables, number, lookups)
    return status


@helper
def _read_tables(data: Array, head: Record, tables: Array) -> int:
    for i in range(8):
        tables[i]["total"] = tables[i]["added"] = 0
        tables[i]["counts"][:] = 0
    at = 2
    while True:
        at = skip_fill(data, at)
        if at >= head["sos"]:
            return OK
        end = at + 2 + uint16(data, at + 2)
        if data[at + 1] == 0xC4:
            at += 4
            while at < end:
                at = _read_table(data, at, end, tables)
                if at < 0:
                    return BAD_SEGMENT
        at = end


@helper
def _read_table(data: Array, at: Any, end: Any, tables: Array) -> Any:
    """One table of a segment; where the next one begins, or -1 for a table that libjpeg refuses.

    It refuses one with a code of ones alone, and a DC category above 15.
    """
    number = np.int64(data[at])
    if at + 17 > end or number >> 4 > 1 or number & 15 > 3:
        return -1
    table = tables[(number >> 4) * 4 + (number & 15)]
    total = np.int64(0)
    room = np.int64(1 << 16)  # codes of 16 bits that are still free
    table["counts"][0] = 0
    for length in range(1, 17):
        count = np.int64(data[at + length])
        table["counts"][length] = count
        total += count
        room -= count << (16 - length)
    if room <= 0 or total > 256 or at + 17 + total > end:
        return -1
    for i in range(total):
        table["symbols"][i] = data[at + 17 + i]
        if number >> 4 == 0 and data[at + 17 + i] > 15:
            return -1
    table["given"] = table["total"] = total
    table["added"] = 0
    return at + 17 + total


@helper
def extend(table: Record) -> None:
    """Give a table of DC codes one for each category, behind all others, if there is room.

    An encoder that counts first makes codes for what it meets; at the beginning of a tile larger numbers stand.
    """
    absent = (1 << CATEGORIES) - 1  # the categories without a code, one bit each
    for i in range(table["total"]):
        absent &= ~(1 << table["symbols"][i])
    missing = 0
    for category in range(CATEGORIES):
        missing += absent >> category & 1
    room = 1 << 16
    longest = 1
    for length in range(1, 17):
        room -= table["counts"][length] << (16 - length)
        if table["counts"][length] > 0:
            longest = length
    while longest < 16 and room >> (16 - longest) <= missing:
        longest += 1
    if missing == 0 or room >> (16 - longest) <= missing or table["total"] + missing > 256:
        return  # a code of ones alone is none
    table["counts"][longest] += missing
    for category in range(CATEGORIES):
        if absent >> category & 1:
            table["symbols"][table["total"]] = category
            table["total"] += 1
            table["added"] |= 1 << category


@helper
def _derive(tables: Array, number: int, lookups: Array) -> None:
    """All that follows from the lengths of a table's codes.

    A table's row of `lookups` says which symbol the next bits begin with, as `_meaning` has it, or 0 where its code is
    longer. For AC, the row four further on says the same of all symbols whose codes lie within these bits.
    """
    table = tables[number]
    lookup = lookups[number]
    if _is_derived(table):
        return
    table["lengths"][:] = 0
    lookup[:] = 0
    code = 0
    place = 0
    for length in range(1, 17):
        table["first_code"][length] = code
        table["first_symbol"][length] = place
        for _ in range(table["counts"][length]):
            symbol = table["symbols"][place]
            table["codes"][symbol] = code
            table["lengths"][symbol] = length
            if length <= PEEK:
                meaning = _meaning(symbol, length, number >= 4)
                for index in range(code << (PEEK - length), (code + 1) << (PEEK - length)):
                    lookup[index] = meaning
            code += 1
            place += 1
        code <<= 1
    if number >= 4:
        _group(lookup, lookups[number + 4])


@helper
def _is_derived(table: Record) -> Any:
    """Whether this was done for the same table the last time. From now on it was."""
    same = table["derived"] != 0
    for length in range(17):
        same = same and table["counts"][length] == table["derived_counts"][length]
        table["derived_counts"][length] = table["counts"][length]
    for place in range(table["total"]):
        same = same and table["symbols"][place] == table["derived_symbols"][place]
        table["derived_symbols"][place] = table["symbols"][place]
    table["derived"] = 1
    return same


@helper
def _meaning(symbol: Any, length: Any, of_ac: bool) -> Any:
    """What a code says: how many bits it takes with its value (6 bits), its steps (7), and its own length.

    The steps are the category of a DC difference; for AC the coefficients that it tells of, and 64 more if it ends the
    block. 0 for a symbol that there is not in sequential files of 8 bits per sample.
    """
    size = symbol & 15
    if not of_ac:
        return length | symbol << 6
    if size > _MOST_BITS:
        return 0
    if size > 0 or symbol == 0xF0:
        return (length + size) | ((symbol >> 4) + 1) << 6 | length << 13
    return length | 64 << 6 | length << 13 if symbol == 0 else 0


@helper
def _group(lookup: Array, out: Array) -> None:
    """Which symbols' codes lie within so many bits, all together. The last one's value may go beyond."""
    for index in range(1 << PEEK):
        used = np.int64(0)
        steps = np.int64(0)
        while used < PEEK and steps < 64:
            one = np.int64(lookup[(index << used) & ((1 << PEEK) - 1)])
            more = one >> 6 & 127
            if one == 0 or used + (one >> 13) > PEEK or (more < 64 and steps + more >= 64):
                break
            used += one & 63
            steps += more
        out[index] = used | steps << 6 if used > 0 else 127 << 6


@helper
def _symbol(table: Record, window: Any) -> Any:
    """The symbol whose code the highest of 64 bits begin with, and behind it (<< 8) the code's length; or -1."""
    first = np.int64(window >> np.uint64(48))
    for length in range(1, 17):
        place = (first >> (16 - length)) - table["first_code"][length]
        if 0 <= place < table["counts"][length]:
            return table["symbols"][table["first_symbol"][length] + place] | length << 8
    return -1


# bits ----------------------------------------------------------------------------------------------------------------


@helper
def _load(bits: Array, at: Any) -> Any:
    """Eight bytes as a big-endian number: written like this, it is one instruction."""
    return (
        np.uint64(bits[at]) << np.uint64(56)
        | np.uint64(bits[at + np.uint64(1)]) << np.uint64(48)
        | np.uint64(bits[at + np.uint64(2)]) << np.uint64(40)
        | np.uint64(bits[at + np.uint64(3)]) << np.uint64(32)
        | np.uint64(bits[at + np.uint64(4)]) << np.uint64(24)
        | np.uint64(bits[at + np.uint64(5)]) << np.uint64(16)
        | np.uint64(bits[at + np.uint64(6)]) << np.uint64(8)
        | np.uint64(bits[at + np.uint64(7)])
    )


@helper
def _store(out: Array, at: Any, word: Any) -> None:
    """Write eight bytes as a big-endian number."""
    for i in range(8):
        out[at + np.uint64(i)] = word >> np.uint64(56 - 8 * i) & np.uint64(255)


@helper
def _has_ones(word: Any) -> Any:
    """Whether one of eight bytes is 0xFF."""
    return (~word - np.uint64(0x0101010101010101)) & word & np.uint64(0x8080808080808080) != 0


@helper
def _append(out: Array, filled: Any, window: Any) -> None:
    """Write the highest 56 of 64 bits behind so many bits that are there. What stood there is lost."""
    at = np.uint64(filled >> 3)
    shift = np.uint64(filled & 7)
    kept = np.uint64(out[at]) & (np.uint64(0xFF00) >> shift)
    _store(out, at, kept << np.uint64(56) | window >> shift)


@helper
def _append_run(bits: Array, begin: Any, end: Any, out: Array, filled: Any) -> Any:
    """Append the bits from `begin` to before `end`; how many are there then, or -1 if there is no room for 64 more."""
    if filled + end - begin + 128 > 8 * len(out):
        return -1
    for at in range(begin, end, 56):
        _append(out, filled, _load(bits, np.uint64(at >> 3)) << np.uint64(at & 7))
        filled += min(56, end - at)
    return filled


@helper
def _append_dc(table: Record, difference: Any, out: Array, filled: Any, found: Array) -> Any:
    """Append a DC difference; how many bits are there then, or -1 if there is no code for it."""
    category = 0
    while abs(difference) >> category > 0:
        category += 1
    if category >= CATEGORIES or table["lengths"][category] == 0:
        return -1
    value = difference if difference >= 0 else difference + (1 << category) - 1
    found[USED] |= table["added"] >> category & 1
    size = table["lengths"][category] + category
    word = np.uint64(table["codes"][category] << category | value)
    _append(out, filled, word << np.uint64(64 - size))
    return filled + size


@helper
def _next_ones(data: Array, at: Any, end: Any) -> Any:
    """Where the next 0xFF is, or the end."""
    while at + np.uint64(8) <= end and not _has_ones(_load(data, at)):
        at += np.uint64(8)
    while at < end and data[at] != 0xFF:
        at += np.uint64(1)
    return at


@helper
def _unpack(data: Array, at: Any, bits: Array) -> tuple[Any, Any]:
    """The bytes up to the next marker without what is stuffed between them: where that is, and how many they are."""
    count = np.uint64(0)
    place = np.uint64(at)
    size = np.uint64(len(data))
    while True:
        start = place
        place = _next_ones(data, start, size)
        copy(data, start, place, bits, count)
        count += place - start
        if place + np.uint64(1) >= size or data[place + np.uint64(1)] != 0:
            return np.int64(place), np.int64(count)
        bits[count] = 0xFF
        count += np.uint64(1)
        place += np.uint64(2)


@helper
def _pack(bits: Array, count: Any, out: Array, size: Any) -> Any:
    """Append so many bytes, with a zero behind each 0xFF; the size of `out` then."""
    to = np.uint64(size)
    place = np.uint64(0)
    end = np.uint64(count)
    while True:
        start = place
        place = _next_ones(bits, start, end)
        copy(bits, start, place, out, to)
        to += place - start
        if place == end:
            return np.int64(to)
        out[to] = 0xFF
        out[to + np.uint64(1)] = 0
        to += np.uint64(2)
        place += np.uint64(1)


@helper
def _close(bits: Array, filled: Any, padding: Any, out: Array, size: Any) -> Any:
    """Pad bits to whole bytes and append them; the size of `out` then, or -1 if there is no room."""
    missing = -filled & 7
    if missing > 0:
        _append(bits, filled, np.uint64(padding & ((1 << missing) - 1)) << np.uint64(64 - missing))
    count = (filled + missing) >> 3
    if size + 2 * count + 2 > len(out):
        return -1
    return _pack(bits, count, out, size)


# blocks --------------------------------------------------------------------------------------------------------------


@helper
def _ends(k: Any, steps: Any) -> Any:
    """Whether a block ends with these steps, and not beyond its last coefficient."""
    return k + steps == 64 if steps < 64 else k + steps < 128


@helper
def _skip_ac(
    bits: Array, window: Any, valid: Any, at: Any, tables: Array, number: Any, lookups: Array
) -> tuple[Any, Any, Any, bool]:
    """Read to the end of a block, and say whether it has one.

    The highest `valid` bits of the window are the next ones, those from byte `at` on come after them.
    """
    k = np.int64(1)
    while True:
        window |= _load(bits, at) >> valid
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
                found = _symbol(tables[number], window)
                element = _meaning(found & 255, found >> 8, True) if found >= 0 else np.int64(0)
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


@kernel(
    INT,
    BYTES,
    record(HEAD),
    array(HUFFMAN),
    array(np.uint32, 2),
    INT,
    INT,
    MEMORY,
    MEMORY,
    array(np.int64),
    MEMORY,
    array(np.int64),
)
def recode(
    data: Array,
    head: Record,
    tables: Array,
    lookups: Array,
    interval: int,
    padding: int,
    bits: Array,
    fresh: Array,
    sizes: Array,
    out: Array,
    found: Array,
) -> Any:
    """Write the entropy-coded data with another restart interval; how many bytes they are, or a status below zero.

    `bits` and `fresh` are room for the bits of one interval each, as they are read and written. `sizes` gets the size
    of each interval that is written, without its marker.
    """
    found[:] = 0
    components = head["components"]
    for component in range(components):
        found[_BLOCKS + component] = head["h"][component] * head["v"][component] if components > 1 else 1
        found[_DC + component] = head["dc_table"][component]
        found[_AC + component] = 4 + head["ac_table"][component]
    total = head["columns"] * head["rows"]
    interval = interval if interval > 0 else total
    read_interval = head["restart_interval"] if head["restart_interval"] > 0 else total
    end = head["entropy"] - 2
    size = 0
    begun = 0  # where in `out` the present interval begins
    limit = 0  # bits
    run = np.int64(0)  # those before this one are copied
    filled = 0
    window = np.uint64(0)
    valid = np.uint64(0)
    at = np.uint64(0)
    for mcu in range(total):
        if mcu % read_interval == 0:
            if mcu > 0:
                position = _position(at, valid)
                if not _check_end(bits, position, limit, found):
                    return -BAD_ENTROPY
                number = mcu // read_interval - 1
                if end + 2 > len(data) or data[end + 1] != 0xD0 + number % 8:
                    return -BAD_ENTROPY
                filled = _append_run(bits, run, position, fresh, filled)
                if filled < 0:
                    return -NO_ROOM
            if len(data) - end + SPARE > len(bits):
                return -NO_ROOM
            end, count = _unpack(data, end + 2, bits)
            limit = 8 * count
            run = np.int64(0)
            window = np.uint64(0)
            valid = np.uint64(0)
            at = np.uint64(0)
            found[_READ : _READ + 4] = 0
        if mcu % interval == 0:
            if mcu > 0:
                position = _position(at, valid)
                filled = _append_run(bits, run, position, fresh, filled)
                if filled < 0:
                    return -NO_ROOM
                run = position
                size = _close(fresh, filled, padding, out, size)
                if size < 0:
                    return -NO_ROOM
                number = mcu // interval - 1
                sizes[number] = size - begun
                out[size] = 0xFF
                out[size + 1] = 0xD0 + number % 8
                size += 2
                begun = size
            filled = 0
            found[_WRITTEN : _WRITTEN + 4] = 0
        for component in range(components):
            dc = np.uint64(found[_DC + component])
            ac = np.uint64(found[_AC + component])
            for _ in range(found[_BLOCKS + component]):
                window |= _load(bits, at) >> valid
                at += (np.uint64(63) - valid) >> np.uint64(3)
                valid |= np.uint64(56)
                position = _position(at, valid)
                element = np.int64(lookups[dc, window >> np.uint64(64 - PEEK)])
                if element == 0:
                    symbol = _symbol(tables[dc], window)
                    if symbol < 0:
                        return -BAD_ENTROPY
                    element = _meaning(symbol & 255, symbol >> 8, False)
                category = element >> 6 & 127
                if category >= CATEGORIES:
                    return -BAD_ENTROPY
                window <<= np.uint64(element & 63)
                value = np.int64(window >> np.uint64(63 - category) >> np.uint64(1))
                if value < (1 << category) >> 1:
                    value -= (1 << category) - 1
                window <<= np.uint64(category)
                valid -= np.uint64((element & 63) + category)
                value += found[_READ + component]
                if found[_READ + component] != found[_WRITTEN + component]:
                    filled = _append_run(bits, run, position, fresh, filled)
                    if filled < 0:
                        return -NO_ROOM
                    filled = _append_dc(tables[dc], value - found[_WRITTEN + component], fresh, filled, found)
                    if filled < 0:
                        return -NO_CODE
                    run = _position(at, valid)
                found[_READ + component] = value
                found[_WRITTEN + component] = value
                window, valid, at, good = _skip_ac(bits, window, valid, at, tables, ac, lookups)
                if not good or _position(at, valid) > limit:
                    return -BAD_ENTROPY
    position = _position(at, valid)
    if not _check_end(bits, position, limit, found):
        return -BAD_ENTROPY
    filled = _append_run(bits, run, position, fresh, filled)
    if filled < 0:
        return -NO_ROOM
    size = _close(fresh, filled, padding, out, size)
    if size < 0:
        return -NO_ROOM
    sizes[(total - 1) // interval] = size - begun
    found[END] = end
    return size


@helper
def _check_end(bits: Array, position: Any, limit: Any, found: Array) -> Any:
    """Whether an interval ends within its last byte, padded with the same bits as those before it."""
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
