"""Who is told that kernels are being compiled, and for how long? A user who waits for the first batch on a new machine.

What takes less than two seconds is not worth a line. What takes longer is announced once, when these have passed, and
once more when nothing has been compiled for a second: through the logger "mx8shards", or on stderr where nobody has set
that up.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading

_LEAST_S = 2.0
_QUIET_S = 1.0

# the modules whose kernels are not for pictures
_TOPICS = {
    "gather": "gathering",
    "payloads": "gathering",
    "residency": "gathering",
    "feistel": "shuffling",
    "huffman_tables": "tiling",
    "recoding": "tiling",
}


def topic(module: str) -> str:
    """What users know the kernels of a module by."""
    return _TOPICS.get(module.rpartition(".")[2], "pictures")


class _Wave:
    """What is compiled without a longer pause. `begin` and `end` are called under the compiler's lock."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._topics: set[str] = set()
        self._told = False
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """A kernel is about to be compiled, or found on disk."""
        if self._timer is not None:
            self._timer.cancel()

    def end(self, module: str, seconds: float, place: str) -> None:
        """It is a kernel of this module; compiling took so long, and it is kept at `place`, or nowhere."""
        if seconds:
            self._topics.add(topic(module))
            self._seconds += seconds
        if self._seconds < _LEAST_S:
            return
        if not self._told:
            self._told = True
            kept = f"once per machine, kept in {place}" if place else "set NUMBA_CACHE_DIR to keep them"
            _say(f"compiling kernels for {self._text()} ({kept})")
        self._timer = threading.Timer(_QUIET_S, self.close)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Nothing more is compiled: say how long it took, if it was announced."""
        if not self._told:
            return
        seconds, text = self._seconds, self._text()
        self._seconds, self._told = 0.0, False
        self._topics.clear()
        _say(f"compiled kernels for {text}: {seconds:.0f} s")

    def _text(self) -> str:
        return " and ".join(sorted(self._topics))


def _say(text: str) -> None:
    logger = logging.getLogger("mx8shards")
    logger.info(text)
    if not (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)) and sys.stderr is not None:
        sys.stderr.write(f"mx8shards: {text}\n")
        sys.stderr.flush()


wave = _Wave()
atexit.register(wave.close)
