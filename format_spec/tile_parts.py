"""What is a JPEG in tiles (§14)? For the vectors: sources, tiled forms and splices, made of coefficients alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

Table = tuple[Sequence[int], Sequence[int]]  # how many codes of each length from 1 on, and what they mean

ALL_CATEGORIES: Table = ((0, 1, 5, 1, 1, 1, 1, 1, 1), range(12))
FEW_CATEGORIES: Table = ((0, 2, 1), (0, 2, 3))
FEW_EXTENDED: Table = ((0, 2, 1, 0, 9), (0, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11))
TWO_CATEGORIES: Table = ((0, 2), (5, 6))
TWO_EXTENDED: Table = ((0, 2, 0, 0, 10), (5, 6, 0, 1, 2, 3, 4, 7, 8, 9, 10, 11))
OF_AC: Table = ((1, 1, 0, 2), (0x00, 0x01, 0x23, 0xF0))
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
REMARK = b"\xff\xfe\0\x0aa remark"
EOI = b"\xff\xd9"


class Picture(NamedTuple):
    """A JPEG to be, how its source is written, and how many MCUs a tile of it has."""

    name: str
    width: int
    height: int
    factors: Sequence[tuple[int, int]]
    dc: Table
    extended: Table | None
    interval: int  # of the source, or 0
    padding: int
    before: bytes  # segments in front of the source's own
    rest: bytes  # what follows the source's last bit
    tile: int
    size_bytes: int = 2  # of each size in the segment of tiles
    fill: int = 0  # bytes of 0xFF before the marker SOS of the source


GREY = Picture("grey", 150, 20, [(2, 2)], ALL_CATEGORIES, None, 0, 127, JFIF, EOI, 19)
COLOURS = Picture(
    "restart markers, zeros before them, and bytes behind the end",
    *(250, 40, [(2, 2), (1, 1), (1, 1)], ALL_CATEGORIES, None, 5, 0, JFIF + REMARK, EOI + b"a tail", 4),
)
FEW = Picture(
    "a table of DC differences that lacks categories",
    *(190, 24, [(1, 1), (1, 1), (1, 1)], FEW_CATEGORIES, FEW_EXTENDED, 0, 85, b"", EOI, 8),
)

RESTARTS = Picture(
    "fill bytes before SOS, and categories that only the differences at former restarts need",
    *(128, 16, [(1, 1), (1, 1), (1, 1)], TWO_CATEGORIES, TWO_EXTENDED, 1, 127, JFIF, EOI, 8, 2, 3),
)


def mcu_size(picture: Picture) -> tuple[int, int]:
    """§14.3: its width and height in pixels."""
    if len(picture.factors) == 1:
        return 8, 8
    return 8 * max(h for h, _ in picture.factors), 8 * max(v for _, v in picture.factors)


def mcu_counts(picture: Picture) -> tuple[int, int]:
    """How many there are in a row, and how many rows."""
    across, down = mcu_size(picture)
    return -(-picture.width // across), -(-picture.height // down)


# coefficients --------------------------------------------------------------------------------------------------------


def numbers(state: int) -> Iterator[int]:
    """Anything but regular."""
    while True:
        state = (state * 1_103_515_245 + 12_345) % (1 << 31)
        yield state >> 8


def mcus(picture: Picture) -> list[list[tuple[int, int, str]]]:
    """All MCUs: component, DC coefficient, and the bits that follow it, of each of their blocks."""
    draw = numbers(picture.width)
    before = [0] * len(picture.factors)
    few = picture.dc is FEW_CATEGORIES
    columns, rows = mcu_counts(picture)
    found: list[list[tuple[int, int, str]]] = []
    for _ in range(columns * rows):
        found.append([])
        for i, (h, v) in enumerate(picture.factors):
            for _ in range(h * v if len(picture.factors) > 1 else 1):
                difference = (0, 2, 3, 6, 7, 5)[next(draw) % 6] if few else next(draw) % 401 - 200
                before[i] += -difference if abs(before[i] + difference) > 1000 else difference
                if picture.dc is TWO_CATEGORIES:  # each MCU is an interval of the source: values, not differences
                    before[i] = (16 + next(draw) % 48) * (1 - 2 * (next(draw) % 2))
                found[-1].append((i, before[i], ac_bits(draw)))
    return found


def ac_bits(draw: Iterator[int]) -> str:
    """Up to three coefficients, and the end of the block."""
    words = codes(OF_AC)
    text = ""
    for _ in range(next(draw) % 4):
        kind, sign = next(draw) % 4, next(draw) % 2
        text += words[0xF0] + words[0x01] + str(sign) if kind == 0 else ""
        text += words[0x01] + str(sign) if kind in (1, 2) else ""
        text += words[0x23] + value_bits(7 if sign else -4) if kind == 3 else ""
    return text + words[0x00]


# bits ----------------------------------------------------------------------------------------------------------------


def codes(table: Table) -> dict[int, str]:
    """The code of each symbol, as zeros and ones."""
    found: dict[int, str] = {}
    code, symbols = 0, iter(table[1])
    for length, count in enumerate(table[0], 1):
        for _ in range(count):
            found[next(symbols)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return found


def value_bits(value: int) -> str:
    size = abs(value).bit_length()
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""


def interval_bits(blocks: Iterable[tuple[int, int, str]], dc: Table) -> str:
    """One restart interval."""
    before = dict.fromkeys(range(3), 0)
    words, text = codes(dc), ""
    for component, value, ac in blocks:
        difference = value - before[component]
        text += words[abs(difference).bit_length()] + value_bits(difference) + ac
        before[component] = value
    return text


def stuffed(text: str, padding: int) -> bytes:
    """Bits as bytes, padded (§14.6), with a zero behind each 0xFF."""
    missing = -len(text) % 8
    text += f"{padding & ((1 << missing) - 1):0{missing}b}" if missing else ""
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def intervals(picture: Picture, interval: int, dc: Table, padding: int) -> tuple[list[bytes], int]:
    """The entropy-coded data of all restart intervals, and the most bits by which one of them is padded."""
    every = mcus(picture)
    step = interval or len(every)
    runs = [chain.from_iterable(every[start : start + step]) for start in range(0, len(every), step)]
    texts = [interval_bits(run, dc) for run in runs]
    return [stuffed(text, padding) for text in texts], max(-len(text) % 8 for text in texts)


def joined(parts: Sequence[bytes]) -> bytes:
    """With restart markers between them."""
    markers = [bytes((0xFF, 0xD0 + i % 8)) for i in range(len(parts) - 1)]
    return b"".join(part + marker for part, marker in zip(parts, [*markers, b""], strict=True))


# files ---------------------------------------------------------------------------------------------------------------


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def table_segment(number: int, table: Table) -> bytes:
    counts, symbols = table
    return segment(0xC4, bytes((number, *counts, *[0] * (16 - len(counts)), *symbols)))


def restart_segment(interval: int) -> bytes:
    return segment(0xDD, struct.pack(">H", interval)) if interval else b""


def frame(picture: Picture, width: int, height: int) -> bytes:
    components = b"".join(bytes((i, h << 4 | v, 0)) for i, (h, v) in enumerate(picture.factors, 1))
    return segment(0xC0, struct.pack(">BHHB", 8, height, width, len(picture.factors)) + components)


def tables(picture: Picture) -> bytes:
    quantization = segment(0xDB, bytes((0, *[3] * 64)))
    return quantization + table_segment(0x00, picture.dc) + table_segment(0x10, OF_AC)


def scan(picture: Picture) -> bytes:
    count = len(picture.factors)
    return segment(0xDA, bytes((count, *(byte for i in range(count) for byte in (i + 1, 0)), 0, 63, 0)))


def head(picture: Picture, width: int, height: int) -> bytes:
    """What stands before SOS in the source."""
    restart = restart_segment(picture.interval)
    return b"\xff\xd8" + picture.before + tables(picture) + restart + frame(picture, width, height)


def source(picture: Picture) -> bytes:
    parts, _ = intervals(picture, picture.interval, picture.dc, picture.padding)
    before = head(picture, picture.width, picture.height) + b"\xff" * picture.fill + scan(picture)
    return before + joined(parts) + picture.rest


def tiled(picture: Picture) -> bytes:
    """§14.1"""
    _, missing = intervals(picture, picture.interval, picture.dc, picture.padding)
    parts, _ = intervals(picture, picture.tile, picture.extended or picture.dc, 127)
    sizes = b"".join(len(part).to_bytes(picture.size_bytes, "big") for part in parts)
    facts = struct.pack(">BBBI", 1, picture.size_bytes, picture.padding & ((1 << missing) - 1), len(picture.rest))
    inserted = segment(0xE9, b"mx8tiles" + facts + sizes)
    inserted += table_segment(0x00, picture.extended) if picture.extended else b""
    inserted += restart_segment(picture.tile)
    before = head(picture, picture.width, picture.height) + b"\xff" * picture.fill + inserted + scan(picture)
    return before + joined(parts) + picture.rest


def splice(picture: Picture, columns: tuple[int, int], rows: tuple[int, int]) -> dict[str, Any]:
    """§14.4: of these columns of tiles and rows."""
    across, down = mcu_size(picture)
    across *= picture.tile
    width = min(columns[1] * across, picture.width) - columns[0] * across
    height = min(rows[1] * down, picture.height) - rows[0] * down
    parts, _ = intervals(picture, picture.tile, picture.extended or picture.dc, 127)
    per_row = mcu_counts(picture)[0] // picture.tile
    chosen = [parts[row * per_row + column] for row in range(*rows) for column in range(*columns)]
    before = head(picture._replace(before=JFIF if picture.before else b""), width, height)
    before += table_segment(0x00, picture.extended) if picture.extended else b""
    jpeg = before + restart_segment(picture.tile) + scan(picture) + joined(chosen) + EOI
    place = {"left": columns[0] * across, "top": rows[0] * down, "width": width, "height": height}
    return {"columns": columns, "rows": rows, **place, "jpeg": jpeg.hex()}


def tiles() -> dict[str, Any]:
    """Sources, their tiled forms, and some splices."""
    asked = [
        (GREY, [((0, 1), (0, 3)), ((0, 1), (2, 3))]),
        (COLOURS, [((0, 4), (0, 3)), ((1, 3), (0, 2)), ((3, 4), (2, 3))]),
        (FEW, [((0, 3), (0, 3)), ((1, 2), (1, 3)), ((2, 3), (0, 1))]),
        (RESTARTS, [((0, 2), (0, 2)), ((1, 2), (1, 2))]),
    ]
    wide = one_picture(GREY._replace(name="sizes of three bytes, where two would do", size_bytes=3), asked[0][1])
    return {
        "rule": "§14",
        "pictures": [one_picture(*one) for one in asked],
        "read_only": [wide],
        "not_tiled": not_tiled(),
        "refused": refused(),
    }


def refused() -> list[dict[str, str]]:
    """JPEGs that a writer must store as they are (§14)."""
    plain = source(GREY)
    reserved = GREY._replace(before=JFIF + segment(0x02, bytes(4)))
    mixed = [intervals(COLOURS, COLOURS.interval, COLOURS.dc, padding)[0] for padding in (0, 127)]
    parts = [mixed[i % 2][i] for i in range(len(mixed[0]))]
    two_paddings = head(COLOURS, COLOURS.width, COLOURS.height) + scan(COLOURS) + joined(parts) + COLOURS.rest
    four = b"".join(bytes((i, 0x11, 0)) for i in range(1, 5))
    cases = {
        "tiled already": tiled(GREY),
        "a reserved marker in the head": source(reserved),
        "a byte between the entropy-coded data and EOI": plain[: -len(EOI)] + b"\xff" + EOI,
        "intervals padded in different ways": two_paddings,
        "four components": plain.replace(
            frame(GREY, GREY.width, GREY.height), segment(0xC0, b"\x08\0\x14\0\x96\4" + four)
        ),
    }
    return [{"why": why, "jpeg": jpeg.hex()} for why, jpeg in cases.items()]


def not_tiled() -> list[dict[str, str]]:
    """JPEGs whose segment of tiles does not fit them (§14.3): a reader takes them as any other JPEG."""
    good = tiled(GREY)
    at = good.index(b"mx8tiles")
    changed = {
        "another version": (8, 2),
        "sizes of four bytes": (9, 4),
        "a tile that is longer by one byte": (16, good[at + 16] + 1),
        "a rest that is longer by one byte": (14, good[at + 14] + 1),
        "another magic": (0, ord("M")),
    }
    found = [
        {"why": why, "jpeg": (good[: at + offset] + bytes([value]) + good[at + offset + 1 :]).hex()}
        for why, (offset, value) in changed.items()
    ]
    interval = good.index(b"\xff\xdd\0\4")
    other = good[: interval + 4] + struct.pack(">H", GREY.tile - 1) + good[interval + 6 :]
    found.append({"why": "a restart interval that does not divide a row", "jpeg": other.hex()})
    found.append({"why": "a byte after the file's end", "jpeg": (good + b"\0").hex()})
    return found


def one_picture(picture: Picture, splices: Sequence[Any]) -> dict[str, Any]:
    return {
        "name": picture.name,
        "source": source(picture).hex(),
        "tiled": tiled(picture).hex(),
        "splices": [splice(picture, *one) for one in splices],
    }
