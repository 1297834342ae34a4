"""How many random examples does a property test run, normally and in `make hunt`?"""

from __future__ import annotations

import pytest


def counts(normally: int, *, rounds: int = 6) -> pytest.MarkDecorator:
    """Of examples; a hunt takes many rounds, each of which ends within pytest's time for one test."""
    hunts = [pytest.param(400, id=f"hunt{i}", marks=pytest.mark.hunt) for i in range(rounds)]
    return pytest.mark.parametrize("count", [normally, *hunts])
