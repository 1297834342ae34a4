"""Which videos have no packet index, and why? Their number and the reasons of the first of them, as JSON in a file."""

from __future__ import annotations

from typing import Any, NamedTuple

from mx8shards.errors import FormatError, error_text, visible
from mx8shards.format import jsontext

MOST_BYTES = 1 << 20
_KEPT = 1_000  # reasons


class Refused(NamedTuple):
    """The number of videos without packet index, and the reasons of the first of them by sample_id."""

    videos: int
    reasons: dict[int, str]

    def with_one(self, sample_id: int, error: Exception) -> Refused:
        """These, and another video."""
        if len(self.reasons) < _KEPT:
            self.reasons[sample_id] = error_text(error)
        return self._replace(videos=self.videos + 1)

    def text(self, samples: int) -> str:
        """The warning for a dataset with this number of samples."""
        sample_id, reason = next(iter(self.reasons.items()))
        return f"{self.videos} of {samples} videos have no clips: sample {sample_id}: {visible(reason)}"


def encode(refused: Refused) -> bytes:
    """The JSON of some refused videos."""
    return jsontext.dump({"videos": refused.videos, "reasons": list(refused.reasons.items())}).encode()


def parse(data: bytes) -> Refused:
    """Refused videos from their JSON; FormatError if it is damaged."""
    found = Refused(0, {})

    def add(item: Any) -> None:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[1], str):
            raise FormatError(place="$.reasons", expected="a sample_id and a reason", found=jsontext.short(item))
        found.reasons[jsontext.integer(item[0], "$.reasons")] = item[1]

    top = jsontext.parse_object(data, array="reasons", item=add)
    videos = jsontext.integer(top.get("videos"), "$.videos", least=len(found.reasons))
    if videos and not found.reasons:
        raise FormatError(place="$.reasons", expected="a reason", found="none")
    return found._replace(videos=videos)
