"""On what do the bytes of a conversion's part depend? A part is named by a hash of all of it.

A part that is found under its name is used as it is, so whatever changes its bytes has to change the name: the code of
a recipe and its arguments, the source's options, the versions of the packages that make its samples, the options of the
Writer, and the state of every item's file. Code that a recipe imports from elsewhere is not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mx8shards.convert.source import Item, Source, code_of

_OF_THE_COMMAND = frozenset(("out", "workers", "json"))  # arguments that no sample depends on


def basis_of(name: str, arguments: Mapping[str, Any], options: Mapping[str, Any], source: Source) -> str:
    """A hash of all that every part of a conversion depends on; equal in all of its processes."""
    facts = {
        "mx8shards": version("mx8shards"),
        "code": hashlib.sha256(code_of(name)).hexdigest(),
        "arguments": {key: value for key, value in arguments.items() if key not in _OF_THE_COMMAND},
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


def _hash(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
