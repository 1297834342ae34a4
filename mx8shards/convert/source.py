"""Where do samples come from?

A source is a module with `add_arguments(parser)` and `open_source(args) -> Source`: one of this package, or a recipe of
your own in a file. Whatever reads samples that way can be read in parallel, can go on after a kill, and can name the
file that is to blame. `picture_checks.checked_picture` and `tarball.Tar` are there for recipes, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mx8shards.errors import SourceError

BUILT_IN = {"imagefolder": "pictures in folders, one folder per class"}

Item = Sequence[Any]


class Source(Protocol):
    """Samples that can be made one by one, in any process.

    Every process opens the source itself. If two find different columns or metadata, the conversion ends with an
    error. A source may also have

    - `counts`: names and numbers of what else happened while samples were made. They are reported.
    - `packages`: names of installed packages whose version its samples depend on.
    - `features`: names and values, in JSON, of whatever else its samples depend on.
    """

    columns: Mapping[str, str]
    metadata: Mapping[str, Any]

    def items(self) -> Sequence[Item]:
        """All items in their order. They are small, cheap to list, and JSON; the first of each names it."""

    def stamp(self, item: Item) -> object:
        """What changes when the item's data do: size and time of its file, say. JSON."""

    def sample(self, item: Item) -> Mapping[str, Any]:
        """The sample of an item: always the same. SourceError if there is none."""


def load_module(name: str) -> ModuleType:
    """The module of a built-in source, or of a recipe's file."""
    if name in BUILT_IN:
        return import_module(f"mx8shards.convert.{name}")
    path = Path(name)
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None or not path.is_file():
        known = ", ".join(BUILT_IN)
        hint = f"mx8shards convert imagefolder {name} OUT" if path.is_dir() else ""
        expected = f"{known}, or the path of a recipe's .py file"
        raise SourceError(subject="source", expected=expected, found=repr(name), hint=hint)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in it look there
    spec.loader.exec_module(module)
    for needed in ("add_arguments", "open_source"):
        if not hasattr(module, needed):
            raise SourceError(subject=str(path), expected=f"a function {needed}", found="none")
    return module


def code_of(name: str) -> bytes:
    """The text of a recipe; empty for a source of this package, whose version says as much."""
    return b"" if name in BUILT_IN else Path(name).read_bytes()


def open_source(name: str, args: argparse.Namespace) -> Source:
    """The source that a command line means."""
    source: Source = load_module(name).open_source(args)
    return source
