"""A local server for one bucket that answers as Google Cloud Storage (XML API) or as Azure Blob Storage does."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.remote.http_handler import HttpHandler

MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"


class CloudServer:
    """Objects in memory, each with its bytes and its generation. The first part of a path is the bucket."""

    def __init__(self, handler: type[Handler]) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.blocks: dict[str, bytes] = {}
        self.generation = 1000
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (handler,), {"cloud": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def etag_of(found: tuple[bytes, int]) -> str:
    return f'"{hashlib.md5(found[0]).hexdigest()}-{found[1]}"'


class Handler(HttpHandler):
    cloud: CloudServer

    def setup(self) -> None:
        super().setup()
        self.do_HEAD = self.do_PUT = self.do_DELETE = self.do_POST = self.do_GET

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.key = unquote(url.path).lstrip("/").partition("/")[2]
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.cloud.lock:
            self.serve()

    def serve(self) -> None:
        raise NotImplementedError

    def facts(self, found: tuple[bytes, int]) -> dict[str, str]:
        return {"ETag": etag_of(found), "Last_Modified": MODIFIED, "x_goog_generation": str(found[1])}

    def get(self) -> None:
        found = self.cloud.objects.get(self.key)
        if found is None:
            return self.answer(404)
        if self.headers.get("If-Match") not in (None, etag_of(found)):
            return self.answer(412)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, found[0], **self.facts(found))
        begin, end = int(wanted[1]), min(int(wanted[2] or len(found[0])) + 1, len(found[0]))
        if begin >= len(found[0]):
            return self.answer(416)
        place = f"bytes {begin}-{end - 1}/{len(found[0])}"
        return self.answer(206, found[0][begin:end], Content_Range=place, **self.facts(found))

    def put(self, status: int, data: bytes) -> None:
        self.cloud.generation += 1
        self.cloud.objects[self.key] = data, self.cloud.generation
        self.answer(status, **self.facts(self.cloud.objects[self.key]))

    def found_below(self) -> list[tuple[str, tuple[bytes, int]]]:
        """A page of the listing that was asked for."""
        prefix, after = self.query.get("prefix", ""), self.query.get("start-after") or self.query.get("startFrom", "")
        return sorted(
            (key, found) for key, found in self.cloud.objects.items() if key.startswith(prefix) and key > after
        )


class Google(Handler):
    """The XML API. Conditions are on the generation."""

    def serve(self) -> None:
        if self.command in ("GET", "HEAD"):
            return self.listing() if "list-type" in self.query else self.get()
        if self.command == "DELETE":
            return self.answer(204 if self.cloud.objects.pop(self.key, None) else 404)
        if self.command == "POST":
            if "uploads" in self.query:
                return self.answer(
                    200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
                )
            data = b"".join(self.cloud.blocks.pop(name) for name in sorted(self.cloud.blocks))
            self.cloud.generation += 1
            found = self.cloud.objects[self.key] = data, self.cloud.generation
            etag = escape(etag_of(found))
            body = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>".encode()
            return self.answer(200, body, x_goog_generation=str(found[1]))
        if "partNumber" in self.query:
            self.cloud.blocks[f"{int(self.query['partNumber']):06}"] = self.body
            return self.answer(200, ETag='"part"')
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != self.cloud.objects.get(self.key, (b"", 0))[1]:
            return self.answer(412)
        return self.put(200, self.body)

    def listing(self) -> None:
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(found[0])}</Size><ETag>{escape(etag_of(found))}</ETag>"
            "<LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>"
            for key, found in self.found_below()
        )
        self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode())


class Azure(Handler):
    """Blob Storage. Conditions are on the ETag."""

    def serve(self) -> None:
        comp = self.query.get("comp")
        if self.command in ("GET", "HEAD"):
            return self.listing() if comp == "list" else self.get()
        if comp == "batch":
            return self.batch()
        if comp == "block":
            self.cloud.blocks[self.query["blockid"]] = self.body
            return self.answer(201)
        if comp == "blocklist":
            names = re.findall(r"<(?:Latest|Uncommitted)>(.*?)</", self.body.decode())
            return self.put(201, b"".join(self.cloud.blocks.pop(name) for name in names))
        found = self.cloud.objects.get(self.key)
        if self.headers.get("If-None-Match") == "*" and found:
            return self.answer(409, b"<Error><Code>BlobAlreadyExists</Code></Error>")
        wanted = self.headers.get("If-Match")
        if wanted and (found is None or wanted != etag_of(found)):
            return self.answer(412)
        return self.put(201, self.body)

    def batch(self) -> None:
        """Several deletions in one request."""
        parts = []
        for number, path in enumerate(re.findall(rb"DELETE (\S+) HTTP", self.body)):
            key = unquote(urlsplit(path.decode()).path).lstrip("/").partition("/")[2]
            status = "202 Accepted" if self.cloud.objects.pop(key, None) else "404 The specified blob does not exist."
            head = f"Content-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\n"
            parts.append(f"--batch\r\n{head}x-ms-request-id: {number}\r\nx-ms-version: 2023-11-03\r\n\r\n")
        body = ("".join(parts) + "--batch--\r\n").encode()
        self.answer(202, body, Content_Type="multipart/mixed; boundary=batch")

    def listing(self) -> None:
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified>"
            f"<Content-Length>{len(found[0])}</Content-Length><Content-Type>x</Content-Type>"
            f"<Etag>{escape(etag_of(found))}</Etag></Properties></Blob>"
            for key, found in self.found_below()
        )
        self.answer(200, f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>".encode())
