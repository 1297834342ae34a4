"""Do the parts of a merge have equal columns, and which metadata has the merged dataset?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards.errors import FormatError, SchemaError
from mx8shards.format.columns import Columns
from mx8shards.format.index import checked_metadata
from mx8shards.format.jsontext import dump, short
from mx8shards.shards.compare_metadata import classes_difference
from mx8shards.shards.parts import base_digits, parse_rank
from mx8shards.shards.snapshots import INDEX, Snapshot

_CLASSES = "classes"  # metadata key of the list of class names; a label is an index into it
_CONVERSION = "conversion"  # metadata key of the facts about the one conversion that made a dataset

_logger = logging.getLogger("mx8shards")


def common_metadata(
    base: Snapshot | None, snapshots: Sequence[Snapshot], metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The metadata of the result; SchemaError unless columns, and without given metadata also these, are equal."""
    everything = snapshots if base is None else [base, *snapshots]
    _require_equal_columns(everything)
    if metadata is not None:
        return checked_metadata(metadata)
    _require_classes_in_all(base, snapshots)
    return _united_metadata(everything)


def _require_equal_columns(snapshots: Sequence[Snapshot]) -> None:
    first: Snapshot | None = None
    for snapshot in snapshots:
        if not snapshot.index.shards:
            continue
        first = first or snapshot
        ours, theirs = _columns(first), _columns(snapshot)
        if theirs != ours:
            raise SchemaError(
                subject=str(snapshot.root),
                expected=f"the columns of {first.root}: {dict(zip(ours.names, ours.encodings, strict=True))}",
                found=f"{dict(zip(theirs.names, theirs.encodings, strict=True))}",
            )


def _columns(snapshot: Snapshot) -> Columns:
    try:
        return snapshot.index.columns()
    except FormatError as error:
        error.subject = str(snapshot.root / INDEX)
        raise


def _require_classes_in_all(base: Snapshot | None, parts: Sequence[Snapshot]) -> None:
    """SchemaError if some parts have a class list and another part with samples has none.

    The list of the merged dataset would give names to the labels of that part. The ranks of one Writer are exempt, as
    they use the same labels: one rank may set the list for all, and ranks that append may rely on the dataset's list.
    """
    everything = [base, *parts] if base else parts
    named = [snapshot for snapshot in everything if _CLASSES in snapshot.index.metadata]
    shared = {snapshot.root.parent for snapshot in named if parse_rank(snapshot.root.name)}
    for snapshot in everything if named else ():
        if _CLASSES in snapshot.index.metadata or not snapshot.index.samples.any():
            continue
        rank = parse_rank(snapshot.root.name)
        if rank and (snapshot.root.parent in shared or (base and rank.base == base_digits(base.id))):
            continue
        classes = named[0].index.metadata[_CLASSES]
        raise SchemaError(
            subject=f"metadata {_CLASSES!r}",
            expected=f"the class list of {named[0].root} in all parts",
            found=f"{classes_difference(classes, None)} in {snapshot.root}",
            hint="its labels could mean other classes; give the class list with metadata={…} (--metadata)",
        )


def _united_metadata(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """The union of all metadata. SchemaError if values differ; differing facts about conversions are left out."""
    conversions = {dump(s.index.metadata[_CONVERSION]) for s in snapshots if _CONVERSION in s.index.metadata}
    united: dict[str, Any] = {}
    came_from: dict[str, Path] = {}
    for snapshot in snapshots:
        for key, value in snapshot.index.metadata.items():
            if key == _CONVERSION and len(conversions) > 1:
                continue
            if dump(united.setdefault(key, value)) != dump(value):
                raise SchemaError(
                    subject=f"metadata {key!r}",
                    expected=f"{short(united[key])} in all parts, as in {came_from[key]}",
                    found=f"{short(value)} in {snapshot.root}",
                    hint="give the metadata of the result with metadata={…} (--metadata)",
                )
            came_from.setdefault(key, snapshot.root)
    return united


def common_extra(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Top-level keys of other programs, without those whose values differ between parts."""
    texts: dict[str, set[str]] = {}
    values: dict[str, Any] = {}
    for snapshot in snapshots:
        for key, value in snapshot.index.extra.items():
            texts.setdefault(key, set()).add(dump(value))
            values[key] = value
    for key in [key for key, found in texts.items() if len(found) > 1]:
        _logger.warning("merge: the parts differ in %s's key %r, which is left out", INDEX, key)
        del values[key]
    return values
