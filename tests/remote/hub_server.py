"""A local server that answers as the Hugging Face Hub does: large files by a redirect to a storage on another port."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.remote.http_handler import HttpHandler

REPOSITORY = "some-owner/some.name"


class HubServer:
    """One dataset repository. `push` makes a commit; `requests` are (host, method, path, headers) in order.

    Attributes:
        token: If it is set, requests to the Hub without it are refused.
        faults: Called before each answer with the handler; True if it has answered.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.requests: list[tuple[str, str, str, dict[str, str]]] = []
        self.token = ""
        self.page_size = 1000
        self.faults: Any = lambda handler: False
        self._hub = self._served("hub", _Hub)
        self._storage = self._served("storage", _Storage)
        self.endpoint = f"http://127.0.0.1:{self._hub.server_address[1]}"
        # another host name, so that the address differs in more than the port
        self.storage_url = f"http://localhost:{self._storage.server_address[1]}"

    def _served(self, host: str, handler: type[_Handler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(host, (handler,), {"hub": self, "host": host}))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit these files, with those that are there, to the branch."""
        before = self.commits.get(self.branches.get(branch, ""), {})
        files = before | files
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def close(self) -> None:
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()


def is_large(path: str) -> bool:
    return path.endswith(".mds")


class _Handler(HttpHandler):
    hub: HubServer
    host: str

    def do_GET(self) -> None:
        self.hub.requests.append((self.host, self.command, self.path, dict(self.headers)))
        if not self.hub.faults(self):
            self.serve()

    def serve(self) -> None:
        raise NotImplementedError

    def answer_file(self, data: bytes, **headers: str) -> None:
        """A whole file, or the range that was asked for."""
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.answer(200, data, **headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(data)) + 1, len(data))
        if begin >= len(data):
            return self.answer(416, Content_Range=f"bytes */{len(data)}")
        return self.answer(206, data[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(data)}", **headers)


class _Hub(_Handler):
    def serve(self) -> None:
        hub = self.hub
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b"Invalid username or password.", X_Error_Code="RepoNotFound")
        path = urlsplit(self.path).path
        for kind, start in (
            ("file", f"/datasets/{REPOSITORY}/resolve/"),
            ("tree", f"/api/datasets/{REPOSITORY}/tree/"),
        ):
            if path.startswith(start):
                revision, _, name = path.removeprefix(start).partition("/")
                commit = hub.branches.get(unquote(revision), unquote(revision))
                if commit not in hub.commits:
                    return self.answer(404, X_Error_Code="RevisionNotFound")
                return (
                    self.serve_file(commit, unquote(name)) if kind == "file" else self.serve_tree(commit, unquote(name))
                )
        return self.answer(404, X_Error_Code="RepoNotFound")

    def serve_file(self, commit: str, name: str) -> None:
        data = self.hub.commits[commit].get(name)
        if data is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not is_large(name):
            return self.answer_file(data, ETag=f'W/"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)
        digest = hashlib.sha256(data).hexdigest()
        return self.answer(
            302,
            X_Repo_Commit=commit,
            X_Linked_ETag=f'"{digest}"',
            X_Linked_Size=str(len(data)),
            Location=f"{self.hub.storage_url}/{digest}?Signature=signed-for-you",
        )

    def serve_tree(self, commit: str, prefix: str) -> None:
        files = {k: v for k, v in sorted(self.hub.commits[commit].items()) if not prefix or k.startswith(f"{prefix}/")}
        if not files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        names = list(files)[start : start + self.hub.page_size]
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "0", "size": 0, "path": "folder"}]
        for name in names:
            entry: dict[str, Any] = {"type": "file", "oid": hashlib.sha1(files[name]).hexdigest(), "path": name}
            entry["size"] = len(files[name])
            if is_large(name):
                entry["lfs"] = {"oid": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name])}
            entries.append(entry)
        following = {}
        if start + len(names) < len(files):
            here = f"{self.hub.endpoint}{urlsplit(self.path).path}"
            following["Link"] = f'<{here}?recursive=true&cursor={start + len(names)}>; rel="next"'
        return self.answer(200, json.dumps(entries).encode(), **following)


class _Storage(_Handler):
    def serve(self) -> None:
        digest = urlsplit(self.path).path[1:]
        for files in self.hub.commits.values():
            for data in files.values():
                if hashlib.sha256(data).hexdigest() == digest:
                    return self.answer_file(data, ETag='"of the storage"')
        return self.answer(403)
