"""A small S3 server with one bucket in memory, which fails as told and counts its requests.

It knows what object stores are used for here: GET with ranges and If-Match, HEAD, PUT with If-Match and If-None-Match,
multipart uploads, ListObjectsV2, and DELETE. Like S3 it refuses bodies that differ from their checksum headers. It
checks no signatures.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

Operation = Literal["read", "head", "list", "put", "start", "part", "complete", "abort", "delete"]
Kind = Literal[500, 503, 403, 404, "reset", "hang", "cut", "long", "flip", "stale", "replaced", "drip"]
Place = Literal["first", "middle", "last"]
KINDS: tuple[Kind, ...] = (500, 503, 403, 404, "reset", "hang", "cut", "long", "flip", "stale", "replaced", "drip")
CHANGES = ("put", "start", "part", "complete", "abort", "delete")
MULTIPART: tuple[Operation, ...] = ("start", "part", "complete")
BUCKET = "data"
CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 500: "InternalError", 503: "SlowDown"}
STEP = 1 << 18  # bytes sent at once
_INVERTED = bytes(range(255, -1, -1))


@dataclass
class Fault:
    """What goes wrong with requests of some operations on keys that match a pattern.

    In a reply to a read, `place` is the position in the body. In a change, first and middle mean before the change is
    made, while the body comes; last means that the change is made and only the answer is lost or wrong.
    """

    kind: Kind
    operations: tuple[Operation, ...]
    key: str = ".*"
    skip: int = 0  # matching requests that succeed first
    times: int | None = 1  # None: all that follow
    place: Place = "middle"
    met: int = field(default=0, init=False)

    def strikes(self, operation: Operation, key: str) -> bool:
        """Count a request, and say whether it fails."""
        if operation not in self.operations or not re.fullmatch(self.key, key):
            return False
        self.met += 1
        return self.met > self.skip and (self.times is None or self.met <= self.skip + self.times)

    def position(self, size: int) -> int:
        """The byte at which a body of this size goes wrong."""
        return {"first": 0, "middle": size // 2, "last": max(size - 1, 0)}[self.place]


@dataclass(frozen=True)
class Version:
    """One state of an object."""

    data: bytes
    etag: str
    modified_s: float
    by_fault: bool = False  # it took the place of another one


@dataclass
class Request:
    """What came, and what was done about it."""

    operation: Operation
    key: str
    span: str = ""  # the Range header
    if_match: str = ""
    status: int = 0
    sent_bytes: int = 0
    fault: Kind | None = None


@dataclass
class Reply:
    status: int
    data: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FaultServer:
    """A context manager; the server's threads run while the block does."""

    def __init__(self, page_keys: int = 1000, certificate: Path | None = None) -> None:
        self.certificate = certificate  # with its key: the server speaks TLS
        self.connections = 0
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.down = False  # every connection is reset, those in use as well
        self.resets = 0  # of connections, in outages
        self.delay_s = 0.0  # before each reply: the round trip
        self.bytes_per_s = 0.0  # of each connection; 0: unlimited
        self.conditional = True  # False: conditions of PUT are ignored, as some stores do
        self.conditional_in_parts = True  # False: the condition of an upload in parts is ignored, that of PUT is not
        self.knows_chunks = True  # False: the encoding aws-chunked is refused, as some stores do
        self.page_keys = page_keys
        self.objects: dict[str, list[Version]] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.RLock()
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        if self.certificate:
            self._http.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._http.context.load_cert_chain(self.certificate)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self._http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients need to find the server and nothing else."""
        nowhere = "/nonexistent"
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIDFAULTY",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            **({"AWS_CA_BUNDLE": str(self.certificate)} if self.certificate else {}),
        }

    def url(self, prefix: str = "") -> str:
        """The s3:// URL of a prefix."""
        return f"s3://{BUCKET}/{prefix}".rstrip("/")

    def put(self, key: str, data: bytes, etag: str = "", *, by_fault: bool = False) -> str:
        """Store an object without a request; its ETag."""
        with self.lock:
            version = Version(data, etag or f'"{hashlib.md5(data).hexdigest()}"', time.time(), by_fault)
            self.objects.setdefault(key, []).append(version)
        return version.etag

    def put_files(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Store files below a prefix, without requests."""
        for name, data in files.items():
            self.put(f"{prefix}/{name}", data)

    def fail(self, kind: Kind, *operations: Operation, **settings: Any) -> Fault:
        """Add a fault and return it."""
        fault = Fault(kind, operations, **settings)
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Remove all faults and forget the requests."""
        with self.lock:
            self.faults.clear()
            self.requests.clear()
            self.down = False

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Nothing is reached while the block runs."""
        self.down = True
        try:
            yield
        finally:
            self.down = False

    def data(self, key: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        found = self.current(key)
        return found and found.data

    def keys(self) -> list[str]:
        return sorted(self.objects)

    def current(self, key: str, *, stale: bool = False) -> Version | None:
        """The newest version of an object, or the one before it."""
        return (self.objects.get(key, ())[: -1 if stale else None] or [None])[-1]

    def counts(self, *operations: Operation) -> Counter[str]:
        """How often each key was asked for, by some or all operations."""
        with self.lock:
            return Counter(r.key for r in self.requests if not operations or r.operation in operations)

    def sent_bytes(self) -> int:
        """The bytes of all bodies that were sent."""
        with self.lock:
            return sum(request.sent_bytes for request in self.requests)

    # what the operations do ---------------------------------------------------------------------------------------

    def reply(self, request: Request, query: dict[str, str], headers: Any, body: bytes, stale: bool) -> Reply:
        """Do what a request asks for."""
        key, operation = request.key, request.operation
        if (problem := _wrong_checksum(headers, body)) is not None:
            return problem
        with self.lock:
            now = self.current(key, stale=stale)
            if operation in ("read", "head"):
                return _read(now, headers)
            if operation == "list":
                return self._list(query, stale)
            honoured = self.conditional and (operation == "put" or self.conditional_in_parts)
            if operation in ("put", "complete") and honoured and not _condition_holds(now, headers):
                return _error(404 if now is None and headers.get("If-Match") else 412)
            return self._change(operation, key, query, body)

    def _change(self, operation: Operation, key: str, query: dict[str, str], body: bytes) -> Reply:
        upload = query.get("uploadId", "")
        if upload and upload not in self.uploads:
            return _error(404, "NoSuchUpload")
        if operation == "start":
            upload = f"upload{len(self.requests)}"
            self.uploads[upload] = {}
            text = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            return _xml("InitiateMultipartUploadResult", text)
        if operation == "part":
            self.uploads[upload][int(query["partNumber"])] = body
            return Reply(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if operation == "complete":
            parts = self.uploads[upload]
            wanted = [int(found) for found in re.findall(rb"<PartNumber>\s*(\d+)", body)]
            if any(number not in parts for number in wanted):
                return _error(400, "InvalidPart")
            del self.uploads[upload]
            bodies = [parts[number] for number in wanted]
            etag = self.put(key, b"".join(bodies), _etag_of_parts(bodies))
            return _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>{escape(etag)}</ETag>")
        if operation == "put":
            return Reply(200, headers={"ETag": self.put(key, body)})
        if operation == "abort":
            del self.uploads[upload]
        elif key:
            self.objects.pop(key, None)
        else:  # one request deletes several
            gone = [found.text or "" for found in ElementTree.fromstring(body).iter() if found.tag.endswith("Key")]
            for each in gone:
                self.objects.pop(each, None)
            return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(each)}</Key></Deleted>" for each in gone))
        return Reply(204)

    def _list(self, query: dict[str, str], stale: bool) -> Reply:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        name = quote if query.get("encoding-type") == "url" else escape
        rows: dict[str, str] = {}  # in order, and each common prefix once
        for key in sorted(self.objects):
            found = self.current(key, stale=stale)
            if found is None or not key.startswith(prefix):
                continue
            rest, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            shown = prefix + rest + cut if cut else key
            rows[shown] = (
                f"<CommonPrefixes><Prefix>{name(shown)}</Prefix></CommonPrefixes>"
                if cut
                else f"<Contents><Key>{name(key)}</Key><LastModified>{_iso(found.modified_s)}</LastModified>"
                f"<ETag>{escape(found.etag)}</ETag><Size>{len(found.data)}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        left = [shown for shown in rows if shown > after]
        page = left[: min(int(query.get("max-keys", 1000)), self.page_keys)]
        more = len(page) < len(left)
        text = "".join(rows[shown] for shown in page)
        text += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        facts = f"<Name>{BUCKET}</Name><Prefix>{name(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        facts += f"<MaxKeys>{self.page_keys}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
        facts += "<EncodingType>url</EncodingType>" if name is quote else ""
        return _xml("ListBucketResult", facts + text)

    def strike(self, request: Request) -> Fault | None:
        """Note a request, and the fault that befalls it."""
        with self.lock:
            self.requests.append(request)
            struck = [fault for fault in self.faults if fault.strikes(request.operation, request.key)]
            request.fault = struck[0].kind if struck else None
            return struck[0] if struck else None

    def replace(self, key: str) -> None:
        """Another object of equal size takes the place of an object."""
        if (now := self.data(key)) is not None:
            self.put(key, now.translate(_INVERTED), by_fault=True)  # of shards of many MB, too

    def undo_replacements(self) -> list[str]:
        """Put the objects back that a fault has replaced; their keys."""
        replaced = [key for key, versions in self.objects.items() if versions[-1].by_fault]
        for key in replaced:
            self.put(key, [version for version in self.objects[key] if not version.by_fault][-1].data)
        return replaced


def _etag_of_parts(parts: list[bytes]) -> str:
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


def _iso(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at_s))


def _xml(name: str, text: str, status: int = 200) -> Reply:
    space = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if status == 200 else ""
    data = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{space}>{text}</{name}>'.encode()
    return Reply(status, data, {"Content-Type": "application/xml"})


def _error(status: int, code: str = "") -> Reply:
    code = code or CODES.get(status, "Error")
    return _xml("Error", f"<Code>{code}</Code><Message>{code}, by the fault server</Message>", status)


def _wrong_checksum(headers: Any, body: bytes) -> Reply | None:
    wanted = headers.get("x-amz-content-sha256", "")
    if re.fullmatch("[0-9a-f]{64}", wanted) and wanted != hashlib.sha256(body).hexdigest():
        return _error(400, "XAmzContentSHA256Mismatch")
    for name, make in {"Content-MD5": hashlib.md5, "x-amz-checksum-sha256": hashlib.sha256}.items():
        if headers.get(name, "") not in ("", base64.b64encode(make(body).digest()).decode()):
            return _error(400, "BadDigest")
    return None


def _names(header: str | None, version: Version | None) -> bool:
    """Whether a list of ETags contains that of a version."""
    tags = [tag.strip().strip('"') for tag in (header or "").split(",")]
    return version is not None and ("*" in tags or version.etag.strip('"') in tags)


def _condition_holds(now: Version | None, headers: Any) -> bool:
    if_match, if_none = headers.get("If-Match"), headers.get("If-None-Match")
    return not (if_match and not _names(if_match, now)) and not (if_none and _names(if_none, now))


def _read(now: Version | None, headers: Any) -> Reply:
    if now is None:
        return _error(404)
    if headers.get("If-Match") and not _names(headers["If-Match"], now):
        return _error(412)
    facts = {"ETag": now.etag, "Last-Modified": formatdate(now.modified_s, usegmt=True), "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
    if span is None:
        return Reply(200, now.data, facts)
    size = len(now.data)
    first = int(span[1]) if span[1] else max(size - int(span[2]), 0)
    last = min(int(span[2]), size - 1) if span[1] and span[2] else size - 1
    if first >= size:
        return _error(416, "InvalidRange")
    return Reply(206, now.data[first : last + 1], facts | {"Content-Range": f"bytes {first}-{last}/{size}"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: FaultServer
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread."""
        self.owner.connections += 1
        if self.context is None or self.owner.down:
            super().finish_request(request, client_address)
        else:
            with self.context.wrap_socket(request, server_side=True) as encrypted:
                super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are ordinary here."""


class _BrokenOff(Exception):  # noqa: N818 the connection's end, not an error
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _serve(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        request = Request(self._operation(key, query), key)
        request.span, request.if_match = self.headers.get("Range", ""), self.headers.get("If-Match", "")
        try:
            if owner.down:
                self._reset()
            fault = owner.strike(request)
            if not owner.knows_chunks and "aws-chunked" in self.headers.get("Content-Encoding", ""):
                self._send(request, _error(501, "NotImplemented"), None)
                raise _BrokenOff
            body = self._body(fault if request.operation in CHANGES else None)
            owner.stopped.wait(owner.delay_s)
            early = fault is not None and isinstance(fault.kind, int) and not self._is_late(request, fault)
            stale = fault is not None and fault.kind == "stale"
            reply = Reply(0) if early else owner.reply(request, query, self.headers, body, stale)
            if fault is not None and isinstance(fault.kind, int):
                reply = _error(fault.kind)
            request.status = reply.status
            if fault is not None and fault.kind == "replaced":  # before the client can ask again
                owner.replace(key)
            self._send(request, reply, fault)
        except (_BrokenOff, OSError):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def _operation(self, key: str, query: dict[str, str]) -> Operation:
        method = self.command
        if not key and method == "GET":
            return "list"
        if "uploadId" in query:
            return {"PUT": "part", "POST": "complete", "DELETE": "abort"}[method]
        if method == "POST":
            return "start" if "uploads" in query else "delete"
        return {"GET": "read", "HEAD": "head", "PUT": "put", "DELETE": "delete"}[method]

    def _is_late(self, request: Request, fault: Fault) -> bool:
        """Whether the change is made although its answer fails."""
        return request.operation in CHANGES and fault.place == "last"

    def _body(self, fault: Fault | None) -> bytes:
        """The body of a request, which a fault may end, stop or change."""
        size = int(self.headers.get("Content-Length", 0))
        stops = fault is not None and fault.place != "last" and fault.kind in ("reset", "hang", "cut", "drip")
        if fault is not None and stops:
            self.rfile.read(fault.position(size))
            self._break_off(fault)
        body = self._read(size)
        if "aws-chunked" in self.headers.get("Content-Encoding", "") or self.headers.get(
            "x-amz-content-sha256", ""
        ).startswith("STREAMING-"):
            body = _without_chunks(body)
        return _flipped(body, fault) if fault is not None and fault.kind == "flip" else body

    def _read(self, size: int) -> bytes:
        """The body of a request, at the speed of the connection."""
        rate = self.server.owner.bytes_per_s
        if not rate:
            return self.rfile.read(size)
        found = bytearray()
        while len(found) < size and (piece := self.rfile.read(min(max(int(rate / 20), 1), size - len(found)))):
            found += piece
            self.server.owner.stopped.wait(len(piece) / rate)
        return bytes(found)

    def _send(self, request: Request, reply: Reply, fault: Fault | None) -> None:
        data, extra = reply.data, b""
        if fault is not None and fault.kind == "flip" and request.operation not in CHANGES:
            data = _flipped(data, fault)
        if fault is not None and fault.kind == "long":
            extra = bytes(1000)
        breaks = fault is not None and fault.kind in ("reset", "hang", "cut", "drip")
        if fault is not None and breaks and (self.command == "HEAD" or not data):
            self._break_off(fault)  # there is no body in which it could go wrong
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + len(extra)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and breaks:
            self._write(request, data[: fault.position(len(data))])
            self._break_off(fault, request, data[fault.position(len(data)) :])
        self._write(request, data + extra)

    def _write(self, request: Request, data: bytes) -> None:
        owner = self.server.owner
        step = min(STEP, max(int(owner.bytes_per_s / 20), 1)) if owner.bytes_per_s else STEP
        for begin in range(0, len(data), step):
            if owner.down:
                self._reset()
            piece = data[begin : begin + step]
            self.wfile.write(piece)
            request.sent_bytes += len(piece)
            if owner.bytes_per_s:
                owner.stopped.wait(len(piece) / owner.bytes_per_s)

    def _break_off(self, fault: Fault, request: Request | None = None, rest: bytes = b"") -> None:
        """End the connection, or keep it and say nothing, or next to nothing, for ever."""
        owner = self.server.owner
        if fault.kind == "reset":
            self._reset()
        while fault.kind in ("hang", "drip") and not owner.stopped.wait(0.1):
            if fault not in owner.faults or _has_left(self.connection):
                break
            if fault.kind == "drip" and request is not None and rest:
                self._write(request, rest[:1])
                rest = rest[1:]
        raise _BrokenOff

    def _reset(self) -> None:
        self.server.owner.resets += self.server.owner.down
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise _BrokenOff

    def handle(self) -> None:
        """Serve a connection; in an outage it goes at once."""
        with contextlib.suppress(_BrokenOff):
            if self.server.owner.down:
                self._reset()
            super().handle()


def _has_left(connection: socket.socket) -> bool:
    """Whether the client has closed its side."""
    try:
        return socket.socket.recv(connection, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""  # below TLS, too
    except BlockingIOError:
        return False
    except OSError:
        return True


def _flipped(data: bytes, fault: Fault) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[fault.position(len(data))] ^= 1
    return bytes(changed)


def _without_chunks(body: bytes) -> bytes:
    """The payload of the encoding aws-chunked."""
    found, at = [], 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line].partition(b";")[0], 16)
        if size == 0:
            return b"".join(found)
        found.append(body[line + 2 : line + 2 + size])
        at = line + 4 + size


__all__ = ["KINDS", "MULTIPART", "Fault", "FaultServer", "Kind", "Operation", "Place"]
