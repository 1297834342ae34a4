"""How are the Huffman tables of a JPEG read, given the codes that tiles need besides, and looked up?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BYTES, INT, array, helper, kernel, record
from mx8shards.kernels.jpeg import BAD_SEGMENT, HEAD, OK, skip_fill, uint16

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
CATEGORIES = 12  # of DC differences, with 8 bits per sample
_MOST_BITS = 10  # of an AC coefficient

LOOKUPS = array(np.uint32, 2)  # a type


@kernel(INT, BYTES, record(HEAD), array(HUFFMAN), LOOKUPS)
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

    A table's row of `lookups` says which symbol the next bits begin with, as `meaning_of` tells it, or 0 where its code
    is longer. For AC, the row four further on says that of all symbols together whose codes lie within these bits.
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
                meaning = meaning_of(symbol, length, number >= 4)
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
def meaning_of(symbol: Any, length: Any, of_ac: bool) -> Any:
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
def symbol_at(table: Record, window: Any) -> Any:
    """The symbol whose code the highest of 64 bits begin with, and behind it (<< 8) the code's length; or -1."""
    first = np.int64(window >> np.uint64(48))
    for length in range(1, 17):
        place = (first >> (16 - length)) - table["first_code"][length]
        if 0 <= place < table["counts"][length]:
            return table["symbols"][table["first_symbol"][length] + place] | length << 8
    return -1
