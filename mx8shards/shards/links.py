"""Which dataset, and which state of it, does a user name?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, RemoteError, SettingError

_PINNED = re.compile(r"(?P<place>.*)@(?P<state>sha256:[0-9a-f]+|refresh)", re.DOTALL)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SHORTEST = len("sha256:") + 8
_WHOLE = len("sha256:") + 64


@dataclass(frozen=True, slots=True)
class Link:
    """A dataset's directory, and the snapshot of it that is meant: its id or the start of one, or None: the current."""

    root: Path
    snapshot: str | None = None

    def __str__(self) -> str:
        return f"{self.root}@{self.snapshot}" if self.snapshot else str(self.root)


def parse_link(text: str | os.PathLike[str]) -> Link:
    """The link a user typed: `path`, `path@sha256:…` (at least eight digits) or `path@refresh` (the current one).

    Its path is absolute: shards are opened later, perhaps from another working directory or in another process.
    """
    text = os.fsdecode(text)
    if _URL.match(text):
        raise RemoteError("this version opens local directories only", subject=text)
    match = _PINNED.fullmatch(text)
    if match is None:
        return Link(Path(text).absolute())
    state = match["state"]
    if state != "refresh" and not _SHORTEST <= len(state) <= _WHOLE:
        raise DatasetNotFoundError(
            subject=text, expected="a snapshot's id of 8 to 64 hex digits", found=f"{len(state) - len('sha256:')}"
        )
    return Link(Path(match["place"]).absolute(), None if state == "refresh" else state)


def parse_target(text: str | os.PathLike[str]) -> Path:
    """The directory a user names to publish in: no URL, and no link to a snapshot, which nothing can be put into."""
    text = os.fsdecode(text)
    if _PINNED.fullmatch(text):
        raise SettingError(subject=text, expected="a directory to write to", found="a link to a snapshot")
    return parse_link(text).root
