"""When are users told that kernels are being compiled? On a new machine, that delays the first batch.

Compilation that takes less than two seconds is not announced. Otherwise a message is logged after two seconds, and
another with the total time when nothing has been compiled for a second. Messages go to the logger "mx8shards", or to
stderr if that logger has no handler for them.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading

_LEAST_S = 2.0
_QUIET_S = 1.0

# Topics of the modules whose kernels are not for pictures.
_TOPICS = {
    "gather": "gathering",
    "payloads": "gathering",
    "residency": "gathering",
    "feistel": "shuffling",
    "huffman_tables": "tiling",
    "recoding": "tiling",
    "video_frames": "videos",
    "clip_decoding": "videos",
}


def topic(module: str) -> str:
    """The user's name for a group of kernels, such as "pictures", to which a module belongs."""
    return _TOPICS.get(module.rpartition(".")[2], "pictures")


class _Announcement:
    """Kernels compiled without a longer pause are announced together. Callers hold the compiler lock."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._topics: set[str] = set()
        self._announced = False
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """Called before a kernel is compiled or loaded from the cache."""
        if self._timer is not None:
            self._timer.cancel()

    def end(self, module: str, seconds: float, cache_dir: str) -> None:
        """Called after that. `seconds`: the compile time, 0 if it was loaded; `cache_dir`: "" without a cache."""
        if seconds:
            self._topics.add(topic(module))
            self._seconds += seconds
        if self._seconds < _LEAST_S:
            return
        if not self._announced:
            self._announced = True
            kept = f"once per machine, kept in {cache_dir}" if cache_dir else "set NUMBA_CACHE_DIR to keep them"
            _say(f"compiling kernels for {self._text()} ({kept})")
        self._timer = threading.Timer(_QUIET_S, self.close)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Report the total compile time, if compiling was announced."""
        if not self._announced:
            return
        seconds, text = self._seconds, self._text()
        self._seconds, self._announced = 0.0, False
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


announcement = _Announcement()
atexit.register(announcement.close)
