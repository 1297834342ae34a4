"""What can an object store do? The interface through which everything else in this folder reaches one.

A store is one bucket or repository with a prefix; keys are relative to it. All operations retry transient faults until
their deadline and then raise RemoteError. What comes from a store is not trusted: callers check sizes and hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Span = tuple[int, int]  # begin and end of bytes in an object

# Why an operation failed: `RemoteError.reason`.
#   network   no answer, resets, 5xx: an outage
#   denied    401, 403 or another refusal: credentials are wrong, missing or expired, or the store cannot do this
#   missing   404: no such object or bucket
#   changed   412, 416, another ETag or size: the object was replaced meanwhile, or a conditional put lost
Reason = Literal["network", "denied", "missing", "changed"]


class Listed(NamedTuple):
    """One object of a listing, or the answer to a HEAD request. `modified_s` is Unix time."""

    key: str
    size_bytes: int
    etag: str
    modified_s: float


class Fetched(NamedTuple):
    """The bytes of a small object, and its ETag.

    `source` is the URL of the prefix in the version that the bytes come from, if the store has versions of the whole
    prefix, as the Hub's commits are; otherwise "".
    """

    data: bytes
    etag: str
    source: str = ""


def is_plain(key: str) -> bool:
    """Whether a key has neither empty or dotted parts nor control characters: stores disagree about those."""
    return key.isprintable() and not any(part in ("", ".", "..") for part in key.split("/"))


class Store(Protocol):
    """One prefix of an object store. It is thread-safe, and can be pickled: another process connects again.

    A process forked from one that used it must not use it: it raises RemoteError there. (Its client has threads.)
    """

    @property
    def url(self) -> str:
        """The URL of the prefix, without credentials: for messages."""

    @property
    def address(self) -> str:
        """The URL and, if the environment names one, the endpoint that answers for it."""

    @property
    def can_put_conditionally(self) -> bool:
        """Whether `put` honours `if_match`; found out once, by a trial if necessary."""

    def read(self, key: str, most: int) -> Fetched:
        """A whole object; FormatError if it has more than `most` bytes, RemoteError "missing" if there is none."""

    def read_spans(self, key: str, spans: Sequence[Span], etag: str | None) -> list[bytes]:
        """Parts of an object. Every request carries `If-Match` if an ETag is given."""

    def head(self, key: str) -> Listed | None:
        """Size and ETag of an object; None if there is none."""

    def fetch(self, key: str, target: Path, size_bytes: int, *, in_ranges: bool = False, algorithm: str = "") -> str:
        """Write a whole object of this size into the new file `target`, without fsync.

        With `in_ranges`, a large one comes in parallel ranges, if the store can do that: it is here sooner, for more
        requests.

        With the name of a hash algorithm, it returns the hash of the bytes if they came in order, and were hashed on
        the way. Otherwise it returns "", and the caller reads the file to hash it.
        """

    def put(self, key: str, source: bytes | Path, *, if_match: str | None = None, new: bool = False) -> str:
        """Store an object and return its ETag. Large files go in parts, which are removed if that fails.

        With `if_match`, only if the object has that ETag; with `new`, only if there is none. Otherwise RemoteError of
        reason "changed".
        """

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects below a prefix."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. A missing one is no error."""

    def close(self) -> None:
        """End operations that wait before another attempt. The store is not used again."""
