"""Do concurrent readers and writers of a dataset see only complete snapshots?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mx8shards as mx8
from tests.crash.scenarios import COLUMNS, tree, write
from tests.crash.traced_processes import ROOT


def run(script: str, *arguments: object) -> str:
    """The output of a script, run in a new process."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# concurrent writers ---------------------------------------------------------------------------------------------------

RIVAL = """
import sys
import mx8shards as mx8
from tests.crash.scenarios import write

def try_to(act):
    try:
        return act()
    except mx8.ShardsError as error:
        return f"{type(error).__name__}: {error}"

for act in (
    lambda: write(sys.argv[1], mode="append"),
    lambda: write(sys.argv[1], mode="overwrite"),
    lambda: mx8.gc(sys.argv[1]),
    lambda: len(mx8.Dataset(sys.argv[1])),
):
    print(try_to(act))
"""


def test_a_second_writer_process_gets_an_error_that_names_the_first_and_can_read(scratch: Path) -> None:
    root = scratch / "data"
    write(root, 0, 3)
    with mx8.Writer(root, columns=COLUMNS, mode="append") as writer:
        writer.write({"label": 3, "text": "sample 3"})
        *refused, length = run(RIVAL, root).splitlines()
        for message in refused:
            assert message.startswith(
                f"DiskError: {root}/.mx8shards/lock: another Writer, convert, merge, gc or seal is changing this"
            )
            assert f"(process {Path('/proc/self').resolve().name})" in message
        assert length == "3"
        with pytest.raises(mx8.DiskError, match="another Writer"):
            mx8.Writer(root, columns=COLUMNS, mode="append")
    assert write(root, 4, 6, mode="append")


def test_writers_of_different_ranks_do_not_wait_for_each_other(scratch: Path) -> None:
    root = scratch / "data"
    with (
        mx8.Writer(root, columns=COLUMNS, rank=0, world_size=2) as first,
        mx8.Writer(root, columns=COLUMNS, rank=1, world_size=2) as second,
    ):
        first.write({"label": 0, "text": "a"})
        second.write({"label": 1, "text": "b"})
    mx8.merge([root], root)
    with mx8.Dataset(root) as dataset:
        assert [sample["label"] for sample in dataset] == [0, 1]


FORKS = """
import os, signal, sys
import mx8shards as mx8
from tests.crash.scenarios import COLUMNS, samples, write

def refused(act):
    try:
        act()
    except mx8.DiskError as error:
        return "a process forked from it cannot publish" in str(error)

root = sys.argv[1]
writer = mx8.Writer(root, columns=COLUMNS, size_limit=270, threads=1)
for sample in samples(0, 4):
    writer.write(sample)  # the thread is at work

child = os.fork()
if not child:
    good = refused(lambda: [writer.write(sample) for sample in samples(4, 10)]) and refused(writer.finish)
    os._exit(0 if good else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

child = os.fork()
if not child:
    del writer  # without a word: it is the parent's
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

child = os.fork()
if not child:
    signal.alarm(60)  # should the parent come to grief
    signal.pause()
for sample in samples(4, 6):
    writer.write(sample)
print(writer.finish())  # while the child has copies of all that was open
print(write(root, 6, 9, mode="append"))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""


def test_a_forked_child_of_a_writer_does_not_publish_clean_up_or_keep_the_lock(scratch: Path) -> None:
    first, second = run(FORKS, scratch / "data").split()
    assert first == write(scratch / "undisturbed")
    assert second == write(scratch / "undisturbed", 6, 9, mode="append")
    assert tree(scratch / "data") == tree(scratch / "undisturbed")


# readers --------------------------------------------------------------------------------------------------------------

READERS = """
import faulthandler, json, os, sys, traceback
import mx8shards as mx8

root, collects = sys.argv[1], sys.argv[2] == "True"

def look():
    # The number of the newest publication, after it was made sure that all one sees is of one snapshot.
    with mx8.Dataset(root, verify="shard") as dataset:  # all decompress into one cache
        labels = [sample["label"] for sample in dataset]
        assert labels == dataset.column("label").tolist()
        assert dataset[-1]["text"] == f"{len(labels)} in all", (labels, dataset[-1])
        assert labels == list(range(labels[0], labels[0] + len(labels))) and labels[0] % 5 == 0, labels
        return labels[-1]

def read_until_stopped():
    seen = looks = missed = 0
    faulthandler.dump_traceback_later(200, exit=True)  # a reader that hangs says where
    while not os.path.exists(root + ".end"):
        try:
            now = look()
        except mx8.DatasetNotFoundError:
            assert collects  # gc took a snapshot away while it was read
            missed += 1
            continue
        assert now >= seen, (now, seen)
        seen = now
        looks += 1
    newest = look()
    assert newest >= seen, (newest, seen)
    return {"looks": looks, "missed": missed, "last": newest}

look()  # what is imported late is imported once
for _ in range(4):
    if not os.fork():
        try:
            os.write(1, (json.dumps(read_until_stopped()) + chr(10)).encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
print("ready", flush=True)
for _ in range(4):
    os.wait()
"""


def publish_while_others_read(root: Path, times: int, *, collect: bool) -> list[dict[str, int]]:
    """Publish repeatedly while four processes read. Returns the counts of each reader."""
    publish(root, 0)
    command = [sys.executable, "-c", READERS, str(root), str(collect)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as readers:
        assert readers.stdout is not None
        assert readers.stdout.readline() == "ready\n"
        try:
            for number in range(1, times):
                publish(root, number)
                if collect and number % 10 == 0:
                    mx8.gc(root, keep=1)
        finally:  # a file, as a signal is lost in a child that has not returned from its fork
            root.with_name(f"{root.name}.end").touch()
        return [json.loads(line) for line in readers.stdout]


def publish(root: Path, number: int) -> None:
    """Publish one more snapshot: every fifth one overwrites, the others append."""
    mode = "create" if number == 0 else "append" if number % 5 else "overwrite"
    compression = "zstd" if number % 10 < 5 else None
    with mx8.Writer(root, columns=COLUMNS, mode=mode, threads=1, compression=compression) as writer:
        writer.write({"label": number, "text": f"{number % 5 + 1} in all"})


@pytest.mark.parametrize(
    ("times", "collect"),
    [(25, False), (21, True), *(pytest.param(2_000, collect, marks=pytest.mark.hunt) for collect in (False, True))],
)
def test_readers_never_see_a_partly_published_snapshot(times: int, collect: bool, scratch: Path) -> None:
    found = publish_while_others_read(scratch / "data", times, collect=collect)
    print(found)
    assert len(found) == 4  # no reader failed
    assert all(counted["last"] == times - 1 for counted in found)  # "looks" may be 0 on a busy machine
    assert all(collect or not counted["missed"] for counted in found)
    assert mx8.verify(scratch / "data", data=True).ok
