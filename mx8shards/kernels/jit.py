"""How are kernels compiled and cached, and how do they call other kernels and C functions? The interface to Numba.

By default, Numba links the code of all callees into a function and optimises it there again, so functions that are
called from many places are compiled many times. The decorators of this module avoid that:

    kernel          has one signature. It is compiled when Python or another kernel first calls it, and cached on disk.
                    Kernels call it through a pointer, so it is compiled once
    brief_kernel    a kernel that keeps the GIL
    inner_kernel    a kernel that only kernels call: it has no Python wrapper, which would take 40 ms to compile
    helper          a few lines for any type, compiled into each kernel that calls them. It is translated to LLVM IR
                    once per type, optimised only in its callers, and not cached
    inlined_helper  a helper that LLVM must inline

A call through a pointer takes about two nanoseconds; kernels call each other per picture or per row, not per pixel. The
pointer is stored in a cell of 8 bytes, which the calling code refers to by a symbol. If the cell is 0, the calling code
calls Python, which compiles the kernel or loads it from the cache and fills the cell. So a loader compiles only the
kernels that it needs.

A cached kernel is used as long as no file of this package changes, because it contains helpers from other files and
depends on the signatures of other kernels. With NUMBA_DISABLE_JIT=1 everything is plain Python; with
NUMBA_BOUNDSCHECK=1 an IndexError in a kernel propagates through its callers.
"""

from __future__ import annotations

import ctypes
import sys
import threading
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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.templates import Signature
from numba.extending import intrinsic, models, register_model, typeof_impl

from mx8shards.kernels import (
    forking,  # noqa: F401 - importing it makes forks wait for the compiler
    notice,
)

_FILES = [(path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
_SOURCES = [(name, found.st_mtime_ns, found.st_size) for name, found in _FILES]

# No reference counting, because kernels allocate nothing; no wrapper for C callbacks, because nothing uses it; no check
# for division by zero, because no divisor can be zero.
_OPTIONS: Any = {"_nrt": False, "no_cfunc_wrapper": True, "error_model": "numpy"}

# numba has no type hints for these
cgutils: Any = _cgutils
_Compiler: Any = Compiler
_Dispatcher: Any = types.Dispatcher
_Opaque: Any = models.OpaqueModel
_njit: Any = njit
_without_literal: Any = types.unliteral
_register_model: Any = register_model
_Library: Any = JITCodeLibrary
_resolve_type: Any = cpu_target.typing_context.resolve_value_type

_F = TypeVar("_F", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, function: _F, /) -> _F: ...


# types in the signatures of kernels
NOTHING = types.void
BOOL = types.boolean
INT = types.int64
FLOAT = types.float64
UINT = types.uint64
ADDRESS = types.uintp


def record(dtype: np.dtype[Any]) -> Any:
    """The type of one element of a structured array, which a kernel may write to."""
    return numba.from_dtype(dtype)


def array(dtype: Any, dimensions: int = 1, *, readonly: bool = False, strided: bool = False) -> Any:
    """The type of an array: C-contiguous unless `strided`; a `readonly` type also accepts arrays that are read-only."""
    layout = "A" if strided else "C"
    return cast(Any, types.Array)(numba.from_dtype(np.dtype(dtype)), dimensions, layout, readonly=readonly)


def tuple_of(*kinds: Any) -> Any:
    """The type of a tuple."""
    return cast(Any, types.Tuple)(kinds)


BYTES = array(np.uint8, readonly=True)
MEMORY = array(np.uint8)
PAIR = tuple_of(INT, INT)


# decorators ----------------------------------------------------------------------------------------------------------


def kernel(returns: Any, *arguments: Any) -> _Decorator:
    """Compile a function with this signature; it runs without the GIL.

    Arguments of other types are converted. If that is impossible, kernels that call it fail to compile, and a call from
    Python raises TypeError.
    """
    return _make_kernel(returns(*arguments), nogil=True)


def brief_kernel(returns: Any, *arguments: Any) -> _Decorator:
    """As `kernel`, but it keeps the GIL: for kernels of a few microseconds that touch neither files nor new memory.

    After releasing the GIL, a thread may have to wait until another thread releases it.
    """
    return _make_kernel(returns(*arguments), nogil=False)


def inner_kernel(returns: Any, *arguments: Any) -> _Decorator:
    """As `kernel`, for a function that only kernels call.

    Python can call it too, as tests do: a wrapper is compiled then, and not cached.
    """
    return _make_kernel(returns(*arguments), nogil=True, inner=True)


def _make_kernel(signature: Signature, *, nogil: bool, inner: bool = False) -> _Decorator:
    return lambda function: function if _disabled() else cast(Any, _Kernel(function, signature, nogil, inner))


def helper(function: _F) -> _F:
    """Compile `function` into each kernel that calls it. When Python calls it, it runs uncompiled."""
    return _make_helper(function, forced=False)


def inlined_helper(function: _F) -> _F:
    """As `helper`, but always inlined: for a long helper in an innermost loop, so that state stays in registers."""
    return _make_helper(function, forced=True)


def _make_helper(function: _F, *, forced: bool) -> _F:
    if _disabled():
        return function
    options = {"forceinline": forced, "no_cpython_wrapper": True, "pipeline_class": _HelperCompiler, **_OPTIONS}
    return cast(_F, _Native(function, _njit(**options)(function)))


def _disabled() -> bool:
    return bool(cast(Any, numba).config.DISABLE_JIT)


def native(definition: Callable[..., Any]) -> _Decorator:
    """A function that kernels call as the intrinsic `definition`, and that Python runs as it is written."""
    return lambda function: cast(Any, _Native(function, intrinsic(definition)))


def linked(library: ctypes.CDLL, name: str, signature: Signature, *, stand_in: str = "") -> Callable[..., Any]:
    """A C function that kernels can call.

    If the library lacks it, `stand_in` names a function whose address is linked instead; callers must never call it. A
    function is linked by symbol, because a kernel that uses a ctypes function is compiled anew in every process. The
    symbol is looked up here, because a missing one would cause a SIGSEGV at the first call.
    """
    address = ctypes.cast(getattr(library, stand_in or name), ctypes.c_void_p).value
    symbol = f"mx8shards_{name}"
    llvmlite.binding.add_symbol(symbol, address)
    return cast(Callable[..., Any], types.ExternalFunction(symbol, signature))


# how kernels are compiled and called ---------------------------------------------------------------------------------


class _Native:
    """A function that Python calls directly, and that compiled code calls through `callee`.

    The callee is an intrinsic, or the dispatcher of a helper.
    """

    def __init__(self, function: Callable[..., Any], callee: Any) -> None:
        update_wrapper(self, function)
        self.callee = callee
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@typeof_impl.register(_Native)
def _type_of(value: _Native, _context: Any) -> Any:
    found = _resolve_type(value.callee)
    return _HelperType(value.callee) if isinstance(found, _Dispatcher) else found


class _HelperType(_Dispatcher):  # type: ignore[misc]
    """The type of a helper. Literal arguments are widened, so that it is not compiled once per constant."""

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        named = {name: _without_literal(kind) for name, kind in kws.items()}
        return super().get_call_type(context, tuple(map(_without_literal, args)), named)


_register_model(_HelperType)(_Opaque)


class _HelperLibrary(_Library):  # type: ignore[misc]
    """The LLVM IR of a helper. It is linked into the callers' libraries, and is only optimised and run there.

    Numba would also optimise it and generate machine code that nothing calls, which takes a fifth of the compile time.
    """

    def _optimize_final_module(self) -> None:
        """Do nothing: the code is optimised in the callers."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _name: str) -> int:
        """Return 0, because there is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """The object on which Numba calls `set_env` after compiling."""
        return self

    def set_env(self, _name: str, _environment: Any) -> None:
        """Do nothing: only code that runs needs an environment."""


class _HelperCompiler(_Compiler):  # type: ignore[misc]
    """Numba's compiler, which puts helpers into a `_HelperLibrary`."""

    def __init__(
        self, typing: Any, target: Any, _library: Any, args: Any, return_type: Any, flags: Any, local_types: Any
    ) -> None:
        library = _HelperLibrary(target.codegen(), "mx8shards_helper")
        super().__init__(typing, target, library, args, return_type, flags, local_types)


class _Kernel(_Native):
    """A function of one signature, and the cell that holds its address for compiled callers."""

    def __init__(self, function: Callable[..., Any], signature: Signature, nogil: bool, inner: bool) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = signature
        self.py_func = function
        self.cache_dir = ""  # "" if it is not cached
        self.cell = ctypes.c_uint64(0)
        self._inner = inner
        self._compiled: Any = _njit(nogil=nogil, no_cpython_wrapper=inner, **_OPTIONS)(function)
        self._enable_cache()
        symbol = f"mx8shards_{self.name}"
        llvmlite.binding.add_symbol(symbol, ctypes.addressof(self.cell))
        KERNELS[ctypes.addressof(self.cell)] = self
        super().__init__(function, intrinsic(_call_through_cell(symbol, self.name, signature)))
        self._function = self._load_and_call

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._function(*arguments)
        finally:
            if _interrupts:
                _raise_interrupt()

    def _enable_cache(self) -> None:
        """Have Numba cache it on disk, until any file of this package changes."""
        try:
            self._compiled.enable_caching()
        except RuntimeError:  # no directory is writable
            return
        cache = self._compiled._cache
        self.cache_dir = str(cache.cache_path)
        cache_file = getattr(cache, "_cache_file", None)
        if cache_file is not None:
            cache_file._source_stamp = (cache_file._source_stamp, _SOURCES)

    def _load_and_call(self, *arguments: Any) -> Any:
        """Compile or load it, then call it. Several threads may do this at once for the first calls."""
        self.load()
        if self._inner:
            with global_compiler_lock:
                self._function = _python_wrapper(self)
        return self._function(*arguments)

    def load(self) -> bool:
        """Compile it or load it from the cache, unless that is done; True if it was compiled."""
        with global_compiler_lock:  # several threads may call this at once
            if self.cell.value:
                return False
            notice.announcement.begin()
            begin = time.monotonic()
            try:
                self._compiled.compile(self.signature)
                self._compiled.disable_compile()  # from here on, arguments of other types are converted
                (found,) = self._compiled.overloads.values()
                self.cell.value = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
                if not self._inner:
                    self._function = self._compiled
            finally:
                was_compiled = not sum(self._compiled.stats.cache_hits.values())
                seconds = time.monotonic() - begin if was_compiled else 0.0
                notice.announcement.end(self.__module__, seconds, self.cache_dir)
            return was_compiled


KERNELS: dict[int, _Kernel] = {}  # all kernels, by the addresses of their cells

_RESOLVE = "mx8shards_resolve"

# KeyboardInterrupts that came while compiled code waited for a kernel. A ctypes callback cannot raise them, so they are
# raised as one when the main thread's call from Python returns.
_interrupts: list[KeyboardInterrupt] = []


def _raise_interrupt() -> None:
    """Raise a deferred KeyboardInterrupt, in the main thread only, as Python does."""
    if threading.current_thread() is threading.main_thread():
        _interrupts.clear()
        raise KeyboardInterrupt


def _resolve(cell: int) -> int:
    """Compile or load the kernel of a cell; return its address, or 0 after an error. Called by compiled code."""
    kernel = KERNELS[cell]
    done = False
    while not done:
        try:
            kernel.load()
            done = True
        except KeyboardInterrupt as interrupt:
            _interrupts.append(interrupt.with_traceback(None))  # then compile again: the calling kernel needs it
        except BaseException:  # noqa: BLE001 - a ctypes callback cannot raise; the calling kernel raises on 0
            sys.excepthook(*sys.exc_info())
            done = True
    return kernel.cell.value


# a global, because kernels may call it at any time
_resolver = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(_resolve)
llvmlite.binding.add_symbol(_RESOLVE, ctypes.cast(_resolver, ctypes.c_void_p).value)


def _call_through_cell(symbol: str, name: str, signature: Signature) -> Callable[..., Any]:
    """The definition of an intrinsic that calls a kernel through its cell."""
    word = ir.IntType(64)
    message = f"{name} could not be compiled: the reason was printed to stderr"

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
                convention.return_user_exc(builder, RuntimeError, (message,))
        code = builder.inttoptr(builder.load(address), kind.as_pointer())
        status, result = convention.call_function(builder, code, signature.return_type, signature.args, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return _generate_function("_context, {0}", "found", len(signature.args), {"found": (signature, generate)})


def _python_wrapper(kernel: _Kernel) -> Any:
    """Compile a function that Python can call and that calls an inner kernel."""
    call = _generate_function("{0}", "kernel({0})", len(kernel.signature.args), {"kernel": kernel})
    compiled: Any = _njit(nogil=True, **_OPTIONS)(call)
    compiled.compile(kernel.signature)
    compiled.disable_compile()
    return compiled


def _generate_function(parameters: str, result: str, count: int, scope: dict[str, Any]) -> Callable[..., Any]:
    """Define a function of `count` parameters, whose names replace {0}: Numba does not accept `*args` here."""
    names = ", ".join(f"_{k}" for k in range(count))
    exec(f"def call({parameters.format(names)}): return {result.format(names)}", scope)  # noqa: S102
    return cast(Callable[..., Any], scope["call"])


def _symbol(module: Any, name: str, declare: Callable[[], Any]) -> Any:
    """The global of an LLVM module with this name; it is declared if the module does not have it."""
    return module.globals[name] if name in module.globals else declare()
