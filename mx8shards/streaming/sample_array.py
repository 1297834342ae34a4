"""Which indices does Streaming's `[]` accept? Ints, slices, lists (also nested) and arrays: the class Array."""

from __future__ import annotations

from typing import Any

import numpy as np


class Array:
    """A read-only sequence of `size` items. Subclasses define `size` and `get_item(i)` for 0 <= i < size."""

    @property
    def size(self) -> int:
        """The number of items."""
        raise NotImplementedError

    def get_item(self, idx: int) -> Any:
        """One item.

        Args:
            idx: Its number, from 0.
        """
        raise NotImplementedError

    def __getitem__(self, at: Any) -> Any:
        """One item for an int, a list of items for a slice, and nested lists for nested lists and arrays."""
        if isinstance(at, int | np.integer):
            return self.get_item(int(at) + self.size if -self.size <= at < 0 else int(at))
        if isinstance(at, slice):
            return [self.get_item(i) for i in range(*at.indices(self.size))]
        if isinstance(at, list | np.ndarray):
            return [self[each] for each in at]
        raise ValueError(f"expected an int, a slice, a list or an array, got {type(at).__name__}")
