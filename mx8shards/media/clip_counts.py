"""How many clips were decoded, and why did others fail? Counts that all threads of a loader share."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from threading import Lock

from mx8shards.errors import DecodeError, FormatError, without_traceback
from mx8shards.media.video_decoding import Decoded
from mx8shards.stages import Work

# io: the payload cannot be read; corrupt: it is damaged; short: it has fewer frames than its facts say; unsupported: a
# codec, a pixel format or a size that is not decoded; missing: it has no packet index; backend: FFmpeg failed
CLASSES = ("io", "corrupt", "short", "unsupported", "missing", "backend")


class ClipCounts:
    """Counts of decoded and failed clips of one column. The errors are kept in the batch, by row."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._clips = 0
        self._decoded = Decoded()
        self._covered = 0
        self._padding = 0
        self._failed = dict.fromkeys(CLASSES, 0)

    def decoded(self, clips: int, counts: Decoded, covered: int) -> None:
        """Count clips that were decoded in one sweep over `covered` packets."""
        with self._lock:
            self._clips += clips
            self._covered += covered
            self._decoded.add(counts)

    def all_padding(self, column: str, sample_ids: Sequence[int]) -> None:
        """Count clips of these samples that have no frame at their times. The first one is logged as a warning."""
        with self._lock:
            is_first = not self._padding
            self._padding += len(sample_ids)
        if is_first:
            message = "a clip of column %r of sample %d has only padding: no frame is shown at its times; "
            message += "stats()['clips_all_padding'] counts them"
            logging.getLogger("mx8shards").warning(message, column, sample_ids[0])

    def failed(self, work: Work, rows: Sequence[int], error: Exception) -> None:
        """Count the clips in these rows as failed, and keep their error as long as the batch is made."""
        with self._lock:
            self._failed[class_of(error)] += len(rows)
            work.notes.setdefault(self, {}).update(dict.fromkeys(rows, without_traceback(error)))

    def error_of(self, work: Work, row: int) -> Exception | None:
        """The error of the clip in this row; None if it did not fail."""
        found: Exception | None = work.notes.get(self, {}).get(row)
        return found

    def report(self) -> Mapping[str, int]:
        """All counts by the names that stats() shows."""
        with self._lock:
            return {
                "clips_decoded": self._clips,
                "clip_frames_decoded": self._decoded.frames,
                "clip_packets_fed": self._decoded.packets_fed,
                "clip_packets_covered": self._covered,
                "clips_all_padding": self._padding,
                **{f"clips_failed_{name}": count for name, count in self._failed.items()},
            }


def class_of(error: Exception) -> str:
    """The class of a failure."""
    if isinstance(error, DecodeError) and error.reason in CLASSES:
        return error.reason
    if isinstance(error, (FormatError, DecodeError)):
        return "corrupt"
    return "io" if isinstance(error, OSError) else "backend"
