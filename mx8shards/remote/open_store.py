"""Which store does a URL name?"""

from __future__ import annotations

import re
from pathlib import Path

from mx8shards.errors import RemoteError, SettingError, real_number, whole_number
from mx8shards.remote.folder_store import SCHEME as FOLDER
from mx8shards.remote.folder_store import FolderStore
from mx8shards.remote.fork_safe import ForkSafe
from mx8shards.remote.hub import Hub
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.store import Store, is_plain

DEADLINE_S = 300.0
_WEEK_S = 7 * 24 * 3600.0

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(url: str, *, deadline_s: float = DEADLINE_S, parallel: int = 8) -> Store:
    """The store of a URL: s3://bucket/prefix, gs://…, az://… or hf://datasets/OWNER/NAME/prefix. Nothing is asked yet.

    Args:
        url: The bucket and the prefix of all keys. It contains no credentials: they come from the environment.
        deadline_s: After this time an operation that does not succeed raises RemoteError.
        parallel: The most objects that are fetched concurrently.
    """
    deadline_s = real_number("deadline_s", deadline_s, "seconds, > 0 and at most a week", lambda s: 0 < s <= _WEEK_S)
    parallel = whole_number("parallel", parallel, 1, 1024)
    if url.startswith(FOLDER):
        return FolderStore(Path(url.removeprefix(FOLDER)))
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else ""
    if scheme in ("s3", "gs", "az"):
        bucket, prefix = bucket_and_prefix(url, url[len(scheme) + 3 :])
        return ForkSafe(ObjectStore(scheme, bucket, prefix, deadline_s=deadline_s, parallel=parallel))
    if scheme == "hf":
        check_key(url[5:].strip("/"), "url")
        return Hub(url[5:], deadline_s=deadline_s)
    raise RemoteError(
        expected="a URL with the scheme s3, gs, az or hf",
        found=f"the scheme {scheme!r}",
        reason="missing",
        hint="other stores: mount them, or copy the dataset to a local directory",
    )


def bucket_and_prefix(url: str, rest: str) -> tuple[str, str]:
    """The bucket and the prefix that follow the scheme of a URL."""
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):  # the URL is not shown: it may contain a password
        expected = "scheme://bucket/prefix without credentials, which come from the environment"
        found = "a bucket name that is too short or has other characters" if bucket else "no bucket"
        raise SettingError(subject="url", expected=expected, found=found)
    check_key(prefix, url)
    return bucket, prefix


def check_key(key: str, subject: str) -> None:
    """SettingError if a prefix or key has empty or dotted parts, or control characters."""
    if key and not is_plain(key):
        expected = "no empty part, '.', '..' or control character between the slashes"
        raise SettingError(subject=subject, expected=expected, found=repr(key))
