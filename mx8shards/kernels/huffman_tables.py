"""How are the Huffman tables of a JPEG read, extended with the DC codes that tiles need, and turned into lookups?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mx8shards.kernels.jit import BYTES, INT, array, helper, kernel, record
from mx8shards.kernels.jpeg import BAD_SEGMENT, HEAD, OK, skip_fill, uint16

Array = npt.NDArray[Any]
Record = Any

# One Huffman table. A JPEG has eight: 0 to 3 for DC coefficients, 4 to 7 for AC.
HUFFMAN = np.dtype(
    [
        ("counts", "i8", (17,)),  # number of codes of each length
        ("symbols", "i8", (256,)),  # in the order of the codes
        ("given", "i8"),  # number of symbols in the file's table
        ("total", "i8"),  # number of symbols, with those that `extend` added
        ("added", "i8"),  # bit mask of the symbols that `extend` added
        ("first_code", "i8", (17,)),  # of each length
        ("first_symbol", "i8", (17,)),  # index in `symbols` of that code's symbol
        ("codes", "i8", (256,)),  # by symbol
        ("lengths", "i8", (256,)),  # by symbol; 0: the symbol has no code
        # The table from which `codes`, `lengths` and the lookups were derived. Most pictures have equal tables, for
        # which they are not derived again.
        ("derived", "i8"),
        ("derived_counts", "i8", (17,)),
        ("derived_symbols", "i8", (256,)),
    ]
)

PEEK = 12  # bits per lookup: longer codes are rare, and a larger lookup takes long to fill
CATEGORIES = 12  # of DC differences, with 8 bits per sample
_MOST_BITS = 10  # of an AC coefficient

LOOKUPS = array(np.uint32, 2)  # a type


@kernel(INT, BYTES, record(HEAD), array(HUFFMAN), LOOKUPS)
def prepare(data: Array, head: Record, tables: Array, lookups: Array) -> int:
    """Read the Huffman tables that are in effect for the first scan, extend them and fill the lookups; a status."""
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
    """Read one table of a segment; return the offset of the next one, or -1 for a table that libjpeg refuses.

    libjpeg refuses a table with a code of all one bits, and DC categories above 15.
    """
    number = np.int64(data[at])
    if at + 17 > end or number >> 4 > 1 or number & 15 > 3:
        return -1
    table = tables[(number >> 4) * 4 + (number & 15)]
    total = np.int64(0)
    room = np.int64(1 << 16)  # unused codes of 16 bits
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
    """Append codes for the missing categories to a DC table, if there is room.

    An optimising encoder makes codes only for the categories that occur. The first DC value of a tile is coded as an
    absolute value, and may need a larger category.
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
        return  # the code of all one bits is reserved
    table["counts"][longest] += missing
    for category in range(CATEGORIES):
        if absent >> category & 1:
            table["symbols"][table["total"]] = category
            table["total"] += 1
            table["added"] |= 1 << category


@helper
def _derive(tables: Array, number: int, lookups: Array) -> None:
    """Derive the codes of a table, and its lookups.

    Row `number` of `lookups` maps the next PEEK bits to the `lookup_entry` of the first symbol, or to 0 if its code is
    longer. For an AC table, row `number + 4` sums up all symbols whose codes lie within these bits.
    """
    table = tables[number]
    lookup = lookups[number]
    if _is_derived(table):
        return
    table["lengths"][:] = 0
    lookup[:] = 0
    code = 0
    index = 0
    for length in range(1, 17):
        table["first_code"][length] = code
        table["first_symbol"][length] = index
        for _ in range(table["counts"][length]):
            symbol = table["symbols"][index]
            table["codes"][symbol] = code
            table["lengths"][symbol] = length
            if length <= PEEK:
                entry = lookup_entry(symbol, length, number >= 4)
                for bits in range(code << (PEEK - length), (code + 1) << (PEEK - length)):
                    lookup[bits] = entry
            code += 1
            index += 1
        code <<= 1
    if number >= 4:
        _group(lookup, lookups[number + 4])


@helper
def _is_derived(table: Record) -> Any:
    """Whether the current codes were derived from an equal table. Remembers this table for the next call."""
    same = table["derived"] != 0
    for length in range(17):
        same = same and table["counts"][length] == table["derived_counts"][length]
        table["derived_counts"][length] = table["counts"][length]
    for i in range(table["total"]):
        same = same and table["symbols"][i] == table["derived_symbols"][i]
        table["derived_symbols"][i] = table["symbols"][i]
    table["derived"] = 1
    return same


@helper
def lookup_entry(symbol: Any, length: Any, of_ac: bool) -> Any:
    """A symbol's entry in a lookup: bits to consume (6 bits), advance (7 bits), for AC the length of the code.

    The bits to consume are the code and, for AC, the value that follows it. The advance is the category of a DC
    difference; for AC the number of coefficients, or 64 for the end of the block. It is 0 for a symbol that
    does not occur in sequential files of 8 bits per sample.
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
    """Fill an AC lookup with the sums over all symbols whose codes lie within PEEK bits.

    The value of the last symbol may extend beyond these bits.
    """
    for index in range(1 << PEEK):
        used = np.int64(0)
        advance = np.int64(0)
        while used < PEEK and advance < 64:
            entry = np.int64(lookup[(index << used) & ((1 << PEEK) - 1)])
            more = entry >> 6 & 127
            if entry == 0 or used + (entry >> 13) > PEEK or (more < 64 and advance + more >= 64):
                break
            used += entry & 63
            advance += more
        out[index] = used | advance << 6 if used > 0 else 127 << 6


@helper
def symbol_at(table: Record, buffer: Any) -> Any:
    """Decode the code in the most significant bits of `buffer`: symbol | length of the code << 8, or -1."""
    first = np.int64(buffer >> np.uint64(48))
    for length in range(1, 17):
        index = (first >> (16 - length)) - table["first_code"][length]
        if 0 <= index < table["counts"][length]:
            return table["symbols"][table["first_symbol"][length] + index] | length << 8
    return -1
