"""How do kernels copy and read memory by address, read files, and query the page cache? Links to libc, intrinsics."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj as _arrayobj

from mx8shards.kernels.jit import cgutils, helper, linked, native

Array = npt.NDArray[Any]

_populate: Any = _arrayobj.populate_array  # numba has no type hints

_LINE_BYTES = 64

_libc = ctypes.CDLL(None)

# memcpy(to, from, size): from libc, which copies 4 KiB four times as fast as a loop over a slice.
memcpy = linked(_libc, "memcpy", types.uintp(types.uintp, types.uintp, types.uintp))

# pread(descriptor, to, size, begin): if the file was truncated it returns fewer bytes; a map would raise SIGBUS.
pread = linked(_libc, "pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))

# madvise(address, size, advice): 0, or -1.
madvise = linked(_libc, "madvise", types.intc(types.uintp, types.uintp, types.intc))

# mincore(address, size, bytes): writes one byte per page; its lowest bit is 1 if the page is in memory.
mincore = linked(_libc, "mincore", types.intc(types.uintp, types.uintp, types.uintp))

# Only Linux has both. Elsewhere the page cache cannot be queried, and kernels that use them are not called.
KNOWS_CACHE = hasattr(_libc, "preadv2") and hasattr(_libc, "posix_fadvise")
if KNOWS_CACHE:
    # preadv2(descriptor, vectors, count, begin, flags)
    preadv2 = linked(_libc, "preadv2", types.intp(types.intc, types.uintp, types.intc, types.int64, types.intc))
    # posix_fadvise(descriptor, begin, size, advice)
    fadvise = linked(_libc, "posix_fadvise", types.intc(types.intc, types.int64, types.int64, types.intc))
    # __errno_location(): the address of errno in this thread
    errno_address = linked(_libc, "__errno_location", types.uintp())
else:  # pragma: no cover - so that kernels can be compiled: equal signatures, never called
    preadv2 = pread
    fadvise = madvise
    errno_address = linked(_libc, "__error", types.uintp())


def _loader(kind: Any, bits: int, align: int) -> Any:
    """An intrinsic that loads a little-endian integer from an address."""

    @intrinsic
    def load(_typing: Any, address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=align)

        return kind(types.uintp), generate

    return load


# load_uint8(address)
load_uint8 = cast(Callable[[Any], Any], _loader(types.uint8, 8, 1))

# load_uint32(address): the address may be unaligned.
load_uint32 = cast(Callable[[Any], Any], _loader(types.uint32, 32, 1))

# load_int64(address): the address is a multiple of eight.
load_int64 = cast(Callable[[Any], Any], _loader(types.int64, 64, 8))


@intrinsic
def _store_int64(_typing: Any, address: Any, value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store(arguments[1], pointer, align=8)
        return _context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


# store_int64(address, value): the address is a multiple of eight.
store_int64 = cast(Callable[[Any, Any], None], _store_int64)


def _prefetch(_typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(function, [builder.inttoptr(arguments[0], pointer), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@native(_prefetch)
def prefetch(address: Any) -> None:
    """Fetch the cache line at an address, which is read soon. It need not be mapped."""


@intrinsic
def _copied_line(_typing: Any, to: Any, source: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.IntType(8), _LINE_BYTES).as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], line), align=1)
        stored = builder.store(value, builder.inttoptr(arguments[0], line), align=_LINE_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), generate


# _copy_line(to, source): copy 64 bytes with non-temporal stores; `to` is a multiple of 64.
_copy_line = cast(Callable[[Any, Any], None], _copied_line)


@intrinsic
def _waited(_typing: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")  # on x86 this drains the write-combining buffers; a weaker fence emits no instruction
        return context.get_dummy_value()

    return types.void(), generate


# wait_for_copies(): make non-temporal stores visible to other threads.
wait_for_copies = cast(Callable[[], None], _waited)


@helper
def copy_past_caches(to: Any, source: Any, size: Any) -> None:
    """Copy `size` bytes with non-temporal stores: the target is not read into the caches, and evicts nothing there.

    Faster than memcpy from 4 KiB on, if the target is not read soon. Call `wait_for_copies` before other threads read
    the target.
    """
    line = np.uint64(_LINE_BYTES)
    head = min(size, (line - to % line) % line)
    memcpy(to, source, head)
    lines = (size - head) // line
    for k in range(lines):
        _copy_line(to + head + line * k, source + head + line * k)
    done = head + line * lines
    memcpy(to + done, source + done, size - done)


@intrinsic
def _viewed(_typing: Any, address: Any, count: Any) -> Any:
    kind = cast(Any, types.Array)(types.uint8, 1, "C")

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        array = context.make_array(kind)(context, builder)
        word = context.get_value_type(types.intp)
        data = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        fields = {"shape": [arguments[1]], "strides": [word(1)], "itemsize": word(1), "meminfo": None}
        _populate(array, data=data, **fields)
        return array._getvalue()

    return kind(types.uintp, types.intp), generate


# view_bytes(address, count): an array over memory. The caller keeps the memory valid as long as the array is used.
view_bytes = cast(Callable[[Any, Any], Any], _viewed)


def _typed(_typing: Any, data: Any, dtype: Any) -> Any:
    """The definition of the intrinsic for `typed`."""
    kind = cast(Any, types.Array)(dtype.dtype, data.ndim, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        old = context.make_array(data)(context, builder, arguments[0])
        new = context.make_array(kind)(context, builder)
        size = ir.Constant(context.get_value_type(types.intp), kind.dtype.bitwidth // 8)
        shape, strides = cgutils.unpack_tuple(builder, old.shape), cgutils.unpack_tuple(builder, old.strides)
        shape[-1], strides[-1] = builder.udiv(shape[-1], size), size
        begin = builder.bitcast(old.data, context.get_data_type(kind.dtype).as_pointer())
        _populate(new, data=begin, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return new._getvalue()

    return kind(data, dtype), generate


@native(_typed)
def typed(data: Array, dtype: Any) -> Array:
    """View bytes as values of `dtype`; the address must be aligned for it. Compiles much faster than `view`."""
    return data.view(dtype)


@helper
def read_fully(descriptor: int, to: Any, size: Any, begin: Any) -> bool:
    """Read `size` bytes from offset `begin` of a file to an address; False if not all of them could be read."""
    done = np.int64(0)
    tries = 0
    while done < size:
        got = pread(descriptor, to + np.uint64(done), np.uint64(size - done), begin + done)
        if got == 0:
            return False
        if got < 0:  # perhaps interrupted by a signal: try again, a permanent error fails three times
            tries += 1
            if tries == 3:
                return False
        else:
            done += got
    return True
