"""How are the parts of incomplete uploads removed? They are billed, and no listing of objects has them.

Uploads in parts are ours of files above 16 MiB (new shards: from 64 MiB on), and those of other programs.
"""

from __future__ import annotations

import logging
import time

from mx8shards.errors import MissingPackageError
from mx8shards.remote.access import Access
from mx8shards.remote.clients import CONNECT_S, boto_client
from mx8shards.remote.open_store import bucket_and_prefix

_ANSWER_S = 30.0  # the longest wait for an answer

_logger = logging.getLogger("mx8shards")


def abort_old_uploads(url: str, older_than_s: float) -> int:
    """Abort the incomplete multipart uploads below an S3 URL that are older than this, and return their number.

    Google and Azure remove theirs by themselves. If the store refuses to list them, this is only a warning.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "s3":
        return 0
    bucket, prefix = bucket_and_prefix(url, rest)
    below = f"{prefix}/" if prefix else ""
    try:
        access = Access()
        limits = {"connect_timeout": CONNECT_S, "read_timeout": _ANSWER_S, "retries": {"total_max_attempts": 2}}
        client = boto_client(access, access.keys(), **limits)
        found = [
            (upload["Key"], upload["UploadId"])
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=below)
            for upload in page.get("Uploads", ())
            if upload["Initiated"].timestamp() <= time.time() - older_than_s
        ]
        for key, number in found:
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=number)
    except MissingPackageError as error:
        _logger.warning("%s: incomplete uploads are not cleaned: %s", url, error)
    except Exception as error:  # noqa: BLE001 - botocore has many errors; their texts may contain secrets
        _logger.warning("%s: incomplete uploads are not cleaned (%s)", url, type(error).__name__)
    else:
        return len(found)
    return 0
