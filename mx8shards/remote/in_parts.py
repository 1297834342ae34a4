"""Does this store take large new objects in parts? The client for them, and a trial of the store."""

from __future__ import annotations

import uuid
from pathlib import Path
from threading import Lock
from typing import Any

from mx8shards.errors import MissingPackageError, RemoteError
from mx8shards.remote import clients
from mx8shards.remote.access import Access
from mx8shards.remote.new_in_parts import Run, put_new_in_parts, refuses_to_replace
from mx8shards.remote.store import Store


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

    def put(self, store: Store, key: str, source: Path, run: Run) -> str | None:
        """Store a new object; None if that is not possible in parts, or if the credentials have expired."""
        try:
            client = self._client()
            if not self._is_safe(store, client, run):
                return None
            return put_new_in_parts(client, self._bucket, self._in_bucket(key), source, run)
        except MissingPackageError:
            return None
        except RemoteError as error:
            if error.reason != "denied":
                raise
            return None

    def _client(self) -> Any:
        """A client of boto3 with the current credentials, made once: that takes long."""
        keys, region = self._access.keys(), self._access.region
        with self._lock:
            if self._made is None or self._made[0] != (keys, region):
                limits = {"connect_timeout": min(clients.CONNECT_S, self._stalled_s), "read_timeout": self._stalled_s}
                made = clients.boto_client(self._access, keys, retries={"total_max_attempts": 1}, **limits)
                self._made = (keys, region), made
            return self._made[1]

    def _is_safe(self, store: Store, client: Any, run: Run) -> bool:
        """Whether uploads in parts honour the condition. A store that is not AWS itself is tried."""
        if self._safe is None:
            self._safe = self._access.endpoint is None or self._tried(store, client, run)
        return self._safe

    def _tried(self, store: Store, client: Any, run: Run) -> bool:
        """Try it with an object, which is removed."""
        key, data = f".mx8shards/trial-{uuid.uuid4().hex}", b"trial"
        store.put(key, data)
        try:
            refuses = refuses_to_replace(client, self._bucket, self._in_bucket(key), run)
            return refuses and store.read(key, len(data)).data == data
        finally:
            store.delete([key])

    def _in_bucket(self, key: str) -> str:
        return f"{self._prefix}/{key}".lstrip("/")
