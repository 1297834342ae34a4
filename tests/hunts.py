"""How many examples does a property get: normally, and in a hunt?"""

from __future__ import annotations

import pytest


def counts(normally: int, *, rounds: int = 6) -> pytest.MarkDecorator:
    """Of examples; a hunt takes many rounds, each of which ends within pytest's time for one test."""
    hunts = [pytest.param(400, id=f"hunt{i}", marks=pytest.mark.hunt) for i in range(rounds)]
    return pytest.mark.parametrize("count", [normally, *hunts])
