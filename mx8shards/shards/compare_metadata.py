"""Which metadata do several datasets share, and how do their class lists differ?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mx8shards.format.index import Index
from mx8shards.format.jsontext import dump, short

_SHOWN = 3


def shared_metadata(indices: Sequence[Index]) -> dict[str, Any]:
    """The metadata that all indices have with equal values. Indices without shards are ignored."""
    first, *others = [index.metadata for index in indices if index.shards] or [indices[0].metadata]
    if not others:
        return first
    return {
        key: value
        for key, value in first.items()
        if all(key in other and dump(other[key]) == dump(value) for other in others)
    }


def classes_difference(ours: Any, theirs: Any) -> str:
    """A short description of how one list of class names differs from another."""
    if not isinstance(ours, list) or not isinstance(theirs, list):
        return f"{_text(theirs)} instead of {_text(ours)}"
    labels = [label for label, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    parts = [f"label {label} is {short(theirs[label])}, not {short(ours[label])}" for label in labels[:_SHOWN]]
    if len(labels) > _SHOWN:
        parts.append(f"{len(labels)} labels differ in all")
    if len(ours) != len(theirs):
        parts.append(f"{len(theirs)} classes instead of {len(ours)}")
    return ", ".join(parts)


def _text(classes: Any) -> str:
    if classes is None:
        return "no class list"
    return f"a list of {len(classes)} classes" if isinstance(classes, list) else short(classes)
