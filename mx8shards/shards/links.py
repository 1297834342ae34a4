"""How is a link parsed: which dataset directory and snapshot does path@sha256:… name?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, RemoteError, SettingError

_PINNED = re.compile(r"(?P<path>.*)@(?P<snapshot>sha256:[0-9a-f]+|refresh)", re.DOTALL)
# pathlib.Path reduces the two slashes of a URL to one.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|(s3|gs|gcs|az|azure|oci|hf|https?|file):/", re.IGNORECASE)
_SHORTEST = len("sha256:") + 8
_WHOLE = len("sha256:") + 64


@dataclass(frozen=True, slots=True)
class Link:
    """A dataset's directory, and a snapshot's id or the beginning of one; None for the current snapshot."""

    root: Path
    snapshot: str | None = None

    def __str__(self) -> str:
        return f"{self.root}@{self.snapshot}" if self.snapshot else str(self.root)


def parse_link(text: str | os.PathLike[str]) -> Link:
    """Parse `path`, `path@sha256:…` (at least eight digits) or `path@refresh` (the current snapshot).

    A leading `~` is the home directory, as in a shell. The path is made absolute, because shards are opened later,
    perhaps from another working directory or in another process.
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
    snapshot = match["snapshot"]
    if snapshot != "refresh" and not _SHORTEST <= len(snapshot) <= _WHOLE:
        raise DatasetNotFoundError(
            subject=text,
            expected="a snapshot's id of 8 to 64 hex digits",
            found=f"{len(snapshot) - len('sha256:')} digits",
        )
    return Link(absolute(match["path"]), None if snapshot == "refresh" else snapshot)


def absolute(text: str) -> Path:
    """The absolute path; a leading `~` is expanded if that home directory exists."""
    return Path(os.path.expanduser(text)).absolute()  # noqa: PTH111 - Path.expanduser raises without a home directory


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
        hint = "copy the dataset, including its folder .mx8shards, to a local directory, and open that"
    return RemoteError("this version opens local directories only", subject=text, hint=hint)


def parse_target(text: str | os.PathLike[str]) -> Path:
    """The directory to publish in; an error for a URL, or for a link to a snapshot, as snapshots are immutable."""
    text = os.fsdecode(text)
    if _PINNED.fullmatch(text):
        raise SettingError(subject=text, expected="a directory to write to", found="a link to a snapshot")
    return parse_link(text).root
