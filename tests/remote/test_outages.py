"""Is an outage of the store no error while it is short, then one on all ranks, and never a lost sample?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.maintenance import tree
from tests.remote.fault_server import FaultServer
from tests.remote.jobs import blob, write
from tests.remote.ranks import WORLD

pytest.importorskip("torch")
pytest.importorskip("obstore")

SAMPLES = 25 * 40


def serve(server: FaultServer, place: Path) -> str:
    """The URL of a dataset of forty shards."""
    write(place / "written", SAMPLES, 2_000)
    server.put_files("set", tree(place / "written"))
    return server.url("set")


@pytest.fixture
def url(fault_server: FaultServer, tmp_path: Path) -> str:
    return serve(fault_server, tmp_path)


def in_mid_epoch(server: FaultServer, out: Path, process: subprocess.Popen[str], outage_s: float) -> list[Any]:
    """One scene of four ranks, which an outage meets in mid-epoch; the results of each."""
    server.delay_s, server.resets = 0.4, 0
    (out / "go").touch()
    wait_for(out / "begun", process)
    with server.outage():
        time.sleep(outage_s)
    server.delay_s = 0
    (out / "healed").touch()
    wait_for(out / "done", process)
    assert server.resets > 0, "nothing was asked for during the outage"
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(WORLD)]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def train(url: str, out: Path, repository: Path, server: FaultServer, *scenes: tuple[str, float, float]) -> list[Any]:
    """The results of some scenes: name, deadline and length of the outage."""
    for name, _, _ in scenes:
        (out / name).mkdir(parents=True)
    command = [sys.executable, "-m", "tests.remote.ranks", url, str(out)]
    command += [f"{name}:{deadline_s}" for name, deadline_s, _ in scenes]
    with subprocess.Popen(
        command, cwd=repository, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            found = [in_mid_epoch(server, out / name, process, outage_s) for name, _, outage_s in scenes]
            said = process.communicate(timeout=60)[1]
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its ranks wait for the next scene
            raise
    assert process.returncode == 0, said
    return found


def check_all_seen(found: Any) -> None:
    assert sorted(x for one in found for batch in one["seen"] for x in batch) == list(range(SAMPLES))


def test_four_ranks_get_over_a_short_outage_and_after_one_beyond_the_deadline_all_resume_exactly(
    url: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    scenes = [("short", 20.0, 5.0), ("long", 3.0, 6.0), ("nodes", 3.0, 6.0)]
    short, long, nodes = train(url, tmp_path / "out", repository, fault_server, *scenes)
    assert [one["error"] for one in short] == [None] * WORLD, short[0].get("message")
    check_all_seen(short)
    assert ["seen by rank 0" in one["message"] for one in nodes] == [False, True, True, True], nodes
    assert max(one["after_s"] for one in nodes) < 60, "a rank waited for its own deadline"
    for one in [*long, *nodes]:
        assert (one["error"], one["cause"], one["reason"]) == ("LoaderError", "RemoteError", "network"), one
        assert one["error_again"] is None
    check_all_seen(long)
    check_all_seen(nodes)


@pytest.mark.hunt
def test_four_ranks_get_over_an_outage_of_sixty_seconds(
    url: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    (found,) = train(url, tmp_path / "out", repository, fault_server, ("short", 240.0, 60.0))
    assert [one["error"] for one in found] == [None] * WORLD, found[0].get("message")
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
