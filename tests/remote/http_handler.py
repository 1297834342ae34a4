"""The base of the handlers of local HTTP servers: no log, and HEAD is answered like GET, without the body."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any


class HttpHandler(BaseHTTPRequestHandler):
    """Answers requests; a derived class has `do_GET`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
