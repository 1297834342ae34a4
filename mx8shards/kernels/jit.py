"""How is a kernel compiled, and how does it reach other kernels and C functions? The one seam to Numba's compiler.

Numba puts the code of all that a function calls into that function, and optimises it there once more: a tree of
functions is compiled many times over. So there are two kinds of functions here:

    kernel, brief_kernel    has one type, which it states. It is compiled when it is first called, by Python or by
                            another kernel, and kept on disk. Kernels call it by address, so it is compiled once
    helper                  a few lines that become a part of each kernel that calls them, for any type. It is never
                            compiled alone, and never kept on disk

A call by address takes about two nanoseconds: kernels call each other per picture or per row, not per pixel. The
address stands in a cell of 8 bytes that the calling code knows by a symbol. It is 0 at first; then the calling code has
Python fill it. So a loader compiles only what its pictures need.

What is on disk is used for as long as no file of this package changes, because a kernel contains helpers of other
files, and knows the types of other kernels. With NUMBA_DISABLE_JIT=1 everything is plain Python; with
NUMBA_BOUNDSCHECK=1 the IndexError of a kernel passes through its callers.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils as _cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.templates import Signature
from numba.extending import intrinsic, register_jitable, typeof_impl

from mx8shards.kernels import (
    forking,  # noqa: F401 - from here on, forks wait for what is being compiled
    notice,
)

_FILES = [(path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
_SOURCES = [(name, found.st_mtime_ns, found.st_size) for name, found in _FILES]

# Kernels allocate nothing, so references need not be counted; no C callback calls them; a division by zero is not
# looked for, as nothing is divided by what may be zero.
_OPTIONS: Any = {"_nrt": False, "no_cfunc_wrapper": True, "error_model": "numpy"}

# they have no types
cgutils: Any = _cgutils
_resolve_type: Any = cpu_target.typing_context.resolve_value_type

_F = TypeVar("_F", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, function: _F, /) -> _F: ...


# types that kernels state
NOTHING = types.void
BOOL = types.boolean
INT = types.int64
FLOAT = types.float64
UINT = types.uint64
ADDRESS = types.uintp


def record(dtype: np.dtype[Any]) -> Any:
    """One record, which a kernel may write to."""
    return numba.from_dtype(dtype)


def array(dtype: Any, dimensions: int = 1, *, readonly: bool = False, strided: bool = False) -> Any:
    """An array; its numbers lie side by side if it is not `strided`. One that is only read may be `readonly`."""
    layout = "A" if strided else "C"
    return cast(Any, types.Array)(numba.from_dtype(np.dtype(dtype)), dimensions, layout, readonly=readonly)


def several(*kinds: Any) -> Any:
    """A tuple."""
    return cast(Any, types.Tuple)(kinds)


BYTES = array(np.uint8, readonly=True)
MEMORY = array(np.uint8)
PAIR = several(INT, INT)


# what there is to decorate with --------------------------------------------------------------------------------------


def kernel(returns: Any, *arguments: Any) -> _Decorator:
    """A function of these types that runs without the GIL.

    What callers give is converted to the types; what cannot be is an error of the compiler, or a TypeError in Python.
    """
    return _stated(returns(*arguments), nogil=True)


def brief_kernel(returns: Any, *arguments: Any) -> _Decorator:
    """As `kernel` does, but the GIL is kept: for what takes microseconds, and touches no file and no new memory.

    One who gives the GIL up must wait until another thread, which took it meanwhile, gives it up in turn.
    """
    return _stated(returns(*arguments), nogil=False)


def _stated(signature: Signature, *, nogil: bool) -> _Decorator:
    disabled = bool(cast(Any, numba).config.DISABLE_JIT)
    return lambda function: function if disabled else cast(Any, _Kernel(function, signature, nogil=nogil))


def helper(function: _F) -> _F:
    """`function` as a part of all kernels that call it. Python may call it, too, and then it is not compiled."""
    return register_jitable(no_cpython_wrapper=True, **_OPTIONS)(function)


def native(definition: Callable[..., Any]) -> _Decorator:
    """A function that is the intrinsic of this definition to kernels, and that Python runs as it stands."""
    return lambda function: cast(Any, _Native(function, intrinsic(definition)))


def linked(library: ctypes.CDLL, name: str, signature: Signature, *, instead: str = "") -> Callable[..., Any]:
    """A C function that kernels can call. Where there is none, `instead` names one that stands in, and is never called.

    Linked by symbol, because a kernel that holds an address as a ctypes global is compiled anew in every process. A
    symbol that is missing would be a SIGSEGV at the first call, so it is looked up here, where that is an error.
    """
    address = ctypes.cast(getattr(library, instead or name), ctypes.c_void_p).value
    symbol = f"mx8shards_{name}"
    llvmlite.binding.add_symbol(symbol, address)
    return cast(Callable[..., Any], types.ExternalFunction(symbol, signature))


# how kernels are called ----------------------------------------------------------------------------------------------


class _Native:
    """What Python calls as a function, and what is an intrinsic to the compiler."""

    def __init__(self, function: Callable[..., Any], meaning: Any) -> None:
        update_wrapper(self, function)
        self.intrinsic = meaning
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@typeof_impl.register(_Native)
def _type_of(value: _Native, _context: Any) -> Any:
    return _resolve_type(value.intrinsic)


class _Kernel(_Native):
    """A function of one type, and the cell in which its callers find its address."""

    def __init__(self, function: Callable[..., Any], signature: Signature, *, nogil: bool) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = signature
        self.py_func = function
        self.place = ""  # the directory where it is kept
        self.cell = ctypes.c_uint64(0)
        self._compiled: Any = njit(nogil=nogil, **_OPTIONS)(function)
        self._keep()
        symbol = f"mx8shards_{self.name}"
        llvmlite.binding.add_symbol(symbol, ctypes.addressof(self.cell))
        KERNELS[ctypes.addressof(self.cell)] = self
        super().__init__(function, intrinsic(_call_by(symbol, self.name, signature)))
        self._function = self._load_and_call

    def _keep(self) -> None:
        """Have Numba keep it on disk, for as long as no file of this package changes."""
        try:
            self._compiled.enable_caching()
        except RuntimeError:  # there is no directory that may be written to
            return
        cache = self._compiled._cache
        self.place = str(cache.cache_path)
        kept = getattr(cache, "_cache_file", None)
        if kept is not None:
            kept._source_stamp = (kept._source_stamp, _SOURCES)

    def _load_and_call(self, *arguments: Any) -> Any:
        """The first call, or one in a thread that came while the first one waited."""
        self.load()
        return self._compiled(*arguments)

    def load(self) -> bool:
        """Compile it, or find it on disk, unless it is here; whether it was compiled."""
        with global_compiler_lock:  # several threads may be the first
            if self.cell.value:
                return False
            notice.wave.begin()
            begin = time.monotonic()
            try:
                self._compiled.compile(self.signature)
                self._compiled.disable_compile()  # so arguments of another type are converted
                (found,) = self._compiled.overloads.values()
                self.cell.value = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
                self._function = self._compiled
            finally:
                was_compiled = not sum(self._compiled.stats.cache_hits.values())
                seconds = time.monotonic() - begin if was_compiled else 0.0
                notice.wave.end(self.__module__, seconds, self.place)
            return was_compiled


KERNELS: dict[int, _Kernel] = {}  # all there are, by the addresses of their cells

_RESOLVE = "mx8shards_resolve"


def _resolve(cell: int) -> int:
    """Called by a kernel that finds 0 in a cell, in its thread: the address, or 0 after an error."""
    try:
        KERNELS[cell].load()
    except BaseException:  # noqa: BLE001 - nothing may be raised here; the kernel that is told raises
        sys.excepthook(*sys.exc_info())
    return KERNELS[cell].cell.value


_resolver = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(_resolve)  # for as long as kernels may call it
llvmlite.binding.add_symbol(_RESOLVE, ctypes.cast(_resolver, ctypes.c_void_p).value)


def _call_by(symbol: str, name: str, signature: Signature) -> Callable[..., Any]:
    """What an intrinsic does that calls a kernel by the address in its cell."""
    word = ir.IntType(64)
    complaint = f"{name} could not be compiled: the reason was printed to stderr"

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(signature.return_type, signature.args)
        cell = _symbol(builder.module, symbol, lambda: ir.GlobalVariable(builder.module, word, symbol))
        resolver = ir.FunctionType(word, [word.as_pointer()])
        resolve = _symbol(builder.module, _RESOLVE, lambda: ir.Function(builder.module, resolver, _RESOLVE))
        address = cgutils.alloca_once_value(builder, builder.load_atomic(cell, "acquire", 8))
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, builder.load(address))):
            builder.store(builder.call(resolve, [cell]), address)
            with cgutils.if_unlikely(builder, cgutils.is_null(builder, builder.load(address))):
                convention.return_user_exc(builder, RuntimeError, (complaint,))
        code = builder.inttoptr(builder.load(address), kind.as_pointer())
        status, result = convention.call_function(builder, code, signature.return_type, signature.args, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    # An intrinsic has just as many parameters as it is called with, so this is written out for each number of them.
    names = [f"_{k}" for k in range(len(signature.args))]
    scope: dict[str, Any] = {"found": (signature, generate)}
    exec(f"def call(_context, {', '.join(names)}): return found", scope)  # noqa: S102
    return cast(Callable[..., Any], scope["call"])


def _symbol(module: Any, name: str, declare: Callable[[], Any]) -> Any:
    """What a module knows by this name; declared, if it knows nothing yet."""
    return module.globals[name] if name in module.globals else declare()
