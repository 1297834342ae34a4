"""Does a call end at all?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

PATIENCE_S = 90.0  # a call that takes longer than this has hung


def in_time(work: Callable[[], Any]) -> Any:
    """What a call returns or raises; a failure if it hangs."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001 the caller looks at it
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert found, "it hangs"
    return found[0]
