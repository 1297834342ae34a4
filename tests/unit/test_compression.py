"""Is compressed data decompressed correctly, invalid data refused, and memory bounded?"""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli  # type: ignore[import-untyped]
import hypothesis
import numpy as np
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mx8shards.errors import FormatError, MissingPackageError
from mx8shards.format.compression import PIECE_BYTES, compress, decompress, extension, parse

TEXTS = ["zstd", "zstd:1", "zstd:7", "gz", "gz:0", "gz:1", "bz2", "bz2:1", "br:1", "br:5", "snappy"]
NAMES = ["zstd", "gz", "bz2", "br:4", "snappy"]
EVERY_TEXT = pytest.mark.parametrize("text", TEXTS)
EVERY_NAME = pytest.mark.parametrize("text", NAMES)

# Independent decompressors: those that Streaming uses, except its `zstd` package, which is not installed here.
READERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
    "gz": gzip.decompress,
    "bz2": bz2.decompress,
    "br": brotli.decompress,
    "snappy": snappy.decompress,
}


def mixed(size: int) -> bytes:
    """Alternating noise and repeated words, which compress by about half."""
    rng = np.random.default_rng(size)
    words = [rng.bytes(length) for length in range(3, 60)]
    parts = []
    for _ in range(size // 4000 + 1):
        parts += [rng.bytes(2000), b"".join(words[i] for i in rng.integers(0, len(words), 65))]
    return b"".join(parts)[:size]


SAMPLES = {"empty": b"", "a byte": b"x", "mixed": mixed(300_000), "long run": bytes(5_000_000)}


def whole(text: str, data: bytes | memoryview, size: int) -> bytes:
    return b"".join(decompress(text, data, size))


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zstd", ("zstd", None)),
        ("zstd:22", ("zstd", 22)),
        ("br:0", ("br", 0)),
        ("br:11", ("br", 11)),
        ("gz:9", ("gz", 9)),
    ],
)
def test_a_level_is_part_of_the_setting_but_not_of_the_file_extension(
    text: str, expected: tuple[str, int | None]
) -> None:
    assert parse(text) == expected
    assert extension(text) == expected[0]


@pytest.mark.parametrize(
    "text",
    [
        *("", "ZSTD", "lz4", "zstd ", ":3", "zstd:", "zstd:0", "zstd:23", "zstd:03", "zstd:+3", "zstd:-1", "zstd:3:3"),
        *("zstd:1_0", "zstd:٣", "gz:10", "br:12", "bz2:0", "snappy:1", "snappy:", "zstd:" + "9" * 5000, 3, None),
    ],
    ids=lambda text: repr(text)[:12],
)
def test_an_unknown_compression_is_refused(text: Any) -> None:
    for function in (parse, extension, lambda text: compress(text, b""), lambda text: decompress(text, b"", 0)):
        with pytest.raises(FormatError) as caught:
            function(text)
        assert len(str(caught.value)) < 200


def test_an_invalid_level_is_an_error_that_names_the_valid_ones() -> None:
    with pytest.raises(FormatError, match="expected zstd or zstd:1 to zstd:22, got 'zstd:99'"):
        parse("zstd:99")
    with pytest.raises(FormatError, match="expected snappy, got 'snappy:1'"):
        parse("snappy:1")
    with pytest.raises(FormatError, match="expected one of br, bz2, gz, snappy, zstd, got 'lz4'"):
        parse("lz4")


# ------------------------------------------------------------------------------------------------- round trips


@EVERY_TEXT
@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
def test_data_are_decompressed_in_pieces_of_a_mebibyte(text: str, data: bytes) -> None:
    packed = compress(text, data)
    pieces = list(decompress(text, packed, len(data)))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= PIECE_BYTES and type(piece) is bytes for piece in pieces)


@EVERY_TEXT
@given(st.binary(max_size=3000))
@hypothesis.settings(max_examples=30)
def test_any_bytes_round_trip(text: str, data: bytes) -> None:
    assert whole(text, compress(text, data), len(data)) == data


@EVERY_TEXT
def test_any_buffer_can_be_compressed(text: str) -> None:
    data = mixed(70_000)
    packed = compress(text, memoryview(data))
    assert packed == compress(text, data)
    shifted = memoryview(b"_" + packed)[1:]
    assert whole(text, shifted, len(data)) == data


@EVERY_TEXT
def test_other_decompressors_read_our_files_and_equal_data_give_equal_files(text: str) -> None:
    for data in SAMPLES.values():
        packed = compress(text, data)
        assert READERS[extension(text)](packed) == data
        assert compress(text, data) == packed


@pytest.mark.parametrize("level", range(1, 10))
def test_gzip_equals_pythons_except_for_the_time(level: int) -> None:
    data = mixed(50_000)
    ours, pythons = compress(f"gz:{level}", data), gzip.compress(data, level, mtime=0x01020304)
    assert pythons[4:8] == b"\x04\x03\x02\x01"
    assert ours == pythons[:4] + bytes(4) + pythons[8:]


def test_default_levels_equal_streamings() -> None:
    data = mixed(60_000)
    for text, default in (("zstd", "zstd:3"), ("gz", "gz:9"), ("bz2", "bz2:9"), ("br", "br:11")):
        assert compress(text, data) == compress(default, data)
    assert compress("snappy", data) == snappy.compress(data)


# ---------------------------------------------------------------------------------------------- zstd as Streaming's


def test_zstd_frames_have_size_and_checksum_and_with_match_streaming_only_the_size() -> None:
    data = mixed(2000)
    ours = zstandard.get_frame_parameters(compress("zstd", data))
    theirs = zstandard.get_frame_parameters(compress("zstd", data, match_streaming=True))
    assert (ours.content_size, ours.has_checksum) == (2000, True)
    assert (theirs.content_size, theirs.has_checksum) == (2000, False)


def test_match_streaming_compresses_zstd_as_with_worker_threads() -> None:
    data = mixed(3_000_000)
    found = compress("zstd", data, match_streaming=True)
    assert found == zstandard.ZstdCompressor(level=3, threads=3).compress(data)
    assert found != zstandard.ZstdCompressor(level=3).compress(data), "these data do not show whether threads matter"
    assert whole("zstd", found, len(data)) == data


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, (1 << 19) - 1, 1 << 19, (1 << 19) + 1, 1_200_000])
def test_match_streaming_zstd_equals_streamings_zstd_package_byte_for_byte(size: int) -> None:
    package = pytest.importorskip("zstd")
    if package.ZSTD_version() != ".".join(map(str, zstandard.ZSTD_VERSION)):
        pytest.skip("another libzstd may compress to other bytes")
    data = mixed(size)
    for level in (1, 3, 4, 9, 15, 19):
        assert compress(f"zstd:{level}", data, match_streaming=True) == package.compress(data, level)


@pytest.mark.parametrize("text", ["gz:3", "bz2", "br:2", "snappy"])
def test_match_streaming_changes_no_other_algorithm(text: str) -> None:
    assert compress(text, mixed(9000), match_streaming=True) == compress(text, mixed(9000))


# ---------------------------------------------------------------------------------------------- damage


@EVERY_NAME
@pytest.mark.parametrize("data", [b"x", mixed(5000), bytes(200_000)], ids=["a byte", "mixed", "run"])
def test_every_truncation_is_refused(text: str, data: bytes) -> None:
    packed = compress(text, data)
    for end in {*range(min(60, len(packed))), *range(max(0, len(packed) - 40), len(packed))}:
        with pytest.raises(FormatError):
            whole(text, packed[:end], len(data))


@EVERY_NAME
@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(8), bytes(100_000)], ids=["nul", "x", "nuls", "many"])
@pytest.mark.parametrize("data", [b"x", mixed(300_000)], ids=["a byte", "mixed"])
def test_bytes_after_the_end_are_refused(text: str, data: bytes, tail: bytes) -> None:
    with pytest.raises(FormatError):
        whole(text, compress(text, data) + tail, len(data))


@EVERY_NAME
def test_a_second_frame_is_refused_even_if_the_total_size_is_right(text: str) -> None:
    data = mixed(4000)
    for first, second in ((data[:1000], data[1000:]), (data, b""), (b"", data)):
        with pytest.raises(FormatError):
            whole(text, compress(text, first) + compress(text, second), len(data))


@EVERY_NAME
@pytest.mark.parametrize("told", [0, 1, 3999, 4001, 1 << 32])
def test_a_size_that_differs_from_the_declared_one_is_refused(text: str, told: int) -> None:
    with pytest.raises(FormatError):
        whole(text, compress(text, mixed(4000)), told)


@EVERY_NAME
@given(st.data())
@hypothesis.settings(max_examples=60)
def test_damage_raises_only_FormatError_and_never_gives_another_length(text: str, data: st.DataObject) -> None:
    packed = bytearray(compress(text, mixed(3000)))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = whole(text, bytes(packed), 3000)
    except FormatError:
        return
    assert len(found) == 3000  # Brotli and Snappy have no checksum: only the file's hash detects a changed literal


@EVERY_NAME
@given(st.binary(max_size=200), st.integers(0, 300))
@hypothesis.settings(max_examples=100)
def test_random_bytes_raise_only_FormatError(text: str, garbage: bytes, size: int) -> None:
    try:
        found = whole(text, garbage, size)
    except FormatError:
        return
    assert len(found) == size


@pytest.mark.parametrize("text", ["zstd", "gz", "bz2"])
def test_a_wrong_checksum_is_refused(text: str) -> None:
    data = mixed(500)
    packed = bytearray(compress(text, data))
    packed[{"zstd": -1, "gz": -5, "bz2": 11}[text]] ^= 1
    with pytest.raises(FormatError):
        whole(text, bytes(packed), len(data))


def test_zstd_frames_without_a_size_or_without_a_checksum_are_read() -> None:
    data = mixed(400_000)
    for size, checksum in ((False, False), (False, True), (True, False)):
        packed = zstandard.ZstdCompressor(write_content_size=size, write_checksum=checksum).compress(data)
        assert whole("zstd", packed, len(data)) == data
        for damaged in (packed[:-1], packed + b"x"):
            with pytest.raises(FormatError):
                whole("zstd", damaged, len(data))


def test_a_zstd_frame_of_many_small_blocks_is_read() -> None:
    data = mixed(40_000)
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    packed = b"".join(
        packer.compress(data[i : i + 100]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for i in range(0, 40_000, 100)
    )
    packed += packer.flush()
    assert whole("zstd", packed, len(data)) == data


def test_errors_name_the_damage() -> None:
    data = mixed(4000)
    packed = compress("zstd", data)
    for damaged, size, message in (
        (packed, 5000, "expected 5000 bytes when decompressed, got 4000"),
        (packed[:-3], 4000, "expected one whole zstd frame, got one that is cut short"),
        (packed + b"abc", 4000, "expected one whole zstd frame, got 3 more bytes after it"),
        (b"\0\1\2\3" + packed, 4000, "expected one whole zstd frame, got one that starts with 00 01 02 03"),
    ):
        with pytest.raises(FormatError) as caught:
            whole("zstd", damaged, size)
        assert str(caught.value) == message


# ---------------------------------------------------------------------------------------------- bombs

BOMB_BYTES = 64 << 20


def zstd_bomb() -> bytes:
    """Blocks of 128 KiB that take four bytes each, in a frame without its size."""
    run, last = (1 | 1 << 1 | 1 << 17 << 3, 1 << 1 | 1 << 17 << 3)
    count = BOMB_BYTES >> 17
    return (
        b"\x28\xb5\x2f\xfd\0\x58"
        + (last.to_bytes(3, "little") + b"\0") * (count - 1)
        + run.to_bytes(3, "little")
        + b"\0"
    )


def packed_in_pieces(packer: Any) -> Any:
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(BOMB_BYTES >> 20)) + packer.flush()


def brotli_bomb() -> Any:
    packer = brotli.Compressor(quality=1)
    block = bytes(1 << 20)
    return b"".join(packer.process(block) for _ in range(BOMB_BYTES >> 20)) + packer.finish()


BOMBS: dict[str, Callable[[], Any]] = {
    "zstd": zstd_bomb,
    "gz": lambda: packed_in_pieces(zlib.compressobj(9, wbits=31)),
    "bz2": lambda: packed_in_pieces(bz2.BZ2Compressor(9)),
    "br": brotli_bomb,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_decompressed_in_bounded_memory_up_to_the_declared_size(name: str) -> None:
    bomb = BOMBS[name]()
    assert len(bomb) < BOMB_BYTES // 200
    tracemalloc.start()
    try:
        assert sum(map(len, decompress(name, bomb, BOMB_BYTES))) == BOMB_BYTES
        with pytest.raises(FormatError, match=r"expected 5000000 bytes when decompressed, got more"):
            for _ in decompress(name, bomb, 5_000_000):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_claimed_sizes_alone_allocate_nothing() -> None:
    """Run in a process that may allocate half a gibibyte."""
    script = """
import resource, zstandard, snappy, brotli
from mx8shards.errors import FormatError
from mx8shards.format.compression import decompress
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
huge = (1 << 32) - 1
claims = {
    "snappy": b"\\xff\\xff\\xff\\xff\\x0f" + b"\\0x",
    "zstd": b"\\x28\\xb5\\x2f\\xfd\\xa0\\xff\\xff\\xff\\xff" + b"\\1\\0\\0",  # one segment of 4 GiB
    "gz": b"\\x1f\\x8b\\x08\\0\\0\\0\\0\\0\\0\\xff\\3\\0\\0\\0\\0\\0\\xff\\xff\\xff\\xff",
}
for name, data in claims.items():
    try:
        found = sum(map(len, decompress(name, data, huge)))
    except FormatError:
        continue
    raise SystemExit(f"{name}: {found} bytes from {len(data)}")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_window_of_more_than_128_mebibytes_is_refused() -> None:
    for exponent, fits in ((17, True), (18, False)):  # 2**(10 + exponent) bytes
        frame = b"\x28\xb5\x2f\xfd\0" + bytes([exponent << 3]) + b"\x09\0\0x"  # one raw block of one byte
        if fits:
            assert whole("zstd", frame, 1) == b"x"
        else:
            with pytest.raises(FormatError, match="too much memory"):
                whole("zstd", frame, 1)


# ---------------------------------------------------------------------------------------------- optional packages


@pytest.mark.parametrize(("text", "module"), [("br", "brotli"), ("snappy", "snappy")])
def test_a_missing_package_is_an_error_that_names_the_extra(
    text: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = compress(text, b"mx8")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=r'pip install "mx8shards\[compress\]"'):
        compress(text, b"mx8")
    with pytest.raises(MissingPackageError, match=r'pip install "mx8shards\[compress\]"'):
        whole(text, packed, 3)
    assert parse(text) == (text, None)  # an index that names it can still be parsed
