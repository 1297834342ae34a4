"""On what do the bytes of a conversion's part depend? A part is named by a hash of all of it.

A part that is found under its name is used as it is, so whatever changes its bytes has to change the name: the code of
a recipe and its arguments (of a source that is given as an object: its pickled bytes), the versions of the packages
that make its samples, the options of the Writer, and the state of every item's file. Code that a recipe imports from
elsewhere is not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mx8shards.convert.source import Item, Recipe, Source, code_of, pickled


def basis_of(origin: Recipe | Source, options: Mapping[str, Any], source: Source) -> str:
    """A hash of all that every part of a conversion depends on. `source` is the one that `origin` opened."""
    facts = {
        "mx8shards": version("mx8shards"),
        "code": hashlib.sha256(code_of(origin)).hexdigest(),
        "arguments": dict(origin.arguments)
        if isinstance(origin, Recipe)
        else hashlib.sha256(pickled(origin)).hexdigest(),
        "options": dict(options),
        "packages": {package: _version(package) for package in getattr(source, "packages", ())},
        "features": dict(getattr(source, "features", {})),
        "metadata": source.metadata,
        "columns": dict(source.columns),
    }
    return _hash(facts)


def part_name(basis: str, source: Source, run: Sequence[Item]) -> str:
    """The name of the part of these items, in the state in which their files are now."""
    return _hash([basis, [[item, source.stamp(item)] for item in run]])[:32]


def _arguments(origin: Recipe | Source) -> object:
    return dict(origin.arguments) if isinstance(origin, Recipe) else hashlib.sha256(pickled(origin)).hexdigest()


def _hash(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
