"""Does gc remove exactly the files that only old snapshots use?"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards.disk import operations
from mx8shards.errors import IntegrityError, ShardsError
from mx8shards.format.index import Index, parse_index
from mx8shards.maintain.gc import gc
from mx8shards.shards.publication import LocalPublication
from tests.maintenance import COLUMNS, STATE, cut, edit_index, make_foreign, sample, tree, write


def generations(root: Path, count: int, compression: str | None = None) -> list[str]:
    """Publish snapshots, each with its own shards. Returns them newest first."""
    modes = ["create", *["overwrite"] * (count - 1)]
    ids = [write(root, range(10 * i, 10 * i + 30), mode=mode, compression=compression) for i, mode in enumerate(modes)]
    return ids[::-1]


def test_the_newest_snapshots_are_kept_and_others_removed_with_their_files(tmp_path: Path) -> None:
    ids = generations(tmp_path, 5)
    before = tree(tmp_path)
    removed = gc(tmp_path, keep=2)
    assert removed.snapshots == tuple(ids[2:])
    assert removed.kept == tuple(ids[:2])
    assert [entry.snapshot for entry in mx8.log(tmp_path)] == ids[:2]
    gone = before.keys() - tree(tmp_path).keys()
    indices = {f"{STATE}/snapshots/{name.removeprefix('sha256:')}.json" for name in ids[2:]}
    assert gone == indices | set(removed.files)
    assert removed.freed_bytes == sum(len(before[name]) for name in gone)
    assert not (tmp_path / "g0001").exists()
    assert mx8.verify(tmp_path, data=True).ok
    assert [found["label"] for found in mx8.Dataset(f"{tmp_path}@{ids[1]}")] == [i % 10 for i in range(30, 60)]


def test_files_shared_by_kept_and_removed_snapshots_are_kept(tmp_path: Path) -> None:
    write(tmp_path, range(30))
    write(tmp_path, range(30, 60), mode="append")
    (index,) = (
        path
        for path in (tmp_path / STATE / "snapshots").iterdir()
        if path.read_bytes() != (tmp_path / "index.json").read_bytes()
    )
    size = index.stat().st_size
    removed = gc(tmp_path, keep=1)
    assert (len(removed.snapshots), removed.files, removed.freed_bytes) == (1, (), size)
    assert mx8.verify(tmp_path, data=True).ok
    assert len(mx8.Dataset(tmp_path)) == 60


@pytest.mark.parametrize("keep", [0, 1])
def test_the_current_snapshot_is_always_kept(tmp_path: Path, keep: int) -> None:
    ids = generations(tmp_path, 3)
    assert gc(tmp_path, keep=keep).kept == (ids[0],)
    assert mx8.verify(tmp_path, data=True).ok


def test_nothing_to_remove_changes_nothing(tmp_path: Path) -> None:
    generations(tmp_path, 3)
    before = tree(tmp_path)
    assert gc(tmp_path).snapshots == ()
    assert gc(tmp_path, keep=100).files == ()
    assert tree(tmp_path) == before


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    generations(tmp_path, 3)
    mine = [
        tmp_path / "README.txt",
        tmp_path / "g0001" / "notes",
        tmp_path / STATE / "sidecars" / "what",
        tmp_path / "x.mds",
    ]
    for path in mine:
        path.write_bytes(b"mine")
    gc(tmp_path, keep=1)
    assert [path.read_bytes() for path in mine] == [b"mine"] * 4


def test_removing_a_hard_link_frees_no_bytes(tmp_path: Path) -> None:
    generations(tmp_path / "data", 2)
    for path in (tmp_path / "data").glob("shard.*"):
        (tmp_path / path.name).hardlink_to(path)
    state = sum(path.stat().st_size for path in (tmp_path / "data" / STATE).rglob("*") if path.is_file())
    removed = gc(tmp_path / "data", keep=1)
    assert any(not name.startswith(STATE) for name in removed.files)
    state -= sum(path.stat().st_size for path in (tmp_path / "data" / STATE).rglob("*") if path.is_file())
    assert removed.freed_bytes == state


def test_raw_files_are_removed_or_kept_with_their_compressed_shards(tmp_path: Path) -> None:
    generations(tmp_path, 2, "zstd")
    copies = [path.with_suffix("") for path in tmp_path.rglob("shard.*.zstd")]
    for path in copies:
        path.write_bytes(b"raw")
    gc(tmp_path, keep=1)
    assert {path for path in copies if path.exists()} == set((tmp_path / "g0001").glob("shard.*.mds"))


def test_cached_copies_are_removed_with_their_shards(tmp_path: Path) -> None:
    ids = generations(tmp_path, 2, "zstd")
    for name in ids:
        assert len(list(mx8.Dataset(f"{tmp_path}@{name}"))) == 30
    cache = tmp_path / STATE / "cache"
    before = {path.name for path in cache.iterdir()}
    (cache / f"{'0' * 40}.tmp").write_bytes(b"a draft that a killed process left")
    (cache / "notes").write_bytes(b"mine")
    gc(tmp_path, keep=1)
    after = {path.name for path in cache.iterdir()}
    assert after < before | {"notes"}
    assert len(after - {"notes", "CACHEDIR.TAG"}) == mx8.log(tmp_path)[0].shards
    assert "notes" in after
    assert len(list(mx8.Dataset(tmp_path))) == 30


def test_cached_copies_of_unsealed_shards_are_recognised_by_their_files(tmp_path: Path) -> None:
    write(tmp_path, range(30), compression="zstd")
    make_foreign(tmp_path)
    assert len(list(mx8.Dataset(tmp_path))) == 30
    before = set((tmp_path / STATE / "cache").iterdir())
    assert len(before) > 0
    gc(tmp_path, keep=0)
    assert set((tmp_path / STATE / "cache").iterdir()) == before


def test_cached_copies_are_kept_if_a_shard_is_missing(tmp_path: Path) -> None:
    generations(tmp_path, 2, "zstd")
    assert len(list(mx8.Dataset(tmp_path))) == 30
    next((tmp_path / "g0001").glob("shard.*")).unlink()
    before = set((tmp_path / STATE / "cache").iterdir())
    gc(tmp_path, keep=1)
    assert set((tmp_path / STATE / "cache").iterdir()) == before


def test_every_index_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generations(tmp_path, 3)
    parsed: list[bytes] = []

    def count(data: bytes) -> Index:
        parsed.append(data)
        return parse_index(data)

    monkeypatch.setattr("mx8shards.shards.snapshots.parse_index", count)
    for look, indices in ((gc, 3), (mx8.log, 3), (mx8.verify, 1), (mx8.summary, 1)):
        parsed.clear()
        look(tmp_path)
        assert len(parsed) == len(set(parsed)) == indices


def test_a_pinned_link_or_a_negative_number_is_refused(tmp_path: Path) -> None:
    ids = generations(tmp_path, 2)
    with pytest.raises(ShardsError, match="expected a directory or URL, without @sha256"):
        gc(f"{tmp_path}@{ids[1]}")
    for keep in (-1, "3", 1.5, None):
        with pytest.raises(ValueError, match=f"^keep: expected an int from 0, got {keep!r}$"):
            gc(tmp_path, keep=keep)  # type: ignore[arg-type]


def test_a_directory_without_a_dataset_is_an_error_and_stays_unchanged(tmp_path: Path) -> None:
    with pytest.raises(mx8.DatasetNotFoundError):
        gc(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_removed_if_another_program_changed_the_index(tmp_path: Path) -> None:
    generations(tmp_path, 3)
    edit_index(tmp_path, lambda index: index["mx8shards"]["metadata"].update(a=1))
    before = tree(tmp_path)
    with pytest.raises(IntegrityError):
        gc(tmp_path, keep=1)
    assert tree(tmp_path) == before


def test_a_dataset_locked_by_a_writer_is_left_unchanged(tmp_path: Path) -> None:
    ids = generations(tmp_path, 3)
    with mx8.Writer(tmp_path, columns=COLUMNS, mode="append") as writer:
        writer.write(sample(1))
        with pytest.raises(mx8.DiskError, match="another Writer"):
            gc(tmp_path, keep=1)
    assert len(mx8.log(tmp_path)) == len(ids) + 1


def test_the_next_gc_completes_one_stopped_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedError(BaseException):
        pass

    ids = generations(tmp_path / "prepared", 3)
    stopped = 0
    for stop in range(1000):
        root = shutil.copytree(tmp_path / "prepared", tmp_path / str(stop))
        left = stop

        def before(name: str, arguments: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StoppedError

        with monkeypatch.context() as patch:
            patch.setattr(operations, "before", before)
            try:
                gc(root, keep=2)
            except StoppedError:
                stopped += 1
        finished = left >= 0
        assert mx8.Dataset(root).snapshot == ids[0]
        assert mx8.verify(root, data=True).ok
        gc(root, keep=2)
        assert [entry.snapshot for entry in mx8.log(root)] == ids[:2]
        assert not list(root.glob("shard.*"))
        if finished:
            break
    assert stopped > 5


def test_the_result_can_be_written_as_json(tmp_path: Path) -> None:
    ids = generations(tmp_path, 2)
    found = json.loads(json.dumps(gc(tmp_path, keep=1).to_json()))
    assert (found["snapshots"], found["kept"]) == ([ids[1]], [ids[0]])


def test_progress_ends_with_the_bytes_that_were_freed(tmp_path: Path) -> None:
    generations(tmp_path, 2)
    calls: list[tuple[int, int]] = []
    removed = gc(tmp_path, keep=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, removed.freed_bytes), (removed.freed_bytes, removed.freed_bytes)]


# parts that ranks wrote -----------------------------------------------------------------------------------------------


def live_bytes(root: Path) -> int:
    """The bytes of all files of a dataset on disk, counting hard links once."""
    stats = [path.stat() for path in root.rglob("*") if path.is_file() and path.name != "lock"]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


@pytest.mark.parametrize("how", ["link", "copy", "move"])
def test_after_a_merge_of_ranks_gc_leaves_only_live_files(tmp_path: Path, how: Any) -> None:
    for rank in range(2):
        write(tmp_path / "data", range(30 * rank, 30 * rank + 30), rank=rank, world_size=2)
    mx8.merge([tmp_path / "data"], tmp_path / "data", how=how)
    removed = gc(tmp_path / "data", keep=0)
    assert not (tmp_path / "data" / STATE / "parts").exists()
    assert len(removed.removed_parts) == (0 if how == "move" else 2)
    assert removed.parts == ()
    live = live_bytes(tmp_path / "data")
    write(tmp_path / "data", range(5), mode="overwrite")
    gc(tmp_path / "data", keep=0)
    assert live_bytes(tmp_path / "data") < live / 2
    assert [found["label"] for found in mx8.Dataset(tmp_path / "data")] == [0, 1, 2, 3, 4]


def test_a_part_is_removed_with_the_snapshot_that_contains_it(tmp_path: Path) -> None:
    for rank in range(2):
        write(tmp_path, range(30 * rank, 30 * rank + 30), rank=rank, world_size=2)
    mx8.merge([tmp_path], tmp_path, how="copy")
    write(tmp_path, range(5), mode="overwrite")
    part_bytes = sum(path.stat().st_size for path in (tmp_path / STATE / "parts").rglob("*.mds"))
    removed = gc(tmp_path, keep=0)
    assert len(removed.removed_parts) == 2
    assert removed.freed_bytes > 2 * part_bytes
    assert mx8.verify(tmp_path, data=True).ok


def test_a_part_in_no_snapshot_is_kept_and_reported(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    write(tmp_path, range(10, 20), mode="append", rank=0, world_size=2)
    write(tmp_path, range(10), mode="append", rank=1, world_size=2)  # samples that exist already, to be added again
    before = tree(tmp_path)
    removed = gc(tmp_path, keep=0)
    assert [Path(name).name[:19] for name in removed.parts] == ["rank-00000-of-00002", "rank-00001-of-00002"]
    assert removed.removed_parts == ()
    assert tree(tmp_path) == before
    mx8.merge([tmp_path], tmp_path, mode="append")
    assert [found["label"] for found in mx8.Dataset(tmp_path)] == [*range(10), *range(10), *range(10)]
    assert len(gc(tmp_path).removed_parts) == 2


def test_a_part_whose_shard_is_damaged_in_the_dataset_is_kept(tmp_path: Path) -> None:
    write(tmp_path, range(30), rank=0, world_size=1)
    mx8.merge([tmp_path], tmp_path, how="copy")
    cut(next((tmp_path / "p0000").glob("shard.*")))
    assert len(gc(tmp_path).parts) == 1
    assert mx8.verify(tmp_path / STATE / "parts" / "rank-00000-of-00001", data=True).ok


def test_parts_being_written_are_kept_and_leftovers_of_killed_ranks_removed(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    options: dict[str, Any] = {"columns": COLUMNS, "mode": "append", "world_size": 2, "size_limit": 1000}
    with mx8.Writer(tmp_path, rank=0, **options) as writer:
        for number in range(20):
            writer.write(sample(number))
        (killed,) = (tmp_path / STATE / "parts").iterdir()
        left = killed.with_name(killed.name.replace("00000", "00001", 1))
        (left / STATE / "staging").mkdir(parents=True)
        (left / STATE / "staging" / "shard.00000.mds").write_bytes(b"half a shard")
        removed = gc(tmp_path)
        assert [Path(name).name for name in removed.parts] == [killed.name]
        assert [Path(name).name for name in removed.removed_parts] == [left.name]
        assert not left.exists()
    assert writer.snapshot is not None


def conversion_part(root: Path, digit: str = "0") -> Path:
    return root / STATE / "parts" / (digit * 32)


def test_a_symlink_for_the_state_of_a_conversion_part_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "data", range(10))
    part = conversion_part(tmp_path / "data")
    part.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").write_bytes(b"theirs")
    (victim / "large").write_bytes(bytes(10_000))
    (part / STATE).symlink_to(victim)
    (part / "large").symlink_to(victim / "large")
    removed = gc(tmp_path / "data")
    assert not part.exists()
    assert (victim / "lock").read_bytes() == b"theirs"
    assert (victim / "large").stat().st_size == 10_000
    assert removed.freed_bytes < 1_000


def test_a_dataset_whose_state_is_a_symlink_is_refused_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "data", range(10))
    (tmp_path / "data" / STATE).rename(tmp_path / "victim")
    (tmp_path / "victim/lock").write_bytes(b"theirs")
    (tmp_path / "data" / STATE).symlink_to(tmp_path / "victim")
    with pytest.raises(ShardsError, match="expected a directory, got a symlink"):
        gc(tmp_path / "data")
    assert (tmp_path / "victim/lock").read_bytes() == b"theirs"


def test_a_part_nested_deeper_than_the_recursion_limit_is_removed(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    part = conversion_part(tmp_path)
    part.mkdir(parents=True)
    here = part
    for _ in range(1_500):
        here /= "d"
        here.mkdir()
    (here / "file").write_bytes(bytes(1_000))
    assert gc(tmp_path).freed_bytes == 1_000
    assert not part.exists()


def test_a_kept_part_of_a_conversion_frees_no_bytes(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    write(conversion_part(tmp_path, "0"), range(10, 20))
    write(conversion_part(tmp_path, "1"), range(10, 20))
    goes = sum(path.stat().st_size for path in conversion_part(tmp_path, "1").rglob("*") if path.is_file())
    with contextlib.closing(LocalPublication(conversion_part(tmp_path, "0"))):
        assert gc(tmp_path).freed_bytes == goes
    assert conversion_part(tmp_path, "0").is_dir()
    assert not conversion_part(tmp_path, "1").exists()


def test_parts_of_a_conversion_are_unused_once_the_dataset_is_published(tmp_path: Path) -> None:
    write(tmp_path, range(10))
    write(tmp_path / STATE / "parts" / ("0" * 32), range(10, 20))
    write(tmp_path / STATE / "parts" / "somebody's", range(10, 20))
    removed = gc(tmp_path)
    assert f"{STATE}/parts/{'0' * 32}" in removed.files
    assert not (tmp_path / STATE / "parts" / ("0" * 32)).exists()
    assert removed.parts == removed.removed_parts == ()
    assert len(mx8.Dataset(tmp_path / STATE / "parts" / "somebody's")) == 10
