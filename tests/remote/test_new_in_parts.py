"""Is a large file stored as a new object in parts, never in place of another one, and is nothing left of a failure?"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote import new_in_parts, object_store
from mx8shards.remote.open_store import open_store
from mx8shards.remote.uploads import put_file
from tests.remote.certificates import make_certificate
from tests.remote.fault_server import FaultServer, Kind, Operation
from tests.waiting import wait_until

pytest.importorskip("obstore")
pytest.importorskip("boto3")

DATA = random.Random(3).randbytes(16 << 20)


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "IN_PARTS_FROM", 6 << 20)
    monkeypatch.setattr(new_in_parts, "_PART", 6 << 20)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "shard").write_bytes(DATA)
    return tmp_path / "shard"


def test_a_large_new_object_goes_in_parts_and_never_in_place_of_another(bucket: str, source: Path) -> None:
    store = open_store(bucket)
    etag = store.put("shard", source, new=True)
    assert etag.strip('"').endswith("-3")
    assert store.read_spans("shard", [(0, len(DATA))], etag) == [DATA]
    source.write_bytes(DATA[::-1])
    with pytest.raises(RemoteError) as caught:
        store.put("shard", source, new=True)
    assert caught.value.reason == "changed"
    assert store.read_spans("shard", [(0, len(DATA))], etag) == [DATA]


def test_a_store_that_ignores_the_condition_of_parts_gets_one_request(fault_server: FaultServer, source: Path) -> None:
    fault_server.conditional_in_parts = False
    store = open_store(fault_server.url(), deadline_s=20)
    assert store.can_put_conditionally
    store.put("shard", source, new=True)
    source.write_bytes(DATA[::-1])
    with pytest.raises(RemoteError) as caught:
        store.put("shard", source, new=True)
    assert caught.value.reason == "changed"
    assert fault_server.data("shard") == DATA
    assert fault_server.counts("part").total() == 1  # of the trial
    assert (fault_server.keys(), fault_server.uploads) == (["shard"], {})


@pytest.mark.parametrize("kind", [503, "reset", "flip"])
def test_only_a_broken_part_is_sent_again(kind: Kind, fault_server: FaultServer, source: Path) -> None:
    fault_server.fail(kind, "part", key="shard")
    open_store(fault_server.url(), deadline_s=20).put("shard", source, new=True)
    assert fault_server.data("shard") == DATA
    assert fault_server.counts("part")["shard"] == 4
    assert fault_server.uploads == {}


def test_a_lost_answer_to_the_last_request_is_success(fault_server: FaultServer, source: Path) -> None:
    fault_server.fail("reset", "complete", key="shard", place="last")
    attempted: list[str] = []
    store = open_store(fault_server.url(), deadline_s=20)
    put_file(store, "shard", source, overwrite=False, attempted=attempted)
    assert fault_server.data("shard") == DATA
    assert attempted == ["shard"]


@pytest.mark.parametrize("operation", ["start", "part", "complete"])
def test_an_outage_is_an_error_that_leaves_no_parts(operation: str, fault_server: FaultServer, source: Path) -> None:
    fault_server.fail(503, operation, key="shard", times=None)  # type: ignore[arg-type]
    with pytest.raises(RemoteError) as caught:
        open_store(fault_server.url(), deadline_s=0.5).put("shard", source, new=True)
    assert caught.value.reason == "network"
    wait_until(lambda: not fault_server.uploads)  # the answer to the abort is not waited for for long
    assert fault_server.data("shard") is None


def test_a_store_that_does_not_know_the_condition_gets_one_request(fault_server: FaultServer, source: Path) -> None:
    fault_server.fail(403, "complete", times=None)
    open_store(fault_server.url(), deadline_s=20).put("shard", source, new=True)
    assert fault_server.data("shard") == DATA
    assert fault_server.counts("put")["shard"] == 1
    assert fault_server.uploads == {}


def test_a_profile_that_is_not_there_means_one_request(
    fault_server: FaultServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    open_store(fault_server.url(), deadline_s=20).put("shard", source, new=True)
    assert fault_server.data("shard") == DATA
    assert fault_server.counts("put") == {"shard": 1}


def test_over_https_parts_go_as_they_are_and_are_checked(
    s3_environment: None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not know S3's encoding aws-chunked, which boto3 uses over https if it may."""
    server = FaultServer()
    server.knows_chunks, server.certificate = False, tmp_path / "certificate.pem"
    make_certificate(server.certificate)
    with server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(server.certificate))
        server.fail("flip", "part", key="shard")
        store = open_store(server.url(), deadline_s=20)
        store.put("shard", source, new=True)
        assert server.data("shard") == DATA
        assert server.counts("part")["shard"] == 4
        assert server.counts("put")["shard"] == 0
        store.close()


def test_a_store_that_changes_parts_gets_single_requests(
    fault_server: FaultServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that kept an encoding of the parts."""
    change = FaultServer._change

    def framed(self: FaultServer, operation: Operation, key: str, query: dict[str, str], body: bytes) -> Any:
        return change(self, operation, key, query, body + b"0" if operation == "part" else body)

    monkeypatch.setattr(FaultServer, "_change", framed)
    store = open_store(fault_server.url(), deadline_s=20)
    for key in ("shard", "other"):
        store.put(key, source, new=True)
        assert fault_server.data(key) == DATA
    assert fault_server.counts("put")["shard"] == fault_server.counts("put")["other"] == 1
    assert fault_server.counts("part")["other"] == 0


@pytest.mark.parametrize("kind", [403, 404, 500])
def test_an_upload_that_was_completed_without_an_answer_is_not_sent_again(
    kind: Kind, fault_server: FaultServer, source: Path
) -> None:
    """obstore then aborts the upload, and tells only that it is unknown."""
    fault_server.fail(kind, "complete", times=None, place="last")
    source.write_bytes(DATA + b"one byte more than one part")
    store = open_store(fault_server.url(), deadline_s=5)
    etag = store.put("shard", source)
    assert etag == fault_server.current("shard").etag
    assert fault_server.data("shard") == source.read_bytes()
    assert fault_server.counts("start")["shard"] == 1
