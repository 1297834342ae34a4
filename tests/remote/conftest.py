"""A real S3 API for the tests of remote/: moto's server in a process of its own, a new bucket for each test."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.certificates import make_certificate
from tests.remote.fault_server import FaultServer

_REQUEST = re.compile(r'"(?:\x1b\[\d+m)*([A-Z]+) (\S+) HTTP')

# Settings of whoever runs the tests must not decide where they go.
_FOREIGN = [
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_SKIP_SIGNATURE", "AWS_NO_SIGN_REQUEST", "AWS_REQUEST_PAYER"),
    *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
]

KEY_ID, SECRET = "AKIATESTKEYOFTESTS00", "secret/of+tests0000000000000000000000000"


class S3Server:
    """An S3 server in a process of its own. `requests` are the (method, path) that it answered, in order."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("moto_server.py"))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.requests: list[tuple[str, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := _REQUEST.search(line):
                self.requests.append((found[1], found[2]))

    def count(self, method: str, part: str = "") -> int:
        """The number of requests so far of this method whose path contains `part`."""
        return sum(found == method and part in path for found, path in self.requests)

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT", data=b"")
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(10)
        self._process.stdout.close()
        self._process.stderr.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="moto is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    server = S3Server()
    yield server
    server.close()


_numbers = itertools.count()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Test credentials, and nothing of the machine's own: no profile, no role, no instance metadata."""
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def bucket(s3_server: S3Server, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a prefix in an empty bucket, which the environment leads to."""
    monkeypatch.setenv("S3_ENDPOINT_URL", s3_server.endpoint)
    name = f"bucket-{next(_numbers)}"
    s3_server.make_bucket(name)
    return f"s3://{name}/data"


@pytest.fixture
def fault_server(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A server that fails as told, which the environment leads to."""
    with FaultServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def tls_server(s3_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultServer]:
    """A server that fails as told, over TLS, which the environment leads to."""
    make_certificate(tmp_path / "certificate.pem")
    with FaultServer(certificate=tmp_path / "certificate.pem") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
