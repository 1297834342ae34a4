"""Which datasets are the parts of a merge? Finds datasets below directories, and checks the parts of ranks."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from mx8shards.errors import DatasetExistsError, DatasetNotFoundError, SettingError
from mx8shards.maintain.conversion import is_part
from mx8shards.shards.links import Link, RemoteLink, parse_any
from mx8shards.shards.parts import RankPart, base_digits, parse_rank, part_roots, parts_directory
from mx8shards.shards.recovery import moved_to
from mx8shards.shards.snapshots import INDEX, kept

_MOST_NAMES = 20  # listed in a message

_logger = logging.getLogger("mx8shards")


def find_parts(links: Iterable[Link], target: Path, base: str | None) -> list[Link]:
    """One link per dataset, in order. A directory without index.json means all datasets beneath it, sorted by name.

    Hidden directories (`.snapshot`, `.Trash`) are skipped, because they often hold copies. A dataset that lies below
    another one is not a part; a warning names it.

    `base` is the snapshot of `target` to append to, if any. Then a link to `target` itself means the parts that ranks
    wrote there for this snapshot.
    """
    found: list[Link] = []
    for link in links:
        if base is not None and link.snapshot is None and is_same(link.root, target):
            beneath = [Link(root) for root in _parts_on(target, base)]
        else:
            beneath = [link] if link.snapshot else [Link(root) for root in _datasets(link.root)]
            _warn_of_inner(beneath)
        if not beneath:
            what = "neither an index.json here nor a dataset beneath it" if link.root.exists() else "no such directory"
            raise DatasetNotFoundError(what, subject=str(link.root))
        found += beneath
    if not found:
        raise DatasetNotFoundError("merge: expected at least one part, got none")
    _require_every_rank(found)
    return found


def parse_links(links: Iterable[str | os.PathLike[str]]) -> list[Link | RemoteLink]:
    """Parse the links given by the user."""
    if isinstance(links, str | os.PathLike) or not isinstance(links, Iterable):
        raise SettingError(subject="parts", expected="a list of parts", found=repr(links))
    return [parse_any(text) for text in links]


def moved_parts(links: Iterable[Link], target: Path) -> tuple[dict[Path, str], list[Path]]:
    """The parts that were already moved into `target`, with the snapshot of each, and the remaining parts."""
    published = set(kept(target))
    moved: dict[Path, str] = {}
    others: list[Path] = []
    for link in links:
        own = is_same(link.root, target)
        for root in part_roots(target) if own else _datasets(link.root):
            into = moved_to(root)
            if into is not None and is_same(into[0], target) and into[1] in published:
                moved[root] = into[1]
            else:
                others.append(root)
    return moved, others


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths are the same directory."""
    return os.path.realpath(one) == os.path.realpath(other)


def _parts_on(target: Path, base: str) -> list[Path]:
    """The parts that ranks wrote in order to append to this snapshot of `target`."""
    written = [(path, rank) for path in part_roots(target) if (rank := parse_rank(path.name))]
    found = [path for path, rank in written if rank.base == base_digits(base) and (path / INDEX).is_file()]
    if not found:
        others = [path for path, _ in written if (path / INDEX).is_file()]
        hint = f"if these are not published yet, {append_command(others, target)} adds their samples"
        raise DatasetNotFoundError(
            subject=str(parts_directory(target)),
            expected=f"parts that ranks wrote to append to the current snapshot, {base}",
            found=", ".join(path.name for path, _ in written[:_MOST_NAMES]) or "no parts",
            hint=hint if others else 'Writer(…, mode="append", rank=…, world_size=…) writes them',
        )
    return found


def append_command(parts: Sequence[Path], target: Path) -> str:
    """The command that appends these parts, listed one by one; only the first ones if there are many."""
    named = [*(quote(str(path)) for path in parts[:_MOST_NAMES]), *(["…"] if len(parts) > _MOST_NAMES else [])]
    return f"`mx8shards merge --append {' '.join(named)} {quote(str(target))}`"


def _datasets(given: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The datasets beneath a directory, sorted by name, or the directory itself. Does not descend into a dataset.

    `above` has the real paths of its parent directories.
    """
    stack = [(given, above)]
    while stack:
        root, above = stack.pop()
        here = os.path.realpath(root)
        if here in above:  # a symlink to a parent directory
            continue
        if (root / INDEX).is_file() or moved_to(root):  # or it is being removed
            yield root
            continue
        parts = (path for path in part_roots(root) if not is_part(path))  # a conversion's parts are not datasets yet
        stack += ((child, above | {here}) for child in sorted([*_visible(root), *parts], reverse=True))


def _visible(root: Path) -> list[Path]:
    """The subdirectories, without hidden ones (whose names begin with a dot)."""
    children = root.iterdir() if root.is_dir() else ()
    return [path for path in children if not path.name.startswith(".") and path.is_dir()]


def _warn_of_inner(links: Iterable[Link]) -> None:
    """Warn of datasets below a part, which are left out: the user may expect their samples, too."""
    for link in links:
        above = frozenset([os.path.realpath(link.root)])
        for child in sorted(_visible(link.root)):
            for path in _datasets(child, above):
                _logger.warning("merge: %s lies below the dataset %s and is left out", path, link.root)


def _require_every_rank(parts: Iterable[Link]) -> None:
    """Check that the parts of ranks in one directory, recognised by name, are all parts of exactly one run."""
    runs: dict[Path, dict[tuple[int, str], set[int]]] = defaultdict(lambda: defaultdict(set))
    for part in parts:
        name = parse_rank(part.root.name)
        if name:
            runs[part.root.parent][name.world_size, name.base].add(name.rank)
    for directory, run in runs.items():
        if len(run) > 1:
            texts = sorted(f"parts of {size}" + (f" to append to {base}" if base else "") for size, base in run)
            raise DatasetExistsError(
                subject=str(directory),
                expected="the parts of one world size",
                found=" and ".join(texts),
                hint="remove the parts of the other runs",
            )
        (((size, base), ranks),) = run.items()
        missing = sorted(set(range(size)) - ranks)
        if missing:
            names = ", ".join(RankPart(rank, size, base).name for rank in missing[:_MOST_NAMES])
            raise DatasetNotFoundError(
                subject=str(directory),
                expected=f"the parts of {size} ranks",
                found=f"none of {names}",
                hint="every rank must finish its Writer, even without samples: run these ranks again",
            )
