"""How are files served as objects of S3 at the speed of sendfile? (python -m benchmarks.object_server ROOT …)

nginx would do, but cannot list or count. Bodies go from the page cache to the socket by sendfile(2), or by TLS, outside
Python's GIL. The folders of ROOT are the buckets. `/-/counts` gives the requests so far, `/-/forget` resets them.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import http.client
import json
import mmap
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from benchmarks.machine import ROOT

BYTES_PER_S = 200e6
HTTP, HTTPS, LIMITED = "http", "https", "http, 200 MB/s"
CERTIFICATE, ENDPOINTS = "certificate.pem", "endpoints.json"

STEP = 1 << 20
PART_BYTES = 8 << 20


class Rate:
    """A limit of bytes per second that all connections share."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.step = min(STEP, max(1, int(bytes_per_s / 200))) if bytes_per_s else STEP
        self._free_at_s = 0.0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        if self.bytes_per_s:
            with self._lock:
                now = time.monotonic()
                self._free_at_s = max(now - 0.01, self._free_at_s) + size / self.bytes_per_s
                wait_s = self._free_at_s - now
            if wait_s > 0:
                time.sleep(wait_s)


class Server(ThreadingHTTPServer):
    """The server: its files, its limits and what it has counted."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, root: Path, rate: Rate, delay_s: float, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.rate, self.delay_s, self.context = root, rate, delay_s, context
        self.counts: Counter[str] = Counter()

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Shake hands in the connection's own thread."""
        if self.context is not None and isinstance(request, socket.socket):
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are ordinary."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""

    def do_HEAD(self) -> None:
        """Size and ETag."""
        self._serve()

    def do_GET(self) -> None:
        """An object, a part of one, or a listing."""
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path).strip("/")
        counts = self.server.counts
        if path.startswith("-/"):
            answer = dict(counts)
            if path == "-/forget":
                counts.clear()
            self._answer(200, json.dumps(answer).encode(), {})
            return
        time.sleep(self.server.delay_s)
        if "/" not in path:
            counts["list"] += 1
            self._answer(200, self._listing(path, parts.query), {"Content-Type": "application/xml"})
            return
        counts["head" if self.command == "HEAD" else _kind(self.headers.get("Range", ""))] += 1
        self._object(self.server.root / path)

    def _object(self, path: Path) -> None:
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})
            return
        with file:
            status = os.fstat(file.fileno())
            etag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
            facts = {"ETag": etag, "Last-Modified": formatdate(status.st_mtime, usegmt=True), "Accept-Ranges": "bytes"}
            wanted = self.headers.get("If-Match", etag)
            if wanted not in (etag, "*", etag.strip('"')):
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
                return
            begin, end, code = 0, status.st_size, 200
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span:
                begin, end, code = int(span[1]), min(int(span[2] or end) + 1, end), 206
                facts["Content-Range"] = f"bytes {begin}-{end - 1}/{status.st_size}"
            self._head(code, facts, end - begin)
            if self.command == "GET":
                self._body(file.fileno(), begin, end)

    def _body(self, descriptor: int, begin: int, end: int) -> None:
        rate = self.server.rate
        if isinstance(self.connection, ssl.SSLSocket):
            with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                for at in range(begin, end, rate.step):
                    rate.take(min(rate.step, end - at))
                    self.connection.sendall(view[at : min(at + rate.step, end)])
                    self.server.counts["bytes"] += min(rate.step, end - at)
            return
        while begin < end:
            rate.take(min(rate.step, end - begin))
            sent = os.sendfile(self.connection.fileno(), descriptor, begin, min(rate.step, end - begin))
            self.server.counts["bytes"] += sent
            begin += sent

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str], size: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _listing(self, bucket: str, query: str) -> bytes:
        """All keys with a prefix, on one page."""
        prefix = parse_qs(query).get("prefix", [""])[0]
        root = self.server.root / bucket
        rows = []
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            key = path.relative_to(root).as_posix()
            if key.startswith(prefix):
                status = path.stat()
                date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(status.st_mtime))
                rows.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{date}</LastModified><ETag>&quot;x&quot;</ETag>"
                    f"<Size>{status.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(rows)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"
        ).encode()


def _kind(asked: str) -> str:
    """Which kind of GET has this Range header: a whole object, a part of at most 8 MiB, or a longer range."""
    span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
    if span is None:
        return "range" if asked else "get"
    return "part" if int(span[2]) - int(span[1]) < PART_BYTES else "range"


# for those who measure --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(
    root: Path, *, bytes_per_s: float = 0, delay_s: float = 0, certificate: Path | None = None
) -> Iterator[str]:
    """A server in a process of its own; yields its endpoint."""
    command = [sys.executable, "-m", "benchmarks.object_server", str(root), "--rate", str(bytes_per_s)]
    command += ["--delay", str(delay_s), *(["--certificate", str(certificate)] if certificate else [])]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()  # which ends it


def start_servers(directory: Path) -> None:
    """Serve `directory`/served by HTTP, by TLS and at a limited rate. The servers end with this process."""
    certificate = directory / CERTIFICATE
    make_certificate(certificate)
    started = contextlib.ExitStack()
    atexit.register(started.close)
    served = directory / "served"
    endpoints = {
        HTTP: started.enter_context(serving(served)),
        HTTPS: started.enter_context(serving(served, certificate=certificate)),
        LIMITED: started.enter_context(serving(served, bytes_per_s=BYTES_PER_S)),
    }
    (directory / ENDPOINTS).write_text(json.dumps(endpoints))


def started_servers(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each server of `start_servers`, and the arguments of a client: its endpoint and environment."""
    for name, endpoint in json.loads((directory / ENDPOINTS).read_text()).items():
        certificate = directory / CERTIFICATE if name == HTTPS else None
        yield name, {"endpoint": endpoint, "environment": environment(endpoint, certificate)}


def connect(endpoint: str) -> http.client.HTTPConnection:
    """A connection to a server that is ours, whatever its certificate."""
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.netloc, context=ssl._create_unverified_context())  # noqa: S323
    return http.client.HTTPConnection(parts.netloc)


def counts(endpoint: str, *, forget: bool = False) -> Counter[str]:
    """The requests by kind and the bytes that a server has sent since they were forgotten last."""
    connection = connect(endpoint)
    connection.request("GET", "/-/forget" if forget else "/-/counts")
    found: Counter[str] = Counter(json.loads(connection.getresponse().read()))
    connection.close()
    return found


def environment(endpoint: str, certificate: Path | None) -> dict[str, str]:
    """What each client needs to find the server and to trust it."""
    trusted = dict.fromkeys(("SSL_CERT_FILE", "AWS_CA_BUNDLE"), str(certificate)) if certificate else {}
    return trusted | {
        "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_certificate(path: Path) -> None:
    """A key, and a certificate of 127.0.0.1 that its own key signed, in one file."""
    import datetime
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.object_server")
    parser.add_argument("root", type=Path)
    parser.add_argument("--rate", type=float, default=0, help="bytes per second of all connections; 0: unlimited")
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--certificate", type=Path)
    options = parser.parse_args()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    server = Server(options.root, Rate(options.rate), options.delay, context)
    scheme = "https" if context else "http"
    print(f"{scheme}://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
