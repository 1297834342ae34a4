"""How is a kernel compiled, and how does it reach other kernels and C functions? The one seam to Numba's compiler.

Numba puts the code of all that a function calls into that function, and optimises it there once more: a tree of
functions is compiled many times over. So there are two kinds of functions here:

    kernel          has one type, which it states. It is compiled when it is first called, by Python or by another
                    kernel, and kept on disk. Kernels call it by address, so it is compiled once
    brief_kernel    a kernel that keeps the GIL
    inner_kernel    a kernel that only kernels call: it has no wrapper for Python, which takes 40 ms to compile
    helper          a few lines that become a part of each kernel that calls them, for any type. It is translated to
                    LLVM's language once for each type, optimised only in its callers, and never kept on disk
    inlined_helper  a helper that LLVM may not leave as a call

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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.templates import Signature
from numba.extending import intrinsic, models, register_model, typeof_impl

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


def inner_kernel(returns: Any, *arguments: Any) -> _Decorator:
    """As `kernel` does, for a function that only kernels call.

    Python may call it, too, as tests do: a wrapper is compiled then, which is not kept on disk.
    """
    return _stated(returns(*arguments), nogil=True, inner=True)


def _stated(signature: Signature, *, nogil: bool, inner: bool = False) -> _Decorator:
    return lambda function: function if _disabled() else cast(Any, _Kernel(function, signature, nogil, inner))


def helper(function: _F) -> _F:
    """`function` as a part of all kernels that call it. Python may call it, too, and then it is not compiled."""
    return _part(function, forced=False)


def inlined_helper(function: _F) -> _F:
    """As `helper`, and never left as a call: for a long one in the innermost loop, whose state is in registers."""
    return _part(function, forced=True)


def _part(function: _F, *, forced: bool) -> _F:
    if _disabled():
        return function
    options = {"forceinline": forced, "no_cpython_wrapper": True, "pipeline_class": _HelperCompiler, **_OPTIONS}
    return cast(_F, _Native(function, _njit(**options)(function)))


def _disabled() -> bool:
    return bool(cast(Any, numba).config.DISABLE_JIT)


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
    """A function to Python, and to the compiler `meaning`: an intrinsic, or a helper's dispatcher."""

    def __init__(self, function: Callable[..., Any], meaning: Any) -> None:
        update_wrapper(self, function)
        self.meaning = meaning
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


@typeof_impl.register(_Native)
def _type_of(value: _Native, _context: Any) -> Any:
    found = _resolve_type(value.meaning)
    return _HelperType(value.meaning) if isinstance(found, _Dispatcher) else found


class _HelperType(_Dispatcher):  # type: ignore[misc]
    """The type of a helper, which is compiled once for all integers, not for each constant that it is called with."""

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        named = {name: _without_literal(kind) for name, kind in kws.items()}
        return super().get_call_type(context, tuple(map(_without_literal, args)), named)


_register_model(_HelperType)(_Opaque)


class _HelperLibrary(_Library):  # type: ignore[misc]
    """The code of a helper, which is linked into that of its callers, and optimised and run only there.

    Numba would optimise it and make machine code of it, too, which nothing calls: a fifth of all compiling.
    """

    def _optimize_final_module(self) -> None:
        """Callers do that."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, _name: str) -> int:
        """There is no machine code."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """What is told the environment of the function, which only code that runs has."""
        return self

    def set_env(self, _name: str, _environment: Any) -> None:
        """Nothing is kept."""


class _HelperCompiler(_Compiler):  # type: ignore[misc]
    """Numba's compiler, for helpers."""

    def __init__(
        self, typing: Any, target: Any, _library: Any, args: Any, return_type: Any, flags: Any, local_types: Any
    ) -> None:
        library = _HelperLibrary(target.codegen(), "mx8shards_helper")
        super().__init__(typing, target, library, args, return_type, flags, local_types)


class _Kernel(_Native):
    """A function of one type, and the cell in which its callers find its address."""

    def __init__(self, function: Callable[..., Any], signature: Signature, nogil: bool, inner: bool) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.signature = signature
        self.py_func = function
        self.place = ""  # the directory where it is kept
        self.cell = ctypes.c_uint64(0)
        self._inner = inner
        self._compiled: Any = _njit(nogil=nogil, no_cpython_wrapper=inner, **_OPTIONS)(function)
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
        if self._inner:
            with global_compiler_lock:
                self._function = _wrapper(self)
        return self._function(*arguments)

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
                if not self._inner:
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

    return _written_out("_context, {0}", "found", len(signature.args), {"found": (signature, generate)})


def _wrapper(kernel: _Kernel) -> Any:
    """A function that Python can call, and that calls an inner kernel."""
    call = _written_out("{0}", "kernel({0})", len(kernel.signature.args), {"kernel": kernel})
    compiled: Any = _njit(nogil=True, **_OPTIONS)(call)
    compiled.compile(kernel.signature)
    compiled.disable_compile()
    return compiled


def _written_out(parameters: str, result: str, count: int, scope: dict[str, Any]) -> Callable[..., Any]:
    """A function of so many parameters, which stand for {0}: the compiler wants each of them to have a name."""
    names = ", ".join(f"_{k}" for k in range(count))
    exec(f"def call({parameters.format(names)}): return {result.format(names)}", scope)  # noqa: S102
    return cast(Callable[..., Any], scope["call"])


def _symbol(module: Any, name: str, declare: Callable[[], Any]) -> Any:
    """What a module knows by this name; declared, if it knows nothing yet."""
    return module.globals[name] if name in module.globals else declare()
