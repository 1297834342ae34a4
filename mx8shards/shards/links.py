"""Which dataset, and which state of it, does a user name?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, RemoteError, SettingError

_PINNED = re.compile(r"(?P<place>.*)@(?P<state>sha256:[0-9a-f]+|refresh)", re.DOTALL)
# A Path of a URL keeps one slash only.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|(s3|gs|gcs|az|azure|oci|hf|https?|file):/", re.IGNORECASE)
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

    A leading `~` is the home directory, as in a shell. The path is absolute: shards are opened later, perhaps from
    another working directory or in another process.
    """
    if not isinstance(text, str | bytes | os.PathLike):
        raise _no_link(text)
    text = os.fsdecode(text)
    if "\0" in text:
        raise _no_link(text)
    if _URL.match(text):
        raise _no_url(text)
    match = _PINNED.fullmatch(text)
    if match is None:
        return Link(absolute(text))
    state = match["state"]
    if state != "refresh" and not _SHORTEST <= len(state) <= _WHOLE:
        raise DatasetNotFoundError(
            subject=text, expected="a snapshot's id of 8 to 64 hex digits", found=f"{len(state) - len('sha256:')}"
        )
    return Link(absolute(match["place"]), None if state == "refresh" else state)


def absolute(text: str) -> Path:
    """The path a user typed, from the root; `~` is a home directory if there is one of that name."""
    return Path(os.path.expanduser(text)).absolute()  # noqa: PTH111 - Path.expanduser raises where there is no home


def _no_link(value: object) -> SettingError:
    hint = ""
    if isinstance(value, list | tuple):
        hint = "mx8shards.concat([mx8shards.Dataset(path) for path in paths]) joins datasets"
    elif hasattr(value, "view") and hasattr(value, "shards"):
        hint = "this is an open dataset already"
    found = f"{value!r:.80}"
    return SettingError(subject="link", expected="the path of one dataset, or path@sha256:…", found=found, hint=hint)


def _no_url(text: str) -> RemoteError:
    scheme, _, rest = text.partition(":")
    if scheme.lower() == "file":
        hint = f"give its path: /{rest.lstrip('/')}"
    else:
        hint = "copy the dataset to a local directory first, the folder .mx8shards included, and open that one"
    return RemoteError("this version opens local directories only", subject=text, hint=hint)


def parse_target(text: str | os.PathLike[str]) -> Path:
    """The directory a user names to publish in: no URL, and no link to a snapshot, which nothing can be put into."""
    text = os.fsdecode(text)
    if _PINNED.fullmatch(text):
        raise SettingError(subject=text, expected="a directory to write to", found="a link to a snapshot")
    return parse_link(text).root
