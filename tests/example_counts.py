"""How many random examples does a property test run, normally and in `make hunt`?"""

from __future__ import annotations

import pytest


def parametrize_count(normally: int, *, rounds: int = 6) -> pytest.MarkDecorator:
    """Parametrize `count`, the number of examples. A hunt has many rounds, each within pytest's timeout of a test."""
    hunts = [pytest.param(400, id=f"hunt{i}", marks=pytest.mark.hunt) for i in range(rounds)]
    return pytest.mark.parametrize("count", [normally, *hunts])
