"""Are unexpected files, changed by other programs, handled without losing data?"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import re
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import mx8shards as mx8
from mx8shards import writer as writer_module
from mx8shards.disk import operations
from mx8shards.shards import snapshots
from mx8shards.shards.publication import LocalPublication
from mx8shards.shards.snapshots import kept_path
from tests.crash import fault_injection
from tests.crash.disk_model import Disk, File
from tests.crash.fault_injection import FaultInjector, Step, Stopped
from tests.crash.scenarios import BY_NAME, COLUMNS, Expectation, samples, tree, write


def stop_before(is_there: Callable[[str, tuple[Any, ...]], bool], act: Callable[[], object]) -> FaultInjector:
    """Die before the first step for which `is_wanted` is true. Returns the injector with the steps."""
    injector = FaultInjector()

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if is_there(name, arguments):
            injector.over = Stopped
        injector.before(name, arguments)

    real, operations.before = operations.before, before
    try:
        with pytest.raises(Stopped):
            act()
    finally:
        operations.before = real
    return injector


def stop_at(name: str, ending: str, act: Callable[[], object]) -> None:
    """Die before the first step of this name on a path with this ending."""
    stop_before(lambda step, arguments: step == name and str(arguments[-1]).endswith(ending), act)


# other programs in the same directory -----------------------------------------------------------------------------


def test_an_index_that_another_program_replaced_meanwhile_is_kept(scratch: Path) -> None:
    root = scratch / "data"
    first = write(root, 0, 3)
    writer = mx8.Writer(root, columns=COLUMNS, mode="append")
    for sample in samples(3, 6):
        writer.write(sample)
    theirs = root.joinpath("index.json").read_bytes() + b"\n"
    (root / "index.json").write_bytes(theirs)
    before = tree(root).keys() - {name for name in tree(root) if "/staging" in name}
    with pytest.raises(mx8.DiskError, match=f"expected the current snapshot to be {first}.*nothing was published"):
        writer.finish()
    assert (root / "index.json").read_bytes() == theirs
    assert tree(root).keys() == before


def test_an_index_that_another_program_removed_meanwhile_is_an_error(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    writer = mx8.Writer(root, columns=COLUMNS, mode="overwrite")
    (root / "index.json").unlink()
    with pytest.raises(mx8.DiskError, match="got None"):
        writer.finish()


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b"theirs"), lambda path: path.symlink_to("nowhere")], ids=["file", "symlink"]
)
def test_an_existing_file_with_the_name_of_a_new_shard_is_never_replaced(
    make: Callable[[Path], object], scratch: Path
) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    before = tree(root)
    writer = mx8.Writer(root, columns=COLUMNS, mode="append", size_limit=270)
    make(root / "shard.00003.mds")
    for sample in samples(3, 8):
        writer.write(sample)
    with pytest.raises(mx8.DatasetExistsError, match=r"shard\.00003\.mds.*already exists"):
        writer.finish()
    (root / "shard.00003.mds").unlink()
    assert tree(root) == before
    assert len(write(root, 3, 8, mode="append")) == 71


def leave_their_shard_beside_an_intent(root: Path) -> Path:
    """Die in a publication after another program created a file with the name of a new shard. Returns its path."""
    write(root, 0, 3)
    theirs = root / "shard.00002.mds"

    def take_it(name: str, arguments: tuple[Any, ...]) -> bool:
        if name == "rename" and arguments[-1] == theirs:
            theirs.write_bytes(b"theirs")
        return theirs.exists()

    stop_before(take_it, lambda: write(root, 3, 8, mode="append"))
    return theirs


def test_a_rollback_that_is_interrupted_repeatedly_keeps_foreign_files(scratch: Path) -> None:
    original = scratch / "original"
    theirs = leave_their_shard_beside_an_intent(original / "data").relative_to(original)
    whole = FaultInjector()
    place = shutil.copytree(original, scratch / "place")
    disk = Disk.of(place)
    with whole.running():
        LocalPublication(place / "data").close()
    assert (place / theirs).read_bytes() == b"theirs"
    for at, step in enumerate(whole.steps):
        stopped = shutil.copytree(original, scratch / f"stopped{at}")
        with FaultInjector(at, fault_injection.stop_before).running(), pytest.raises(Stopped):
            LocalPublication(stopped / "data")
        for chance in (0, 0.5, 1):
            cut = scratch / f"cut{at}-{chance}"
            disk.cut(place, cut, random.Random(at), chance)
            LocalPublication(cut / "data").close()
            assert (cut / theirs).read_bytes() == b"theirs"
        LocalPublication(stopped / "data").close()
        assert (stopped / theirs).read_bytes() == b"theirs"
        disk.play(step)


def test_overwrite_skips_a_generation_directory_that_exists(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    (root / "g0004").mkdir()
    (root / "g0004/mine").write_bytes(b"mine")
    write(root, 5, 8, mode="overwrite")
    assert (root / "g0005/shard.00000.mds").exists()
    assert (root / "g0004/mine").read_bytes() == b"mine"


# states that a user restores manually -----------------------------------------------------------------------------


def test_writing_continues_after_a_user_restores_an_earlier_index(scratch: Path) -> None:
    root = scratch / "data"
    first = write(root, 0, 3)
    second = write(root, 3, 6, mode="append")
    shutil.copy(kept_path(root, first), root / "index.json")
    third = write(root, 6, 9, mode="append")
    assert len({first, second, third}) == 3
    expected = {first: [0, 1, 2], second: [0, 1, 2, 3, 4, 5], third: [0, 1, 2, 6, 7, 8]}
    for snapshot, labels in expected.items():
        with mx8.Dataset(f"{root}@{snapshot}", verify="shard") as dataset:
            assert [sample["label"] for sample in dataset] == labels
    assert mx8.verify(root, data=True).ok


def test_reading_a_snapshot_that_gc_removed_is_an_error_and_never_gives_other_shards(
    scratch: Path,
) -> None:
    root = scratch / "data"
    first = write(root, 0, 2)
    write(root, 3, 6, mode="append")
    slow = mx8.Dataset(root)
    shutil.copy(kept_path(root, first), root / "index.json")
    mx8.gc(root, keep=0)
    write(root, 6, 9, mode="append")  # whose names are free now, and whose sizes are equal
    with slow, pytest.raises(mx8.DatasetNotFoundError, match="gc removed this snapshot after it was opened"):
        slow[2]


def test_an_append_continues_the_newest_shard_numbers_so_that_no_name_is_reused(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    write(root, 0, 3, mode="overwrite")
    mx8.gc(root, keep=0)
    write(root, 3, 6, mode="append")
    assert sorted(path.name for path in root.glob("**/*.mds")) == [f"shard.{i:05}.mds" for i in range(4)]
    assert not list(root.glob("*.mds"))


def test_a_kept_snapshot_stays_kept_if_publishing_it_again_fails(scratch: Path) -> None:
    root = scratch / "data"
    first = write(root, 0, 3)
    again = {"mode": "append", "metadata": {"a": 1}}
    second = write(root, 0, 0, **again)
    shutil.copy(kept_path(root, first), root / "index.json")
    stop_at("rename", "data/index.json", lambda: write(root, 0, 0, **again))
    LocalPublication(root).close()
    with mx8.Dataset(f"{root}@{second}") as dataset:
        assert dataset.metadata == {"a": 1}
    assert write(root, 0, 0, **again) == second


# leftovers that a publication finds -------------------------------------------------------------------------------


def leave_an_intent(root: Path, **changes: object) -> Path:
    """Write a dataset with this intent in its staging directory. Returns the path of the intent."""
    write(root, 0, 3)
    path = root / ".mx8shards/staging/intent.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"snapshot": None, "files": [], "keeps": [], **changes}))
    return path


HOSTILE: dict[str, dict[str, object]] = {
    "up and out": {"files": ["../victim"]},
    "an absolute path": {"files": ["/etc/hostname"]},
    "the index": {"files": ["index.json"]},
    "a file of the user": {"files": ["thesis.tex"]},
    "a file of the user below": {"files": ["notes/thesis.tex"]},
    "a file of the user, and all": {"files": ["thesis.tex"], "whole": True},
    "the state": {"files": [".mx8shards/lock"]},
    "through a symlink": {"files": ["away/victim.mds"]},
    "no names": {"files": [17]},
    "no list": {"files": 17},
    "a snapshot outside": {"keeps": ["../../../victim"]},
    "an id in part": {"keeps": ["sha256:1234"]},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_an_intent_from_another_directory_removes_only_shards_and_side_cars_of_this_one(
    changes: dict[str, object], scratch: Path
) -> None:
    root = scratch / "data"
    path = leave_an_intent(root, **changes)
    (scratch / "victim").write_bytes(b"dear")
    (scratch / "victim.json").write_bytes(b"dear")
    (scratch / "victim.mds").write_bytes(b"dear")
    (root / "away").symlink_to(scratch)
    (root / "notes").mkdir()
    for theirs in ("thesis.tex", "notes/thesis.tex"):
        (root / theirs).write_bytes(b"dear")
    before = tree(scratch)
    with pytest.raises(mx8.FormatError, match=r"staging/intent\.json: not a valid intent: .*then move it away"):
        write(root, 3, 6, mode="append")
    assert tree(scratch) == before
    path.unlink()
    write(root, 3, 6, mode="append")


def test_shards_with_unusual_names_can_be_merged_but_not_moved(
    scratch: Path,
) -> None:
    part, target = scratch / "part", scratch / "all"
    write(part, 0, 3)
    text = (part / "index.json").read_text()
    for path in part.glob("*.mds"):
        text = text.replace(path.name, f"odd{path.name[9:11]}")
        path.rename(part / f"odd{path.name[9:11]}")
    shutil.rmtree(part / ".mx8shards/snapshots")
    (part / "index.json").write_text(text)
    before = tree(part)
    with pytest.raises(mx8.FormatError, match=r'/part: expected the name of a shard .*, got "odd00".*ever removed'):
        mx8.merge([part], target, how="move")
    assert tree(part) == before
    assert not (target / "index.json").exists()
    stop_at("rename", "all/index.json", lambda: mx8.merge([part], target))
    assert (target / "p0000/odd00").exists()
    LocalPublication(target).close()
    assert not (target / "p0000").exists()
    mx8.merge([part], target)
    with mx8.Dataset(target, verify="shard") as dataset:
        assert list(dataset) == list(samples(0, 3))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"text"', b"null", b"[" * 100_000, b"\xff", b'{"files": []}'])
def test_an_unreadable_intent_stops_every_change_with_an_error_that_says_what_to_do(data: bytes, scratch: Path) -> None:
    root = scratch / "data"
    leave_an_intent(root).write_bytes(data)
    for act in (lambda: write(root, mode="overwrite"), lambda: mx8.gc(root)):
        with pytest.raises(mx8.FormatError, match="inspect the other files in its directory"):
            act()
    with mx8.Dataset(root) as dataset:
        assert len(dataset) == 3


def test_recovery_never_removes_files_that_a_kept_snapshot_uses(scratch: Path) -> None:
    root = scratch / "data"
    leave_an_intent(root, files=["shard.00000.mds", "shard.00001.mds"])
    write(root, 3, 6, mode="append")
    assert mx8.verify(root, data=True).ok


def test_a_damaged_kept_index_stops_a_rollback_before_it_removes_anything(scratch: Path) -> None:
    root = scratch / "data"
    first = write(root, 0, 3)
    write(root, 3, 6, mode="append")
    stop_at("rename", "data/index.json", lambda: write(root, 6, 9, mode="append"))
    data = kept_path(root, first).read_bytes()
    kept_path(root, first).write_bytes(data.replace(b"shard.00000", b"shard.00008"))  # one file removed, another added
    shards = {name for name in tree(root) if name.endswith(".mds")}
    with pytest.raises(mx8.IntegrityError, match=f"expected an index whose id is {first}"):
        write(root, 6, 9, mode="append")
    assert {name for name in tree(root) if name.endswith(".mds")} == shards


def test_leftover_files_of_any_kind_in_staging_are_removed(scratch: Path) -> None:
    root = scratch / "data"
    expected = write(scratch / "undisturbed", 0, 3)
    staging = root / ".mx8shards/staging"
    (staging / "of/an/older/version").mkdir(parents=True)
    (staging / "shard.00000.mds").write_bytes(b"half")
    (staging / "intent.draft").write_bytes(b"{")
    (staging / "out").symlink_to(scratch / "undisturbed")
    assert write(root, 0, 3) == expected
    assert tree(root) == tree(scratch / "undisturbed")


OURS = {
    "": "",
    "lock": "lock",
    "staging": "staging/",
    "staging/intent.json": "staging/intent.json",
    "snapshots": "snapshots/",
    "sidecars": "sidecars/",
    "parts": "parts/",
    "parts/rank-00000-of-00001": "parts/rank-00000-of-00001/",
}


@pytest.mark.parametrize("name", OURS)
def test_a_symlink_in_place_of_our_own_files_is_not_followed(name: str, scratch: Path) -> None:
    """Symlinks in a dataset: nothing behind them is created, changed or removed."""
    root, victim = scratch / "data", scratch / "victim"
    write(victim, 0, 3, rank=0, world_size=1)
    mx8.merge([victim], victim)
    write(victim, 3, 6, mode="overwrite")
    intent = {"snapshot": None, "files": ["shard.00000.mds"], "keeps": [], "whole": True}
    (victim / ".mx8shards/staging").mkdir()
    (victim / ".mx8shards/staging/intent.json").write_text(json.dumps(intent))
    (victim / ".mx8shards/staging/shard.00009.mds").write_bytes(b"dear")
    write(root, 0, 3)
    place = root / ".mx8shards" / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim / ".mx8shards" / name)
    before = tree(victim)
    acts: list[Callable[[], object]] = [
        lambda: mx8.gc(root, keep=0),
        lambda: write(root, 3, 6, mode="append"),
        lambda: write(root, 3, 6, mode="overwrite"),
        lambda: write(root, 3, 6, mode="append", rank=0, world_size=1),
        lambda: mx8.verify(root, data=True, seal=True),
        lambda: mx8.merge([root], root, mode="append", how="move"),
        lambda: mx8.merge([root], scratch / "all", how="move"),
    ]
    for act in acts:
        with contextlib.suppress(mx8.ShardsError):
            act()
        assert tree(victim) == before
    assert place.is_symlink() or name == "staging"  # removed


def test_a_rank_does_not_write_through_a_symlink(scratch: Path) -> None:
    (scratch / "victim").mkdir()
    for name in (".mx8shards", ".mx8shards/parts", ".mx8shards/parts/rank-00000-of-00001"):
        root = scratch / name.replace("/", "-")
        (root / name).parent.mkdir(parents=True)
        (root / name).symlink_to(scratch / "victim")
        with pytest.raises(mx8.FormatError, match="expected a directory, got a symlink"):
            write(root, 0, 3, rank=0, world_size=1)
        assert tree(scratch / "victim") == {}
        assert not (root / "index.json").exists()


@pytest.mark.parametrize("generation", ["g0001", "p0000"])
def test_a_symlink_in_place_of_a_directory_of_shards_is_not_followed(generation: str, scratch: Path) -> None:
    root, victim = scratch / "data", scratch / "victim"
    write(scratch / "part", 0, 3)
    mx8.merge([scratch / "part"], root)
    write(root, 3, 6, mode="overwrite")
    (root / generation).rename(victim)
    (root / generation).symlink_to(victim)
    before = tree(victim)
    for act in (lambda: mx8.gc(root, keep=0), lambda: write(root, 6, 9, mode="append"), lambda: mx8.gc(root, keep=0)):
        with contextlib.suppress(mx8.ShardsError):
            act()
        assert tree(victim) == before


def test_a_symlink_in_place_of_a_temporary_file_of_the_cache_is_not_followed(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / "home"))
    root = scratch / "data"
    write(root, 0, 2, compression="zstd")
    with mx8.Dataset(root) as dataset:
        expected = list(dataset)
    (cached,) = (root / ".mx8shards/cache").glob("*.mds")
    cached.unlink()
    (scratch / "victim").write_bytes(b"dear")
    cached.with_suffix(".tmp").symlink_to(scratch / "victim")
    with mx8.Dataset(root) as dataset:
        assert list(dataset) == expected  # from the other cache
    assert (scratch / "victim").read_bytes() == b"dear"


def test_a_damaged_side_car_is_replaced_when_the_same_one_is_published_again(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    for path in (root / ".mx8shards/sidecars").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    write(root, 0, 3, mode="overwrite")
    with mx8.Dataset(root) as dataset:
        assert dataset.column("label").tolist() == [0, 1, 2]


# the decompression cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        fault_injection.stop_before,
        fault_injection.stop_during,
        fault_injection.fail_once,
        fault_injection.fill_disk,
        fault_injection.press_ctrl_c,
    ],
)
def test_the_cache_holds_only_complete_copies_if_decompressing_stops_or_fails(
    fault: Callable[[FaultInjector, Step], None], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = scratch / "original"
    write(original, 0, 5, compression="gz")
    for at in range(1_000):
        root = shutil.copytree(original, scratch / str(at) / "data")
        monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / str(at) / "home"))
        injector = FaultInjector(at, fault)
        try:
            with injector.running(), mx8.Dataset(root, verify="shard") as dataset:
                assert [sample["label"] for sample in dataset] == [0, 1, 2, 3, 4]
        except (Stopped, KeyboardInterrupt):
            pass
        with mx8.Dataset(root, verify="shard") as dataset:
            assert list(dataset) == list(samples(0, 5))
        names = [name for name in tree(scratch / str(at)) if re.search(r"(cache|mx8shards/shards)/[0-9a-f]", name)]
        assert len(names) == 3  # one per shard, and no temporary files
        if injector.faulty is None:
            break
        shutil.rmtree(scratch / str(at))


# Ctrl-C, garbage collection and unfinished Writers ----------------------------------------------------------------


class Interrupter:
    """Raises KeyboardInterrupt at the `at`-th executed line of writer.py."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, argument: object) -> Interrupter | None:
        if frame.f_code.co_filename != writer_module.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted_writes(scratch: Path) -> Iterator[bool]:
    """Interrupt at each line in turn; then the user publishes. Yields whether that gave a dataset."""
    everything = list(samples(0, 6))
    for at in range(1, 10_000):
        root = scratch / str(at)
        interrupter = Interrupter(at)
        writer = mx8.Writer(root, columns=COLUMNS, size_limit=270, threads=1)
        given = 0
        sys.settrace(interrupter)
        try:
            for sample in everything:
                writer.write(sample)
                given += 1
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        try:
            writer.finish()
        except (ValueError, mx8.ShardsError):
            yield False
        else:
            with mx8.Dataset(root, verify="shard") as dataset:
                assert list(dataset) in (everything[:given], everything[: given + 1])
                if dataset.columns:
                    assert dataset.column("label").tolist() == [sample["label"] for sample in dataset]
            yield True
        shutil.rmtree(root, ignore_errors=True)  # there is none if nothing was published
        if interrupter.left > 0:
            return


def test_publishing_after_ctrl_c_publishes_all_written_samples_or_raises_an_error(scratch: Path) -> None:
    found = list(interrupted_writes(scratch))
    assert found[-1]
    assert not all(found)
    assert len(found) > 50  # about 100, depending on when the thread is done


def test_a_garbage_collected_writer_logs_a_warning_and_releases_its_lock(scratch: Path) -> None:
    def forget() -> None:
        writer = mx8.Writer(scratch / "data", columns=COLUMNS, size_limit=270)
        for sample in samples(0, 6):
            writer.write(sample)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        forget()
        for _ in range(1_000):
            if threading.active_count() == 1:
                break
            time.sleep(0.01)  # its thread may still be storing a shard
            gc.collect()
    ours = [str(warning.message) for warning in found if issubclass(warning.category, ResourceWarning)]
    never = "never closed, so nothing was published; use `with Writer(…)`, or call finish()"
    assert ours == [f"{scratch / 'data'}: {never}"]
    assert write(scratch / "data") == write(scratch / "undisturbed")
    assert tree(scratch / "data") == tree(scratch / "undisturbed")


def test_merge_syncs_linked_shards_that_their_writer_did_not_sync(
    expectation_of: Callable[[Any], Expectation], scratch: Path
) -> None:
    place = expectation_of(BY_NAME["merge"]).copy(scratch / "place")
    disk = Disk.of(place)
    parts = [node for name, node in disk.now.items() if isinstance(node, File) and name.endswith(".mds")]
    for node in parts:
        node.synced = b""
    injector = FaultInjector()
    with injector.running():
        BY_NAME["merge"].act(place)
    for step in injector.steps:
        disk.play(step)
    assert all(node.synced == node.data for node in parts)


def test_shards_in_deep_directories_are_staged_although_their_path_exceeds_a_file_name(scratch: Path) -> None:
    deep = "/".join(["d" * 100] * 3)
    write(scratch / "part" / deep, 0, 3)
    index = json.loads((scratch / "part" / deep / "index.json").read_bytes())
    for shard in index["shards"]:
        shard["raw_data"]["basename"] = f"{deep}/{shard['raw_data']['basename']}"
    del index["mx8shards"]
    (scratch / "part/index.json").write_text(json.dumps(index))
    stop_at("rename", "all/index.json", lambda: mx8.merge([scratch / "part"], scratch / "all"))
    snapshot = mx8.merge([scratch / "part"], scratch / "all")
    with mx8.Dataset(f"{scratch / 'all'}@{snapshot}", verify="shard") as dataset:
        assert list(dataset) == list(samples(0, 3))


def test_gc_after_a_killed_publication_keeps_files_that_a_power_cut_may_restore(scratch: Path) -> None:
    place, cut = scratch / "place", scratch / "cut"
    root = place / "data"
    write(root, 0, 3)
    write(root, 3, 6, mode="overwrite")
    (root / "g0001/notes.txt").write_bytes(b"so that the directory stays")
    mx8.gc(root, keep=0)
    disk = Disk.of(place)

    def is_last(name: str, arguments: tuple[Any, ...]) -> bool:
        staged = root / ".mx8shards/staging"
        return (name, arguments) == ("sync_directory", (root,)) and not (staged / "index.json").exists()

    killed = stop_before(is_last, lambda: write(root, 6, 9, mode="overwrite"))
    collecting = FaultInjector()
    with collecting.running():
        mx8.gc(root, keep=0)
    for at, step in enumerate([*killed.steps, *collecting.steps]):
        disk.play(step)
        for chance in (0, 0.5):
            shutil.rmtree(cut, ignore_errors=True)
            disk.cut(place, cut, random.Random(at), chance)
            with mx8.Dataset(cut / "data", verify="shard") as dataset:
                assert list(dataset) in (list(samples(3, 6)), list(samples(6, 9)))


def test_opening_is_retried_if_a_publication_and_gc_happen_meanwhile(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    overtaken = []

    def overtake(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is snapshots.kept.__code__ and not overtaken:
            overtaken.append(True)
            sys.settrace(None)
            write(root, 3, 6, mode="overwrite")
            mx8.gc(root, keep=0)

    sys.settrace(overtake)
    try:
        with mx8.Dataset(root) as dataset:
            assert list(dataset) == list(samples(3, 6))
    finally:
        sys.settrace(None)
    assert overtaken


def test_moving_parts_keeps_snapshots_that_were_published_in_them_meanwhile(scratch: Path) -> None:
    write(scratch / "parts/a", 0, 3)
    write(scratch / "parts/b", 3, 6)

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "rename" and str(arguments[-1]) == str(scratch / "all/index.json"):
            operations.before = real
            write(scratch / "parts/b", 6, 9, mode="append")

    real, operations.before = operations.before, before
    try:
        with pytest.raises(mx8.DiskError, match=r"published here since.*already published"):
            mx8.merge([scratch / "parts"], scratch / "all", how="move")
    finally:
        operations.before = real
    with mx8.Dataset(scratch / "parts/b", verify="shard") as dataset:
        assert list(dataset) == list(samples(3, 9))
    with mx8.Dataset(scratch / "all", verify="shard") as dataset:
        assert list(dataset) == list(samples(0, 6))
