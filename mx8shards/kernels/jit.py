"""How is a kernel compiled, and how does it reach a C function? The one seam to Numba's compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
from numba import njit, types
from numba.core.typing.templates import Signature

from mx8shards.kernels import forking  # noqa: F401 - from here on, forks wait for what is being compiled

_FILES = [(path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
_SOURCES = [(name, found.st_mtime_ns, found.st_size) for name, found in _FILES]

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(function: _F) -> _F:
    """`function` compiled when it is first called, without the GIL, and kept on disk for the next process.

    Numba keeps it for as long as the function's own file does not change. But it contains what it calls, in other
    files: so it is kept for as long as none of these changes.
    """
    return _kept(function, nogil=True)


def brief_kernel(function: _F) -> _F:
    """As `kernel` does, but the GIL is kept: for what takes microseconds, and touches no file and no new memory.

    One who gives the GIL up must wait until another thread, which took it meanwhile, gives it up in turn.
    """
    return _kept(function, nogil=False)


def _kept(function: _F, *, nogil: bool) -> _F:
    compiled: Any = njit(nogil=nogil, cache=True)(function)
    kept = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if kept is not None:
        kept._source_stamp = (kept._source_stamp, _SOURCES)
    return cast(_F, compiled)


def linked(library: ctypes.CDLL, name: str, signature: Signature, *, instead: str = "") -> Callable[..., Any]:
    """A C function that kernels can call. Where there is none, `instead` names one that stands in, and is never called.

    Linked by symbol, because a kernel that holds an address as a ctypes global is compiled anew in every process. A
    symbol that is missing would be a SIGSEGV at the first call, so it is looked up here, where that is an error.
    """
    address = ctypes.cast(getattr(library, instead or name), ctypes.c_void_p).value
    symbol = f"mx8shards_{name}"
    llvmlite.binding.add_symbol(symbol, address)
    return cast(Callable[..., Any], types.ExternalFunction(symbol, signature))
