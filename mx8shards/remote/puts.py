"""How does obstore send an object? A large one that may replace another goes in parts."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from mx8shards.disk.files import open_regular
from mx8shards.disk.map import Bytes
from mx8shards.errors import require
from mx8shards.remote.etags import md5

PART = 16 << 20  # bytes; a larger file is uploaded in parts of this size …
PARTS_AT_ONCE = 4  # … of which this many are in memory


def send(client: Any, key: str, source: bytes | Bytes | Path, mode: Any) -> str:
    """Store an object, in one of obstore's modes, and return its ETag."""
    parts = {"chunk_size": PART, "max_concurrency": PARTS_AT_ONCE}
    return str(require("obstore", "remote").put(client, key, source, mode=mode, **parts)["e_tag"] or "")


def replace(client: Any, key: str, source: bytes | Path) -> str:
    """Store an object in place of any other, and return its ETag.

    obstore aborts an upload in parts whose last request failed, and raises what the abort was answered. If the upload
    is unknown then, it was completed, and only the answer was lost.
    """
    try:
        return send(client, key, source, "overwrite")
    except FileNotFoundError as error:
        if "NoSuchUpload" in str(error):
            with suppress(FileNotFoundError):
                etag = str(require("obstore", "remote").head(client, key)["e_tag"] or "")
                if _has_etag_of(etag, source):
                    return etag
        raise


def _has_etag_of(etag: str, source: bytes | Path) -> bool:
    """Whether this is S3's ETag of an object in parts with these bytes: the MD5 of the MD5s of its parts.

    False also where a store makes its ETags in another way, as S3 itself does with some kinds of encryption.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(open_regular(source), "rb") as file:
        parts = [md5(data) for data in iter(lambda: file.read(PART), b"")]
    return etag.strip('"') == f"{md5(b''.join(parts)).hex()}-{len(parts)}"


def content_md5(data: bytes) -> str:
    """The header Content-MD5 of a request. Stores with S3's API refuse a body that differs from it."""
    return base64.b64encode(md5(data)).decode()
