"""Which libavcodec decodes videos, where are the fields of its structures, and how do kernels call it?

It is the library that PyAV loads. PyAV decodes one packet per call from Python, which takes as long as decoding a small
frame, and holds the GIL meanwhile. PyAV does not tell where its decoders are, so they are opened here.

The fields that are accessed have their places in the versions of `_VERSIONS`. In addition, new structures are compared
with their documented defaults. With any other library, `library` is None, and PyAV is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from numba import types

from mx8shards.kernels.jit import linked

_VERSIONS = {"avcodec_version": 62, "avutil_version": 60}  # major versions, of FFmpeg 8

# Places of fields, in bytes.
PACKET_PTS, PACKET_DTS, PACKET_DATA, PACKET_FLAGS = 8, 16, 24, 40
FRAME_PLANES, FRAME_STRIDES, FRAME_SIZE, FRAME_FORMAT = 0, 64, 104, 116
FRAME_PTS, FRAME_FLAGS, FRAME_ERRORS = 136, 276, 320
_CONTEXT_EXTRADATA, _CONTEXT_SIZE, CONTEXT_REORDER = 72, 112, 172

KEY = 1  # a flag of packets
CORRUPT = 1  # a flag of frames
END = -541478725  # AVERROR_EOF
_PADDING = 64  # zeros that decoders may read after extradata

# Defaults of new structures: 32-bit integers, and times that are unknown, by their places.
_NO_TIME = -(1 << 63)
_Fields = dict[int, int]
_FRAME: _Fields = {116: -1, 124: 0, 128: 1, 152: 0, 156: 1, 276: 0, 280: 0, 284: 2, 288: 2, 292: 2, 320: 0}
_PACKET: _Fields = {32: 0, 40: 0, 72: -1, 76: -1, 96: 0, 100: 1}
_CONTEXT: _Fields = {80: 0, 88: 1, 96: 1, 104: 1, 112: 0, 116: 0, 132: 1, 136: -1, 140: -1, 144: 2, 148: 2, 152: 2}
_TIMES = {"frame": (FRAME_PTS, 144, 304), "packet": (PACKET_PTS, PACKET_DTS)}

_AT, _TEXT = ctypes.c_void_p, ctypes.c_char_p

# The functions that are called from Python: what each returns and takes.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "avcodec_version": (ctypes.c_uint,),
    "avutil_version": (ctypes.c_uint,),
    "avcodec_find_decoder_by_name": (_AT, _TEXT),
    "avcodec_alloc_context3": (_AT, _AT),
    "avcodec_free_context": (None, _AT),
    "avcodec_open2": (ctypes.c_int, _AT, _AT, _AT),
    "avcodec_flush_buffers": (None, _AT),
    "av_opt_set": (ctypes.c_int, _AT, _TEXT, _TEXT, ctypes.c_int),
    "av_mallocz": (_AT, ctypes.c_size_t),
    "av_packet_alloc": (_AT,),
    "av_packet_free": (None, _AT),
    "av_frame_alloc": (_AT,),
    "av_frame_free": (None, _AT),
    "av_get_pix_fmt": (ctypes.c_int, _TEXT),
    "av_get_pix_fmt_name": (_TEXT, ctypes.c_int),
}
_OF_KERNELS = ("avcodec_send_packet", "avcodec_receive_frame", "av_new_packet", "av_packet_unref", "av_frame_unref")


class Decoder:
    """An open decoder with one thread, a packet and a frame. Closed when nothing refers to it.

    addresses    of the decoder, the packet and the frame
    """

    def __init__(self, name: str, width: int, height: int, extradata: bytes, options: dict[str, str]) -> None:
        self.addresses = (0, 0, 0)
        assert library is not None
        codec = library.avcodec_find_decoder_by_name(name.encode())
        if not codec:
            raise LookupError(name)
        context = library.avcodec_alloc_context3(codec)
        self.addresses = context, library.av_packet_alloc(), library.av_frame_alloc()
        if not all(self.addresses):
            raise MemoryError("FFmpeg has no memory for a decoder")
        _words(context + _CONTEXT_SIZE, 2)[:] = width, height
        if extradata:
            _set_extradata(library, context, extradata)
        for key, value in {"threads": "1", **options}.items():
            library.av_opt_set(context, key.encode(), value.encode(), 0)
        self.error = int(library.avcodec_open2(context, codec, None))  # below 0 if it cannot be opened

    def flush_buffers(self) -> None:
        """Forget all packets and frames."""
        assert library is not None
        library.avcodec_flush_buffers(self.addresses[0])

    def __del__(self) -> None:
        """Close the decoder."""
        if library is not None:
            _free(library, *self.addresses)


def _free(found: ctypes.CDLL, context: int, packet: int, frame: int) -> None:
    """Free a decoder, a packet and a frame; 0 stands for none."""
    found.avcodec_free_context(ctypes.byref(ctypes.c_void_p(context)))
    found.av_packet_free(ctypes.byref(ctypes.c_void_p(packet)))
    found.av_frame_free(ctypes.byref(ctypes.c_void_p(frame)))


def format_code(name: str) -> int:
    """FFmpeg's number of a pixel format; -1 if it does not know it."""
    return int(library.av_get_pix_fmt(name.encode())) if library is not None else -1


def format_name(code: int) -> str:
    """The name of a pixel format."""
    name = library.av_get_pix_fmt_name(code) if library is not None else None
    return name.decode() if name else str(code)


def _words(address: int, count: int) -> Any:
    """32-bit integers in memory."""
    return (ctypes.c_int32 * count).from_address(address)


def _set_extradata(found: ctypes.CDLL, context: int, extradata: bytes) -> None:
    """Give a context a copy of its extradata, which it frees."""
    copy = found.av_mallocz(len(extradata) + _PADDING)
    if not copy:
        raise MemoryError("FFmpeg has no memory for a decoder")
    ctypes.memmove(copy, extradata, len(extradata))
    ctypes.c_uint64.from_address(context + _CONTEXT_EXTRADATA).value = copy
    _words(context + _CONTEXT_EXTRADATA + 8, 1)[0] = len(extradata)


# finding it ----------------------------------------------------------------------------------------------------------


def _found() -> ctypes.CDLL | None:
    """PyAV's libavcodec with the functions of the libraries that it needs, if its structures are known."""
    for path in _paths():
        try:
            found = ctypes.CDLL(path)
        except OSError:
            continue
        if all(hasattr(found, name) for name in (*_PROTOTYPES, *_OF_KERNELS)):
            for name, (returns, *takes) in _PROTOTYPES.items():
                getattr(found, name).restype, getattr(found, name).argtypes = returns, takes
            if _is_known(found):
                return found
    return None


def _paths() -> list[str]:
    """PyAV's extension module that is linked with libavcodec, through which its functions are found."""
    spec = find_spec("av")
    folders = spec.submodule_search_locations or () if spec else ()
    paths = (Path(folder, "codec", f"context{suffix}") for folder in folders for suffix in EXTENSION_SUFFIXES)
    return [str(path) for path in paths if path.is_file()]


class _Structure(NamedTuple):
    """A new structure: its address, the 32-bit integers that it should have, and the places of its unknown times."""

    address: int
    fields: _Fields
    times: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        """Whether it has these values."""
        good = all(_words(self.address + at, 1)[0] == value for at, value in self.fields.items())
        return good and all(ctypes.c_int64.from_address(self.address + at).value == _NO_TIME for at in self.times)


def _is_known(found: ctypes.CDLL) -> bool:
    """Whether a library has the known versions, and new structures have their defaults in the known places."""
    if any(getattr(found, name)() >> 16 != major for name, major in _VERSIONS.items()):
        return False
    codec = found.avcodec_find_decoder_by_name(b"mjpeg")
    context, packet, frame = found.avcodec_alloc_context3(codec), found.av_packet_alloc(), found.av_frame_alloc()
    known = bool(context and packet and frame) and all(
        structure.is_known
        for structure in (
            _Structure(frame, _FRAME, _TIMES["frame"]),
            _Structure(packet, _PACKET, _TIMES["packet"]),
            _Structure(context, _CONTEXT, ()),
        )
    )
    if known:
        found.av_opt_set(context, b"refs", b"7", 0)  # the field before that of the reordering
        known = _words(context + CONTEXT_REORDER - 4, 2)[:] == [7, 0]
    _free(found, context, packet, frame)
    return known


library = _found()


def _linked(name: str, signature: Any) -> Callable[..., Any]:
    """A function of the library that kernels can call."""
    return _absent if library is None else linked(library, name, signature)


def _absent(*_: Any) -> int:
    raise RuntimeError("no known libavcodec was found")


_ADDRESS = types.uintp

# (decoder, packet, or 0 after the last one): 0, or an error below 0
send_packet = _linked("avcodec_send_packet", types.intc(_ADDRESS, _ADDRESS))

# (decoder, frame): 0; -EAGAIN if the decoder wants a packet; END if it has given all frames; or another error
receive_frame = _linked("avcodec_receive_frame", types.intc(_ADDRESS, _ADDRESS))

# (packet, size): 0, or an error; the packet gets memory of this size
new_packet = _linked("av_new_packet", types.intc(_ADDRESS, types.intc))

# (packet), (frame): free their contents
unref_packet = _linked("av_packet_unref", types.void(_ADDRESS))
unref_frame = _linked("av_frame_unref", types.void(_ADDRESS))
