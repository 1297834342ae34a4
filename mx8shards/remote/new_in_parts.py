"""How is a large file stored as a new S3 object in parts, on the condition that there is no object of this name?

In parts, a slow or broken connection repeats 16 MiB and not the whole file. boto3 sends them, because obstore knows no
condition for the request that completes an upload.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from mx8shards.disk.map import ReadFile
from mx8shards.errors import MissingPackageError, RemoteError, require
from mx8shards.remote import clients, faults
from mx8shards.remote.access import Access
from mx8shards.remote.puts import content_md5
from mx8shards.remote.store import Store
from mx8shards.remote.trials import TrialStore, trial_object

_logger = logging.getLogger("mx8shards")

Run = Callable[[Callable[[], Any], int], Any]

IN_PARTS_FROM = 64 << 20  # bytes; a smaller file goes by one request
_PART = 16 << 20
_MOST_PARTS = 9_000  # S3 allows 10,000
_AT_ONCE = 4


class InParts:
    """Stores large new objects of one S3 store in parts, if it honours the condition that there is no such object.

    Args:
        access: The endpoint, region and credentials.
        bucket: The bucket.
        prefix: The prefix of the store's keys in the bucket.
        stalled_s: How many seconds one request may wait for the store.
    """

    def __init__(self, access: Access, bucket: str, prefix: str, stalled_s: float) -> None:
        self._access = access
        self._bucket = bucket
        self._prefix = prefix
        self._stalled_s = stalled_s
        self._lock = Lock()
        self._made: tuple[Any, Any] | None = None  # credentials and region, and the client that has them
        self._safe: bool | None = None

    def put(self, store: TrialStore, key: str, source: Path, run: Run) -> str | None:
        """Store a new object; None if that is not possible in parts, or if the credentials have expired."""
        try:
            client = self._client()
            if not self._is_safe(store, client, run):
                return None
            etag = put_new_in_parts(client, self._bucket, self._in_bucket(key), source, run)
            return etag if self._is_whole(store, key, source) else None
        except MissingPackageError:
            return None
        except RemoteError as error:
            if error.reason != "denied":
                raise
            return None

    def _is_whole(self, store: Store, key: str, source: Path) -> bool:
        """Whether the new object has the size of the file. If not, it is removed, and no other goes in parts."""
        found = store.head(key)
        if found is not None and found.size_bytes == source.stat().st_size:
            return True
        _logger.warning("%s: the store keeps uploads in parts wrongly: it gets single requests", store.url)
        self._safe = False
        store.delete([key])
        return False

    def _client(self) -> Any:
        """A client of boto3 with the current credentials, made once: that takes long."""
        keys, region = self._access.keys(), self._access.region
        with self._lock:
            if self._made is None or self._made[0] != (keys, region):
                limits = {"connect_timeout": min(clients.CONNECT_S, self._stalled_s), "read_timeout": self._stalled_s}
                made = clients.boto_client(self._access, keys, retries={"total_max_attempts": 1}, **limits)
                self._made = (keys, region), made
            return self._made[1]

    def _is_safe(self, store: TrialStore, client: Any, run: Run) -> bool:
        """Whether uploads in parts honour the condition. A store that is not AWS itself is tried."""
        if self._safe is None:
            self._safe = self._access.endpoint is None or self._tried(store, client, run)
        return self._safe

    def _tried(self, store: TrialStore, client: Any, run: Run) -> bool:
        """Try it with an object, which is removed."""
        data = b"trial"
        with trial_object(store) as key:
            store.put(key, data)
            refuses = refuses_to_replace(client, self._bucket, self._in_bucket(key), run)
            return refuses and store.read(key, len(data)).data == data

    def _in_bucket(self, key: str) -> str:
        return f"{self._prefix}/{key}".lstrip("/")


def put_new_in_parts(client: Any, bucket: str, key: str, source: Path, run: Run) -> str:
    """Store a file as a new object, and return its ETag. What was sent is removed after an error.

    RemoteError of reason "changed" if there is an object, "denied" if the store knows no such condition.

    Args:
        client: A client of boto3.
        bucket: The bucket.
        key: The object's key in the bucket.
        source: The file.
        run: Makes one request, again after transient faults. Gets a function, and the number of bytes that it sends.
    """
    file = ReadFile(source)
    size = file.size_bytes
    part = max(_PART, -(-size // _MOST_PARTS))
    where = {"Bucket": bucket, "Key": key}
    begun = run(lambda: _answer(client.create_multipart_upload, where), 0)
    where["UploadId"] = begun["UploadId"]

    def send(number: int) -> Any:
        begin = (number - 1) * part
        data = file.read(begin, min(part, size - begin))
        return run(lambda: _sent(client, where, number, data), len(data))

    try:
        with ThreadPoolExecutor(_AT_ONCE, "mx8shards-part") as threads:
            parts = list(threads.map(send, range(1, -(-size // part) + 1)))
        return _completed(client, where, parts, run)
    except BaseException:
        with contextlib.suppress(Exception):  # a later gc removes it
            client.abort_multipart_upload(**where)
        raise


def refuses_to_replace(client: Any, bucket: str, key: str, run: Run) -> bool:
    """Whether the store refuses to complete an upload in place of the object `key`, which exists. Tries it.

    A store may honour the condition of a put, and not that of an upload in parts. Of several attempts, the first may
    have replaced the object although the last one fails: the caller looks at the object.
    """
    where = {"Bucket": bucket, "Key": key}
    where["UploadId"] = run(lambda: _answer(client.create_multipart_upload, where), 0)["UploadId"]
    try:
        _completed(client, where, [run(lambda: _sent(client, where, 1, b"other"), 0)], run)
    except RemoteError as error:
        if error.reason == "network":
            raise
        return error.reason == "changed"
    else:
        return False
    finally:
        with contextlib.suppress(Exception):  # it is gone if the upload was completed
            client.abort_multipart_upload(**where)


def _sent(client: Any, where: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
    """Send one part."""
    answer = _answer(client.upload_part, where, PartNumber=number, Body=data, ContentMD5=content_md5(data))
    return {"PartNumber": number, "ETag": answer["ETag"]}


def _completed(client: Any, where: dict[str, str], parts: list[dict[str, Any]], run: Run) -> str:
    """Complete an upload, and return the object's ETag.

    If the answer is lost, the upload is unknown at the next attempt: then the caller compares the object that is there.
    """
    attempts = 0

    def complete() -> Any:
        nonlocal attempts
        attempts += 1
        try:
            return _answer(client.complete_multipart_upload, where, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except RemoteError as error:
            if attempts > 1 and "NoSuchUpload" in error.message:
                error.reason = "changed"
            raise

    return str(run(complete, 0)["ETag"])


def _answer(request: Callable[..., Any], where: dict[str, str], **more: Any) -> Any:
    """The answer to a request of boto3; an error as RemoteError."""
    exceptions = require("botocore.exceptions", "remote")
    try:
        return request(**where, **more)
    except exceptions.ClientError as error:
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"].get("Code", "")
        found = faults.of_status(status, code if code.isalnum() else "", f"s3://{where['Bucket']}/{where['Key']}")
    except exceptions.BotoCoreError as error:  # its text may contain a URL with a signature
        found = RemoteError(f"no answer ({type(error).__name__})", subject=f"s3://{where['Bucket']}/{where['Key']}")
    raise found
