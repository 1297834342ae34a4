"""Which datasets does a user mean by "these parts"?"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from mx8shards.errors import DatasetExistsError, DatasetNotFoundError, SettingError
from mx8shards.maintain.conversion import is_part
from mx8shards.shards.links import Link, parse_link
from mx8shards.shards.snapshots import INDEX, STATE

_RANK = re.compile(r"rank-(\d{5,})-of-(\d{5,})")


def find_parts(links: Iterable[str | os.PathLike[str]]) -> list[Link]:
    """One link per dataset, in order. A directory without index.json stands for all datasets beneath it, by name."""
    if isinstance(links, str) or not isinstance(links, Iterable):
        raise SettingError(subject="parts", expected="a list of parts", found=repr(links))
    found: list[Link] = []
    for text in links:
        link = parse_link(text)
        beneath = [link] if link.snapshot else [Link(root) for root in _datasets(link.root, frozenset())]
        if not beneath:
            raise DatasetNotFoundError("neither an index.json here nor a dataset beneath it", subject=str(link.root))
        found += beneath
    if not found:
        raise DatasetNotFoundError("merge: expected at least one part, got none")
    _require_every_rank(found)
    return found


def left_parts(root: Path) -> list[str]:
    """The names below `root` of the parts that ranks wrote for this dataset and that nobody has removed."""
    directory = root / STATE / "parts"
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    return sorted(f"{STATE}/parts/{name}" for name in names if _RANK.fullmatch(name))


def _datasets(root: Path, above: frozenset[str]) -> Iterator[Path]:
    if (root / INDEX).is_file():
        yield root
        return
    here = os.path.realpath(root)
    if here in above:  # a symlink that leads back up
        return
    children = list(root.iterdir()) if root.is_dir() else []
    ranks = root / STATE / "parts"
    if ranks.is_dir():
        children += ranks.iterdir()
    for child in sorted(children):
        if child.is_dir() and child.name != STATE and not is_part(child):  # of a conversion: not a dataset yet
            yield from _datasets(child, above | {here})


def _require_every_rank(parts: Iterable[Link]) -> None:
    """Parts that ranks wrote side by side are told by their names: all of one world size, and none missing."""
    worlds: dict[Path, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for part in parts:
        match = _RANK.fullmatch(part.root.name)
        if match:
            worlds[part.root.parent][int(match[2])].add(int(match[1]))
    for directory, sizes in worlds.items():
        if len(sizes) > 1:
            raise DatasetExistsError(
                subject=str(directory),
                expected="the parts of one world size",
                found=" and ".join(f"parts of {size}" for size in sorted(sizes)),
                hint="remove those of the run that is not meant",
            )
        ((size, ranks),) = sizes.items()
        missing = sorted(set(range(size)) - ranks)
        if missing:
            names = ", ".join(f"rank-{rank:05}-of-{size:05}" for rank in missing[:20])
            raise DatasetNotFoundError(
                subject=str(directory), expected=f"the parts of {size} ranks", found=f"none of {names}"
            )
