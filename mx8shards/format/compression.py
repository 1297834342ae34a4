"""How are shard files compressed (zstd, gz, bz2, br, snappy), and safely decompressed in bounded memory? (spec §6)

A compressed file is exactly one zstd frame, gzip member, bzip2 stream, Brotli stream or raw Snappy block, without
trailing bytes: no known writer makes anything else. (Streaming's reader also accepts several concatenated.)
"""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mx8shards.errors import FormatError, MissingPackageError, SettingError, require

PIECE_BYTES = 1 << 20
_FEED_BYTES = 1 << 16
_MAX_WINDOW_BYTES = 1 << 27  # as level 22 needs

_ZSTD_HEADER_BYTES = 18  # the largest frame header

Buffer = bytes | memoryview


class Sliceable(Protocol):
    """Bytes that are accessed by slices, such as those of a file that is read on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Buffer: ...


def parse(text: str) -> tuple[str, int | None]:
    """The algorithm and level (None: the default) of a shard's `compression`; FormatError if it is invalid."""
    name, colon, digits = str(text).partition(":")
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None:
        raise FormatError(expected=f"one of {', '.join(_ALGORITHMS)}", found=repr(text)[:80])
    if not colon:
        return name, None
    level = next((level for level in algorithm.levels if digits == str(level)), None)
    if level is None:
        raise FormatError(expected=algorithm.spelling(name), found=repr(text)[:80])
    return name, level


def check(text: str | None) -> None:
    """SettingError if the setting `compression` is neither None nor a valid algorithm and level."""
    try:
        if text is not None:
            parse(text)
    except FormatError as error:
        raise SettingError(subject="compression", expected=error.expected, found=error.found) from None


def require_package(text: str) -> None:
    """Import the package that this compression needs; MissingPackageError if it is not installed.

    To be called before threads start: if a process forks while a thread imports a module, the import lock stays locked
    in the child, which then deadlocks.
    """
    package = {"zstd": "zstandard", "br": "brotli", "snappy": "snappy"}.get(parse(text)[0])
    if package is not None:
        require(package, "compress")


def import_package(text: str) -> None:
    """Import the package that this compression needs, if it is installed, before threads start."""
    with suppress(MissingPackageError):  # the call that needs it raises it
        require_package(text)


def extension(text: str) -> str:
    """The suffix of a compressed file's name: the algorithm without the level."""
    return parse(text)[0]


def compress(text: str, data: Buffer, *, match_streaming: bool = False) -> bytes:
    """Compress `data`. `match_streaming` gives the bytes that Streaming writes (for gz, except for the timestamp)."""
    name, level = parse(text)
    algorithm = _ALGORITHMS[name]
    level = algorithm.default if level is None else level
    if match_streaming and name == "zstd":
        return _zstd_pack_as_streaming(data, level)
    return algorithm.pack(data, level)


def decompress(text: str, data: Buffer | Sliceable, size: int) -> Iterator[bytes]:
    """Decompress `data` to `size` bytes, in pieces of at most PIECE_BYTES; FormatError if the size differs.

    Whatever the data claims, memory is bounded by PIECE_BYTES and the algorithm's window; for Snappy, which cannot work
    in pieces, by the data and `size`. Except for Snappy, slices of `data` are not much longer than PIECE_BYTES.
    """
    algorithm = _ALGORITHMS[parse(text)[0]]
    view = memoryview(data) if isinstance(data, bytes) else data
    claimed = algorithm.claimed(view)
    if claimed not in (None, size):
        raise _wrong_size(size, f"{claimed}")
    return _counted(algorithm.unpack(view), size)


def decompress_whole(text: str, data: Buffer) -> bytes:
    """Decompress bytes whose size is not known, and which are trusted: the result may be of any size."""
    return b"".join(_ALGORITHMS[parse(text)[0]].unpack(memoryview(data)))


def _counted(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > size:
            raise _wrong_size(size, "more")
        if piece:
            yield piece
    if total != size:
        raise _wrong_size(size, f"{total}")


def _wrong_size(size: int, found: str) -> FormatError:
    return FormatError(expected=f"{size} bytes when decompressed", found=found)


def _damaged(kind: str, found: object) -> FormatError:
    return FormatError(expected=f"one whole {kind}", found=str(found)[:200] or "none")


def _check_end(kind: str, ended: bool, unused: int) -> None:
    if not ended:
        raise _damaged(kind, "one that is cut short")
    if unused:
        raise _damaged(kind, f"{unused} more bytes after it")


# zstd -----------------------------------------------------------------------------------------------------------------


def _zstd_pack(data: Buffer, level: int) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


def _zstd_pack_as_streaming(data: Buffer, level: int) -> bytes:
    """Compress without a checksum, and split into jobs as with zstd's worker threads.

    The `zstd` package that Streaming calls uses one worker per core. From 512 KiB on, the bytes depend on whether there
    are workers, but not on their number.
    """
    import zstandard

    return zstandard.ZstdCompressor(level=level, threads=1).compress(data)


def _zstd_claimed(data: Sliceable) -> int | None:
    import zstandard

    if bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        raise _damaged("zstd frame", f"one that starts with {bytes(data[:4]).hex(' ') or 'nothing'}")
    try:
        claimed = zstandard.get_frame_parameters(data[:_ZSTD_HEADER_BYTES]).content_size
    except zstandard.ZstdError as error:
        raise _damaged("zstd frame", error) from None
    return None if claimed == zstandard.CONTENTSIZE_UNKNOWN else claimed


def _zstd_unpack(data: Sliceable) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    begin, end = 0, zstandard.frame_header_size(data[:_ZSTD_HEADER_BYTES])
    try:
        while not decoder.eof and begin < len(data):
            yield decoder.decompress(data[begin:end])
            begin, end = end, _after_blocks(data, end)
    except zstandard.ZstdError as error:
        raise _damaged("zstd frame", error) from None
    _check_end("zstd frame", decoder.eof, len(decoder.unused_data) + max(0, len(data) - begin))


def _after_blocks(data: Sliceable, begin: int) -> int:
    """The offset after the next eight blocks, which decompress to at most 128 KiB each: PIECE_BYTES together.

    The decoder returns all output of its input at once, and four bytes of input can encode a whole block.
    """
    for _ in range(PIECE_BYTES >> 17):
        header = int.from_bytes(data[begin : begin + 3], "little")
        last, repeats = header & 1, header >> 1 & 3 == 1
        begin += 3 + (1 if repeats else header >> 3)
        if last:
            return begin + 4  # the checksum; without one, these bytes are reported as trailing bytes
    return begin


# gzip, bzip2, Brotli --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decoder:
    """A common interface to the incremental decoders of three packages, which produce output in bounded steps."""

    read: Callable[[Buffer], bytes]
    needs_input: Callable[[], bool]
    ended: Callable[[], bool]
    unused: Callable[[], bytes] = bytes

    def pieces(self, kind: str, data: Sliceable) -> Iterator[bytes]:
        """Decompress all of `data` in pieces; FormatError if it is cut short or has trailing bytes."""
        begin = 0
        while not self.ended():
            chunk = data[begin : begin + _FEED_BYTES] if self.needs_input() else b""
            begin += len(chunk)
            piece = self.read(chunk)
            if not chunk and not piece and not self.ended():
                break
            yield piece
        _check_end(kind, self.ended(), len(self.unused()) + len(data) - begin)


def _gz_pack(data: Buffer, level: int) -> bytes:
    """Like Python 3.11's gzip.compress, which Streaming calls, but with timestamp 0 for reproducible bytes."""
    header = b"\x1f\x8b\x08\0\0\0\0\0" + {9: b"\2", 1: b"\4"}.get(level, b"\0") + b"\xff"
    trailer = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return header + zlib.compress(data, level, wbits=-15) + trailer


def _gz_unpack(data: Sliceable) -> Iterator[bytes]:
    gz = zlib.decompressobj(wbits=31)
    decoder = _Decoder(
        read=lambda chunk: gz.decompress(chunk or gz.unconsumed_tail, PIECE_BYTES),
        needs_input=lambda: not gz.unconsumed_tail,
        ended=lambda: gz.eof,
        unused=lambda: gz.unused_data,
    )
    try:
        yield from decoder.pieces("gzip member", data)
    except zlib.error as error:
        raise _damaged("gzip member", error) from None


def _bz2_pack(data: Buffer, level: int) -> bytes:
    return bz2.compress(data, level)


def _bz2_unpack(data: Sliceable) -> Iterator[bytes]:
    bzip = bz2.BZ2Decompressor()
    decoder = _Decoder(
        read=lambda chunk: bzip.decompress(chunk, PIECE_BYTES),
        needs_input=lambda: bzip.needs_input,
        ended=lambda: bzip.eof,
        unused=lambda: bzip.unused_data,
    )
    try:
        yield from decoder.pieces("bzip2 stream", data)
    except OSError as error:
        raise _damaged("bzip2 stream", error) from None


def _br_pack(data: Buffer, level: int) -> bytes:
    packed: bytes = require("brotli", "compress").compress(data, quality=level)
    return packed


def _br_unpack(data: Sliceable) -> Iterator[bytes]:
    brotli = require("brotli", "compress")
    stream = brotli.Decompressor()
    decoder = _Decoder(
        # its buffer grows in steps, and the last step may exceed the limit: this limit gives at most 352 KiB
        read=lambda chunk: stream.process(chunk, output_buffer_limit=PIECE_BYTES // 4),
        needs_input=stream.can_accept_more_data,
        ended=stream.is_finished,
    )
    try:
        yield from decoder.pieces("Brotli stream", data)
    except brotli.error as error:
        raise _damaged("Brotli stream", error) from None


# Snappy ---------------------------------------------------------------------------------------------------------------


def _snappy_pack(data: Buffer, _level: int) -> bytes:
    packed: bytes = require("snappy", "compress").compress(bytes(data))
    return packed


def _snappy_claimed(data: Sliceable) -> int:
    size = 0
    for i, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * i
        # a byte of a block decompresses to at most 64 bytes, so a false size cannot cause a large allocation
        if byte < 0x80 and size <= 64 * len(data):
            return size
    raise _damaged("Snappy block", f"{len(data)} bytes without a possible length")


def _snappy_unpack(data: Sliceable) -> Iterator[bytes]:
    snappy = require("snappy", "compress")
    try:
        whole = memoryview(snappy.uncompress(data[:]))
    except snappy.UncompressError as error:
        raise _damaged("Snappy block", error.__cause__) from None
    for begin in range(0, len(whole), PIECE_BYTES):
        yield bytes(whole[begin : begin + PIECE_BYTES])


# ----------------------------------------------------------------------------------------------------------------------


def _no_claim(_data: Sliceable) -> None:
    """None: gzip stores the size at the end and modulo 2**32; bzip2 and Brotli do not store it."""


@dataclass(frozen=True)
class _Algorithm:
    pack: Callable[[Buffer, int], bytes]
    unpack: Callable[[Sliceable], Iterator[bytes]]
    levels: range = range(0)
    default: int = 0
    claimed: Callable[[Sliceable], int | None] = _no_claim

    def spelling(self, name: str) -> str:
        """The valid spellings of a `compression` with this algorithm, for messages."""
        return f"{name} or {name}:{self.levels[0]} to {name}:{self.levels[-1]}" if self.levels else name


_ALGORITHMS = {
    "br": _Algorithm(_br_pack, _br_unpack, range(12), 11),
    "bz2": _Algorithm(_bz2_pack, _bz2_unpack, range(1, 10), 9),
    "gz": _Algorithm(_gz_pack, _gz_unpack, range(10), 9),
    "snappy": _Algorithm(_snappy_pack, _snappy_unpack, claimed=_snappy_claimed),
    "zstd": _Algorithm(_zstd_pack, _zstd_unpack, range(1, 23), 3, _zstd_claimed),
}
NAMES = tuple(_ALGORITHMS)
