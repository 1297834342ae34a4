"""How is a link parsed: which dataset directory or URL, and which snapshot, does path@sha256:… or s3://… name?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import DatasetNotFoundError, RemoteError, SettingError, shown

_PINNED = re.compile(r"(?P<path>.*)@(?P<snapshot>sha256:[0-9a-f]+|refresh)", re.DOTALL)
# pathlib.Path reduces the two slashes of a URL to one.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|(s3|gs|gcs|az|azure|oci|hf|https?|file):/", re.IGNORECASE)
_CREDENTIALS = re.compile(r"[^/?#]*@|.*?\?")  # a user and password before the host, or a query with a signature
_SHORTEST = len("sha256:") + 8
_WHOLE = len("sha256:") + 64


@dataclass(frozen=True, slots=True)
class Link:
    """A dataset's directory, and a snapshot's id or the beginning of one; None for the current snapshot."""

    root: Path
    snapshot: str | None = None

    def __str__(self) -> str:
        return f"{self.root}@{self.snapshot}" if self.snapshot else str(self.root)


@dataclass(frozen=True, slots=True)
class RemoteLink:
    """The URL of a dataset, and a snapshot's id or the beginning of one.

    Without a snapshot, the current one of the local mirror if there is one. With `refresh`, the current remote one.
    """

    url: str
    snapshot: str | None = None
    refresh: bool = False

    def __str__(self) -> str:
        return f"{self.url}@{self.snapshot}" if self.snapshot else f"{self.url}@refresh" if self.refresh else self.url


def is_url(text: str) -> bool:
    """Whether this is a URL, not a path."""
    return _URL.match(text) is not None


def parse_any(text: str | os.PathLike[str]) -> Link | RemoteLink:
    """Parse a path or a URL, plain, with `@sha256:…` (at least eight digits) or with `@refresh`.

    Of a path, a leading `~` is the home directory, as in a shell. The path is made absolute, because shards are opened
    later, perhaps from another working directory or in another process. A URL must not contain credentials.
    """
    if not isinstance(text, str | bytes | os.PathLike):
        raise _no_link(text)
    text = os.fsdecode(text)
    if "\0" in text:
        raise _no_link(text)
    match = _PINNED.fullmatch(text)
    where, snapshot = (text, None) if match is None else (match["path"], match["snapshot"])
    refresh = snapshot == "refresh"
    url = _checked_url(where) if _URL.match(text) else None
    if snapshot is not None and not refresh and not _SHORTEST <= len(snapshot) <= _WHOLE:
        raise DatasetNotFoundError(
            subject=f"{url or where}@{snapshot}",
            expected="a snapshot's id of 8 to 64 hex digits",
            found=f"{len(snapshot) - len('sha256:')} digits",
        )
    if url is not None:
        return RemoteLink(url, None if refresh else snapshot, refresh)
    return Link(absolute(where), None if refresh else snapshot)


def parse_link(text: str | os.PathLike[str]) -> Link:
    """Like `parse_any`, for calls that need a local directory: RemoteError for a URL."""
    found = parse_any(text)
    if isinstance(found, RemoteLink):
        hint = "mx8shards.sync(url, directory) brings the dataset to a local directory"
        raise RemoteError("this call needs a local directory", subject=str(found), hint=hint)
    return found


def is_whole_id(snapshot: str) -> bool:
    """Whether this is the whole id of a snapshot, not only its beginning."""
    return len(snapshot) == _WHOLE


def directory(name: str, given: str | os.PathLike[str]) -> Path:
    """The absolute path of the directory that the setting `name` gives; SettingError for a URL, or for no path."""
    try:
        text = os.fsdecode(given)
    except TypeError:
        text = ""
    if not text or "\0" in text or is_url(text):
        found = "a URL" if is_url(text) else shown(given)  # which may contain a password
        raise SettingError(subject=name, expected="the path of a local directory", found=found)
    return absolute(text)


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


def _checked_url(text: str) -> str:
    """The URL with two slashes and without one at its end; an error for credentials and for file: URLs."""
    scheme, _, rest = text.partition(":")
    scheme, rest = scheme.lower(), rest.lstrip("/")
    if scheme == "file":
        hint = f"give its path: /{rest}"
        raise RemoteError("a file: URL names a local directory", subject=text, hint=hint)
    if _CREDENTIALS.match(rest if scheme != "hf" else rest.partition("/")[0]):
        hidden = re.sub(r"^[^/?#]*@", "…@", rest).partition("?")[0]
        raise SettingError(
            subject=f"{scheme}://{hidden}",
            expected="a URL without credentials",
            found="a user, a key or a query in it",
            hint="credentials come from the environment or from a profile",
        )
    return f"{scheme}://{rest.rstrip('/')}"


def parse_any_target(text: str | os.PathLike[str]) -> Path | str:
    """The directory or the URL to publish in; an error for a link to a snapshot, as snapshots are immutable."""
    found = parse_any(text)
    if _PINNED.fullmatch(os.fsdecode(text)):
        subject = os.fsdecode(text)
        raise SettingError(subject=subject, expected="a directory or URL to write to", found="a link to a snapshot")
    return found.url if isinstance(found, RemoteLink) else found.root


def refuse_settings_of_urls(link: Link, **given: object) -> None:
    """SettingError for settings that only a URL takes, unless they are None."""
    for name, value in given.items():
        if value is not None:
            raise SettingError(subject=name, expected=f"none for the local dataset {link}", found=shown(value))
