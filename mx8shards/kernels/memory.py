"""How does a kernel copy and read memory that it knows by address?"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mx8shards.kernels.jit import linked

_libc = ctypes.CDLL(None)

# memcpy(to, from, size): the C library's, because it copies 4 KiB four times as fast as a loop over a slice.
memcpy = linked(_libc, "memcpy", types.uintp(types.uintp, types.uintp, types.uintp))

# pread(descriptor, to, size, begin): a file cut short is a short count, never a signal.
pread = linked(_libc, "pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))


@intrinsic
def _load_uint32(_typing: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(32).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint32(types.uintp), generate


# load_uint32(address): the little-endian uint32 there, which need not be aligned.
load_uint32 = cast(Callable[[Any], Any], _load_uint32)
