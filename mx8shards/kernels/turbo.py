"""Which libturbojpeg decodes JPEGs, where is it found, and how do kernels call it?

TurboJPEG 2.0 and later have all required functions; 3.0 and later can also decode a region of a picture. A handle must
not be used by two threads at once.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from mx8shards.kernels.jit import linked

VARIABLE = "MX8SHARDS_TURBOJPEG"  # path of the library to use; if it is set and empty, none is used
_SYSTEM_NAMES = ("libturbojpeg.so.0", "libturbojpeg.so", "libturbojpeg.dylib", "libturbojpeg.0.dylib")

# Wheels whose extension module contains and exports libturbojpeg 3.x: package → name of the module. The exports are
# not a documented interface, so every symbol is probed before it is used.
_WHEELS = {"pylibjxl": "_pylibjxl"}

_NEEDED = ("tjInitDecompress", "tjDestroy", "tjDecompressToYUVPlanes", "tjDecompress2", "tjGetErrorStr2")

_OF_REGIONS = ("tj3Set", "tj3DecompressHeader", "tj3SetScalingFactor", "tj3SetCroppingRegion", "tj3Decompress8")

RGB = 0  # TJPF_RGB
# TJFLAG_STOPONWARNING: truncated data is an error; TJFLAG_LIMITSCANS (2.1 and later): so are more than 500 scans
STRICT = 8192 | 32768


def find_library() -> ctypes.CDLL | None:
    """The library named by the environment variable; else version 3.x of the system or a wheel; else 2.x."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        library = ctypes.CDLL(chosen)
        missing = [name for name in _NEEDED if not hasattr(library, name)]
        if missing:
            raise ImportError(f"{VARIABLE}={chosen}: expected libturbojpeg 2.0 or later, got one without {missing[0]}")
        return library
    if chosen is not None:
        return None
    older = None
    for library in _candidates():
        if _has(library, _NEEDED):
            if _has(library, _OF_REGIONS):
                return library
            older = older or library
    return older


def _candidates() -> Iterator[ctypes.CDLL]:
    """All libraries that can be loaded, those of the system first."""
    for name in (*_SYSTEM_NAMES, *_wheel_paths()):
        try:
            yield ctypes.CDLL(name)
        except OSError:
            continue


def _wheel_paths() -> Iterator[str]:
    """Paths of such libraries in installed wheels. The packages are not imported, because that would run their code."""
    for package, module in _WHEELS.items():
        spec = find_spec(package)
        for directory in (spec.submodule_search_locations or ()) if spec else ():
            paths = (Path(directory, module + suffix) for suffix in EXTENSION_SUFFIXES)
            yield from (str(path) for path in paths if path.is_file())


def _has(library: ctypes.CDLL, names: tuple[str, ...]) -> bool:
    return all(hasattr(library, name) for name in names)


library = find_library()

HAS_REGIONS = library is not None and _has(library, _OF_REGIONS)


def _linked(name: str, signature: Any) -> Callable[..., Any]:
    """A function of the library that kernels can call.

    Libraries of 2.x lack some of them. Kernels are compiled for both versions alike, so a stand-in is linked there,
    which is never called because HAS_REGIONS is False.
    """
    if library is None:
        return _absent
    return linked(library, name, signature, stand_in="" if hasattr(library, name) else _NEEDED[0])


def _absent(*_: Any) -> int:
    raise RuntimeError("no libturbojpeg was found")


_AT = types.uintp  # an address

# (): a handle, or 0
open_handle = _linked("tjInitDecompress", types.uintp())

# (handle): 0
close_handle = _linked("tjDestroy", types.intc(_AT))

# (handle, jpeg, jpeg_bytes, addresses of planes, width, their strides, height, flags): 0, or -1
decompress_to_planes = _linked(
    "tjDecompressToYUVPlanes",
    types.intc(_AT, _AT, types.ulong, _AT, types.intc, _AT, types.intc, types.intc),
)

# (handle, jpeg, jpeg_bytes, to, width, stride, height, pixel format, flags): 0, or -1
decompress = _linked(
    "tjDecompress2",
    types.intc(_AT, _AT, types.ulong, _AT, types.intc, types.intc, types.intc, types.intc, types.intc),
)

STOP_ON_WARNINGS = 0  # TJPARAM_STOPONWARNING
SCAN_LIMIT = 13  # TJPARAM_SCANLIMIT

# (handle, parameter, value): 0, or -1
set_parameter = _linked("tj3Set", types.intc(_AT, types.intc, types.intc))

# (handle, jpeg, jpeg_bytes): 0, or -1
read_header = _linked("tj3DecompressHeader", types.intc(_AT, _AT, types.ulong))

# (handle, 1 | denominator << 32): 0, or -1; 64-bit Unix ABIs pass a struct of two ints as one int64
set_scale = _linked("tj3SetScalingFactor", types.intc(_AT, types.int64))

# (handle, x | y << 32, width | height << 32): 0, or -1; the region stays set until it is set to an empty one
set_region = _linked("tj3SetCroppingRegion", types.intc(_AT, types.int64, types.int64))

# (handle, jpeg, jpeg_bytes, to, stride, pixel format): 0, or -1
decompress_region = _linked("tj3Decompress8", types.intc(_AT, _AT, types.ulong, _AT, types.intc, types.intc))


class Handle:
    """A decompressor for one picture only: it would use the tables of an earlier picture if the next one lacks them."""

    def __init__(self) -> None:
        assert library is not None
        library.tjInitDecompress.restype = ctypes.c_void_p
        library.tjGetErrorStr2.restype = ctypes.c_char_p
        library.tjDestroy.argtypes = [ctypes.c_void_p]
        self.address: int | None = library.tjInitDecompress()
        if not self.address:
            raise MemoryError("libturbojpeg has no memory for a decompressor")

    def find_error(self, jpeg: bytes | memoryview, width: int, height: int) -> str:
        """The error message of decoding a JPEG of this size; "" if it is undamaged. It is decoded at scale 1/8."""
        assert library is not None
        width, height = -(-width // 8), -(-height // 8)
        pixels = ctypes.create_string_buffer(3 * width * height)
        address, size = ctypes.c_void_p(self.address), ctypes.c_ulong(len(jpeg))
        data = ctypes.c_void_p(np.frombuffer(jpeg, np.uint8).ctypes.data)
        failed = library.tjDecompress2(address, data, size, pixels, width, 3 * width, height, RGB, STRICT)
        return str(library.tjGetErrorStr2(address), "utf-8", "replace") if failed else ""

    def close(self) -> None:
        """Free the decompressor."""
        if self.address and library is not None:
            library.tjDestroy(self.address)
            self.address = None
