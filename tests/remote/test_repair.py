"""Does `verify --repair` bring a damaged mirror back, fetch no more than it needs, and never make things worse?"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.format.file_blocks import SMALL_BLOCK_BYTES
from mx8shards.maintain.report import Repair, Report
from mx8shards.shards.links import Link
from mx8shards.shards.snapshots import load, snapshot_id
from tests.maintenance import flip, tree
from tests.remote.fault_server import FaultServer
from tests.remote.folder_store import FolderStore
from tests.remote.test_mirror import URL, residue
from tests.remote.test_mirror_kills import killed_at

BLOCK = 1 << 20
FIRST = "shard.00000.mds"


def contents(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a mirror without its notes about them."""
    return {name: data for name, data in files.items() if "stamps" not in name and not name.endswith("/room")}


def write(target: Any, shards: int = 2, blocks: int = 8, **options: Any) -> str:
    """A dataset whose shards have so many blocks each, of bytes that do not compress."""
    with mx8.Writer(
        target, columns={"x": "int", "blob": "bytes"}, size_limit=blocks * BLOCK, threads=1, **options
    ) as writer:
        for i in range((4 * blocks - 1) * shards):
            writer.write({"x": i, "blob": random.Random(i).randbytes(BLOCK // 4)})
    return str(writer.snapshot)


def of_blocks(file: str, blocks: tuple[int, ...] | None, block_bytes: int = BLOCK) -> Repair:
    return Repair(file=file, blocks=blocks, block_bytes=None if blocks is None else block_bytes)


def fill(url: str, cache: Path, **options: Any) -> None:
    """Make a mirror and fetch everything into it."""
    with mx8.Dataset(url, local=cache, **options) as dataset:
        for sidecar in dataset.shards.snapshots[0].index.sidecars:
            dataset.shards.open_sidecar(dataset.shards.snapshots[0], sidecar)
        assert [sample["x"] for sample in dataset] == list(range(len(dataset)))


def spoil(path: Path, *blocks: int) -> None:
    for block in blocks:
        flip(path, 8 * (block * BLOCK + 1234))


def shards_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("*.mds*")}


def load_index(root: Path) -> Any:
    return load(Link(root)).index


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The directory of a mirror, in which nothing may be left behind."""
    yield tmp_path / "cache"
    assert residue(tmp_path / "cache") == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a dataset."""
    root = tmp_path_factory.mktemp("data")
    write(root)
    return tree(root)


@pytest.fixture
def server(fault_server: FaultServer, files: dict[str, bytes]) -> FaultServer:
    fault_server.put_files("train", files)
    return fault_server


@pytest.fixture
def url(server: FaultServer) -> str:
    return server.url("train")


@pytest.fixture
def mirror(server: FaultServer, url: str, cache: Path) -> Path:
    fill(url, cache)
    server.heal()
    return cache


def repaired(root: Path) -> Report:
    """Repair a mirror, of which nothing damaged is left."""
    report = mx8.verify(root, repair=True)
    assert report.ok
    assert mx8.verify(root, data=True).ok
    return report


# which bytes are fetched ---------------------------------------------------------------------------------------


def test_only_the_damaged_blocks_are_fetched_and_from_one_object(server: FaultServer, mirror: Path) -> None:
    right = shards_in(mirror)
    spoil(mirror / FIRST, 1, 2, 6)
    report = repaired(mirror)
    assert report.repaired == (of_blocks(FIRST, (1, 2, 6)),)
    assert shards_in(mirror) == right
    reads = [each for each in server.requests if each.operation == "read"]
    assert {each.key for each in reads} == {f"train/{FIRST}"}
    assert all(each.if_match and each.span for each in reads)
    assert sum(each.sent_bytes for each in reads) == 3 * BLOCK


def test_small_blocks_are_fetched_and_neighbours_in_one_request(
    fault_server: FaultServer, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(fault_server.url("clips"), metadata={"videos": {"blob": {"packets": "x"}}})
    fill(fault_server.url("clips"), cache)
    right = shards_in(cache)
    each = SMALL_BLOCK_BYTES
    first, path = 3 * BLOCK // each, cache / FIRST
    for block in (first, first + 1, first + 2, 0, 7 * BLOCK // each):
        flip(path, 8 * (block * each + 99))
    fault_server.heal()
    assert main(["verify", "--repair", str(cache)]) == 0
    assert f"repaired\t{FIRST}: 5 blocks of {each >> 10} KiB fetched\n" in capsys.readouterr().out
    assert shards_in(cache) == right
    reads = [read for read in fault_server.requests if read.operation == "read"]
    assert len(reads) == 3
    assert sum(read.sent_bytes for read in reads) == 5 * each


def test_damage_all_over_a_file_is_repaired_by_one_request(fault_server: FaultServer, cache: Path) -> None:
    write(fault_server.url("clips"), metadata={"videos": {"blob": {"packets": "x"}}})
    fill(fault_server.url("clips"), cache)
    right = shards_in(cache)
    for spot in range(24):
        flip(cache / FIRST, 8 * (spot * BLOCK // 3 + 99))
    assert repaired(cache).repaired == (of_blocks(FIRST, None),)
    assert shards_in(cache) == right


def test_a_repaired_file_is_new_and_verified_so_jobs_use_it_without_asking(
    server: FaultServer, url: str, mirror: Path
) -> None:
    spoil(mirror / FIRST, 3)
    damaged = (mirror / FIRST).read_bytes()
    with open(mirror / FIRST, "rb") as old:
        repaired(mirror)
        assert old.read() == damaged  # a job that reads the old file meanwhile does not see it change
    server.heal()
    fill(url, mirror)
    assert server.requests == []


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(5000))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def spoil_most(path: Path) -> None:
    spoil(path, *range(6))


@pytest.mark.parametrize(
    ("harm", "blocks"),
    [
        (cut_in_half, (3, 4, 5, 6, 7)),
        (grow, ()),
        (lambda path: flip(path, 8), (0,)),  # in the table of offsets
        (empty, None),
        (spoil_most, None),
        (Path.unlink, None),
    ],
    ids=["cut", "grown", "table", "empty", "most", "missing"],
)
def test_every_kind_of_damage_is_repaired_with_the_blocks_that_are_left(
    server: FaultServer, mirror: Path, harm: Callable[[Path], object], blocks: tuple[int, ...] | None
) -> None:
    right = shards_in(mirror)
    harm(mirror / FIRST)
    assert repaired(mirror).repaired == (of_blocks(FIRST, blocks),)
    assert shards_in(mirror) == right
    if blocks == ():
        assert server.requests == []


def test_what_is_intact_is_left_alone_and_nothing_is_asked(server: FaultServer, mirror: Path) -> None:
    before = tree(mirror)
    assert repaired(mirror).repaired == ()
    assert tree(mirror) == before
    assert server.requests == []


def test_a_damaged_side_car_is_fetched_first_and_then_tells_which_blocks(server: FaultServer, mirror: Path) -> None:
    right = tree(mirror)
    (blocks,) = [each for each in load_index(mirror).sidecars if each.kind == "blocks"]
    name = f".mx8shards/sidecars/{blocks.blake3}"
    flip(mirror / name, 500)
    spoil(mirror / FIRST, 5)
    assert repaired(mirror).repaired == (Repair(file=name), of_blocks(FIRST, (5,)))
    assert contents(tree(mirror)) == contents(right)


def test_without_digests_of_blocks_the_whole_shard_is_fetched(server: FaultServer, mirror: Path) -> None:
    right = shards_in(mirror)
    for sidecar in load_index(mirror).sidecars:
        name = f".mx8shards/sidecars/{sidecar.blake3}"
        (mirror / name).unlink()
        del server.objects[f"train/{name}"]
    spoil(mirror / FIRST, 5)
    report = mx8.verify(mirror, repair=True)
    assert report.repaired == (Repair(file=FIRST),)
    assert {each.reason for each in report.damage} == {"missing"}  # the side-cars, which the store does not have either
    assert shards_in(mirror) == right


def test_subset_reads_and_repairs_a_part_of_the_shards(server: FaultServer, mirror: Path) -> None:
    for name in shards_in(mirror):
        spoil(mirror / name, 2)
    found = [mx8.verify(mirror, repair=True, subset=0.5) for _ in range(2)]
    assert all(len(report.repaired) <= 1 for report in found)
    assert found[0].data_shards == 1
    assert len(found[0].repaired) == 1


# stores that are wrong, or fail ---------------------------------------------------------------------------------


def test_a_bit_that_flips_on_the_way_costs_the_whole_shard(server: FaultServer, mirror: Path) -> None:
    spoil(mirror / FIRST, 4)
    server.fail("flip", "read", key=f"train/{FIRST}")
    assert repaired(mirror).repaired == (Repair(file=FIRST),)


@pytest.mark.parametrize("when", ["before", "between"])
def test_an_object_that_was_replaced_repairs_nothing_and_is_named(server: FaultServer, mirror: Path, when: str) -> None:
    spoil(mirror / FIRST, 4)
    damaged = (mirror / FIRST).read_bytes()
    if when == "before":
        server.replace(f"train/{FIRST}")
    else:
        server.fail("replaced", "head", key=f"train/{FIRST}")
    report = mx8.verify(mirror, repair=True)
    (damage,) = report.damage
    assert not report.ok
    assert (damage.file, damage.reason, report.repaired) == (FIRST, "integrity", ())
    assert "; not repaired: " in damage.error
    assert (mirror / FIRST).read_bytes() == damaged
    assert (report.to_json()["ok"], report.to_json()["repaired"]) == (False, [])


def test_a_shard_that_the_store_lost_stays_damaged_and_the_others_are_repaired(
    server: FaultServer, mirror: Path
) -> None:
    spoil(mirror / FIRST, 0)
    spoil(mirror / "shard.00001.mds", 0)
    del server.objects[f"train/{FIRST}"]
    report = mx8.verify(mirror, repair=True)
    assert [each.file for each in report.damage] == [FIRST]
    assert "there is no such object" in report.damage[0].error
    assert report.repaired == (of_blocks("shard.00001.mds", (0,)),)


@pytest.mark.parametrize("kind", [403, "down"])
def test_a_store_that_fails_is_an_error_and_the_mirror_stays_as_it_was(
    server: FaultServer, mirror: Path, kind: Any
) -> None:
    spoil(mirror / FIRST, 4)
    damaged = shards_in(mirror)
    if kind == "down":
        server.down = True
    else:
        server.fail(kind, "head", "read", times=None)
    with pytest.raises(mx8.RemoteError) as caught:
        mx8.verify(mirror, repair=True, deadline_s=2)
    assert caught.value.reason == ("network" if kind == "down" else "denied")
    assert shards_in(mirror) == damaged
    server.heal()
    assert len(repaired(mirror).repaired) == 1


# indices -------------------------------------------------------------------------------------------------------


def test_a_damaged_kept_index_comes_from_the_store_and_index_json_from_the_only_kept_one(
    server: FaultServer, mirror: Path
) -> None:
    right = tree(mirror)
    (kept,) = (mirror / ".mx8shards/snapshots").iterdir()
    flip(kept, 800)
    flip(mirror / "index.json", 900)
    spoil(mirror / FIRST, 7)
    report = repaired(mirror)
    assert [each.file for each in report.repaired] == [f".mx8shards/snapshots/{kept.name}", "index.json", FIRST]
    assert contents(tree(mirror)) == contents(right)


def test_which_of_several_snapshots_was_current_is_not_guessed(server: FaultServer, url: str, mirror: Path) -> None:
    with mx8.Writer(url, columns={"x": "int", "blob": "bytes"}, mode="append") as writer:
        writer.write({"x": 62, "blob": b"one more"})
    mx8.Dataset(f"{url}@refresh", local=mirror).close()
    flip(mirror / "index.json", 900)
    report = mx8.verify(mirror, repair=True)
    assert [each.file for each in report.damage] == ["index.json"]
    assert "shard.00002.mds" in [each.file for each in report.repaired]  # of the other snapshot: it was missing
    assert mx8.Dataset(f"{url}@refresh", local=mirror).snapshot == writer.snapshot
    assert mx8.verify(mirror, data=True).ok


def test_a_pinned_snapshot_is_repaired_and_so_is_its_index(server: FaultServer, url: str, cache: Path) -> None:
    old = snapshot_id(server.data("train/index.json") or b"")
    with mx8.Writer(url, columns={"x": "int", "blob": "bytes"}, mode="append") as writer:
        writer.write({"x": 62, "blob": b"one more"})
    fill(f"{url}@{old}", cache)
    (kept,) = (cache / ".mx8shards/snapshots").iterdir()
    flip(kept, 800)
    spoil(cache / FIRST, 2)
    report = mx8.verify(f"{cache}@{old}", repair=True)
    assert report.ok
    assert report.snapshot == old
    assert [each.file for each in report.repaired] == [f".mx8shards/snapshots/{kept.name}", "index.json", FIRST]
    assert mx8.Dataset(cache).snapshot == old


def test_two_repairs_at_once_fetch_each_block_once(server: FaultServer, mirror: Path) -> None:
    right = shards_in(mirror)
    for name in right:
        spoil(mirror / name, 1, 4)
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(lambda _: mx8.verify(mirror, repair=True), range(2)))
    assert all(report.ok for report in reports)
    assert sorted(each.file for report in reports for each in report.repaired) == sorted(right)
    assert server.sent_bytes() == 4 * BLOCK
    assert shards_in(mirror) == right


# over a real S3 API --------------------------------------------------------------------------------------------


def test_blocks_come_from_a_real_s3_api(bucket: str, cache: Path) -> None:
    write(bucket, 1, 4)
    fill(bucket, cache)
    spoil(cache / FIRST, 1)
    assert repaired(cache).repaired == (of_blocks(FIRST, (1,)),)


# compression, limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_zip", [False, True])
def test_compressed_shards_are_repaired_as_the_mirror_keeps_them(
    fault_server: FaultServer,
    cache: Path,
    tmp_path: Path,
    keep_zip: bool,
) -> None:
    write(fault_server.url("zipped"), 1, compression="zstd")
    fill(fault_server.url("zipped"), cache, keep_zip=keep_zip, cache_dir=tmp_path / "unpacked")
    right = shards_in(cache)
    (name,) = right
    spoil(cache / name, 2)
    assert repaired(cache).repaired == (of_blocks(name, (2,) if keep_zip else None),)
    assert shards_in(cache) == right
    (cache / name).unlink()
    assert [each.file for each in repaired(cache).repaired] == [FIRST]


def test_a_damaged_copy_of_a_compressed_shard_is_removed_or_made_again(
    fault_server: FaultServer,
    cache: Path,
) -> None:
    url = fault_server.url("zipped")
    write(url, 1, compression="zstd")
    fill(url, cache, keep_zip=True)
    (unpacked,) = (cache / ".mx8shards/cache").glob("*.mds")
    shutil.copy(unpacked, cache / FIRST)
    spoil(unpacked, 1)
    spoil(cache / FIRST, 1)
    spoil(cache / f"{FIRST}.zstd", 1)
    assert [each.file for each in repaired(cache).repaired] == [
        f"{FIRST}.zstd",
        FIRST,
        f".mx8shards/cache/{unpacked.name}",
    ]
    spoil(cache / FIRST, 1)
    assert repaired(cache).repaired == (Repair(file=FIRST),)
    assert not unpacked.exists()
    assert (cache / FIRST).exists()


def test_shards_that_a_limited_mirror_has_no_room_for_are_neither_damage_nor_fetched(
    server: FaultServer,
    url: str,
    cache: Path,
) -> None:
    with mx8.Dataset(url, local=cache, cache_limit=9 * BLOCK) as dataset:
        assert dataset[0]["x"] == 0
        dataset.column("x")
        for sidecar in dataset.shards.snapshots[0].index.sidecars:
            dataset.shards.open_sidecar(dataset.shards.snapshots[0], sidecar)
    assert mx8.verify(cache, data=True).ok
    spoil(cache / FIRST, 1)
    report = mx8.verify(cache, repair=True)
    assert (report.ok, report.absent, report.repaired) == (True, 1, (of_blocks(FIRST, (1,)),))
    assert list(shards_in(cache)) == [FIRST]


def test_an_unsealed_dataset_is_repaired_as_far_as_its_structure_tells(
    server: FaultServer,
    url: str,
    cache: Path,
) -> None:
    index = json.loads(server.data("train/index.json") or b"")
    for shard in index["shards"]:
        shard["raw_data"]["hashes"] = {}
    del index["mx8shards"]
    server.put("train/index.json", json.dumps(index).encode())
    fill(url, cache)
    right = shards_in(cache)
    os.truncate(cache / FIRST, 5000)
    assert mx8.verify(cache, repair=True).repaired == (Repair(file=FIRST),)
    assert shards_in(cache) == right


# what is refused -----------------------------------------------------------------------------------------------


def test_only_a_mirror_is_repaired(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "int"}) as writer:
        writer.write({"x": 1})
    with pytest.raises(mx8.SettingError, match=r"^repair: expected the mirror of a remote dataset, got .*sync s3://"):
        mx8.verify(tmp_path / "data", repair=True)
    with pytest.raises(mx8.SettingError, match=r"^repair: expected the directory of a mirror.*the default one is /"):
        mx8.verify("s3://bucket/train", repair=True)
    with pytest.raises(mx8.SettingError, match=r"^seal and repair: expected one of them"):
        mx8.verify(tmp_path / "data", repair=True, seal=True)
    with pytest.raises(mx8.SettingError, match=r"^repair: expected True or False"):
        mx8.verify(tmp_path / "data", repair="s3://bucket/train")  # type: ignore[arg-type]


# the command ---------------------------------------------------------------------------------------------------


def test_the_command_ends_with_0_if_all_is_repaired_3_if_not_and_1_if_the_store_fails(
    server: FaultServer, mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(mirror / FIRST, 1, 3)
    assert main(["verify", "--repair", str(mirror)]) == 0
    assert f"repaired\t{FIRST}: 2 blocks of 1 MiB fetched\nresult\tsound\n" in capsys.readouterr().out
    spoil(mirror / FIRST, 1)
    (mirror / "shard.00001.mds").unlink()
    server.replace(f"train/{FIRST}")
    assert main(["verify", "--repair", "--json", str(mirror)]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["repaired"] == [{"file": "shard.00001.mds", "blocks": None, "block_bytes": None}]
    assert [each["file"] for each in found["damage"]] == [FIRST]
    server.fail(403, "head", "read", times=None)
    assert main(["verify", "--repair", str(mirror)]) == 1
    assert main(["verify", "--repair", "--seal", str(mirror)]) == 2


# kills ---------------------------------------------------------------------------------------------------------


def test_a_kill_before_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 1, 4)
    found = FolderStore(tmp_path / "data", URL)
    for module in ("mirror", "provider"):
        monkeypatch.setattr(f"mx8shards.remote.{module}.connect", lambda url, deadline_s: found)
    fill(URL, tmp_path / "clean")
    right = tree(tmp_path / "clean")
    (sidecar,) = [each.blake3 for each in load_index(tmp_path / "clean").sidecars if each.kind == "blocks"]
    root = tmp_path / "mirror"

    def mend() -> None:
        assert mx8.verify(root, repair=True).ok

    for step in range(200):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "clean", root)
        (kept,) = (root / ".mx8shards/snapshots").iterdir()
        flip(kept, 800)
        flip(root / ".mx8shards/sidecars" / sidecar, 500)
        spoil(root / FIRST, 1, 3)
        damaged = tree(root)
        killed = killed_at(step, mend)
        now = tree(root)
        for name in ("index.json", FIRST, f".mx8shards/sidecars/{sidecar}", f".mx8shards/snapshots/{kept.name}"):
            assert now[name] in (right[name], damaged[name])
        mend()
        assert mx8.verify(root, data=True).ok
        assert residue(root) == []
        if not killed:
            break
    else:
        pytest.fail("the repair never ended")
    assert step > 10
