"""Where do samples come from? The port between a conversion and its sources: built-in ones, and your own (recipes).

A source is an object with the methods of `Source`. It is opened by a function, or a class, that takes plain arguments:
`imagefolder.ImageFolder` here, or whatever a recipe's file calls `open_source`. Its signature and the `Args:` of its
docstring are the only place that defines the options: `convert_from` takes them as keywords, and the command line is
made of them (`cli/signatures.py`).

`picture_checks.checked_picture` and `tarball.Tar` are there for recipes, too.
"""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mx8shards.errors import SettingError, SourceError, shown

BUILT_IN = {"imagefolder": "pictures in folders, one folder per class"}

Item = Sequence[Any]


class Source(Protocol):
    """Samples that can be made one by one, in any process.

    A source may also have

    - `counts`: names and numbers of what else happened while samples were made. They are reported.
    - `packages`: names of installed packages whose version its samples depend on.
    - `features`: names and values, in JSON, of whatever else its samples depend on.

    The metadata's "classes", if there is one, lists the names of the labels. `append` needs a column `path` whose value
    is the name of the item.
    """

    columns: Mapping[str, str]
    metadata: Mapping[str, Any]

    def items(self) -> Sequence[Item]:
        """All items in their order. They are small, cheap to list, and JSON; the first element of each names it."""

    def stamp(self, item: Item) -> object:
        """What changes when the item's data do: size and time of its file, say. JSON."""

    def sample(self, item: Item) -> Mapping[str, Any]:
        """The sample of an item: always the same. SourceError if there is none."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A source that each process opens itself: the name of a built-in source or of a recipe's file, and arguments."""

    name: str
    arguments: Mapping[str, Any]

    def open(self) -> Source:
        """Open the source."""
        source: Source = opener_of(self.name)(**self.arguments)
        return source


def opened(source: Recipe | Source) -> Source:
    """The source itself."""
    return source.open() if isinstance(source, Recipe) else source


def name_of(source: Recipe | Source) -> str:
    """How errors and a dataset's metadata call a source: the file's name of a recipe, the class of an object."""
    return Path(source.name).name if isinstance(source, Recipe) else type(source).__name__


def pickled(source: Source) -> bytes:
    """The bytes of a source that is an object. SettingError where it cannot be pickled."""
    try:
        return pickle.dumps(source)
    except Exception as error:  # pickling raises whatever the object's own code does
        raise SettingError(
            f"a {type(source).__name__} that cannot be pickled: {error}",
            subject="source",
            hint="define its class at the top of a module, and open files in `sample`, not in `__init__`",
        ) from error


def recipe_of(name: str, src: Any, options: Mapping[str, Any]) -> Recipe:
    """The recipe with all its arguments, defaults included. `src` is its first one. SettingError for a misfit."""
    parameters = parameters_of(name)
    given = dict(options)
    first = next((p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY), None)
    if src is not None:
        if first is None:
            raise SettingError(subject="src", expected=f"none: {name} reads no source of its own", found=shown(src))
        given[first] = src
    for option, value in given.items():
        if option not in parameters:
            known = ", ".join(option for option in parameters if option != first)
            raise SettingError(f"{name} has no such option, but {known or 'none'}", subject=option, found=shown(value))
    arguments = {p.name: given.get(p.name, p.default) for p in parameters.values()}
    for option, value in arguments.items():
        if value is inspect.Parameter.empty:
            raise SettingError(subject=option, expected=f"a value: {name} needs one", found="none")
    return Recipe(name, arguments)


def parameters_of(name: str) -> Mapping[str, inspect.Parameter]:
    """The arguments that open a source."""
    opener = opener_of(name)
    try:
        found = inspect.signature(opener, eval_str=True).parameters
    except NameError:  # a type that is imported for type checkers alone
        found = inspect.signature(opener).parameters
    for parameter in found.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SourceError(subject=name, expected="open_source(src, *, option=…)", found=str(parameter))
    return found


def opener_of(name: str) -> Callable[..., Any]:
    """What opens a source: a function, or its class."""
    opener: Callable[..., Any] = _module(name).open_source
    return opener


def _module(name: str) -> ModuleType:
    """The module of a built-in source, or of a recipe's file."""
    if name in BUILT_IN:
        return import_module(f"mx8shards.convert.{name}")
    path = Path(name)
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None or not path.is_file():
        known = ", ".join(BUILT_IN)
        hint = f"mx8shards convert imagefolder {name} OUT" if path.is_dir() else ""
        expected = f"{known}, or the path of a recipe's .py file"
        raise SettingError(subject="source", expected=expected, found=repr(name), hint=hint)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in it look there
    spec.loader.exec_module(module)
    if hasattr(module, "add_arguments") or not callable(getattr(module, "open_source", None)):
        raise SettingError(
            subject=str(path),
            expected="a function or class open_source(src, *, option=…) that takes plain arguments",
            found="add_arguments(parser)" if hasattr(module, "add_arguments") else "none",
            hint="the command line is made of its signature and of the Args: in its docstring",
        )
    return module


def code_of(source: Recipe | Source) -> bytes:
    """The code of a recipe, or of the class of an object; empty for a source of this package: its version says it."""
    if isinstance(source, Recipe):
        return b"" if source.name in BUILT_IN else Path(source.name).read_bytes()
    kind = type(source)
    if kind.__module__.startswith("mx8shards."):
        return b""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is not None and Path(file).is_file():
        return Path(file).read_bytes()
    try:
        return inspect.getsource(kind).encode()
    except (OSError, TypeError):  # typed at a prompt that keeps nothing
        return b""
