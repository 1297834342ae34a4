"""JPEGs for tests, with slow reference decoders and foreign decoders."""

from __future__ import annotations

import ctypes
import ctypes.util
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}  # the samplings that Pillow writes
ZIGZAG_SIZE = 64


def noise(width: int, height: int, seed: int = 0, *, grain: int = 40) -> Image.Image:
    """A picture of smooth colours with some noise."""
    random = np.random.default_rng(seed)
    soft = Image.fromarray(random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8))
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    pixels += random.integers(-grain, grain + 1, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """The JPEG that Pillow encodes."""
    out = io.BytesIO()
    picture.save(out, "JPEG", **options)
    return out.getvalue()


def resampled(jpeg: bytes, factors: list[int]) -> bytes:
    """The same entropy-coded bits with other sampling factors, which must give as many blocks per MCU."""
    data = bytearray(jpeg)
    at = next(at for at, marker, _ in segments(jpeg) if 0xC0 <= marker <= 0xC2)
    for i, factor in enumerate(factors):
        data[at + 11 + 3 * i] = factor
    return bytes(data)


def segments(jpeg: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Begin, marker and end of each segment of the head."""
    at = 2
    while True:
        while jpeg[at + 1] == 0xFF:
            at += 1
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        yield at, jpeg[at + 1], end
        if jpeg[at + 1] == 0xDA:
            return
        at = end


def pixels(jpeg: bytes) -> Array:
    """The pixels that Pillow decodes."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.asarray(picture)


# the slow reference decoder ------------------------------------------------------------------------------------------


class Bits:
    """The bits of one restart interval."""

    def __init__(self, data: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in data.replace(b"\xff\0", b"\xff"))
        self._at = 0

    def take(self, count: int) -> int:
        if self._at + count > len(self._text):
            raise ValueError("no more bits")
        self._at += count
        return int(self._text[self._at - count : self._at] or "0", 2)

    def symbol(self, codes: dict[str, int]) -> int:
        for length in range(1, 17):
            code = self._text[self._at : self._at + length]
            if code in codes:
                self._at += length
                return codes[code]
        raise ValueError("no such code")

    def left(self) -> str:
        return self._text[self._at :]


def code_tables(jpeg: bytes) -> dict[int, dict[str, int]]:
    """The Huffman codes as strings of zeros and ones, by the byte that identifies their table."""
    tables: dict[int, dict[str, int]] = {}
    for at, marker, end in segments(jpeg):
        at += 4
        while marker == 0xC4 and at < end:
            counts, symbols = jpeg[at + 1 : at + 17], iter(jpeg[at + 17 : end])
            codes: dict[str, int] = {}
            code = 0
            for length, count in enumerate(counts, 1):
                for _ in range(count):
                    codes[f"{code:0{length}b}"] = next(symbols)
                    code += 1
                code <<= 1
            tables[jpeg[at]] = codes
            at += 17 + sum(counts)
    return tables


def coefficients(jpeg: bytes) -> list[list[int]]:
    """All blocks of a sequential JPEG of one scan, in the order of the scan."""
    found = {marker: (at, end) for at, marker, end in segments(jpeg)}
    tables = code_tables(jpeg)
    sof, sos = found.get(0xC0) or found[0xC1], found[0xDA]
    height, width = (int.from_bytes(jpeg[sof[0] + i : sof[0] + i + 2], "big") for i in (5, 7))
    count = jpeg[sof[0] + 9]
    factors = [divmod(jpeg[sof[0] + 11 + 3 * i], 16) if count > 1 else (1, 1) for i in range(count)]
    across, down = (8 * max(factor[i] for factor in factors) for i in (0, 1))
    total = -(-width // across) * -(-height // down)
    interval = int.from_bytes(jpeg[found[0xDD][0] + 4 : found[0xDD][1]], "big") if 0xDD in found else 0
    chosen = [jpeg[sos[0] + 6 + 2 * i] for i in range(count)]
    blocks: list[list[int]] = []
    for number, data in enumerate(intervals(jpeg[sos[1] :])):
        bits, before = Bits(data), [0] * count
        for _ in range(min(interval or total, total - number * (interval or total))):
            for i, (h, v) in enumerate(factors):
                for _ in range(h * v):
                    blocks.append(block(bits, tables[chosen[i] >> 4], tables[16 | chosen[i] & 15], before[i]))
                    before[i] = blocks[-1][0]
        assert len(bits.left()) < 8, "bits are left over"
    assert len(blocks) == total * sum(h * v for h, v in factors)
    return blocks


def intervals(data: bytes) -> Iterator[bytes]:
    """The bytes between restart markers, up to any other marker."""
    start = at = 0
    while True:
        at = data.index(b"\xff", at)
        if data[at + 1]:
            yield data[start:at]
            if not 0xD0 <= data[at + 1] <= 0xD7:
                return
            start = at + 2
        at += 2


def block(bits: Bits, dc: dict[str, int], ac: dict[str, int], before: int) -> list[int]:
    """One block's coefficients, in their order in the file."""

    def value(size: int) -> int:
        number = bits.take(size)
        return number if not size or number >> (size - 1) else number - (1 << size) + 1

    found = [before + value(bits.symbol(dc))]
    while len(found) < ZIGZAG_SIZE:
        symbol = bits.symbol(ac)
        if symbol == 0:
            found += [0] * (ZIGZAG_SIZE - len(found))
        else:
            found += [0] * (symbol >> 4) + [value(symbol & 15)]
    assert len(found) == ZIGZAG_SIZE
    return found


# a JPEG of random bits -----------------------------------------------------------------------------------------------


def random_codes(random: np.random.Generator, symbols: list[int]) -> tuple[list[int], list[int]]:
    """Number of codes of each length, and their symbols, for a random uneven Huffman table."""
    leaves = [0]
    while len(leaves) <= len(symbols):  # one more, because the code of only ones is not allowed
        split = random.choice([i for i, depth in enumerate(leaves) if depth < 16])
        leaves += [leaves[split] + 1] * 2
        del leaves[split]
    lengths = sorted(leaves)[:-1]
    return [lengths.count(length) for length in range(1, 17)], random.permutation(symbols).tolist()


def random_jpeg(
    seed: int, width: int, height: int, factors: list[int], *, interval: int = 0, padding: int = 127, dense: float = 0.8
) -> bytes:
    """A JPEG of one scan with random tables and coefficients."""
    random = np.random.default_rng(seed)
    both = []
    for kind in (0, 16):
        usual = range(12) if not kind else [0, 0xF0, *(16 * run + size for run in range(16) for size in range(1, 11))]
        some = random.permutation(usual)[: random.integers(1, len(usual) + 1)].tolist()
        both.append(random_codes(random, sorted({0, *some})))
    tables = b"".join(bytes([kind, *both[kind // 16][0], *both[kind // 16][1]]) for kind in (0, 16))
    words = [code_table(*one) for one in both]
    across, down = (max(f >> 4 for f in factors), max(f & 15 for f in factors)) if len(factors) > 1 else (1, 1)
    total = -(-width // (8 * across)) * -(-height // (8 * down))
    interval = interval or total
    stream = b""
    for start in range(0, total, interval):
        text, before = "", [0] * len(factors)
        for _ in range(start, min(start + interval, total)):
            for i, factor in enumerate(factors):
                for _ in range((factor >> 4) * (factor & 15) if len(factors) > 1 else 1):
                    piece, before[i] = random_block(random, words, before[i], dense)
                    text += piece
        missing = -len(text) % 8
        text += f"{padding & ((1 << missing) - 1):0{missing}b}" if missing else ""
        data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
        stream += data + bytes([0xFF, 0xD0 + start // interval % 8])
    count = len(factors)
    frame = b"".join(bytes([i, factor, 0]) for i, factor in enumerate(factors, 1))
    parts = [
        *(b"\xff\xd8", segment(0xDB, bytes([0, *[1] * 64])), segment(0xC4, tables)),
        segment(0xDD, interval.to_bytes(2, "big")) if interval < total else b"",
        segment(0xC0, bytes([8, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), count]) + frame),
        segment(0xDA, bytes([count, *(byte for i in range(count) for byte in (i + 1, 0)), 0, 63, 0])),
    ]
    return b"".join(parts) + stream[:-2] + b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def code_table(counts: list[int], symbols: list[int]) -> dict[int, str]:
    """Symbol → code as a string."""
    codes, code, left = {}, 0, iter(symbols)
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[next(left)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return codes


def random_block(
    random: np.random.Generator, words: list[dict[int, str]], before: int, dense: float
) -> tuple[str, int]:
    """The bits of a random block, and its DC coefficient."""
    category = int(random.choice(list(words[0])))
    difference = int(random.integers((1 << category) >> 1, 1 << category)) if category else 0
    if abs(before + difference) > 1023:
        difference = -difference
    if abs(before + difference) > 1023:
        category = difference = 0
    text = words[0][category] + value_text(difference, category)
    k = 1
    while k < 64:
        fitting = [symbol for symbol in words[1] if symbol and k + (symbol >> 4) < 64]
        if not fitting or random.random() > dense:
            return text + words[1][0], before + difference
        symbol = int(random.choice(fitting))
        size = symbol & 15
        value = int(random.integers((1 << size) >> 1, 1 << size)) if size else 0
        text += words[1][symbol] + value_text(value if random.random() < 0.5 else -value, size)
        k += (symbol >> 4) + 1
    return text, before + difference


def value_text(value: int, size: int) -> str:
    return f"{value if value >= 0 else value + (1 << size) - 1:0{size}b}" if size else ""


# libjpeg-turbo -------------------------------------------------------------------------------------------------------

try:
    _turbo: Any = ctypes.CDLL(ctypes.util.find_library("turbojpeg") or "libturbojpeg.so.0")
except OSError:
    _turbo = None
HAS_TURBO = _turbo is not None
if HAS_TURBO:
    _turbo.tjInitDecompress.restype = _turbo.tjInitCompress.restype = ctypes.c_void_p
    _turbo.tjBufSize.restype = ctypes.c_ulong
    _pointer, _int, _ulong = ctypes.c_void_p, ctypes.c_int, ctypes.c_ulong
    _turbo.tjDecompressHeader3.argtypes = [_pointer, ctypes.c_char_p, _ulong, *[_pointer] * 4]
    _turbo.tjDecompressToYUVPlanes.argtypes = [
        *(_pointer, ctypes.c_char_p, _ulong, _pointer, _int, _pointer, _int, _int)
    ]
    _turbo.tjCompress2.argtypes = [
        *(_pointer, ctypes.c_char_p, _int, _int, _int, _int, _pointer, _pointer, _int, _int, _int)
    ]
    _reader, _writer = _turbo.tjInitDecompress(), _turbo.tjInitCompress()
TURBO_SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2, "grey": 3, "4:4:0": 4, "4:1:1": 5}


def turbo_encoded(picture: Image.Image, sampling: str, quality: int) -> bytes:
    """The JPEG that libjpeg-turbo encodes; it supports more samplings than Pillow."""
    number = TURBO_SAMPLINGS[sampling]
    room = ctypes.create_string_buffer(_turbo.tjBufSize(picture.width, picture.height, number))
    size, place = ctypes.c_ulong(len(room)), ctypes.cast(room, ctypes.c_void_p)
    rgb = picture.convert("RGB").tobytes()
    done = _turbo.tjCompress2(
        *(_writer, rgb, picture.width, 0, picture.height, 0),
        *(ctypes.byref(place), ctypes.byref(size), number, quality, 1024),  # no reallocation
    )
    assert done == 0
    return room.raw[: size.value]


def planes(jpeg: bytes) -> list[Array]:
    """The planes of luma and chroma, as libjpeg-turbo decodes them without any conversion."""
    width, height, sampling, colours = (ctypes.c_int() for _ in range(4))
    asked = [ctypes.byref(number) for number in (width, height, sampling, colours)]
    assert _turbo.tjDecompressHeader3(_reader, jpeg, len(jpeg), *asked) == 0
    number = sampling.value
    found = [
        np.zeros((_turbo.tjPlaneHeight(i, height.value, number), _turbo.tjPlaneWidth(i, width.value, number)), np.uint8)
        for i in range(1 if number == TURBO_SAMPLINGS["grey"] else 3)
    ]
    places = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in found))
    strides = (ctypes.c_int * 3)(*(plane.shape[1] for plane in found))
    assert _turbo.tjDecompressToYUVPlanes(_reader, jpeg, len(jpeg), places, 0, strides, 0, 0) == 0
    return found
