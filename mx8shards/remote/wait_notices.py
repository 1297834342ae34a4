"""When is a user told that a store does not answer? After two seconds; then every half minute."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

NOTICE_AFTER_S = 2.0
_EVERY_S = 30.0

_logger = logging.getLogger("mx8shards")
_told_at: dict[str, float] = {}  # by kind of notice: an outage hits many requests at once, which need one notice


@contextmanager
def told_if_slow(what: str) -> Iterator[None]:
    """Say what the block waits for, if it takes longer than two seconds."""
    timer = threading.Timer(NOTICE_AFTER_S, tell, ("slow", f"waiting for {what}"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell(kind: str, text: str) -> None:
    """Log a warning, unless one of this kind was logged in the last half minute."""
    now = time.monotonic()  # no lock, which a forked child might inherit held: at worst two threads both tell it
    if now - _told_at.get(kind, -_EVERY_S) >= _EVERY_S:
        _told_at[kind] = now
        _logger.warning(text)
