"""How many clips were decoded, and why did others fail? Counts that all threads of a loader share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from mx8shards.errors import DecodeError, FormatError, without_traceback
from mx8shards.media.video_decoding import Decoded

# io: the payload cannot be read; corrupt: it is damaged; short: it has fewer frames than its facts say; unsupported: a
# codec, a pixel format or a size that is not decoded; missing: it has no packet index; backend: FFmpeg failed
CLASSES = ("io", "corrupt", "short", "unsupported", "missing", "backend")

_REMEMBERED = 1024  # samples whose errors are kept until they are raised or logged


class ClipCounts:
    """Counts of decoded and failed clips, and the error of each sample that failed last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._clips = 0
        self._decoded = Decoded()
        self._failed = dict.fromkeys(CLASSES, 0)
        self._errors: OrderedDict[int, Exception] = OrderedDict()

    def decoded(self, clips: int, counts: Decoded) -> None:
        """Count clips that were decoded in one sweep."""
        with self._lock:
            self._clips += clips
            self._decoded.add(counts)

    def failed(self, sample_id: int, error: Exception, clips: int) -> None:
        """Count clips that failed, and keep their error."""
        with self._lock:
            self._failed[class_of(error)] += clips
            self._errors[sample_id] = without_traceback(error)
            if len(self._errors) > _REMEMBERED:
                self._errors.popitem(last=False)

    def error_of(self, sample_id: int) -> Exception | None:
        """The error of a sample that failed; None if it is not known any more."""
        with self._lock:
            return self._errors.get(sample_id)

    def report(self) -> Mapping[str, int]:
        """All counts by the names that stats() shows."""
        with self._lock:
            return {
                "clips_decoded": self._clips,
                "clip_frames_decoded": self._decoded.frames,
                "clip_packets_fed": self._decoded.packets_fed,
                "clip_packets_covered": self._decoded.packets_covered,
                **{f"clips_failed_{name}": count for name, count in self._failed.items()},
            }


def class_of(error: Exception) -> str:
    """The class of a failure."""
    if isinstance(error, DecodeError) and error.reason in CLASSES:
        return error.reason
    if isinstance(error, (FormatError, DecodeError)):
        return "corrupt"
    return "io" if isinstance(error, OSError) else "backend"
