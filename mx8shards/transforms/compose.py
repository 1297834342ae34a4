"""How are several transforms composed (Compose)?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mx8shards.errors import SettingError, shown
from mx8shards.transforms.colour_changes import ColorJitter
from mx8shards.transforms.normalize import Normalize


@dataclass(frozen=True, slots=True)
class Compose:
    """Calls one transform after the other.

    Args:
        steps: Functions from batch to batch, in the order in which they are called: transforms of this package, or any
            others. A random transform may occur only once per column, because a second one would draw the same numbers.
    """

    steps: Sequence[Callable[[Any], Any]]

    def __post_init__(self) -> None:
        steps: Any = self.steps
        if not isinstance(steps, (list, tuple)) or not all(map(callable, steps)):
            raise SettingError(subject="steps", expected="a list of functions of a batch", found=shown(steps))
        drawn: set[str] = set()
        normalized: set[str] = set()
        for step in self.steps:
            purpose = getattr(step, "purpose", None)
            if purpose is not None and purpose in drawn:
                found = f"{step}, which would draw the same numbers as an earlier step"
                raise SettingError(subject="steps", expected="each random transform only once per column", found=found)
            if isinstance(step, ColorJitter) and step.image in normalized:
                hint = "ColorJitter takes colours from 0 to 1: put it before Normalize"
                found = "ColorJitter after Normalize"
                raise SettingError(subject="steps", expected="ColorJitter before Normalize", found=found, hint=hint)
            drawn.add(purpose or "")
            if isinstance(step, Normalize):
                normalized.add(step.image)

    def __call__(self, batch: Any) -> Any:
        """The batch after all steps."""
        for step in self.steps:
            batch = step(batch)
        return batch
