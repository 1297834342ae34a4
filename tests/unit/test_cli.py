"""Does every command print its function's result, as text and as JSON, and return the right exit code?"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from mx8shards.cli import COMMANDS, main, output
from mx8shards.media import tiles
from tests.maintenance import COLUMNS, STATE, edit_index, flip, make_foreign, sample, write

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> str:
    write(tmp_path / "data", range(100), metadata={"source": "web [red]"})
    return str(tmp_path / "data")


def run(capsys: Capture, *arguments: str, code: int = 0) -> str:
    """Run a command, assert its exit code, and return its output."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if "kernels for" not in line]  # a busy machine may compile for seconds
    assert (not said) is (code == 0), err
    return out


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def fields(text: str) -> dict[str, str]:
    return {row[0]: row[1] for row in lines(text)}


def run_in_subprocess(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mx8shards", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


# every command --------------------------------------------------------------------------------------------------------


def every_command(root: str) -> dict[str, Sequence[str]]:
    return {
        "info": (root,),
        "ls": (root,),
        "cat": (root, "--sample", "7"),
        "summary": (root,),
        "log": (root,),
        "diff": (root, root),
        "verify": (root, "--data"),
        "merge": (root, f"{root}-merged"),
        "gc": (root,),
        "warm-up": ("shuffling",),
    }


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("convert", "sync")]
)  # they have tests of their own
def test_every_command_prints_text_and_json(root: str, capsys: Capture, command: str) -> None:
    arguments = every_command(root)[command]
    found = json.loads(run(capsys, command, *arguments, "--json"))
    assert found
    if command == "merge":
        arguments = (root, f"{root}-again")
    assert run(capsys, command, *arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_does_not_import_numpy(command: str) -> None:
    code = f"import sys; from mx8shards.cli import main; print(main([{command!r}, '--help']), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert done.stdout.startswith(f"usage: mx8shards {command}")
    assert "--json" in done.stdout


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from mx8shards.cli import main; main(['--help']); print([m for m in sys.modules if 'cli.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in COMMANDS if f"    {name} " not in done.stdout] == []
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_printed(capsys: Capture) -> None:
    assert run(capsys, "--version") == f"mx8shards {mx8.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [],
            ["nothing"],
            ["info"],
            ["verify", "data", "--data", "--subset", "5%"],
            ["verify", "data", "--subset", "0%"],
        ),
        *(
            ["merge", "a"],
            ["merge", "a", "b", "--how", "symlink"],
            ["gc", "data", "--keep", "-1"],
            ["cat", "d", "--raw"],
        ),
        *(["cat", "d", "--raw", "--sample", "1"], ["cat", "d", "--raw", "--sample", "1", "--column", "a", "--json"]),
    ],
)
def test_invalid_arguments_are_a_usage_error(capsys: Capture, arguments: list[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: mx8shards")


# exit codes -----------------------------------------------------------------------------------------------------------


def test_an_error_of_this_package_ends_with_exit_code_1_and_its_message(tmp_path: Path, capsys: Capture) -> None:
    assert main(["info", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    wanted = f"error: {tmp_path}/index.json: no dataset here: there is no such file (the directory is empty)\n"
    assert (out, err) == ("", wanted)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_text_that_the_output_encoding_lacks_is_escaped(encoding: str, tmp_path: Path) -> None:
    write(tmp_path / "data", range(3), metadata={"name": "é\ud800"})
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run_in_subprocess("info", str(tmp_path / "data"), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\ud800" in done.stdout


def test_a_system_error_ends_with_exit_code_1(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "index.json").mkdir()
    assert main(["info", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_format_or_integrity_error_ends_with_exit_code_3(root: str, capsys: Capture) -> None:
    edit_index(Path(root), lambda index: index["mx8shards"]["metadata"].update(a=1))
    assert main(["info", root]) == 3
    assert "changed outside mx8shards" in capsys.readouterr().err
    make_foreign(Path(root))
    Path(root, "index.json").write_bytes(b"{")
    assert main(["ls", root]) == 3


def test_damage_ends_with_exit_code_3_and_is_reported_on_stdout(root: str, capsys: Capture) -> None:
    flip(Path(root, "shard.00001.mds"), 8 * 1500)
    assert main(["verify", root, "--data"]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    (damaged,) = [value for name, value in lines(out) if name == "damaged"]
    assert damaged.startswith("shard.00001.mds: integrity: blake3: expected ")
    start, stop = mx8.verify(root, data=True).damage[0].samples[0]
    assert damaged.endswith(f"; samples {start}-{stop - 1}")
    assert main(["verify", root, "--data", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(("name", "expected"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_ctrl_c_ends_with_exit_code_130_and_sigterm_with_143(root: str, name: str, expected: int) -> None:
    code = f"""
import signal, sys
from mx8shards.cli import info, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background has it ignored
info.run = lambda args: signal.raise_signal(signal.{name})
sys.exit(main(["info", {root!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")


def test_verify_says_that_contents_were_not_read(root: str, capsys: Capture) -> None:
    assert fields(run(capsys, "verify", root))["result"] == (
        "the structure is sound; contents were not read (--data reads every byte)"
    )
    assert "the others were not read" in fields(run(capsys, "verify", root, "--subset", "1%"))["result"]
    assert fields(run(capsys, "verify", root, "--data"))["result"] == "sound"


def test_main_restores_the_callers_signal_handlers(root: str) -> None:
    code = f"""
import signal
from mx8shards.cli import info, main
signal.signal(signal.SIGINT, signal.default_int_handler)
info.run = lambda args: signal.raise_signal(signal.SIGINT)
assert main(["info", {root!r}]) == 130
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
assert main(["info", {root!r}]) == 130
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_pipe_ends_a_command_quietly(root: str) -> None:
    write(Path(root), range(100, 3000), mode="append")
    command = [sys.executable, "-m", "mx8shards", "cat", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"sample 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


def test_python_dash_m_runs_the_command(root: str) -> None:
    done = run_in_subprocess("info", root)
    assert done.returncode == 0
    assert fields(done.stdout)["snapshot"] == mx8.Dataset(root).snapshot
    assert run_in_subprocess("info", f"{root}/nothing").returncode == 1


# info, ls, log, summary -----------------------------------------------------------------------------------------------


def test_info_describes_the_dataset(root: str, capsys: Capture) -> None:
    found = fields(run(capsys, "info", root))
    dataset = mx8.Dataset(root)
    assert found["snapshot"] == dataset.snapshot
    assert (found["sealed"], found["samples"], found["parent"]) == ("yes", "100", "none")
    assert found["column blob"] == "bytes"
    assert found["metadata source"] == "web [red]"
    assert found["hashes"] == "blake3, xxh128"
    make_foreign(Path(root))
    assert fields(run(capsys, "info", root))["sealed"].startswith("no")
    assert json.loads(run(capsys, "info", root, "--json"))["columns"] == dataset.columns


def test_info_shows_missing_and_wrong_files(root: str, capsys: Capture) -> None:
    first = mx8.Dataset(root).snapshot
    found = fields(run(capsys, "info", root))
    assert (found["dataset"], found["state"], found["snapshots kept"]) == (root, "the current snapshot", "1")
    assert found["files"] == "all exist, with the right sizes"
    write(Path(root), range(100, 110), mode="append", metadata={"classes": [f"class {i}" for i in range(100)]})
    found = fields(run(capsys, "info", root))
    assert (found["state"], found["snapshots kept"]) == ("the current snapshot", "2")
    assert found["metadata classes"] == "100: class 0, class 1, class 2, class 3, class 4, …"
    assert fields(run(capsys, "info", f"{root}@{first}"))["state"] == "an earlier snapshot"
    shards = sorted(Path(root).glob("shard.*"))
    shards[0].unlink()
    os.truncate(shards[1], 5)
    text = f"2 of {len(mx8.Dataset(root).shards.starts) - 1} are wrong: "
    assert (
        fields(run(capsys, "info", root))["files"] == f"{text}{shards[0].name} (missing), {shards[1].name} (wrong size)"
    )
    told = json.loads(run(capsys, "info", root, "--json"))
    assert (told["missing"], told["resized"]) == ([shards[0].name], [shards[1].name])


def test_info_says_how_much_compression_saves(tmp_path: Path, capsys: Capture) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "bytes"}, compression="zstd") as writer:
        writer.write({"x": bytes(100_000)})
    found = fields(run(capsys, "info", str(tmp_path / "data")))
    assert found["compression"] == "zstd"
    assert found["stored bytes"].endswith("% of raw)")


def test_ls_lists_the_shards(root: str, capsys: Capture) -> None:
    shards = sorted(Path(root).glob("shard.*"))
    rows = lines(run(capsys, "ls", root))
    assert [row[3] for row in rows] == [path.name for path in shards]
    assert [int(row[1]) for row in rows] == [path.stat().st_size for path in shards]
    assert sum(int(row[0]) for row in rows) == 100
    assert {row[2] for row in rows} == {"none"}


def test_gc_says_which_parts_of_ranks_it_removed_and_which_stay(tmp_path: Path, capsys: Capture) -> None:
    for rank in range(2):
        write(tmp_path, range(10), rank=rank, world_size=2)
    snapshot = run(capsys, "merge", str(tmp_path), str(tmp_path)).strip()
    write(tmp_path, range(10), rank=0, world_size=2, mode="append")
    merged = [f".mx8shards/parts/rank-0000{rank}-of-00002" for rank in range(2)]
    left = f".mx8shards/parts/rank-00000-of-00002-on-{snapshot[7:23]}"
    said = lines(run(capsys, "gc", str(tmp_path)))
    parts = [value for name, value in said if name == "part"]
    (hint,) = [value for name, value in said if name == "hint"]
    assert f"`mx8shards merge --append {tmp_path / left} {tmp_path}` to add their samples" in hint
    assert parts == [f"{part}: removed" for part in merged] + [f"{left}: kept, because no snapshot has its samples"]
    found = json.loads(run(capsys, "gc", str(tmp_path), "--json"))
    assert (found["parts"], found["removed_parts"]) == ([left], [])
    write(tmp_path, range(10), rank=1, world_size=2, mode="append")
    run(capsys, "merge", "--append", str(tmp_path), str(tmp_path))
    assert len(mx8.Dataset(tmp_path)) == 40


def test_log_lists_snapshots_and_gc_removes_them(root: str, capsys: Capture) -> None:
    ids = [mx8.Dataset(root).snapshot, write(Path(root), range(5), mode="overwrite")]
    rows = lines(run(capsys, "log", root))
    assert [row[0] for row in rows] == ids[::-1]
    assert [row[5] for row in rows] == ["current", ""]
    removed = run(capsys, "gc", root, "--keep", "1")
    assert f"removed\t{ids[0]}" in removed
    assert f"kept\t{ids[1]}" in removed
    assert len(lines(run(capsys, "log", root))) == 1


def test_summary_draws_histograms(root: str, capsys: Capture) -> None:
    text = run(capsys, "summary", root)
    assert "label: int, 8 bytes\nfrom 0 to 9, mean 4.5\n" in text
    assert f"3\t10\t{'█' * 40}" in text
    assert "\nblob: bytes, 40 bytes each (from 100 samples)\n" in text
    assert "\ntext: str, 6 bytes to 7 bytes, median 7 bytes, mean 7 bytes (from 100 samples)\n" in text


def test_summary_names_classes_and_counts_whole_numbers(tmp_path: Path, capsys: Capture) -> None:
    columns = {"label": "int", "size": "int", "same": "str", "rare": "float32", "none": "float32", "few": "int"}
    names = ["[red]", *(f"class {i}" for i in range(1, 100))]
    with mx8.Writer(tmp_path, columns=columns, metadata={"classes": names}) as writer:
        for i in range(300):
            label = 0 if i < 150 else i % 100
            numbers = {"label": label, "size": i, "rare": math.nan if i else 1.0, "none": math.nan}
            writer.write({**numbers, "same": "abc", "few": 5 if i else 1000})
    text = run(capsys, "summary", str(tmp_path))
    assert "0 [red]\t151\t" in text
    assert "\n50 class 50\t2\t" in text
    assert "and 80 more, with " in text
    assert "\n0 to 14\t15\t" in text
    assert "\n285 to 299\t15\t" in text
    assert "\nsame: str, 3 bytes each (from 300 samples)\n" in text
    assert "from 1.0 to 1.0, mean 1, 299 not finite\n" in text
    assert "\nnone: float32, 4 bytes\n300 values, all NaN or infinite\n" in text
    assert [line for line in text.splitlines() if "\t0\t" in line] == []
    told = {column["name"]: column for column in json.loads(run(capsys, "summary", str(tmp_path), "--json"))["columns"]}
    assert told["label"]["classes"] == names
    assert told["label"]["numbers"]["values"][0] == [0, 151]
    assert told["same"]["lengths"] == {
        "unit": "bytes",
        "minimum": 3,
        "median": 3.0,
        "mean": 3.0,
        "maximum": 3,
        "samples": 300,
    }


def test_summary_shows_pixels_before_columns_and_classes_once(tmp_path: Path, capsys: Capture) -> None:
    with mx8.Writer(tmp_path, columns={"image": "png", "label": "int"}, metadata={"classes": ["cat"]}) as writer:
        writer.write({"image": Image.new("RGB", (3, 2)), "label": 0})
    text = run(capsys, "summary", str(tmp_path), "--pixels")
    assert text.index("image: pixels") < text.index("image: png, ")
    assert text.count("0 cat") == 1


# cat ------------------------------------------------------------------------------------------------------------------


def test_cat_prints_the_samples_that_were_asked_for(root: str, capsys: Capture) -> None:
    text = run(capsys, "cat", root, "--sample", "-1", "--sample", "7")
    assert text.startswith("sample 99\n  blob: 40 bytes ")
    assert "  label: 9\n  score: 24.75\n  text: 'text 99'\nsample 7\n" in text
    assert run(capsys, "cat", root, "--sample", "7", "--column", "label") == "sample 7\n  label: 7\n"
    assert run(capsys, "cat", root).count("sample ") == 100


def test_cat_raw_writes_payloads_unchanged(root: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["cat", root, "--sample", "-3", "--column", "blob", "--raw"]) == 0
    assert capfdbinary.readouterr() == (sample(97)["blob"], b"")


def test_cat_json_has_every_value(tmp_path: Path, capsys: Capture) -> None:
    values = {"a": b"\x00\xff", "b": "text", "c": 7, "d": np.float32(1.5), "e": math.nan, "f": {"x": [1, None, True]}}
    values |= {"g": np.arange(6, dtype=np.int16).reshape(2, 3), "h": Decimal("1.50")}
    encodings = ["bytes", "str", "int", "float32", "float64", "json", "ndarray", "str_decimal"]
    with mx8.Writer(tmp_path, columns=dict(zip(values, encodings, strict=True))) as writer:
        writer.write(values)
    found = json.loads(run(capsys, "cat", str(tmp_path), "--json"))
    assert found["sample"] == 0
    assert base64.b64decode(found["columns"].pop("a")["base64"]) == b"\x00\xff"
    expected = {"b": "text", "c": 7, "d": 1.5, "e": "nan", "f": {"x": [1, None, True]}, "g": [[0, 1, 2], [3, 4, 5]]}
    assert found["columns"] == {**expected, "h": "1.50"}
    text = run(capsys, "cat", str(tmp_path))
    assert "  a: 2 bytes 00 ff\n" in text
    assert "  g: int16 array of shape (2, 3): 0 1 2 3 4 5\n" in text


def noise(size: tuple[int, int], kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(out, format=kind, **options)
    return out.getvalue()


def test_cat_describes_payloads(tmp_path: Path, capsys: Capture) -> None:
    columns = {"a": "bytes", "b": "jpeg", "c": "png", "d": "pil", "e": "json", "f": "bytes", "label": "int"}
    picture = Image.new("RGB", (7, 5))
    values = {"a": noise((50, 40), "PNG"), "b": noise((500, 375), "JPEG"), "c": noise((3, 2), "PNG"), "d": picture}
    values |= {"e": {"é": [1, None]}, "f": "tëxt".encode(), "label": 1}
    with mx8.Writer(tmp_path, columns=columns, metadata={"classes": ["cat", "dog"]}) as writer:
        writer.write(values)
    text = run(capsys, "cat", str(tmp_path))
    assert text.splitlines() == [
        "sample 0",
        f"  a: {len(values['a'])} bytes, PNG 50×40",
        f"  b: {len(values['b'])} bytes, JPEG 500×375",
        f"  c: {len(values['c'])} bytes, PNG 3×2",
        "  d: picture 7×5 RGB",
        '  e: JSON {"é": [1, null]}',
        "  f: 5 bytes, UTF-8 text: 'tëxt'",
        "  label: 1 (dog)",
    ]
    found = json.loads(run(capsys, "cat", str(tmp_path), "--json"))
    assert base64.b64decode(found["columns"]["b"]["base64"]) == values["b"]


def test_cat_original_restores_tiled_jpegs(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    source, other = noise((500, 375), "JPEG"), noise((50, 40), "PNG")
    tiled = tiles.tile(source)
    assert tiled != source
    with mx8.Writer(tmp_path, columns={"image": "bytes"}) as writer:
        writer.write({"image": tiled})
        writer.write({"image": other})
    assert main(["cat", str(tmp_path), "--sample", "0"]) == 0
    assert f"{len(tiled)} bytes, JPEG 500×375, tiled\n" in capfdbinary.readouterr().out.decode()
    for sample_id, option, wanted in (("0", "--original", source), ("0", "--raw", tiled), ("1", "--original", other)):
        assert main(["cat", str(tmp_path), "--sample", sample_id, "--column", "image", option]) == 0
        assert capfdbinary.readouterr() == (wanted, b"")
    for wrong in (["--original"], ["--original", "--sample", "0"], ["--original", "--raw", "--sample", "0"]):
        assert main(["cat", str(tmp_path), *wrong]) == 2


EVIL = "a\x1b]0;owned\x07\x9b31m\u202e[red]\n"


def test_control_characters_of_a_dataset_do_not_reach_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    root = str(tmp_path / "data")
    columns = {EVIL: "bytes", "label": "int", "text": "str", "json": "json"}
    metadata = {"classes": [EVIL, "dog"], EVIL: EVIL}
    with mx8.Writer(root, columns=columns, metadata=metadata) as writer:
        for label in (0, 1):
            writer.write({EVIL: EVIL.encode(), "label": label, "text": EVIL, "json": {EVIL: EVIL}})
    wrong = Path(f"{root}{EVIL}")
    commands = [[name, *arguments] for name, arguments in every_command(root).items() if name != "cat"]
    commands += [["cat", root], ["cat", root, "--column", EVIL], ["cat", root, "--column", f"{EVIL}x"]]
    commands += [["info", str(wrong)], ["ls", f"{root}@sha256:{'0' * 64}"], ["diff", root, root]]
    for command in commands:
        main(command)
        out, err = capsys.readouterr()
        assert [c for c in out + err if not c.isprintable() and c not in "\n\t"] == [], command
        assert "owned" not in out + err or "\\x1b]0;owned\\x07\\x9b31m\\u202e[red]\\n" in out + err


def test_names_on_a_terminal_are_not_taken_for_markup(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with mx8.Writer(root, columns={"label": "int"}, metadata={"classes": [EVIL], "[red]": EVIL}) as writer:
        writer.write({"label": 0})
    for command in (["info"], ["summary"], ["cat"]):
        _, shown = on_a_terminal(*command, str(root))
        assert not set("\x07\x9b\u202e") & set(shown)
        assert "\x1b]0;" not in shown
        assert "[red]" in shown


def test_errors_escape_control_characters() -> None:
    error = mx8.FormatError(EVIL, subject=EVIL, hint=EVIL)
    assert all(character.isprintable() for character in str(error))
    assert str(error).count("\\x1b]0;owned") == 3


def test_cat_prints_every_value_on_one_short_line(tmp_path: Path, capsys: Capture) -> None:
    with mx8.Writer(tmp_path, columns={"a": "bytes", "b": "str", "c": "json", "d": "ndarray"}) as writer:
        writer.write({"a": bytes(10_000), "b": "line\n" * 1000, "c": ["x" * 50] * 1000, "d": np.zeros((100, 100))})
    text = run(capsys, "cat", str(tmp_path))
    assert len(text.splitlines()) == 5
    assert max(map(len, text.splitlines())) < 300


def test_cat_refuses_unknown_samples_and_columns(root: str, capsys: Capture) -> None:
    for arguments, message in ((("--sample", "100"), "100 samples"), (("--column", "nothing"), "'nothing'")):
        assert main(["cat", root, *arguments]) == 1
        assert message in capsys.readouterr().err


def test_cat_never_unpickles_and_prints_the_payload(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with mx8.Writer(tmp_path, columns={"x": "pkl"}, allow_pickle=True) as writer:
        writer.write({"x": b"not a pickle"})
    assert main(["cat", str(tmp_path)]) == 1
    assert b"runs code when it is read" in capfdbinary.readouterr().err
    assert main(["cat", str(tmp_path), "--sample", "0", "--column", "x", "--raw"]) == 0
    assert capfdbinary.readouterr().out == b"not a pickle"


# diff, verify, merge --------------------------------------------------------------------------------------------------


def test_diff_lists_the_samples(root: str, capsys: Capture) -> None:
    old = mx8.Dataset(root).snapshot
    write(Path(root), range(100, 105), mode="append", metadata={"source": "elsewhere"})
    found = fields(run(capsys, "diff", f"{root}@{old}", root))
    assert (found["added"], found["removed"], found["changed"]) == ("5 samples: 100-104", "0 samples", "0 samples")
    assert found["metadata"] == "changed"
    assert json.loads(run(capsys, "diff", f"{root}@{old}", root, "--json"))["added"] == [[100, 105]]


def test_verify_reports_what_it_checked(root: str, capsys: Capture) -> None:
    shards = len(list(Path(root).glob("shard.*")))
    assert fields(run(capsys, "verify", root))["checked"].startswith(f"sizes and offsets: {shards} shards, ")
    assert f"{shards} of them byte by byte" in fields(run(capsys, "verify", root, "--data"))["checked"]
    assert "1 of them byte by byte" in fields(run(capsys, "verify", root, "--subset", "1%"))["checked"]
    make_foreign(Path(root))
    assert fields(run(capsys, "verify", root, "--data"))["unchecked"].startswith(
        f"the payload bytes of {shards} shards"
    )


def test_verify_seal_adds_hashes(root: str, capsys: Capture) -> None:
    make_foreign(Path(root))
    found = fields(run(capsys, "verify", root, "--seal"))
    assert found["sealed"] == "yes"
    assert found["snapshot"] == mx8.Dataset(root).snapshot
    assert mx8.Dataset(root).sealed


def test_merge_sets_the_metadata_of_the_result(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, range(3), metadata={"name": name})
    command = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "out")]
    assert main(command) == 1
    assert "with metadata={…} (--metadata)" in capsys.readouterr().err
    run(capsys, *command, "--metadata", '{"name": "both"}')
    assert mx8.Dataset(tmp_path / "out").metadata == {"name": "both"}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["merge", "a", "b", "--metadata", "[1]"], "a JSON object"),
        (["merge", "a", "b", "--metadata", "{"], "a JSON object"),
        (["verify", "a", "--subset", "0%"], "a fraction above 0, up to 1"),
        (["gc", "a", "--keep", "-1"], "an int from 0"),
        (["gc", "a", "--keep", "x"], "an int from 0"),
        (["summary", "a", "--pixels", "--subset", "2"], "a fraction above 0, up to 1"),
    ],
)
def test_a_usage_error_lists_the_allowed_values(capsys: Capture, arguments: list[str], allowed: str) -> None:
    assert main(arguments) == 2
    assert allowed in capsys.readouterr().err


def test_merge_publishes_parts_of_ranks_and_prints_the_id(tmp_path: Path, capsys: Capture) -> None:
    for rank in range(2):
        write(tmp_path, range(10 * rank, 10 * rank + 10), rank=rank, world_size=2)
    snapshot = run(capsys, "merge", str(tmp_path), str(tmp_path), "--how", "move").strip()
    assert mx8.Dataset(tmp_path).snapshot == snapshot
    assert len(mx8.Dataset(tmp_path)) == 20
    assert not (tmp_path / STATE / "parts").exists()


# on a terminal --------------------------------------------------------------------------------------------------------


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run a command on a terminal. Returns its exit code and output."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mx8shards", *arguments]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        found = b""
        try:
            while piece := os.read(controller, 1 << 16):
                found += piece
        except OSError:  # on Linux: the other end was closed
            pass
        finally:
            os.close(controller)
    return process.returncode, found.decode()


def test_a_terminal_gets_tables_with_headings_in_which_brackets_are_not_markup(root: str) -> None:
    code, text = on_a_terminal("ls", root)
    assert code == 0
    assert "samples" in text
    assert "basename" in text
    assert "shard.00000.mds" in text
    assert "web [red]" in on_a_terminal("info", root)[1]
    assert mx8.Dataset(root).snapshot[:19] in on_a_terminal("log", root)[1]


def test_a_terminal_gets_a_progress_bar(root: str) -> None:
    code, text = on_a_terminal("verify", root, "--data")
    assert code == 0
    assert "━" in text
    assert "sound" in text


def test_without_a_terminal_progress_is_a_line_after_two_seconds_and_every_ten(capsys: Capture) -> None:
    now = 0.0
    tell = output.Lines("verify", clock=lambda: now)
    for now in range(31):
        tell(now << 30, 30 << 30)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "verify: 7% (2.0 GiB of 30.0 GiB, 1.0 GiB/s, 28 s left)",
        "verify: 40% (12.0 GiB of 30.0 GiB, 1.0 GiB/s, 18 s left)",
        "verify: 73% (22.0 GiB of 30.0 GiB, 1.0 GiB/s, 8 s left)",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 80, "1073741824.0 PiB")],
)
def test_sizes_are_printed_with_units(size: int, text: str) -> None:
    assert output.size_text(size) == text


def test_long_lists_of_ranges_are_shortened() -> None:
    assert output.ranges_text([(0, 1), (5, 9)]) == "0, 5-8"
    assert output.ranges_text([(i, i + 1) for i in range(0, 40, 2)]).endswith("14 and 12 more ranges")


def test_the_dataset_of_these_tests_has_the_expected_columns(root: str) -> None:
    assert mx8.Dataset(root).columns == COLUMNS
