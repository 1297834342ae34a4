"""Does a conversion give an identical snapshot with any number of workers and after any number of kills?"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest

import mx8shards as mx8
from mx8shards.cli import main
from mx8shards.cli.output import Lines
from mx8shards.convert import convert_in_parts
from mx8shards.convert.convert_in_parts import convert
from mx8shards.convert.part_names import basis_of, part_name
from mx8shards.convert.part_writing import Job
from mx8shards.convert.source import Recipe, opener_of
from mx8shards.errors import DatasetExistsError, DatasetNotFoundError, DiskError, SourceError
from mx8shards.maintain.conversion import only_conversion, unused_parts
from mx8shards.maintain.rejects import keep_rejects

Capture = pytest.CaptureFixture[str]

# The source is a file with one number per line; a word is a reject. Every sample that is made is logged.
RECIPE = '''
from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from mx8shards.errors import SourceError

def open_source(lines: str, *, twice: bool = False):
    """Numbers in a file.

    Args:
        lines: a file with a number on each line
        twice: double all of them
    """
    return Lines(Path(lines), twice)

@dataclass
class Lines:
    path: Path
    twice: bool = False

    @property
    def columns(self):
        return {"number": "int", "text": "str"}

    @property
    def metadata(self):
        return {"twice": self.twice}

    def items(self):
        return [(f"line {i}", i) for i in range(len(self.path.read_text().split()))]

    def stamp(self, item):
        return self.path.read_text().split()[item[1]]

    def sample(self, item):
        word = self.path.read_text().split()[item[1]]
        with open(self.path.with_name("log"), "a") as log:
            log.write(f"{item[1]}\\n")
        if word == "wait":  # until it is killed, the first time
            if not self.path.with_name("go").exists():
                self.path.with_name(f"waiting-{os.getpid()}").touch()
                signal.pause()
            word = str(item[1])
        if word == "kill":
            self.path.write_text(self.path.read_text().replace("kill", "7"))
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "memory":
            raise MemoryError
        if word == "fail":
            raise ZeroDivisionError(item[0])
        if not word.isdigit():
            raise SourceError(expected="a number", found=repr(word))
        return {"number": int(word) * (2 if self.twice else 1), "text": item[0]}
'''


class Place:
    """A recipe, its data, and its output directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "numbers_in_lines.py"
        self.recipe.write_text(RECIPE)
        self.lines = root / "lines"
        self.out = root / "out"

    def job(self, out: str = "out", **options: Any) -> Job:
        return Job(Recipe(str(self.recipe), {"lines": str(self.lines), "twice": False}), self.root / out, options)

    def write(self, *words: object) -> None:
        self.lines.write_text(" ".join(map(str, words)))

    def made(self) -> list[int]:
        """The items of which samples were made since the last call."""
        log = self.root / "log"
        found = [int(line) for line in log.read_text().split()] if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def command(self, *arguments: object) -> list[str]:
        return ["convert", str(self.recipe), str(self.lines), str(self.out), *map(str, arguments)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(convert_in_parts, "PART_ITEMS", 5)
    return Place(tmp_path)


def numbers(root: Path) -> list[int]:
    with mx8.Dataset(root) as dataset:
        return [sample["number"] for sample in dataset]


def test_any_number_of_workers_gives_equal_snapshots_in_the_order_of_items(place: Place) -> None:
    place.write(*range(18), "word", *range(20, 33))
    told: list[tuple[int, int]] = []
    alone = convert(place.job("alone"), progress=lambda done, total: told.append((done, total)))
    together = convert(place.job("together"), workers=3)
    assert alone == together
    assert alone.samples == 31
    assert alone.rejects == (("line 18", "expected a number, got 'word'"),)
    assert told == sorted(told)
    assert set(told) == {(n, 32) for n in range(33)}
    for name in ("alone", "together"):
        assert numbers(place.root / name) == [*range(18), *range(20, 33)]
        assert mx8.Dataset(place.root / name).snapshot == alone.snapshot
        assert not (place.root / name / ".mx8shards/parts").exists()
    metadata = mx8.Dataset(place.out.with_name("alone")).metadata
    assert metadata["twice"] is False
    assert metadata["conversion"] == {"source": place.recipe.name, "rejects": 1, "mx8shards": version("mx8shards")}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from mx8shards.convert import convert_in_parts
from mx8shards.errors import ShardsError
from tests.integration.test_convert import Place

convert_in_parts.PART_ITEMS = 5

def killing(name, number):
    real, left = getattr(os, name), [number]
    def call(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)

def forked(act):
    pid = os.fork()
    if not pid:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for number, (name, count) in enumerate(json.loads(sys.argv[2])):
    root = Path(sys.argv[1]) / str(number)
    root.mkdir()
    place = Place(root)
    words = [str(i) for i in range(18)]
    words[7] = "kill" if name == "sample" else "7"
    if name == "sample":
        words[7], words[count] = "7", "kill"
    place.write(*words)
    def first():
        if name != "sample":
            killing(name, count)
        convert_in_parts.convert(place.job())
    status = forked(first)
    if name == "sample":
        place.write(*(7 if word == "kill" else word for word in words))
    before = place.made()
    def second():
        try:
            found = convert_in_parts.convert(place.job()).snapshot
        except ShardsError as error:
            found = type(error).__name__
        (root / "found").write_text(found)
    forked(second)
    print(json.dumps([status, before, place.made(), (root / "found").read_text()]), flush=True)
"""


def test_a_conversion_killed_anywhere_is_resumed_without_rewriting_complete_parts(
    place: Place, repository: Path
) -> None:
    points = [("sample", n) for n in (0, 4, 5, 12, 17)]
    points += [(name, n) for name in ("link", "rename", "replace", "unlink", "rmdir", "fsync") for n in (1, 3, 8)]
    place.write(*range(18))
    whole = convert(place.job()).snapshot
    command = [sys.executable, "-c", KILLED, str(place.root), json.dumps(points)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(points)
    for number, ((name, n), (status, before, after, result)) in enumerate(zip(points, found, strict=True)):
        root = place.root / str(number) / "out"
        if name == "sample":
            assert status == -9
            assert before == list(range(n + 1))
            assert after == list(range(n - n % 5, 18))
            assert numbers(root) == [7 if i == n else i for i in range(18)]
            continue
        assert status in (-9, 0), name  # 0: the conversion ended before this call
        assert before == list(range(len(before)))
        parts = [list(range(i, min(i + 5, 18))) for i in range(0, 18, 5)]
        assert after in [[i for part in parts[k:] for i in part] for k in range(5)]
        assert not set(after) & set(range(len(before) - len(before) % 5 - 5))
        assert result in (whole, "DatasetExistsError"), (name, n)
        if result != whole:
            assert after == []
        assert mx8.Dataset(root).snapshot == whole
        assert numbers(root) == list(range(18))
    assert sum(status == -9 for status, *_ in found) > len(points) // 2


def test_a_killed_worker_is_an_error_that_says_how_to_resume(place: Place) -> None:
    place.write(*range(12), "kill", *range(13, 18))
    with pytest.raises(SourceError, match=r"a worker was killed \(running the same command again resumes"):
        convert(place.job(), workers=2)
    assert not (place.out / "index.json").exists()
    place.made()
    assert convert(place.job()).samples == 18
    again = place.made()
    assert {10, 11, 12, 13, 14} <= set(again) < set(range(18))  # the previous part of that worker is kept
    assert numbers(place.out) == [*range(12), 7, *range(13, 18)]


# processes ------------------------------------------------------------------------------------------------------------

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore Ctrl-C
from mx8shards.cli import main
from mx8shards.convert import convert_in_parts
convert_in_parts.PART_ITEMS = 5
sys.exit(main())
"""


@contextlib.contextmanager
def running_conversion(
    place: Place, repository: Path, workers: int
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a conversion as a terminal does, and wait until its workers are in the middle of a part."""
    place.write(*range(3), "wait", *range(4, 8), "wait", *range(9, 18))
    command = [sys.executable, "-c", COMMAND, *place.command("--workers", workers)]
    with subprocess.Popen(
        command, cwd=repository, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            while len(waiting := list(place.root.glob("waiting-*"))) < workers:
                assert process.poll() is None
                time.sleep(0.01)
            yield process, [int(path.name.removeprefix("waiting-")) for path in waiting]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_end(processes: list[int]) -> None:
    """Wait until all of these processes ended; the test's timeout catches those that never end."""
    while any(Path(f"/proc/{pid}/fd").exists() and "Z" not in state(pid) for pid in processes):
        time.sleep(0.01)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def go_on(place: Place, repository: Path, workers: int) -> None:
    """Run the same command again, without waiting in a part."""
    (place.root / "go").touch()
    command = [sys.executable, "-c", COMMAND, *place.command("--workers", workers)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert numbers(place.out) == list(range(18))
    assert not (place.out / ".mx8shards/parts").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_their_parent_and_the_same_command_resumes(place: Place, repository: Path) -> None:
    with running_conversion(place, repository, 2) as (process, workers):
        process.kill()
        process.wait()
        go_on(place, repository, 2)
        wait_for_end(workers)


SIGNALS = list(itertools.product([signal.SIGINT, signal.SIGTERM], [1, 2, 3], [1, 2]))
# In these, each signal, number of signals and number of workers meets every other one.
PAIRS = [(signal.SIGINT, 1, 1), (signal.SIGINT, 3, 2), (signal.SIGTERM, 1, 2), (signal.SIGTERM, 3, 1)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("number", "times", "workers"),
    [case if case in PAIRS else pytest.param(*case, marks=pytest.mark.hunt) for case in SIGNALS],
)
def test_one_or_more_ctrl_c_or_sigterm_end_a_conversion(
    place: Place, repository: Path, number: int, times: int, workers: int
) -> None:
    with running_conversion(place, repository, workers) as (process, processes):
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)  # a terminal signals the whole process group
        _, said = process.communicate()
        assert process.returncode == 128 + number
        assert "Traceback" not in said
        if times == 1:  # the second signal ends the process at once
            assert "interrupted: run the same command again to resume" in said
        wait_for_end(processes)
    go_on(place, repository, workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_start_prints_one_line_and_no_traceback(
    place: Place, repository: Path, number: int
) -> None:
    place.write(*range(18))
    for delay_s in (0.0, 0.002, 0.004, 0.01, 0.1, 0.3):
        starting = COMMAND.replace(
            "sys.exit(main())",
            f"""
import os, signal, subprocess
from mx8shards.convert import workers
usual = workers._start
kept = []  # Python may run a destructor when the signal comes
def start(*args):
    kill = f"sleep {delay_s}; kill -{int(number)} {{os.getpid()}}"
    signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])  # not while this process itself is started
    kept.append(subprocess.Popen(["sh", "-c", kill], stderr=subprocess.DEVNULL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [{int(number)}])
    usual(*args)
workers._start = start
sys.exit(main())
""",
        )
        command = [sys.executable, "-c", starting, *place.command("--workers", 2)]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        if not done.returncode:  # the conversion ended before the signal
            return
        assert done.returncode in (128 + number, -number)
        told = [line for line in done.stderr.splitlines() if not line.startswith("convert: ")]
        assert told in (["interrupted: run the same command again to resume"], [])
    go_on(place, repository, 2)


def test_a_second_conversion_into_one_directory_is_refused(place: Place, repository: Path) -> None:
    with running_conversion(place, repository, 2):
        with pytest.raises(DiskError, match="is changing this dataset"):
            convert(place.job())
        assert unused_parts(place.out) == []


def test_parts_of_a_changed_source_are_removed_after_publication(place: Place) -> None:
    place.write(*range(12), "fail", *range(13, 18))
    with pytest.raises(ZeroDivisionError):
        convert(place.job())
    parts = place.out / ".mx8shards/parts"
    old = {path.name for path in parts.iterdir()}
    assert len(old) >= 2
    assert unused_parts(place.out) == []  # they may still be resumed
    place.write(*range(50, 68))
    convert(place.job())
    assert numbers(place.out) == list(range(50, 68))
    assert not parts.exists()
    assert sorted(path.name for path in (place.out / ".mx8shards").iterdir()) == ["lock", "sidecars", "snapshots"]


def test_gc_removes_parts_of_killed_conversions_but_not_of_a_running_one(place: Place) -> None:
    place.write(*range(12), "fail", *range(13, 18))
    with pytest.raises(ZeroDivisionError):
        convert(place.job())
    left = place.root / "left"
    (place.out / ".mx8shards/parts").rename(left)
    place.write(*range(18))
    convert(place.job())
    left.rename(place.out / ".mx8shards/parts")
    names = [f".mx8shards/parts/{path.name}" for path in sorted((place.out / ".mx8shards/parts").iterdir())]
    outside = place.root / "outside"
    outside.mkdir()
    (place.out / ".mx8shards/parts" / ("0" * 32)).symlink_to(outside)
    (place.out / ".mx8shards/parts/mine").mkdir()
    with only_conversion(place.out):
        assert mx8.gc(place.out).files == ()
    removed = mx8.gc(place.out)
    assert removed.files == tuple(names)
    assert removed.freed_bytes > 0
    assert sorted(path.name for path in (place.out / ".mx8shards/parts").iterdir()) == ["0" * 32, "mine"]
    assert numbers(place.out) == list(range(18))


def test_merge_ignores_parts_of_a_conversion(place: Place) -> None:
    place.write(*range(12), "fail", *range(13, 18))
    with pytest.raises(ZeroDivisionError):
        convert(place.job())
    with pytest.raises(DatasetNotFoundError, match="nor a dataset beneath it"):
        mx8.merge([place.out], place.root / "merged")


# which parts are rewritten --------------------------------------------------------------------------------------------


def test_only_the_part_of_a_changed_item_is_rewritten(place: Place) -> None:
    place.write(*range(16), "fail")
    with pytest.raises(ZeroDivisionError, match="line 16"):
        convert(place.job())
    assert place.made() == list(range(17))
    assert not (place.out / "index.json").exists()
    place.write(*range(7), 70, *range(8, 17))
    assert convert(place.job()).samples == 17
    assert place.made() == [5, 6, 7, 8, 9, 15, 16]
    assert numbers(place.out) == [*range(7), 70, *range(8, 17)]


def test_an_error_in_a_worker_is_raised_in_the_parent(place: Place) -> None:
    place.write(*range(8), "fail", *range(9, 12))
    with pytest.raises(ZeroDivisionError, match="line 8"):
        convert(place.job(), workers=2)
    assert not (place.out / "index.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_memory_error_ends_the_conversion_and_makes_no_reject(place: Place, workers: int, capsys: Capture) -> None:
    place.write(*range(8), "memory", *range(9, 12))
    assert main(place.command("--workers", workers)) == 1
    assert "error: line 8: there is not enough memory to convert it" in capsys.readouterr().err
    assert not (place.out / "index.json").exists()
    place.write(*range(12))
    convert(place.job())
    assert numbers(place.out) == list(range(12))


def test_counts_of_a_recipe_cannot_replace_our_json_keys(place: Place, capsys: Capture) -> None:
    names = ("rejects", "snapshot", "samples", "source", "mx8shards", "mine")
    place.recipe.write_text(RECIPE + f"    counts = dict.fromkeys({names}, 0)\n" + COUNTING)
    place.write(1, "two", 3)
    assert main(place.command("--json")) == 4
    said = json.loads(capsys.readouterr().out)
    assert (said["samples"], said["snapshot"], len(said["rejects"])) == (2, mx8.Dataset(place.out).snapshot, 1)
    assert said["mine"] == 2
    conversion = mx8.Dataset(place.out).metadata["conversion"]
    assert (conversion["rejects"], conversion["source"], conversion["mine"]) == (1, place.recipe.name, 2)
    assert conversion["mx8shards"] == version("mx8shards")


COUNTING = """
    real = sample
    def sample(self, item):
        found = self.real(item)
        for name in self.counts:
            self.counts[name] += 1
        return found
"""


def test_the_name_of_a_part_depends_on_everything_that_its_bytes_depend_on(place: Place) -> None:
    place.write(*range(9))
    job = place.job(size_limit="1mb")
    assert isinstance(job.source, Recipe)
    recipe, source = job.source, cast(Any, job.source.open())
    items = source.items()

    def name(run: Any = items, *, options: Any = job.options, **changed: Any) -> str:
        origin = Recipe(recipe.name, {**recipe.arguments, **changed})
        return part_name(basis_of(origin, options, source), source, run)

    first = name()
    names = {first, name(items[:5]), name(items[4:]), name(options={"size_limit": "2mb"}), name(twice=True)}
    for attribute, value in (("twice", True), ("packages", ("numpy",)), ("features", {"turns": True})):
        before = getattr(source, attribute, None)
        setattr(source, attribute, value)
        names.add(name())
        delattr(source, attribute) if before is None else setattr(source, attribute, before)
    place.write(*range(8), 80)
    names.add(name())
    place.write(*range(9))
    place.recipe.write_text(RECIPE + "\n")
    names.add(name())
    assert len(names) == 10
    place.recipe.write_text(RECIPE)
    assert name() == first
    assert all(len(name) == 32 for name in names)


def test_parts_of_another_recipe_or_other_arguments_are_not_reused(place: Place) -> None:
    for number, (old, new) in enumerate((("* (2", "* (3"), ("line {i}", "row {i}"))):
        place.write(*range(12), "fail")
        place.recipe.write_text(RECIPE)
        out = f"out{number}"
        with pytest.raises(ZeroDivisionError):
            convert(place.job(out))
        place.recipe.write_text(RECIPE.replace(old, new).replace("else 1)", "else 1000)"))
        place.made()
        place.write(*range(13))
        convert(place.job(out))
        assert place.made() == list(range(13))
        assert numbers(place.root / out) == [1000 * i for i in range(13)]


def test_parts_with_only_rejects_are_allowed(place: Place) -> None:
    place.write(*"abcde", *range(5, 8), "x", 9, *"vwxyz")
    outcome = convert(place.job())
    assert [item for item, _ in outcome.rejects] == [f"line {i}" for i in (*range(5), 8, *range(10, 15))]
    assert numbers(place.out) == [5, 6, 7, 9]


@pytest.mark.parametrize(
    ("words", "message"), [("a b", "line 0: none of 2 items could be converted: expected a number"), ("", "nothing to")]
)
def test_a_conversion_without_samples_publishes_nothing(place: Place, words: str, message: str) -> None:
    place.write(words)
    with pytest.raises(SourceError, match=message):
        convert(place.job())
    assert not (place.out / "index.json").exists()


def test_an_existing_dataset_is_not_changed(place: Place) -> None:
    place.write(*range(3))
    convert(place.job())
    before = (place.out / "index.json").read_bytes()
    place.made()
    with pytest.raises(DatasetExistsError, match="give another OUT"):
        convert(place.job())
    assert place.made() == []
    assert (place.out / "index.json").read_bytes() == before


def test_rejects_are_json_lines_in_a_file_named_by_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / ".mx8shards").mkdir()
    name = "sha256:" + "ab" * 32
    keep_rejects(tmp_path, name, [("other", "why")])
    path = keep_rejects(tmp_path, name, [("a\nb", "é"), ("caf\udce9", "its name")])
    assert path == tmp_path / ".mx8shards" / f"rejects-{'ab' * 8}.jsonl"
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert lines == [{"item": "a\nb", "reason": "é"}, {"item": "caf\udce9", "reason": "its name"}]


# the command ----------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_snapshot_and_accepts_the_recipes_options(place: Place, capsys: Capture) -> None:
    place.write(*range(7))
    assert main(place.command("--twice", "--size-limit", "1mb", "--compression", "zstd:1")) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{mx8.Dataset(place.out).snapshot}\t7 samples\n", "")
    assert numbers(place.out) == [0, 2, 4, 6, 8, 10, 12]
    entry = json.loads((place.out / "index.json").read_text())["shards"][0]
    assert (entry["compression"], entry["size_limit"]) == ("zstd:1", 1 << 20)


@pytest.mark.parametrize("as_json", [False, True])
def test_with_rejects_the_exit_code_is_4_and_the_report_is_printed(
    place: Place, capsys: Capture, as_json: bool
) -> None:
    place.write(1, "two", 3)
    assert main(place.command(*["--json"] * as_json)) == 4
    out, err = capsys.readouterr()
    snapshot = mx8.Dataset(place.out).snapshot
    reject = {"item": "line 1", "reason": "expected a number, got 'two'"}
    if as_json:
        assert json.loads(out) == {"snapshot": snapshot, "samples": 2, "rejects": [reject]}
    else:
        assert out == f"{snapshot}\t2 samples\n"
    said, _, path = err.strip().partition(": see ")
    assert said == "1 of 3 items could not be converted"
    assert [json.loads(line) for line in Path(path).read_text().splitlines()] == [reject]


NOT_A_RECIPE = "def open(src): pass"
USAGE: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "no source": (lambda place: ["convert"], "SOURCE"),
    "an unknown source": (lambda place: ["convert", "parquet", "a", "b"], "videofolder, or the path of a recipe"),
    "a folder alone": (lambda place: ["convert", str(place.root), "out"], "(mx8shards convert imagefolder "),
    "a missing recipe": (lambda place: ["convert", str(place.root / "no.py"), "a"], "no.py"),
    "no recipe": (lambda place: ["convert", str(place.root / "half.py"), "a"], "a function or class open_source"),
    "OUT in itself": (lambda place: ["convert", "imagefolder", str(place.root), str(place.root / "out")], "outside of"),
    "OUT alone": (lambda place: ["convert", "imagefolder", str(place.root)], "OUT"),
    "no OUT": (lambda place: place.command()[:-1], "OUT"),
    "no worker": (lambda place: place.command("--workers", "0"), "expected an int from 1 to 4096, got 0"),
    "an unknown option": (lambda place: place.command("--fast"), "--fast"),
}


@pytest.mark.parametrize("name", USAGE)
def test_an_invalid_command_line_ends_with_exit_code_2(place: Place, capsys: Capture, name: str) -> None:
    place.write(*range(3))
    (place.root / "half.py").write_text(NOT_A_RECIPE)
    arguments, message = USAGE[name]
    assert main(arguments(place)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not place.out.exists()


def test_help_of_a_source_shows_its_own_options(place: Place, capsys: Capture) -> None:
    assert main(["convert", str(place.recipe), "--help"]) == 0
    said = capsys.readouterr().out
    assert "--twice" in said
    assert "exit codes:" in said
    assert main(["convert", "--help"]) == 0
    said = capsys.readouterr().out
    assert "imagefolder" in said
    assert "exit codes:" in said


def test_a_recipe_may_be_given_by_any_path_and_hold_dataclasses(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    place.write(1, 2)
    monkeypatch.chdir(place.root)
    assert opener_of(place.recipe.name)(place.lines).items() == [("line 0", 0), ("line 1", 1)]
    assert main(["convert", place.recipe.name, "lines", "out"]) == 0
    assert numbers(place.out) == [1, 2]


def test_python_dash_m_convert_runs_the_command(place: Place) -> None:
    place.write(1, 2)
    command = [sys.executable, "-m", "mx8shards.convert", *place.command()[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{mx8.Dataset(place.out).snapshot}\t2 samples\n", "")


def test_a_long_conversion_reports_progress_in_items(capsys: Capture) -> None:
    now = iter([0.0, 10.0])
    Lines("convert", lambda: next(now), "items")(3_000, 12_000)
    assert capsys.readouterr().err == "convert: 25% (3000 of 12000 items, 300 items/s, 30 s left)\n"


def test_a_slow_conversion_is_not_reported_as_0_items_per_second(capsys: Capture) -> None:
    now = iter([0.0, 20.0])
    Lines("convert", lambda: next(now), "items")(1, 40)
    assert capsys.readouterr().err == "convert: 2% (1 of 40 items, 0.05 items/s, 780 s left)\n"


def test_worker_processes_report_items_before_a_part_is_complete(place: Place) -> None:
    place.recipe.write_text(
        RECIPE.replace("        word = self", "        import time; time.sleep(0.4)\n        word = self", 1)
    )
    place.write(*range(8))
    told: list[tuple[int, int]] = []
    convert(place.job(), workers=2, progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (8, 8)
    assert sorted(told) == told
    assert not {done for done, _ in told} <= {3, 5, 8}  # the first part has five items, the second one three


@pytest.mark.parametrize(("option", "value"), [("--size-limit", "much"), ("--compression", "rar")])
def test_invalid_writer_options_are_errors(place: Place, capsys: Capture, option: str, value: str) -> None:
    place.write(*range(3))
    assert main(place.command(option, value)) == 2
    assert repr(value) in capsys.readouterr().err
    assert not place.out.exists()
    assert main(place.command()) == 0
