"""Does `convert imagefolder s3://…` make the dataset of the equal local folder or tar, and is a failing store never a
reject?"""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.convert import convert_in_parts, remote_sources
from mx8shards.convert.file_kinds import PICTURES
from mx8shards.convert.imagefolder import ImageFolder
from mx8shards.convert.source_files import open_files
from mx8shards.remote.open_store import open_store
from tests.remote.deadlines import in_time
from tests.remote.fault_server import FaultServer, Kind
from tests.remote.objects import objects

pytest.importorskip("simplejpeg")
pytest.importorskip("PIL.Image")
from tests.integration.test_imagefolder import BAD, GOOD, picture, write
from tests.waiting import wait_until

FILES = {
    **{name: make() for name, make in GOOD.items()},
    **{name: make() for name, (make, _) in BAD.items()},
    "cat/notes.txt": b"no picture",
    ".hidden/1.jpg": b"hidden",
    "cat/.DS_Store": b"hidden",
    "dog/odd &+%41#?.png": picture("PNG"),
}
PARTS = 5


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", PARTS)


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    return fault_server


def put(server: FaultServer, files: dict[str, bytes], prefix: str = "photos") -> str:
    for name, data in files.items():
        server.put(f"{prefix}/{name}", data)
    return server.url(prefix)


def tar_of(files: dict[str, bytes], top: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def convert(src: Any, out: Path | str, **options: Any) -> Any:
    return mx8.convert_from("imagefolder", src, out, **options)


def facts(report: Any) -> tuple[Any, ...]:
    """What must be equal, wherever the pictures lie."""
    return report.snapshot, report.samples, sorted((each.item, each.reason) for each in report.rejects)


def test_a_worker_keeps_the_deadline(server: FaultServer) -> None:
    with remote_sources.reads_fail_after(0.5):
        source = pickle.loads(pickle.dumps(remote_sources.open_remote(put(server, FILES), PICTURES)))
    with server.outage():
        error = in_time(lambda: source.read("cat/1.jpg", 1, ""))
    assert isinstance(error, mx8.RemoteError)


# the dataset ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "options"),
    [(1, {}), (3, {}), (1, {"labels": "none"}), (1, {"max_side": 20, "compression": "zstd"})],
    ids=str,
)
def test_a_folder_in_a_store_makes_the_dataset_of_the_equal_local_folder(
    server: FaultServer, tmp_path: Path, workers: int, options: dict[str, Any]
) -> None:
    local = convert(write(tmp_path / "photos", FILES), tmp_path / "local", **options)
    assert local.rejects
    remote = convert(put(server, FILES), tmp_path / "remote", workers=workers, **options)
    assert facts(remote) == facts(local)
    assert mx8.verify(tmp_path / "remote", data=True).ok


def test_a_flat_folder_and_a_whole_bucket_are_converted(server: FaultServer, tmp_path: Path) -> None:
    files = {f"{i}.jpg": picture("JPEG", quality=50 + i) for i in range(12)}
    local = convert(write(tmp_path / "flat", files), tmp_path / "local")
    for name, data in files.items():
        server.put(name, data)
    assert facts(convert(server.url(), tmp_path / "remote")) == facts(local)


@pytest.mark.parametrize(("workers", "top"), [(1, ""), (1, "photos/"), (2, "photos/")])
def test_a_tar_in_a_store_makes_the_dataset_of_the_equal_local_tar(
    server: FaultServer, tmp_path: Path, workers: int, top: str
) -> None:
    data = tar_of(FILES, top)
    (tmp_path / "photos.tar").write_bytes(data)
    server.put("photos.tar", data)
    local = convert(tmp_path / "photos.tar", tmp_path / "local")
    remote = convert(server.url("photos.tar"), tmp_path / "remote", workers=workers)
    assert facts(remote) == facts(local)
    assert all(each.if_match for each in server.requests if each.operation == "read")


def test_a_real_s3_api_serves_folders_and_tars(bucket: str, tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if data}
    local = convert(write(tmp_path / "photos", files), tmp_path / "local")
    store = open_store(bucket)
    for name, data in files.items():
        store.put(f"photos/{name}", data)
    store.put("photos.tar", tar_of(files))
    assert facts(convert(f"{bucket}/photos", tmp_path / "remote")) == facts(local)
    assert facts(convert(f"{bucket}/photos.tar", tmp_path / "untarred"))[0] == local.snapshot


def test_objects_are_listed_once_and_each_picture_is_read_once(server: FaultServer, tmp_path: Path) -> None:
    url = put(server, FILES)
    server.page_keys = 10
    convert(url, tmp_path / "out", workers=2)
    pages = [each for each in server.requests if each.operation == "list"]
    assert len(pages) == -(-len(FILES) // 10)
    pictures = {f"photos/{name}" for name, data in FILES.items() if not name.endswith(".txt") and data != b"hidden"}
    assert server.counts("read") == {name: 1 for name in pictures if FILES[name.removeprefix("photos/")]}
    assert all(each.if_match and each.span for each in server.requests if each.operation == "read")
    assert server.counts("head") == {"photos": 1}


def test_reads_begin_ahead_and_are_bounded(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageFolder(put(server, {f"{i:02}.jpg": picture("JPEG") for i in range(40)}))
    items = list(source.items())

    def reads(most: int) -> int:
        wait_until(lambda: server.counts("read").total() >= most)
        time.sleep(0.1)
        return server.counts("read").total()

    source.expect(items)
    assert reads(16) == 16
    source.sample(items[0])
    assert reads(17) == 17
    assert [source.sample(item)["path"] for item in items[1:]] == [f"{i:02}.jpg" for i in range(1, 40)]
    assert server.counts("read").total() == 40
    server.heal()
    monkeypatch.setattr(remote_sources, "_AHEAD_BYTES", 3 * items[0][1])
    source.expect(items)
    assert reads(3) == 3


def test_consoles_folders_are_no_pictures(server: FaultServer, tmp_path: Path) -> None:
    files = {"cat/1.jpg": picture("JPEG"), "dog/1.jpg": picture("JPEG")}
    local = convert(write(tmp_path / "photos", files), tmp_path / "local")
    url = put(server, {**files, "cat": b"", "": b""})
    server.put("photos", b"")
    assert facts(convert(url, tmp_path / "remote")) == facts(local)


def test_new_objects_are_appended(server: FaultServer, tmp_path: Path) -> None:
    url = put(server, FILES)
    first = convert(url, tmp_path / "out")
    put(server, {"cat/new.jpg": picture("JPEG"), "zebra/1.jpg": picture("JPEG", "L")})
    server.requests.clear()
    second = convert(url, tmp_path / "out", append=True)
    assert (second.samples, second.known) == (2, first.samples)
    with mx8.Dataset(tmp_path / "out") as dataset:
        assert dataset.metadata["classes"] == ["cat", "dog", "été", "zebra"]
        assert dataset[-1]["path"] == "zebra/1.jpg"


def test_splits_and_datasets_in_a_store_are_made_of_objects(server: FaultServer, tmp_path: Path) -> None:
    files = {f"{i}.jpg": picture("JPEG", quality=50 + i) for i in range(20)}
    local = convert(write(tmp_path / "flat", files), tmp_path / "local", split="train=0.5,val=0.5")
    remote = convert(put(server, files), server.url("out"), split="train=0.5,val=0.5")
    assert {name: part.snapshot for name, part in remote.splits.items()} == {
        name: part.snapshot for name, part in local.splits.items()
    }
    assert {key for key in objects(server.url("out")) if key.endswith("/index.json")} == {
        "train/index.json",
        "val/index.json",
    }


def test_the_command_takes_urls(server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = put(server, FILES)
    assert main(["convert", "imagefolder", url, str(tmp_path / "out"), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["snapshot"] == convert(write(tmp_path / "photos", FILES), tmp_path / "local").snapshot
    assert main(["convert", "imagefolder", server.url("nothing"), str(tmp_path / "other")]) == 1
    assert "got no objects below this URL" in capsys.readouterr().err


# stores that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [500, 503, "reset", "cut"])
def test_faults_that_pass_are_neither_errors_nor_rejects(server: FaultServer, tmp_path: Path, kind: Kind) -> None:
    files = {f"cat/{i}.jpg": picture("JPEG", quality=50 + i) for i in range(8)}
    local = convert(write(tmp_path / "photos", files), tmp_path / "local")
    url = put(server, files)
    server.fail(kind, "list")
    server.fail(kind, "read", times=3)
    assert facts(convert(url, tmp_path / "remote")) == facts(local)


@pytest.mark.parametrize("packed", [False, True])
def test_an_outage_ends_the_conversion_which_then_resumes(server: FaultServer, tmp_path: Path, packed: bool) -> None:
    files = {f"cat/{i}.jpg": picture("JPEG", quality=50 + i) for i in range(20)}
    local = convert(write(tmp_path / "photos", files), tmp_path / "local")
    server.put("photos.tar", tar_of(files))
    url = server.url("photos.tar") if packed else put(server, files)
    done: list[int] = []

    def tell(count: int, total: int) -> None:
        done.append(count)
        server.down = count >= 2 * PARTS

    with pytest.raises(mx8.RemoteError) as caught:
        convert(url, tmp_path / "out", progress=tell, deadline_s=2.0)
    assert caught.value.reason == "network"
    assert max(done) < len(files)
    assert not (tmp_path / "out/index.json").exists()
    server.heal()
    report = convert(url, tmp_path / "out")
    assert facts(report) == facts(local)
    if not packed:
        assert len(files) - 2 * PARTS <= server.counts("read").total() < len(files)  # some were read ahead twice


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refusal_is_an_error_and_no_reject(server: FaultServer, tmp_path: Path, workers: int) -> None:
    url = put(server, FILES)
    server.fail(403, "read", key="photos/dog/1.png", times=None)
    with pytest.raises(mx8.RemoteError) as caught:
        convert(url, tmp_path / "out", workers=workers)
    assert caught.value.reason == "denied"
    assert "photos/dog/1.png" in str(caught.value)


@pytest.mark.parametrize("name", ["photos", "photos.tar"])
def test_a_store_that_does_not_answer_is_an_error_at_the_deadline(
    server: FaultServer, tmp_path: Path, name: str
) -> None:
    put(server, FILES)
    with server.outage():
        error = in_time(lambda: convert(server.url(name), tmp_path / "out", deadline_s=0.5))
    assert isinstance(error, mx8.RemoteError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", [False, True])
def test_an_object_that_was_replaced_or_removed_after_the_listing_is_an_error(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    files = {"cat/1.jpg": picture("JPEG"), "cat/2.jpg": picture("JPEG")}
    url = put(server, files)
    listed = remote_sources.RemoteFolder._list

    def then_changed(self: Any) -> None:
        listed(self)
        if gone:
            del server.objects["photos/cat/2.jpg"]
        else:
            server.put("photos/cat/2.jpg", picture("JPEG", "L"))

    with monkeypatch.context() as patch:
        patch.setattr(remote_sources.RemoteFolder, "_list", then_changed)
        with pytest.raises(mx8.RemoteError, match=r"photos/cat/2\.jpg: the object changed while it was conv") as caught:
            convert(url, tmp_path / "out")
    assert caught.value.reason == ("missing" if gone else "changed")
    assert convert(url, tmp_path / "out").samples == 2 - gone


def test_a_tar_that_was_replaced_is_an_error(server: FaultServer) -> None:
    files = {"cat/1.jpg": picture("JPEG"), "cat/2.jpg": picture("JPEG")}
    server.put("photos.tar", tar_of(files))
    source = ImageFolder(server.url("photos.tar"))
    server.put("photos.tar", tar_of(files, "other/"))
    with pytest.raises(mx8.RemoteError, match="the object changed") as caught:
        source.sample(source.items()[0])
    assert caught.value.reason == "changed"


# tars ----------------------------------------------------------------------------------------------------------


def test_headers_are_read_in_blocks_and_large_files_are_skipped(server: FaultServer) -> None:
    small = {f"cat/{i:03}.jpg": bytes(40_000) for i in range(100)}
    server.put("small.tar", tar_of(small))
    assert open_files(server.url("small.tar")).names() == sorted(small)
    assert server.counts("read").total() == -(-len(tar_of(small)) // (1 << 20))
    large = {f"cat/{i}.jpg": bytes(9 << 20) for i in range(4)}
    server.put("large.tar", tar_of(large))
    server.requests.clear()
    assert open_files(server.url("large.tar")).names() == sorted(large)
    assert server.sent_bytes() < (20 << 20)


def test_a_tar_is_read_through_blocks_as_from_a_disk(server: FaultServer) -> None:
    draws = random.Random(1)
    data = draws.randbytes((5 << 20) + 77)
    etag = server.put("it", data)
    reader = remote_sources._Reader(server.url(), 300.0)
    file = io.BufferedReader(remote_sources._Blocks(reader, remote_sources._Read("it", 0, len(data), etag)))
    assert file.seek(0, io.SEEK_END) == len(data)
    for _ in range(60):
        begin, size = draws.randrange(len(data) + 100), draws.choice((1, 512, 5_000, 2 << 20))
        file.seek(begin)
        assert file.read(size) == data[begin : begin + size]


@pytest.mark.parametrize("harm", ["cut", "rubbish"])
def test_a_damaged_tar_is_the_same_error_as_a_local_one(server: FaultServer, tmp_path: Path, harm: str) -> None:
    data = tar_of({"cat/1.jpg": picture("JPEG"), "cat/2.jpg": picture("JPEG")})
    data = data[:5_000] if harm == "cut" else bytes(b"rubbish" * 1000)
    (tmp_path / "photos.tar").write_bytes(data)
    server.put("photos.tar", data)
    errors = []
    for src in (tmp_path / "photos.tar", server.url("photos.tar")):
        with pytest.raises(mx8.SourceError) as caught:
            convert(src, tmp_path / "out")
        errors.append(str(caught.value).replace(str(src), "SRC"))
    assert errors[0] == errors[1]


# what is refused -----------------------------------------------------------------------------------------------


def test_urls_that_cannot_be_sources_are_refused(server: FaultServer, tmp_path: Path) -> None:
    url = put(server, {"cat/1.jpg": picture("JPEG")})
    for out in (url, f"{url}/dataset"):
        with pytest.raises(mx8.SettingError, match=r"^out: expected a directory outside of SRC \(s3://"):
            convert(url, out)
    with pytest.raises(mx8.SettingError, match="a dataset's link"):
        convert(f"{url}@sha256:{'0' * 64}", tmp_path / "out")
    with pytest.raises(mx8.SettingError, match="a URL without credentials"):
        convert("s3://me:secret@bucket/photos", tmp_path / "out")
    with pytest.raises(mx8.SourceError, match=rf"^{url}/cat: expected .*got no objects|^{server.url('x')}"):
        convert(server.url("x"), tmp_path / "out")


def test_a_folder_of_classes_in_a_store_is_checked_like_a_local_one(server: FaultServer, tmp_path: Path) -> None:
    trees = [
        {"train/cat/1.jpg": b"", "val/cat/1.jpg": b""},
        {"1.jpg": b"x", "cat/1.jpg": b"x"},
        {"photos/cat/1.jpg": b"x"},
        {"cat/1.jpg": b"x", "dog/.hidden": b"x"},
        {"cat/1.txt": b"x"},
    ]
    for number, files in enumerate(trees):
        local, remote = write(tmp_path / f"t{number}", files), put(server, files, f"t{number}")
        errors = []
        for src in (str(local), remote):
            with pytest.raises(mx8.SourceError) as caught:
                convert(src, tmp_path / "out")
            errors.append(str(caught.value).replace(src, "SRC"))
        assert errors[0] == errors[1]
