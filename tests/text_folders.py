"""A recipe for tests: texts in folders, one folder per class. A file with the content "bad" is a reject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mx8shards.errors import SourceError


class TextFolder:
    """Texts in folders, one folder per class.

    Args:
        src: the folder
        classes: the names of the classes in the order of their labels
        repeat: how often each text is repeated
        upper: whether to store capitals
    """

    columns: Mapping[str, str] = {"path": "str", "text": "str", "label": "int"}

    def __init__(
        self, src: str | Path, *, classes: Sequence[str] | None = None, repeat: int = 1, upper: bool = False
    ) -> None:
        self._root = Path(src)
        self._repeat, self._upper = repeat, upper
        self._names = sorted(str(path.relative_to(src)) for path in self._root.glob("*/*"))
        self._classes = list(classes or sorted({name.split("/")[0] for name in self._names}))
        self.metadata: Mapping[str, Any] = {"classes": self._classes, "repeat": repeat}
        self.counts = {"texts": 0}

    def items(self) -> list[tuple[str]]:
        """All files."""
        return [(name,) for name in self._names]

    def stamp(self, item: Sequence[Any]) -> object:
        """The text itself."""
        return (self._root / item[0]).read_text()

    def sample(self, item: Sequence[Any]) -> Mapping[str, Any]:
        """One text."""
        text = (self._root / item[0]).read_text()
        if text == "bad":
            raise SourceError(expected="a text", found="a bad one")
        self.counts["texts"] += 1
        text = text.upper() if self._upper else text
        return {"path": item[0], "text": text * self._repeat, "label": self._classes.index(item[0].split("/")[0])}


open_source = TextFolder

RECIPE = str(Path(__file__))  # the path to give to `convert_from` or the command
NAMES = [f"{folder}/{i}.txt" for folder in ("cat", "dog") for i in range(5)]


def write_texts(root: Path, names: Sequence[str], texts: Mapping[str, str] | None = None) -> Path:
    """Create a folder of these files. The text of a file is its name, unless `texts` has another."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text((texts or {}).get(name, name))
    return root
