"""Where do samples come from? The interface (`Source`) between a conversion and built-in sources or users' recipes.

A source is an object with the methods of `Source`. It is made by a function or class that takes plain arguments:
`imagefolder.ImageFolder`, or `open_source` in a recipe's file. The options are defined only by its signature and the
`Args:` of its docstring: `convert_from` takes them as keywords, and the command line is generated from them
(`cli/signatures.py`).

Recipes may also use `picture_checks.checked_picture`, `video_changes.checked_video` and `tarball.Tar`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mx8shards.errors import SettingError, SourceError, shown

BUILT_IN = {
    "imagefolder": "pictures in folders, one folder per class",
    "videofolder": "videos in folders, or named by a list",
}

# Names of convert_from's parameters and of the command's own options, which no option of a recipe may have.
RESERVED = frozenset(
    {"source", "src", "out", "append", "split", "seed", "workers", "size_limit", "compression", "single_writer"}
    | {"deadline_s", "progress", "options", "json", "help"}
)

Item = Sequence[Any]


class Source(Protocol):
    """Items that are converted to samples one by one, in any process.

    Optional attributes:

    - `counts`: a mapping of names to numbers of events during conversion, which are reported.
    - `packages`: names of the installed packages whose versions affect the samples.
    - `features`: a JSON object of other facts that affect the samples.
    - `versions`: a JSON object of versions to record in the metadata.
    - `group(item)`: items of one group are in one split. Default: each item is a group, named by it.
    - `expect(items)`: called before these items are converted in this order, so that they may be read ahead.
    - `travels`: True if workers shall get this object, pickled, instead of opening the source again: because listing
      its items takes long. Then `items` is not called in workers.

    "classes" in the metadata, if present, lists the class names in the order of their labels. `append` needs a column
    `path` that stores the name of the item.
    """

    columns: Mapping[str, str]
    metadata: Mapping[str, Any]

    def items(self) -> Sequence[Item]:
        """A list of all items, in order. Each is a small JSON array; its first element is its name, which is unique."""

    def stamp(self, item: Item) -> object:
        """A JSON value that changes with the item's data, such as the size and modification time of its file."""

    def sample(self, item: Item) -> Mapping[str, Any]:
        """Convert an item, deterministically. SourceError makes it a reject."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each process opens a source: the name of a built-in source or the path of a recipe, and its arguments."""

    name: str
    arguments: Mapping[str, Any]

    def open(self) -> Source:
        """Open the source."""
        opener = opener_of(self.name)
        with exit_is_an_error(self.name):
            source: Source = opener(**self.arguments)
        return source


def opened(source: Recipe | Source) -> Source:
    """The source, opened if it is a Recipe."""
    return source.open() if isinstance(source, Recipe) else source


def items_of(source: Source, name: str) -> Sequence[Item]:
    """All items of a source. SourceError unless they are lists with different names."""
    with exit_is_an_error(name, "items()"):
        items: Any = source.items()
    expected = "a list of items, each a list of JSON values of which the first is its name"
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        hint = "list(…) makes a list of a generator" if isinstance(items, Iterator) else ""
        raise SourceError(subject=name, place="items()", expected=expected, found=shown(items), hint=hint)
    names: set[str] = set()
    for number, item in enumerate(items):
        if not isinstance(item, Sequence) or isinstance(item, str | bytes) or not item:
            hint = f"[{shown(item)}] is an item with this name alone" if isinstance(item, str) else ""
            raise SourceError(subject=name, place=f"items()[{number}]", expected=expected, found=shown(item), hint=hint)
        if (called := str(item[0])) in names:
            expected = "a different name for each item"
            raise SourceError(subject=name, place=f"items()[{number}]", expected=expected, found=f"{called!r} again")
        names.add(called)
    return items


@contextlib.contextmanager
def exit_is_an_error(name: str, place: str = "") -> Iterator[None]:
    """SourceError if a recipe calls sys.exit, which would end the conversion without a message."""
    try:
        yield
    except SystemExit as error:
        raise SourceError(
            subject=name, place=place, expected="no call to sys.exit", found=f"sys.exit({error.code!r})"
        ) from error


def name_of(source: Recipe | Source) -> str:
    """The source's name in errors and metadata: a recipe's file name, or an object's class name."""
    return Path(source.name).name if isinstance(source, Recipe) else type(source).__name__


def pickled(source: Source) -> bytes:
    """Pickle a source object. SettingError if that fails."""
    try:
        return pickle.dumps(source)
    except Exception as error:  # pickling runs the object's own code, which may raise anything
        raise SettingError(
            f"a {type(source).__name__} that cannot be pickled: {error}",
            subject="source",
            hint="define its class at the top of a module, and open files in `sample`, not in `__init__`",
        ) from error


def recipe_of(name: str, src: Any, options: Mapping[str, Any]) -> Recipe:
    """The recipe with all arguments, including defaults. `src` is the first one. SettingError if they do not fit."""
    parameters = parameters_of(name)
    given = dict(options)
    first = next((p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY), None)
    if src is not None:
        if first is None:
            raise SettingError(subject="src", expected=f"nothing, as {name} has no such argument", found=shown(src))
        given[first] = src
    for option, value in given.items():
        if option not in parameters:
            known = ", ".join(option for option in parameters if option != first)
            message = f"{name} has no such option; its options: {known or 'none'}"
            raise SettingError(message, subject=option, found=shown(value))
    arguments = {p.name: given.get(p.name, p.default) for p in parameters.values()}
    for option, value in arguments.items():
        if value is inspect.Parameter.empty:
            raise SettingError(subject=option, expected=f"a value, which {name} requires", found="none")
    return Recipe(name, arguments)


def parameters_of(name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the function or class that opens a source."""
    opener = opener_of(name)
    try:
        found = inspect.signature(opener, eval_str=True).parameters
    except NameError:  # an annotation imported only under TYPE_CHECKING
        found = inspect.signature(opener).parameters
    for number, parameter in enumerate(found.values()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SourceError(subject=name, expected="open_source(src, *, option=…)", found=str(parameter))
        is_src = number == 0 and parameter.kind is not parameter.KEYWORD_ONLY and parameter.name in ("source", "src")
        if parameter.name in RESERVED and not is_src:
            what = f"a reserved name: convert itself has an argument {parameter.name}"
            raise SettingError(what, subject=parameter.name, hint=f"give this option of {name} another name")
    return found


def opener_of(name: str) -> Callable[..., Any]:
    """The function or class that opens a source."""
    opener: Callable[..., Any] = _module(name).open_source
    return opener


def _module(name: str) -> ModuleType:
    """Import the module of a built-in source or of a recipe's file."""
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
    sys.modules[spec.name] = module  # dataclasses look their module up there
    with exit_is_an_error(name):
        spec.loader.exec_module(module)
    if hasattr(module, "add_arguments") or not callable(getattr(module, "open_source", None)):
        raise SettingError(
            subject=str(path),
            expected="a function or class open_source(src, *, option=…) that takes plain arguments",
            found="add_arguments(parser)" if hasattr(module, "add_arguments") else "none",
            hint="the command line is generated from its signature and the Args: in its docstring",
        )
    return module


def code_of(source: Recipe | Source) -> bytes:
    """The code of a recipe or an object's class. Empty for this package's sources, which its version identifies."""
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
    except (OSError, TypeError):  # defined at a prompt that keeps no source code
        return b""
