"""Is an open shard read correctly or refused if its file is changed, truncated or removed?"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards.format.columns import Columns
from mx8shards.format.shard_bytes import check_table
from mx8shards.shards import shard as shard_module
from tests import reference
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read

COLUMNS = {"blob": "bytes", "id": "int"}


def payloads(count: int, size_bytes: int = 300) -> list[dict[str, bytes]]:
    return [{"blob": bytes([i]) * size_bytes, "id": struct.pack("<q", i)} for i in range(count)]


def foreign(root: Path, *shards: list[dict[str, bytes]], **options: Any) -> Path:
    return reference.write_dataset(root, COLUMNS, shards or [payloads(20)], **options)


def shard_file(root: Path) -> Path:
    (found,) = root.glob("shard.*")
    return found


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


# damage found when a shard is opened ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 3, 4, 40, 87, 88, 500, -1])
def test_a_truncated_shard_is_an_error_with_both_sizes(size_bytes: int, tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    whole = shard_file(root).stat().st_size
    os.truncate(shard_file(root), size_bytes if size_bytes >= 0 else whole - 1)
    found = shard_file(root).stat().st_size
    with pytest.raises(
        mx8.FormatError, match=rf"^data/shard\.00000\.mds: expected {whole} bytes \(the index\), got {found}$"
    ):
        mx8.Dataset(root)[0]


def test_a_shard_that_is_too_long_is_refused(tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    with shard_file(root).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(mx8.FormatError, match="bytes \\(the index\\), got"):
        mx8.Dataset(root)[0]


@pytest.mark.parametrize(
    ("at", "word", "message"),
    [
        (0, 19, r"sample count: expected 20 \(the index\), got 19"),
        (4, 87, r"offset 0 of 20: expected at least 88 \(end of the table\), got 87"),
        (4 + 80, 1 << 31, r"offset 20 of 20: expected \d+ \(end of file\), got 2147483648"),
        (4 + 40, 0, r"offset 10 of 20: expected at least \d+ \(.*12 bytes.*\), got 0"),
        (4 + 40, (1 << 32) - 1, r"offset 11 of 20: expected at least \d+ .*, got \d+"),
    ],
)
def test_a_damaged_offset_table_is_an_error_that_names_shard_and_offset(
    at: int, word: int, message: str, tmp_path: Path
) -> None:
    root = foreign(tmp_path / "data")
    overwrite(shard_file(root), at, struct.pack("<I", word))
    for ask in (lambda d: d[0], lambda d: d.payload(0, "id"), lambda d: d.column("id"), lambda d: d.column("blob")[19]):
        with mx8.Dataset(root) as dataset, pytest.raises(mx8.FormatError, match=rf"^data/shard\.00000\.mds: {message}"):
            ask(dataset)


@pytest.mark.parametrize("bad", [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) + 5])
def test_damage_in_any_part_of_a_long_offset_table_is_found(bad: int) -> None:
    count = (3 << 20) + 5
    columns = Columns.of({"x": "uint8"})
    words = np.concatenate(([count], np.arange(count + 1) + 4 * (count + 2))).astype("<u4")
    size = int(words[-1])

    def check() -> None:
        data = words.tobytes()
        check_table(lambda begin, length: data[begin : begin + length], count, size, columns)

    check()
    words[1 + bad] = 0
    message = "end of file" if bad == count else f"offset {bad} of {count}: expected at least {int(words[bad]) + 1} "
    with pytest.raises(mx8.FormatError, match=message):
        check()


HUGE_TABLE = """
import json, resource, shutil, struct, sys
from pathlib import Path
import mx8shards as mx8

root, samples = Path(sys.argv[1]), 100_000_000
index = json.loads((root / "index.json").read_bytes())
shard = index["shards"][0]
begin = 4 * (samples + 2)
shard["samples"], shard["raw_data"]["bytes"], shard["raw_data"]["hashes"] = samples, begin + samples, {}
del index["mx8shards"]
shutil.rmtree(root / ".mx8shards")
(root / "index.json").write_text(json.dumps(index))
with (root / "shard.00000.mds").open("wb") as file:
    file.write(struct.pack("<II", samples, begin))
    file.truncate(begin + samples)
    file.seek(begin - 4)
    file.write(struct.pack("<I", begin + samples))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    mx8.Dataset(root)[0]
except mx8.FormatError as error:
    print(error)
for damage in mx8.verify(root, data=True).damage:
    print(damage.error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_a_sparse_shard_that_claims_a_huge_table_takes_no_memory_for_it(tmp_path: Path, repository: Path) -> None:
    root = tmp_path / "data"
    with mx8.Writer(root, columns={"x": "uint8"}) as writer:
        writer.write({"x": 1})
    done = subprocess.run(
        [sys.executable, "-c", HUGE_TABLE, str(root)], cwd=repository, capture_output=True, text=True, check=True
    )
    *messages, mebibytes = done.stdout.splitlines()
    assert len(messages) == 2
    assert all("offset 1 of 100000000: expected at least" in message for message in messages)
    assert int(mebibytes) < 100  # the table claims 381


@pytest.mark.parametrize("size_bytes", [10, 5000, 40_000])
@pytest.mark.parametrize("lie", [0, 1, -1, 0xFFFFFFFF, 0x80000000])
def test_inconsistent_sizes_are_an_error_that_names_the_sample(lie: int, size_bytes: int, tmp_path: Path) -> None:
    """Below and above the size up to which a sample is read in one call."""
    root = foreign(tmp_path / "data", payloads(3, size_bytes))
    raw = shard_file(root).read_bytes()
    begin, end = struct.unpack_from("<II", raw, 4 + 4 * 1)
    claimed = size_bytes + lie if lie in (1, -1) else lie
    overwrite(shard_file(root), begin, struct.pack("<I", claimed))
    expected = f"columns of {end - begin} bytes in all, got {claimed + 12}"
    message = rf"^data/shard\.00000\.mds: sample 1 of this shard: expected {expected}$"
    with mx8.Dataset(root) as dataset:
        for ask in (lambda: dataset[1], lambda: dataset.payload(1, "id"), lambda: dataset.column("id")):
            with pytest.raises(mx8.FormatError, match=message):
                ask()
        assert dataset[0]["id"] == 0
        assert dataset[2]["id"] == 2


def test_an_undecodable_payload_is_an_error_that_names_shard_sample_and_column(tmp_path: Path) -> None:
    columns = {"a": "int", "text": "str"}
    samples = [{"a": bytes(8), "text": b"fine"}, {"a": bytes(8), "text": b"\xff"}]
    with mx8.Dataset(reference.write_dataset(tmp_path / "data", columns, [samples])) as dataset:
        with pytest.raises(
            mx8.FormatError, match=r"^data/shard\.00000\.mds: sample 1 of this shard, column 'text': expected UTF-8"
        ):
            dataset[1]
        with pytest.raises(mx8.FormatError, match="sample 1 of this shard, column 'text'"):
            dataset.column("text")[1]
        assert dataset[0]["text"] == "fine"
        assert bytes(dataset.payload(1, "text")) == b"\xff"
    with mx8.Dataset(tmp_path / "data", columns=["a"]) as dataset:
        assert dataset[1] == {"a": 0}


@pytest.mark.parametrize("size_bytes", [100, 1 << 14, (1 << 14) + 1, 100_000])
def test_small_and_large_samples_are_read_correctly(size_bytes: int, tmp_path: Path) -> None:
    wanted = [{"blob": p["blob"], "id": i} for i, p in enumerate(payloads(5, size_bytes))]
    root = foreign(tmp_path / "data", payloads(5, size_bytes))
    assert list(mx8.Dataset(root)) == wanted
    assert list(mx8.Dataset(root, columns=["id"])) == [{"id": i} for i in range(5)]
    assert mx8.Dataset(root).column("id").tolist() == list(range(5))


@pytest.mark.parametrize("size_bytes", [100, 100_000])
def test_samples_are_read_correctly_with_and_without_tables_in_memory(size_bytes: int, tmp_path: Path) -> None:
    """With memory for the offset tables of none, one and both shards."""
    root = foreign(tmp_path / "data", payloads(5, size_bytes), payloads(4, size_bytes))
    wanted = list(mx8.Dataset(root))
    for room in (0, 4 * 7, 1 << 20):
        with mx8.Dataset(root) as dataset:
            dataset.shards._files.table_room = room
            assert list(dataset) == wanted
            assert [bytes(dataset.payload(i, "blob")) for i in range(9)] == [sample["blob"] for sample in wanted]
            assert dataset.shards._files.table_room == room - {0: 0, 4 * 7: 4 * 7}.get(room, 4 * (7 + 6))


# hashes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd", "gz:0", "snappy"])
def test_verify_shard_finds_a_flipped_bit_when_the_shard_is_opened(compression: str | None, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with mx8.Writer(root, columns=NUMBERED, compression=compression) as writer:
        for sample in numbered_samples(20):
            writer.write(sample)
    with mx8.Dataset(root, verify="shard") as dataset:
        assert same(list(dataset), samples_as_read(NUMBERED, numbered_samples(20)))
    damaged = bytearray(shard_file(root).read_bytes())
    damaged[-3] ^= 4
    shard_file(root).write_bytes(damaged)
    for ask in (lambda d: d[0], lambda d: d.payload(3, "name"), lambda d: d.column("name")[0]):
        with (
            mx8.Dataset(root, verify="shard") as dataset,
            pytest.raises(mx8.IntegrityError, match=r"^data/shard\.00000\.mds.*: blake3: expected [0-9a-f]{64}, got"),
        ):
            ask(dataset)
    if compression is None:  # well-formed, so without verify it is not noticed
        assert len(list(mx8.Dataset(root))) == 20


def test_verify_shard_finds_a_damaged_decompressed_copy(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with mx8.Writer(root, columns=NUMBERED, compression="zstd") as writer:
        for sample in numbered_samples(20):
            writer.write(sample)
    list(mx8.Dataset(root))
    (cached,) = (root / ".mx8shards" / "cache").glob("*.mds")
    damaged = bytearray(cached.read_bytes())
    damaged[-3] ^= 4
    cached.write_bytes(damaged)
    with mx8.Dataset(root, verify="shard") as dataset, pytest.raises(mx8.IntegrityError, match="blake3"):
        dataset[0]


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256"])
def test_verify_shard_checks_any_known_hash_of_foreign_shards(name: str, tmp_path: Path) -> None:
    root = foreign(tmp_path / "data", hashes=[name])
    assert mx8.Dataset(root, verify="shard")[3]["id"] == 3
    overwrite(shard_file(root), shard_file(root).stat().st_size - 1, b"\x7f")
    with mx8.Dataset(root, verify="shard") as dataset, pytest.raises(mx8.IntegrityError, match=f": {name}: expected"):
        dataset[3]


def test_verify_shard_accepts_shards_without_hashes(tmp_path: Path) -> None:
    assert mx8.Dataset(foreign(tmp_path / "data"), verify="shard")[3]["id"] == 3


# files that change after opening --------------------------------------------------------------------------------------

# Shared by the two tests below, which run it in a subprocess, because a bug would kill it by SIGBUS.
SHRINKING = """
import os, sys, shutil, threading
from pathlib import Path
import numpy as np
import mx8shards as mx8
from mx8shards.shards import shard as shard_module
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read

root, compression = Path(sys.argv[1]), sys.argv[2] or None
wanted = samples_as_read(NUMBERED, numbered_samples(400))
with mx8.Writer(root, columns=NUMBERED, compression=compression) as writer:
    for sample in numbered_samples(400):
        writer.write(sample)
shutil.rmtree(root / ".mx8shards" / "sidecars")

def opened():
    dataset = mx8.Dataset(root)
    assert same(list(dataset), wanted)
    dataset.payload(0, "id"), dataset.column("id")   # mapped now
    return dataset

opened()
(file,) = root.glob(".mx8shards/cache/*.mds") if compression else root.glob("shard.*")
whole = file.read_bytes()
assert len(whole) > 3 * 4096
"""


def run_in_subprocess(code: str, repository: Path, *arguments: str) -> None:
    command = [sys.executable, "-c", SHRINKING + code, *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("compression", ["", "zstd"], ids=["raw", "zstd"])
def test_a_file_that_shrinks_is_an_error_and_not_a_sigbus(compression: str, tmp_path: Path, repository: Path) -> None:
    code = """
def refused(ask):
    try:
        ask()
    except mx8.FormatError as error:
        assert "as when it was opened" in str(error), error
        return True

for size in (0, 1, 4, 1000, 1603, 1608, 4096, 4097, 8192, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
    file.write_bytes(whole)
    dataset = opened()
    os.truncate(file, size)
    found = [i for i in range(400) if refused(lambda: dataset[i])]
    assert 399 in found and found == list(range(found[0], 400)), found
    assert size > 1608 or len(found) == 400 or size >= 1000
    for i in (0, 200, 399):
        assert refused(lambda: dataset.payload(i, "data"))
        assert refused(lambda: dataset.select([i]).column("id"))
    assert refused(lambda: dataset.column("id")) and refused(lambda: dataset.where("x", 1.0))
    assert same([dataset[i] for i in range(found[0])], wanted[: found[0]])
"""
    run_in_subprocess(code, repository, str(tmp_path / "data"), compression)


@pytest.mark.parametrize("compression", ["", "zstd"], ids=["raw", "zstd"])
def test_samples_read_while_a_thread_shrinks_and_restores_the_file_are_right_or_errors(
    compression: str, tmp_path: Path, repository: Path
) -> None:
    code = """
dataset, rng, done = opened(), np.random.default_rng(3), threading.Event()

def shrink_and_restore():
    descriptor = os.open(file, os.O_WRONLY)
    sizes = np.random.default_rng(4)
    while not done.is_set():
        os.ftruncate(descriptor, int(sizes.integers(0, len(whole))))
        os.pwrite(descriptor, whole, 0)

thread = threading.Thread(target=shrink_and_restore)
thread.start()
answers = {True: 0, False: 0}
try:
    while min(answers.values()) < 300:
        i = int(rng.integers(400))
        try:
            assert same(dataset[i], wanted[i]), i
            answers[True] += 1
        except mx8.FormatError:
            answers[False] += 1
finally:
    done.set()
    thread.join()
"""
    run_in_subprocess(code, repository, str(tmp_path / "data"), compression)


def test_an_open_file_that_is_replaced_by_renaming_is_read_unchanged(tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    dataset = mx8.Dataset(root)
    assert dataset[0]["id"] == 0
    replace(shard_file(root))
    assert [sample["id"] for sample in dataset] == list(range(20))
    assert dataset.column("id").tolist() == list(range(20))
    assert bytes(dataset.payload(5, "blob")) == b"\5" * 300


def replace(path: Path) -> None:
    """The new file has equal size, and payloads of zeros."""
    data = path.read_bytes()
    other = path.with_suffix(".new")
    other.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    other.rename(path)


def test_a_file_replaced_while_its_descriptor_was_closed_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mx8shards.shards.open_shard._most_files", lambda: 1)
    root = foreign(tmp_path / "data", payloads(20), payloads(20))
    dataset = mx8.Dataset(root)
    assert dataset[0]["id"] == dataset[20]["id"] == 0
    replace(root / "shard.00000.mds")
    with pytest.raises(
        mx8.IntegrityError, match=r"^data/shard\.00000\.mds: the file was replaced since it was opened$"
    ):
        dataset[0]
    assert dataset[21]["id"] == 1


def test_a_shard_removed_while_its_descriptor_was_closed_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mx8shards.shards.open_shard._most_files", lambda: 1)
    root = foreign(tmp_path / "data", payloads(20), payloads(20))
    dataset = mx8.Dataset(root)
    assert dataset[0]["id"] == dataset[20]["id"] == 0
    (root / "shard.00000.mds").unlink()
    message = "data/shard.00000.mds: the index names this shard, but there is no such file"
    with pytest.raises(mx8.DatasetNotFoundError) as caught:
        dataset[0]
    assert str(caught.value) == f"{message} (looked for {root / 'shard.00000.mds'})"


# links and permissions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["os.lseek", "map_file"])
def test_a_descriptor_stays_open_while_a_step_uses_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may drop the file at any moment, and then its descriptor number may be reused."""
    shard = mx8.Dataset(foreign(tmp_path / "data")).shards.open_shard(0)
    real = os.lseek if step == "os.lseek" else shard_module.map_file

    def used(*arguments: Any) -> Any:
        shard.file = None
        return real(*arguments)

    monkeypatch.setattr(f"mx8shards.shards.shard.{step}", used)
    assert bytes(shard.mapped_payload(3, 0)) == payloads(4)[3]["blob"]


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_shard_that_is_a_symlink_out_of_the_dataset_is_refused(absolute: bool, tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    outside = shard_file(root).rename(tmp_path / "outside.mds")
    (root / "shard.00000.mds").symlink_to(outside if absolute else "../outside.mds")
    with pytest.raises(mx8.FormatError, match=r"^data/shard\.00000\.mds: expected a file in .*, got a symlink"):
        mx8.Dataset(root)[0]


def test_a_directory_of_shards_that_is_a_symlink_out_of_the_dataset_is_refused(tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    shard_file(root).rename(tmp_path / "elsewhere" / "shard.00000.mds")
    (root / "g0001").symlink_to(tmp_path / "elsewhere")
    index = reference.read_index(root)
    index["shards"][0]["raw_data"]["basename"] = "g0001/shard.00000.mds"
    reference.write_index(root, index)
    with pytest.raises(mx8.FormatError, match=r"^data/g0001/shard\.00000\.mds: .*symlink"):
        mx8.Dataset(root)[0]


def test_the_dataset_itself_may_be_reached_through_symlinks(tmp_path: Path) -> None:
    foreign(tmp_path / "data")
    (tmp_path / "link").symlink_to("data")
    assert mx8.Dataset(tmp_path / "link")[3]["id"] == 3


def test_a_directory_in_place_of_a_shard_is_refused(tmp_path: Path) -> None:
    root = foreign(tmp_path / "data")
    shard_file(root).unlink()
    (root / "shard.00000.mds").mkdir()
    with pytest.raises(mx8.ShardsError, match=r"data/shard\.00000\.mds: "):
        mx8.Dataset(root)[0]


def test_a_shard_without_read_permission_is_an_error_that_says_so(tmp_path: Path, repository: Path) -> None:
    root = foreign(tmp_path / "data")
    shard_file(root).chmod(0)
    code = f"""
import mx8shards as mx8
from mx8shards.shards import shard as shard_module
from tests.privileges import give_up_privileges
give_up_privileges()
try:
    mx8.Dataset({str(root)!r})[0]
except mx8.DatasetNotFoundError as error:
    print(error, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    path = root / "shard.00000.mds"
    assert done.stdout == f"data/shard.00000.mds: cannot be opened: Permission denied (tried to open {path}) 13\n"


def test_arrays_of_samples_are_read_only(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"a": "ndarray", "f": "ndarray:uint8:3"}) as writer:
        writer.write({"a": np.arange(4), "f": np.arange(3, dtype="uint8")})
    sample = mx8.Dataset(tmp_path / "data")[0]
    assert not sample["a"].flags.writeable
    assert not sample["f"].flags.writeable
