"""How is a user's order (Loader(order=…)) validated? Its interface is checked once, and its positions on every call."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mx8shards.errors import LoaderError, SettingError, shown
from mx8shards.order.orders import PADDING, Description, Order
from mx8shards.order.permutation import Ids

_EXPECTED = "an order: an object with len, at(epoch, counts), ids(epoch, start, stop) and a description"
_OURS = ("sequential", "shuffle", "block_shuffle")  # reserved: a state identifies an order by its name


def require_order(order: Any) -> Order:
    """The order, if it has the methods of `Order` and a valid description; otherwise SettingError."""
    methods = [getattr(order, name, None) for name in ("__len__", "at", "ids")]
    if isinstance(order, type) or not all(map(callable, methods)) or not hasattr(order, "description"):
        raise SettingError(subject="order", expected=_EXPECTED, found=shown(order))
    _checked_description(order)
    return order  # type: ignore[no-any-return]


class CheckedOrder:
    """A user's order over `count` view positions. Its results are checked, because kernels trust them."""

    def __init__(self, order: Order, count: int) -> None:
        self._order = order
        self._count = count
        self._length = len(order)
        self.description = _checked_description(order)
        if self._length and not count:
            expected = "an order without positions, as the dataset has no samples"
            raise SettingError(subject="order", expected=expected, found=f"{self._length} positions")

    def __len__(self) -> int:
        return self._length

    def at(self, epoch: int, counts: Ids) -> Ids:
        """The view positions at these order positions; LoaderError if the order returns invalid ones."""
        return self._checked(self._order.at(epoch, counts.copy()), epoch, counts)

    def ids(self, epoch: int, start: int, stop: int) -> Ids:
        """The view positions at the order positions from start to before stop."""
        return self._checked(self._order.ids(epoch, start, stop), epoch, np.arange(start, stop, dtype=np.int64))

    def _checked(self, answer: Any, epoch: int, counts: Ids) -> Ids:
        found = np.asarray(answer)
        if found.shape != counts.shape or (found.dtype.kind not in "iu" and found.size):
            raise LoaderError(
                subject="order",
                place=f"epoch {epoch}",
                expected=f"integers of the shape {counts.shape}, one for each count",
                found=f"{found.dtype} of the shape {found.shape}",
            )
        wrong = np.flatnonzero((found < PADDING) | (found >= self._count))
        if len(wrong):
            raise LoaderError(
                subject="order",
                place=f"epoch {epoch}, count {counts[wrong[0]]}",
                expected=f"a position from 0 to {self._count - 1}, or {PADDING} for padding",
                found=f"{found[wrong[0]]}",
            )
        return np.ascontiguousarray(found, np.int64)


def _checked_description(order: Any) -> Description:
    """The order's description as it reads after a round trip through JSON, in which states are saved."""
    given = order.description
    try:
        found = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        found = None
    name = found.get("name") if isinstance(found, dict) else None
    if not isinstance(name, str) or name in _OURS:
        expected = (
            f'a description as JSON: {{"name": …}} with all dependencies, and a name other than {", ".join(_OURS)}'
        )
        raise SettingError(subject="order", expected=expected, found=shown(given))
    return found  # type: ignore[no-any-return]
