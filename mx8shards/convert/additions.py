"""Which items of a source are new (`append`), and are its labels and options compatible with the dataset?

An item is identified by its name, which is stored in the column `path`. A file that was converted before is not
converted again, even if it has changed; samples of removed files stay. A label is an index into the list of classes,
so new classes may only be added at the end of the list.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mx8shards.convert.source import Item, Recipe, Source, parameters_of
from mx8shards.convert.splits import Split
from mx8shards.dataset import Dataset
from mx8shards.errors import DatasetNotFoundError, DiskError, SchemaError, SettingError, ShardsError

CLASSES, CONVERSION, SPLIT, PATH = "classes", "conversion", "split", "path"  # three metadata keys, and a column


@dataclass(frozen=True)
class Base:
    """An existing dataset, to which a conversion appends."""

    out: Path
    snapshot: str
    columns: Mapping[str, str]
    metadata: Mapping[str, Any]
    samples: int = 0
    shard_options: Mapping[str, Any] = field(default_factory=dict)  # of the newest shard, for a Writer
    paths: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of their labels."""
        return list(self.metadata.get(CLASSES) or ())

    @property
    def conversion(self) -> Mapping[str, Any]:
        """Its metadata about the conversion that made it."""
        found = self.metadata.get(CONVERSION)
        return found if isinstance(found, Mapping) else {}


def find_base(out: Path) -> Base | None:
    """The dataset in a directory, without its paths. None if there is no dataset."""
    try:
        with Dataset(out) as dataset:
            index = dataset.shards.snapshots[0].index
            kind = index.entry(index.shards - 1).kind if index.shards else None
            options = {} if kind is None else {"size_limit": kind.size_limit, "compression": kind.compression}
            return Base(out, dataset.snapshot, dataset.columns, dataset.metadata, len(dataset), options)
    except DatasetNotFoundError:
        if (out / "index.json").exists():
            raise
        return None


def shard_options(outs: Iterable[Path]) -> dict[str, Any]:
    """The size limit and compression of the newest shard of the first dataset in `outs`; empty without a dataset."""
    for out in outs:
        base = find_base(out)
        if base is not None and base.shard_options:
            return dict(base.shard_options)
    return {}


def check_place(out: Path, split: Split | None) -> None:
    """SettingError if a dataset would be made beside the splits in `out`; DiskError if a split is a symlink."""
    if split is not None:
        for name in split.names:
            if (out / name).is_symlink():
                hint = "convert never writes through a symlink; replace it with a directory"
                raise DiskError("a symlink in place of a split's directory", subject=str(out / name), hint=hint)
    elif names := _splits_in(out):
        raise SettingError(
            f"OUT holds the splits {', '.join(names)}: give --split (split=) as before, or another OUT",
            subject="out",
            found=str(out),
        )


def _splits_in(out: Path) -> list[str]:
    """The names of the splits that a conversion made in a directory; empty if the directory is a dataset itself."""
    found = [] if (out / "index.json").exists() else sorted(out.glob("[!.]*/index.json"))
    names = []
    for index in found:
        with contextlib.suppress(ShardsError):  # a dataset that cannot be read is not a split of ours
            base = find_base(index.parent)
            if base is not None and base.conversion.get(SPLIT):
                names.append(index.parent.name)
    return names


def with_paths(base: Base) -> Base:
    """The dataset with the paths of all its samples. SettingError if it has no column `path` of type str."""
    if base.columns.get(PATH) != "str":
        raise SettingError(
            subject="append",
            expected=f"a column {PATH!r} of encoding str in {base.out}, which identifies converted files",
            found=f"the columns {dict(base.columns)}",
        )
    with Dataset(f"{base.out}@{base.snapshot}", columns=[PATH]) as dataset:
        return replace(base, paths=frozenset(sample[PATH] for sample in dataset))


def with_labels_of(origin: Recipe | Source, source: Source, bases: Sequence[Base]) -> Recipe | Source:
    """The source with the classes of the existing datasets, in their order, followed by new classes.

    This needs a recipe with an argument `classes` that the user has not set. Other sources are returned unchanged.
    """
    found, known = source.metadata.get(CLASSES), _longest_classes(bases)
    if not known or found is None or list(found) == known or not isinstance(origin, Recipe):
        return origin
    if CLASSES not in parameters_of(origin.name) or origin.arguments.get(CLASSES) is not None:
        return origin
    grown = [*known, *(name for name in found if name not in set(known))]
    return replace(origin, arguments={**origin.arguments, CLASSES: tuple(grown)})


def _longest_classes(bases: Sequence[Base]) -> list[str]:
    """The longest class list of all splits. After a kill, only some of them may have the new classes."""
    return max((base.classes for base in bases), key=len, default=[])


def check_fits(base: Base, source: Source, split: Mapping[str, Any] | None) -> None:
    """SchemaError if columns, classes, split or options of the source differ from the dataset's."""
    if dict(source.columns) != dict(base.columns):
        raise _misfit(base, "columns", dict(base.columns), dict(source.columns))
    if base.conversion.get(SPLIT) != split:
        hint = "otherwise a file could be in two splits; use the OUT, split and seed of the first conversion"
        raise _misfit(base, "split", base.conversion.get(SPLIT), split, hint)
    ours, theirs = base.metadata.get(CLASSES), source.metadata.get(CLASSES)
    if (ours is None) != (theirs is None) or base.classes != list(theirs or ())[: len(base.classes)]:
        hint = "labels are numbers, so classes may only be added at the end; classes= (--classes FILE) sets their order"
        raise _misfit(base, CLASSES, ours, theirs, hint)
    for key, value in source.metadata.items():
        if key not in (CLASSES, CONVERSION) and _text(base.metadata.get(key)) != _text(value):
            hint = "append with the options of the first conversion, or convert into a new directory and merge"
            raise _misfit(base, key, base.metadata.get(key), value, hint)


def _misfit(base: Base, key: str, expected: object, found: object, hint: str = "") -> SchemaError:
    return SchemaError(
        subject=str(base.out), place=key, expected=_short(expected), found=f"{_short(found)} in the source", hint=hint
    )


def _short(value: object) -> str:
    text = "none" if value is None else repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def new_items(base: Base | None, items: Sequence[Item]) -> Sequence[Item]:
    """The items whose paths are not in the dataset."""
    return items if base is None else [item for item in items if str(item[0]) not in base.paths]
