"""Of which URL is a directory the mirror, and from where do the files of a snapshot come?

    .mx8shards/mirror.json       the URL
    .mx8shards/sources/SNAPSHOT  the URL of the commit in which the snapshot's index stood, on the Hugging Face Hub

A damaged one needs no repair by hand: who opens the mirror names its URL, and so it is written again.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from mx8shards.disk.files import read_bounded, read_json
from mx8shards.errors import FormatError
from mx8shards.remote import fetching
from mx8shards.shards.snapshots import MIRROR, STATE

UNKNOWN = ""  # the URL of a mirror whose mirror.json is damaged

_FORMAT = 1
_MOST_BYTES = 1 << 16
_COMMIT = re.compile(r"@[0-9a-f]{40}(?=/|$)")
_REVISION = re.compile(r"@[^/@]+")


def mirrored_url(root: Path) -> str | None:
    """The URL whose mirror this directory is; None if it is no mirror, UNKNOWN if the file that tells is damaged."""
    path = root / STATE / MIRROR
    try:
        found = read_json(path, _MOST_BYTES, format=int, url=str)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except FormatError:
        return UNKNOWN
    if found["format"] != _FORMAT:
        hint = "written by a newer version of mx8shards"
        raise FormatError(subject=str(path), expected=f"format {_FORMAT}", found=str(found["format"])[:80], hint=hint)
    return str(found["url"])


def note_url(url: str, claim: fetching.Claim) -> None:
    """Make the directory the mirror of a URL."""
    about = json.dumps({"format": _FORMAT, "url": url})
    fetching.place_bytes(about.encode(), f"{STATE}/{MIRROR}", claim)


def source_of(root: Path, url: str, snapshot: str) -> str:
    """The URL that the files of a snapshot come from: on the Hub, that of the commit in which its index stood.

    Shards without hashes stay those of the first commit: nothing else would show that they changed. If that is not
    readable, they come from the revision of the URL.
    """
    with suppress(FileNotFoundError, FormatError, UnicodeDecodeError):
        found = read_bounded(root / _source_path(snapshot), _MOST_BYTES, follow=False).decode()
        if _COMMIT.search(found) and _REVISION.sub("", found, count=1) == _REVISION.sub("", url, count=1):
            return found
    return url


def note_source(source: str, snapshot: str, claim: fetching.Claim) -> None:
    """Note where the files of a snapshot come from."""
    fetching.place_bytes(source.encode(), _source_path(snapshot), claim)


def _source_path(snapshot: str) -> str:
    return f"{STATE}/sources/{snapshot.removeprefix('sha256:')}"
