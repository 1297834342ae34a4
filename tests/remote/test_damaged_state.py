"""Does a damaged file of a mirror's own state lock nobody out, and is it written again without anybody's help?"""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.disk.files import read_json
from mx8shards.remote import mirror_facts
from tests.remote.folder_store import FolderStore
from tests.remote.mirrors import URL, bytes_of, numbers, serve, upload, write

SAMPLES = 120
DAMAGE = {
    "empty": b"",
    "no text": b"\xff\xfe\xff",
    "zeros": bytes(100),
    "too large": b" " * (1 << 17),
    "nested too deeply": b"[" * 60_000,
    "a long number": b'{"format": ' + b"9" * 60_000,
    "another value": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "other types": b'{"format": true, "url": 1, "file": "12345", "content": [], "at": "", "lasted_s": null}',
    "a wide range": b'{"file": [1e999, -1e999, NaN, 1, 1], "content": "", "at": 1e999, "lasted_s": NaN, '
    b'"address": "", "message": "x", "format": 1, "url": null}',
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    write(tmp_path / "data", SAMPLES)
    return serve(tmp_path / "data", monkeypatch)


@pytest.fixture
def cache(store: FolderStore, tmp_path: Path) -> Path:
    """A mirror with all shards but one, which the tests fetch."""
    numbers(mx8.Dataset(URL, local=tmp_path / "cache"))
    (tmp_path / "cache/shard.00001.mds").unlink()
    return tmp_path / "cache"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["mirror.json", "outage.json", "room", "stamps/shard.00000.mds.json"])
def test_a_damaged_state_file_locks_nobody_out(name: str, damage: str, cache: Path) -> None:
    (cache / ".mx8shards" / name).write_bytes(DAMAGE[damage])
    for limit in (None, "1mb"):
        with mx8.Dataset(URL, local=cache, cache_limit=limit) as dataset:
            assert numbers(dataset) == list(range(SAMPLES))
    assert mirror_facts.mirrored_url(cache) == URL


@pytest.mark.parametrize("damage", DAMAGE)
def test_read_json_has_one_error_for_every_kind_of_damage(damage: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(DAMAGE[damage])
    with pytest.raises(mx8.FormatError, match=r"x\.json: (this file is damaged|expected at most)"):
        read_json(tmp_path / "x.json", 1 << 16, format=int, url=str)


def test_a_mirror_whose_url_is_not_readable_opens_what_the_store_has_now(
    store: FolderStore, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its index.json may be of another URL."""
    first = mx8.Dataset(URL, local=cache).snapshot
    current = write(tmp_path / "data", 5, mode="append", start=SAMPLES)
    assert mx8.Dataset(URL, local=cache).snapshot == first
    (cache / ".mx8shards/mirror.json").write_bytes(b"{")
    assert mx8.Dataset(f"{URL}@{first}", local=cache).snapshot == first
    assert "mirror.json was damaged" in caplog.text
    assert mx8.Dataset(URL, local=cache).snapshot == current
    assert numbers(mx8.Dataset(URL, local=cache)) == list(range(SAMPLES + 5))


def test_the_error_for_a_changed_index_of_a_mirror_says_what_helps(store: FolderStore, cache: Path) -> None:
    first = mx8.Dataset(URL, local=cache).snapshot
    (cache / "index.json").write_bytes((cache / "index.json").read_bytes() + b" ")
    with pytest.raises(mx8.IntegrityError, match=r"changed outside mx8shards \(its URL with @refresh opens"):
        mx8.Dataset(URL, local=cache)
    assert mx8.Dataset(f"{URL}@refresh", local=cache).snapshot == first
    assert mx8.Dataset(URL, local=cache).snapshot == first


def test_a_mirror_of_a_newer_version_is_not_taken_for_a_damaged_one(cache: Path) -> None:
    (cache / ".mx8shards/mirror.json").write_text(json.dumps({"format": 2, "url": URL}))
    with pytest.raises(mx8.FormatError, match=r"expected format 1, got 2 .*newer version"):
        mx8.Dataset(URL, local=cache)


def test_sync_and_repair_of_a_mirror_whose_url_is_not_readable(bucket: str, tmp_path: Path) -> None:
    write(tmp_path / "data", 20)
    upload(tmp_path / "data", bucket)
    cache = tmp_path / "cache"
    mx8.Dataset(bucket, local=cache).close()
    (cache / ".mx8shards/mirror.json").write_bytes(b"{")
    with pytest.raises(mx8.FormatError, match=r"mirror\.json, which tells the URL, is damaged \(.*sync"):
        mx8.verify(cache, repair=True)
    mx8.sync(bucket, cache)
    assert mirror_facts.mirrored_url(cache) == bucket
    assert mx8.verify(cache, repair=True).damage == ()
    assert numbers(mx8.Dataset(cache)) == list(range(20))


HUB = "hf://datasets/lab/set@main/train"


@pytest.mark.parametrize(
    "note",
    [b"\xff", b"", b"https://elsewhere/x", b"hf://datasets/lab/set@main/train", b"x" * (1 << 17)],
)
def test_a_damaged_note_of_a_commit_counts_for_nothing(note: bytes, tmp_path: Path) -> None:
    path = tmp_path / ".mx8shards/sources" / ("0" * 64)
    path.parent.mkdir(parents=True)
    good = f"hf://datasets/lab/set@{'a' * 40}/train"
    path.write_text(good)
    assert mirror_facts.source_of(tmp_path, HUB, f"sha256:{'0' * 64}") == good
    path.write_bytes(note)
    assert mirror_facts.source_of(tmp_path, HUB, f"sha256:{'0' * 64}") == HUB


def overwritten(begin: int, form: str, *values: Any) -> Callable[[bytes], bytes]:
    """Changes some bytes of a file."""
    new = struct.pack(form, *values)
    return lambda data: data[:begin] + new + data[begin + len(new) :]


ROWS, PROGRESS, USES = 80, 88, 104
RUNS = {
    "cut in its head": lambda data: data[:90],
    "cut behind it": lambda data: data[:-1],
    "empty": lambda data: b"",
    "too many rows": overwritten(ROWS, "<q", 1 << 60),
    "less than no rows": overwritten(ROWS, "<q", -1),
    "a shard that is not there": overwritten(USES, "<q", 1 << 40),
    "a shard below the first": overwritten(USES, "<q", -7),
    "a use that is too far": overwritten(USES + 16, "<q", (1 << 63) - 1),
    "batches in flight that are too far": overwritten(PROGRESS, "<qq", 1, (1 << 63) - 1),
    "another snapshot": overwritten(8, "<71s", b"sha256:" + b"../../" * 10),
}


@pytest.mark.parametrize("damage", RUNS)
def test_a_damaged_file_of_a_living_run_locks_nobody_out(damage: str, cache: Path) -> None:
    shutil.rmtree(cache / ".mx8shards/stamps")
    size = int(mx8.Dataset(URL, local=cache).shards.opened[0].snapshot.index.raw.size_bytes.max())
    with (
        mx8.Dataset(URL, local=cache, cache_limit=3 * size) as living,
        mx8.Dataset(URL, local=cache, cache_limit=3 * size, deadline_s=2.0) as other,
    ):
        eviction = living.shards.opened[0].provider.eviction
        assert eviction is not None
        run = eviction.follow(np.array([0, 1]), np.array([0, 40]), np.array([40, 80]))
        (path,) = (cache / ".mx8shards/readers").iterdir()
        path.write_bytes(RUNS[damage](path.read_bytes()))
        assert numbers(other) == list(range(SAMPLES))
        assert bytes_of(cache) <= 3 * size
        assert run is not None
        run.close()


def test_an_outage_that_another_job_noted_counts_only_if_its_time_is_right(cache: Path, store: FolderStore) -> None:
    """A clock that went back leaves a note from the future."""
    note = {"at": time.time() + 1e6, "lasted_s": 1e9, "address": store.address, "message": "x"}
    (cache / ".mx8shards/outage.json").write_text(json.dumps(note))
    assert numbers(mx8.Dataset(URL, local=cache)) == list(range(SAMPLES))
