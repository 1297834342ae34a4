"""Does a call end at all, and did it have the time that it needs on a busy machine?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import mx8shards as mx8
from tests.remote.fault_server import Fault

PATIENCE_S = 90.0  # a call that takes longer than this has hung
SLACK = (1, 4, 10)  # times a deadline: it is short, so that lasting faults do not take long, unless the machine is busy


def was_too_slow(found: Any, fault: Fault) -> bool:
    """Whether a deadline passed before the fault struck, or although it struck only once."""
    is_late = isinstance(found, mx8.RemoteError) and found.reason == "network"
    return is_late and (fault.met <= fault.skip or fault.times == 1)


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
