"""How are the parts of a conversion named? By a hash of everything that their bytes depend on.

An existing part is reused if it has the right name, so everything that affects a part's bytes must be in the hash: the
code of a recipe and its arguments (or the pickled bytes of a source object), the versions of the packages it uses, the
options of the Writer, and the stamp (size, time) of every item's file. Modules that a recipe imports are not hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mx8shards.convert.source import Item, Recipe, Source, code_of, pickled


def basis_of(origin: Recipe | Source, options: Mapping[str, Any], source: Source) -> str:
    """A hash of everything that all parts of a conversion depend on. `source` is the source that `origin` opened."""
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
    """The name of the part with these items, for the current stamps of their files."""
    return _hash([basis, [[item, source.stamp(item)] for item in run]])[:32]


def _hash(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
