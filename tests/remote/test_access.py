"""Which endpoint, region and credentials are used, what happens when credentials expire, and are they ever shown?"""

from __future__ import annotations

import logging
import os
import pickle
import ssl
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from mx8shards.errors import MissingPackageError, RemoteError, SettingError
from mx8shards.remote.access import Access
from mx8shards.remote.clients import boto_client
from mx8shards.remote.object_store import ObjectStore
from mx8shards.remote.open_store import open_store
from tests.forked import forked
from tests.remote.certificates import make_certificate
from tests.remote.conftest import KEY_ID, SECRET
from tests.remote.helper_processes import helpers
from tests.remote.http_handler import HttpHandler

pytestmark = pytest.mark.usefixtures("s3_environment")

SHARD = os.urandom(2 << 20)


class KeyServer:
    """An S3 server with one object. `seen` are the key ids of requests; those in `expired` are refused."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.expired: set[str] = set()
        self.code = "ExpiredToken"
        self.region: str | None = None  # requests for another one are redirected without an address, as AWS does
        known = self

        class Handler(HttpHandler):
            def do_GET(self) -> None:
                signed = self.headers.get("Authorization", "")
                region = signed.partition("Credential=")[2].split("/")[2] if signed else ""
                if known.region not in (None, region):
                    self.send_response(301)
                    self.send_header("x-amz-bucket-region", str(known.region))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                key_id = signed.partition("Credential=")[2].partition("/")[0]
                known.seen.append(key_id)
                known.headers.append(dict(self.headers))
                refused = key_id in known.expired
                body = f"<Error><Code>{known.code}</Code></Error>".encode() if refused else SHARD
                self.send_response(403 if refused else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"1"')
                self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def encrypt(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign]  # of clients that do not trust it

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    server = KeyServer()
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
    yield server
    server.close()


def s3_store(deadline_s: float = 20) -> ObjectStore:
    return ObjectStore("s3", "bucket", "data", deadline_s=deadline_s, parallel=2)


def write_config(monkeypatch: pytest.MonkeyPatch, path: Path, config: str, credentials: str) -> None:
    path.joinpath("config").write_text(config)
    path.joinpath("credentials").write_text(credentials)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)


def test_the_first_endpoint_and_region_that_are_set_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Access().endpoint, Access().region) == (None, "us-east-1")
    for name, port in (("AWS_ENDPOINT_URL", 1), ("AWS_ENDPOINT_URL_S3", 2), ("S3_ENDPOINT_URL", 3)):
        monkeypatch.setenv(name, f"http://localhost:{port}/")
        assert Access().endpoint == f"http://localhost:{port}"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Access().region == "us-east-1"
    monkeypatch.delenv("AWS_REGION")
    assert Access().region == "eu-west-1"


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "ftp://host", "http://user:hunter2@host", "http://[::1", "http://"]
)
def test_an_endpoint_that_is_no_url_is_refused_and_not_shown(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(SettingError, match="AWS_ENDPOINT_URL: expected an http") as caught:
        open_store("s3://bucket")
    assert "hunter2" not in str(caught.value)


def test_a_profile_gives_region_endpoint_and_credentials(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("S3_ENDPOINT_URL")
    config = f"[profile team]\nregion = eu-north-1\nendpoint_url = {server.endpoint}\n"
    write_config(monkeypatch, tmp_path, config, "[team]\naws_access_key_id = TEAM\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert (Access().endpoint, Access().region) == (server.endpoint, "eu-north-1")
    store = s3_store()
    assert store.read("x", len(SHARD)).data == SHARD
    store.fetch("x", tmp_path / "x", len(SHARD))
    store.close()
    assert set(server.seen) == {"TEAM"}


@pytest.mark.parametrize("name", ["default", "team"])
def test_region_and_endpoint_are_those_that_boto3_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    config = (
        "[default]\nservices = lab\nendpoint_url = http://global.lab\n"
        "[services lab]\ns3 =\n  addressing_style = path\n  endpoint_url = http://objects.lab\n"
        "[profile team]\nservices = tables\n[services tables]\ndynamodb =\n  endpoint_url = http://tables.lab\n"
    )
    credentials = "aws_access_key_id = A\naws_secret_access_key = S\nregion = eu-west-3\n"
    credentials = f"[default]\n{credentials}[team]\n{credentials}endpoint_url = http://team.lab\n"
    write_config(monkeypatch, tmp_path, config, credentials)
    monkeypatch.delenv("S3_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_PROFILE", name)
    boto3 = pytest.importorskip("boto3")
    meta = boto3.Session().client("s3").meta
    found = Access()
    assert (found.endpoint, found.region) == (meta.endpoint_url, meta.region_name)
    assert found.endpoint == {"default": "http://objects.lab", "team": "http://team.lab"}[name]
    assert found.region == "eu-west-3"


def test_the_region_of_a_bucket_is_found(server: KeyServer) -> None:
    server.region = "eu-west-1"
    store = s3_store()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: store.read("x", len(SHARD)).data, range(8)))
    assert found == [SHARD] * 8
    assert store._access is not None
    assert store._access.region == "eu-west-1"


def test_a_missing_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RemoteError, match="ProfileNotFound") as caught:
        open_store("s3://bucket")
    assert caught.value.reason == "denied"


def test_without_boto3_credentials_come_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert Access().keys() == (KEY_ID, SECRET, None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(MissingPackageError, match=r"mx8shards\[remote\]"):
        Access()


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket", "az://bucket"])
def test_without_obstore_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingPackageError, match=r"obstore.*mx8shards\[remote\]"):
        open_store(url)


@pytest.mark.parametrize("way", ["asked for", "no credentials"])
def test_a_public_bucket_is_read_without_signature(
    way: str, server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if way == "asked for":
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = s3_store()
    store.read("x", len(SHARD))
    store.fetch("x", tmp_path / "x", len(SHARD))
    store.close()
    assert set(server.seen) == {""}
    server.expired.add("")
    server.code = "AccessDenied"
    with pytest.raises(RemoteError, match="403 Forbidden, AccessDenied") as caught:
        s3_store().read("x", 1)
    assert caught.value.reason == "denied"


def test_a_private_certificate_is_trusted_by_both_engines_if_it_is_named(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_certificate(tmp_path / "certificate.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem")
    server.encrypt(context)
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint.replace("http:", "https:"))
    with pytest.raises(RemoteError) as caught:
        s3_store(deadline_s=1).read("x", len(SHARD))
    assert caught.value.reason == "network"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    store = s3_store()
    assert store.read("x", len(SHARD)).data == SHARD
    store.fetch("x", tmp_path / "x", len(SHARD))
    assert (tmp_path / "x").read_bytes() == SHARD
    store.close()


def test_requester_pays_is_said_by_all_engines(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    store = s3_store()
    store.read("x", len(SHARD))
    store.fetch("x", tmp_path / "x", len(SHARD))
    access = Access()
    boto_client(access, access.keys()).get_object(Bucket="data", Key="x")["Body"].close()  # as uploads in parts are
    store.close()
    assert {headers.get("X-Amz-Request-Payer", headers.get("x-amz-request-payer")) for headers in server.headers} == {
        "requester"
    }


MAKER = """
import datetime, json, pathlib, sys
count = pathlib.Path(sys.argv[1])
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=float(sys.argv[2]))).isoformat()
print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": "hunter2", "SessionToken": "hunter3",
                  "Expiration": end}))
"""


@pytest.fixture
def made_credentials(server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials come from a program that makes new ones, as those of roles are."""
    (tmp_path / "maker.py").write_text(MAKER)
    command = f"{sys.executable} {tmp_path / 'maker.py'} {tmp_path / 'count'} 3600"
    write_config(monkeypatch, tmp_path, f"[default]\ncredential_process = {command}\n", "")


@pytest.mark.usefixtures("made_credentials")
def test_credentials_that_expire_early_are_made_anew_by_both_engines(server: KeyServer, tmp_path: Path) -> None:
    store = s3_store()
    store.fetch("x", tmp_path / "1", len(SHARD))
    assert set(server.seen) == {"KEY1"}
    server.expired.add("KEY1")
    store.fetch("x", tmp_path / "2", len(SHARD))  # refused, then with new keys
    assert server.seen[-1] == "KEY2"
    server.seen.clear()
    threads = [threading.Thread(target=store.read, args=("x", len(SHARD))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.fetch("x", tmp_path / "3", len(SHARD))
    store.close()
    assert set(server.seen) == {"KEY2"}
    for name in "123":
        assert (tmp_path / name).read_bytes() == SHARD


@pytest.mark.usefixtures("made_credentials")
def test_credentials_that_expire_in_the_helper_of_forked_processes_are_made_anew(
    server: KeyServer, tmp_path: Path
) -> None:
    store = open_store("s3://bucket/data", deadline_s=20)
    store.read("x", len(SHARD))
    found = []

    def read(name: str) -> None:
        assert store.read("x", len(SHARD)).data == SHARD
        store.fetch("x", tmp_path / name, len(SHARD))
        (tmp_path / f"helper of {name}").write_text(str(helpers()))

    for name in ("a", "b"):
        server.seen.clear()
        assert os.waitpid(forked(partial(read, name)), 0)[1] == 0
        assert (tmp_path / name).read_bytes() == SHARD
        found.append((list(server.seen), (tmp_path / f"helper of {name}").read_text()))
        server.expired |= set(server.seen)
    store.close()
    (first, helper), (second, same) = found
    assert helper == same  # one that has been running for long has old credentials
    assert second[0] == first[-1]
    assert set(second[1:]).isdisjoint(first)


@pytest.mark.usefixtures("made_credentials")
def test_threads_that_are_refused_at_the_same_time_renew_once(server: KeyServer, tmp_path: Path) -> None:
    store = s3_store()
    store.read("x", len(SHARD))
    server.expired.add("KEY1")
    failures: list[Exception] = []

    def read() -> None:
        try:
            store.read("x", len(SHARD))
        except Exception as error:  # noqa: BLE001 — the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(server.seen) == {"KEY1", "KEY2"}


@pytest.mark.usefixtures("made_credentials")
def test_credentials_that_stay_expired_are_an_error_without_end_of_renewals(server: KeyServer) -> None:
    store = s3_store()
    server.expired |= {f"KEY{number}" for number in range(1, 100)}
    with pytest.raises(RemoteError, match=r"403 Forbidden, ExpiredToken \(the credentials have expired") as caught:
        store.read("x", 1)
    assert caught.value.reason == "denied"
    assert len(server.seen) == 2


def test_a_new_session_in_the_credentials_file_is_taken(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = "[default]\naws_access_key_id = {}\naws_secret_access_key = s\naws_session_token = t\n"
    write_config(monkeypatch, tmp_path, "", credentials.format("OLD"))
    store = s3_store()
    store.read("x", len(SHARD))
    (tmp_path / "credentials").write_text(credentials.format("NEW"))  # as a login does
    server.expired.add("OLD")
    assert store.read("x", len(SHARD)).data == SHARD
    assert server.seen == ["OLD", "OLD", "NEW"]


def command_lines() -> bytes:
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


def test_no_log_error_repr_pickle_or_command_line_shows_a_secret(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-tests")
    caplog.set_level(logging.DEBUG)
    store = ObjectStore("s3", "bucket", "data", deadline_s=1, parallel=2)
    store.fetch("x", tmp_path / "x", len(SHARD))
    assert store._access is not None
    shown = [repr(store), repr(store._access), repr(store._access.keys()), f"{store._access.keys()}"]
    shown += [command_lines().decode(errors="replace"), repr(pickle.dumps(store)), repr(pickle.dumps(store._access))]
    with pytest.raises(TypeError):
        pickle.dumps(store._access.keys())
    server.expired.add(KEY_ID)
    errors: list[BaseException] = []
    for work in (
        lambda: store.read("x", 9),
        lambda: store.fetch("x", tmp_path / "y", len(SHARD)),
        lambda: list(store.list()),
    ):
        with pytest.raises(RemoteError) as caught:
            work()
        errors.append(caught.value)
    server.close()
    with pytest.raises(RemoteError) as caught:
        store.read("x", 9)
    errors.append(caught.value)
    for error in errors:
        shown += ["".join(traceback.format_exception(error)), repr(pickle.dumps(error)), repr(vars(error))]
        shown += [str(link) for link in (error.__cause__, error.__context__) if link is not None]
    shown.append(caplog.text)
    store.close()
    assert [text for text in shown if SECRET in text or "token-of-tests" in text] == []
