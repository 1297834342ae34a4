"""Is an outage of the store no error while it is short, then one on all ranks, and never a lost sample?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.remote.fault_server import FaultServer
from tests.remote.jobs import blob, write
from tests.remote.ranks import WORLD

pytest.importorskip("torch")
pytest.importorskip("obstore")

SAMPLES = 25 * 40


@pytest.fixture
def url(fault_server: FaultServer, tmp_path: Path) -> str:
    """The URL of a dataset of forty shards, each of which takes a while to fetch."""
    write(tmp_path / "written", SAMPLES, 2_000)
    for path in (path for path in (tmp_path / "written").rglob("*") if path.is_file() and path.name != "lock"):
        fault_server.put(f"set/{path.relative_to(tmp_path / 'written').as_posix()}", path.read_bytes())
    return fault_server.url("set")


def train(url: str, out: Path, repository: Path, server: FaultServer, *, deadline_s: float, outage_s: float) -> Any:
    """Four ranks, which an outage meets in mid-epoch; the results of each."""
    out.mkdir()
    server.delay_s = 0.3
    command = [sys.executable, "-m", "tests.remote.ranks", url, str(out), str(deadline_s)]
    with subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "begun").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        with server.outage():
            time.sleep(outage_s)
        server.delay_s = 0
        (out / "healed").touch()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert server.resets > 0, "nothing was asked for during the outage"
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(WORLD)]


def check_all_seen(found: Any) -> None:
    assert sorted(x for one in found for batch in one["seen"] for x in batch) == list(range(SAMPLES))


def check_short(url: str, out: Path, repository: Path, server: FaultServer, outage_s: float) -> None:
    found = train(url, out, repository, server, deadline_s=4 * outage_s, outage_s=outage_s)
    assert [one["error"] for one in found] == [None] * WORLD, found[0].get("message")
    check_all_seen(found)


def test_four_ranks_get_over_an_outage_of_five_seconds(
    url: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    check_short(url, tmp_path / "out", repository, fault_server, 5.0)


@pytest.mark.hunt
def test_four_ranks_get_over_an_outage_of_sixty_seconds(
    url: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    check_short(url, tmp_path / "out", repository, fault_server, 60.0)


def test_an_outage_beyond_the_deadline_is_an_error_on_all_ranks_and_the_epoch_resumes_exactly(
    url: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    found = train(url, tmp_path / "out", repository, fault_server, deadline_s=1.5, outage_s=4.5)
    for one in found:
        assert (one["error"], one["cause"], one["reason"]) == ("LoaderError", "RemoteError", "network"), one
        assert one["error_again"] is None
    check_all_seen(found)


@pytest.mark.parametrize("on_error", ["skip", "substitute"])
def test_an_outage_is_no_lost_sample(on_error: Any, url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    with (
        mx8.Dataset(url, local=tmp_path / "cache", deadline_s=1.0) as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=1, on_error=on_error) as loader,
    ):
        with fault_server.outage(), pytest.raises(mx8.LoaderError) as caught:
            list(loader)
        assert isinstance(caught.value.__cause__, mx8.RemoteError)
        batches = [batch["x"].tolist() for batch in loader]
    assert sorted(x for batch in batches for x in batch) == list(range(SAMPLES))


def test_one_sample_after_an_outage_is_right(url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    with mx8.Dataset(url, local=tmp_path / "cache", deadline_s=1.0) as dataset:
        with fault_server.outage(), pytest.raises(mx8.RemoteError) as caught:
            dataset[7]
        assert caught.value.reason == "network"
        assert dataset[7] == {"x": 7, "blob": blob(7, 2_000)}


def test_credentials_that_are_refused_in_mid_epoch_are_named(
    url: str, fault_server: FaultServer, tmp_path: Path
) -> None:
    fault_server.fail(403, "read", key=r"set/shard\.0003\d\.mds", times=None)
    with (
        mx8.Dataset(url, local=tmp_path / "cache", deadline_s=5.0) as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=1, on_error="skip") as loader,
        pytest.raises(mx8.LoaderError, match="403 Forbidden, AccessDenied") as caught,
    ):
        list(loader)
    assert isinstance(caught.value.__cause__, mx8.RemoteError)
    assert caught.value.__cause__.reason == "denied"


def test_a_snapshot_that_is_removed_in_mid_epoch_is_named(url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    with (
        mx8.Dataset(url, local=tmp_path / "cache", deadline_s=5.0) as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=1, on_error="skip") as loader,
    ):
        fault_server.objects.clear()
        with pytest.raises(mx8.LoaderError, match="the snapshot was removed") as caught:
            list(loader)
    assert isinstance(caught.value.__cause__, mx8.RemoteError)
    assert caught.value.__cause__.reason == "missing"


def test_explain_names_the_network_with_its_throughput(url: str, fault_server: FaultServer, tmp_path: Path) -> None:
    fault_server.delay_s = 0.1
    with (
        mx8.Dataset(url, local=tmp_path / "cache") as dataset,
        mx8.Loader(dataset, batch_size=10, output="numpy", threads=1) as loader,
    ):
        list(loader)
        explained = str(loader.explain())
    assert "network" in explained
    assert "MB/s" in explained
