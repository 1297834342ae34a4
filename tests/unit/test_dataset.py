"""Does an opened dataset behave as the sequence of samples that was written?"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import mx8shards as mx8
from mx8shards import dataset as dataset_module
from tests import reference
from tests.strategies import NUMBERED, numbered_samples, same, samples_as_read

SAMPLES = samples_as_read(NUMBERED, numbered_samples(50))


def write(root: Path, samples: list[dict[str, Any]] | None = None, **options: Any) -> Path:
    options = {"columns": NUMBERED, "size_limit": 700, **options}
    with mx8.Writer(root, **options) as writer:
        for sample in numbered_samples(50) if samples is None else samples:
            writer.write(sample)
    return root


@pytest.fixture(scope="module", params=[None, "zstd"], ids=["raw", "zstd"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("written") / "data", compression=request.param)


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "data")


# a sequence of samples ------------------------------------------------------------------------------------------------


def test_a_dataset_has_a_length_and_positive_and_negative_positions(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        assert len(dataset) == 50
        assert same([dataset[i] for i in range(50)], SAMPLES)
        assert same([dataset[i - 50] for i in range(50)], SAMPLES)


def test_positions_may_be_numpy_integers(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        assert same(dataset[np.int64(7)], SAMPLES[7])
        assert same(dataset[np.uint8(7)], SAMPLES[7])
        assert same(dataset[np.array(-1)], SAMPLES[-1])


@pytest.mark.parametrize(
    "cut", [slice(3, 9), slice(None, None, -7), slice(-5, None), slice(40, 90), slice(5, 5)], ids=str
)
def test_slices_are_lists_of_samples(cut: slice, root: Path) -> None:
    assert same(mx8.Dataset(root)[cut], SAMPLES[cut])


@pytest.mark.parametrize("positions", [[5, 1, 9], [], (3, 3, -1), range(4, 0, -2)], ids=str)
def test_sequences_of_positions_are_lists_of_samples(positions: Any, root: Path) -> None:
    dataset = mx8.Dataset(root)
    assert same(dataset[positions], [SAMPLES[i] for i in positions])
    assert same(dataset[np.array(positions, int)], [SAMPLES[i] for i in positions])


def test_iteration_gives_every_sample_and_can_be_repeated(root: Path) -> None:
    dataset = mx8.Dataset(root)
    assert same(list(dataset), SAMPLES)
    assert same(list(dataset), SAMPLES)
    assert same(list(reversed(dataset)), SAMPLES[::-1])  # type: ignore[call-overload]


@pytest.mark.parametrize("position", [50, -51, 1 << 70, -(1 << 70)])
def test_positions_out_of_range_are_index_errors(position: int, root: Path) -> None:
    dataset = mx8.Dataset(root)
    with pytest.raises(IndexError, match="50 samples"):
        dataset[position]
    with pytest.raises(IndexError):
        dataset[[0, max(-1 << 40, min(1 << 40, position))]]
    with pytest.raises(IndexError):
        dataset.payload(position, "id")


def test_an_unsigned_position_does_not_become_negative(root: Path) -> None:
    with pytest.raises(IndexError, match="position 18446744073709551615 of 50 samples"):
        mx8.Dataset(root)[np.array([(1 << 64) - 1], np.uint64)]


@pytest.mark.parametrize("key", ["id", 1.5, None, [1.5], [[1, 2]], np.ones(50, bool), ["a"], {"id": 1}], ids=repr)
def test_keys_that_are_not_positions_are_type_errors(key: Any, root: Path) -> None:
    with pytest.raises(TypeError, match="position"):
        mx8.Dataset(root)[key]


def test_a_column_name_as_position_is_an_error_with_a_hint(root: Path) -> None:
    with pytest.raises(TypeError, match=r"^'x': expected a position; dataset\.column\('x'\) is .* dataset\[i\]\['x'\]"):
        mx8.Dataset(root)["x"]  # type: ignore[call-overload]


def test_a_dataset_without_samples_is_an_empty_sequence(tmp_path: Path) -> None:
    with mx8.Dataset(write(tmp_path / "data", samples=[])) as dataset:
        assert (len(dataset), list(dataset), dataset[:], dataset[[]]) == (0, [], [], [])
        assert dataset.sealed
        assert len(dataset.select([])) == 0
        with pytest.raises(IndexError, match="0 samples"):
            dataset[0]


def test_empty_shards_are_skipped(tmp_path: Path) -> None:
    samples = [{"x": bytes([i])} for i in range(4)]
    shards = [[], samples[:1], [], [], samples[1:], []]
    with mx8.Dataset(reference.write_dataset(tmp_path / "data", {"x": "bytes"}, shards)) as dataset:
        assert list(dataset) == samples
        assert dataset[-4] == samples[0]
        assert list(dataset.column("x")) == [b"\0", b"\1", b"\2", b"\3"]


def test_attributes_and_repr_describe_the_dataset(tmp_path: Path) -> None:
    root = write(tmp_path / "data", metadata={"classes": ["a", "ä"]})
    with mx8.Dataset(root) as dataset:
        assert dataset.columns == NUMBERED
        assert list(dataset.columns) == sorted(NUMBERED)
        assert dataset.metadata == {"classes": ["a", "ä"]}
        assert dataset.sealed
        assert dataset.snapshot.startswith("sha256:")
        assert "50 samples of data, id, name, x" in repr(dataset)


def test_repr_escapes_control_characters(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path, columns={"\x1b[31mx": "int"}) as writer:
        writer.write({"\x1b[31mx": 1})
    assert repr(mx8.Dataset(tmp_path)).endswith(": 1 samples of \\x1b[31mx>")


def test_changing_a_sample_does_not_change_the_dataset(root: Path) -> None:
    dataset = mx8.Dataset(root)
    dataset[3].clear()
    assert same(dataset[3], SAMPLES[3])


# columns --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picked", [["id"], ["x", "data"], ["name", "name"], []], ids=str)
def test_samples_have_only_the_selected_columns(picked: list[str], root: Path) -> None:
    with mx8.Dataset(root, columns=picked) as dataset:
        assert same(list(dataset), [{name: sample[name] for name in sorted(set(picked))} for sample in SAMPLES])
        assert dataset.columns == {name: NUMBERED[name] for name in picked}


def test_a_column_that_was_not_selected_is_unknown(root: Path) -> None:
    dataset = mx8.Dataset(root, columns=["id"])
    for ask in (dataset.column, lambda name: dataset.payload(0, name), lambda name: dataset.where(name, 1)):
        with pytest.raises(mx8.SettingError, match="expected one of 'id', got 'name'"):
            ask("name")


@pytest.mark.parametrize("columns", [["nope"], "id", ["id", "nope"], "x"], ids=str)
def test_unknown_columns_are_refused_when_opening(columns: Any, root: Path) -> None:
    with pytest.raises(mx8.SettingError, match="columns: expected"):
        mx8.Dataset(root, columns=columns)


def test_shards_with_different_columns_open_only_with_columns_that_all_have(tmp_path: Path) -> None:
    root = different_columns(tmp_path / "data")
    with pytest.raises(mx8.FormatError, match=r"at \$\.shards\[1\]: .*columns=\[…\] picks columns"):
        mx8.Dataset(root)
    with pytest.raises(mx8.FormatError, match=r"at \$\.shards\[1\]: .* a str, got id int, y bytes"):
        mx8.Dataset(root, columns=["a"])
    with pytest.raises(mx8.SettingError, match="expected one of 'a', 'id', got 'y'"):
        mx8.Dataset(root, columns=["y"])
    with mx8.Dataset(root, columns=["id"]) as dataset:
        assert list(dataset) == [{"id": 1}, {"id": 2}]
        assert dataset.column("id").tolist() == [1, 2]
        assert bytes(dataset.payload(1, "id")) == (2).to_bytes(8, "little")


def different_columns(root: Path) -> Path:
    one, two = (i.to_bytes(8, "little") for i in (1, 2))
    reference.write_dataset(root, {"a": "str", "id": "int"}, [[{"a": b"a", "id": one}]])
    reference.write_dataset(root / "sub", {"id": "int", "y": "bytes"}, [[{"id": two, "y": b"yy"}]])
    first, second = reference.read_index(root), reference.read_index(root / "sub")
    second["shards"][0]["raw_data"]["basename"] = "sub/shard.00000.mds"
    reference.write_index(root, {"version": 2, "shards": first["shards"] + second["shards"]})
    return root


def test_pickles_are_read_only_if_allowed(tmp_path: Path) -> None:
    with mx8.Writer(tmp_path / "data", columns={"x": "pkl", "y": "int"}, allow_pickle=True) as writer:
        writer.write({"x": {1, 2}, "y": 3})
    with pytest.raises(mx8.SchemaError, match=r"column 'x': .*runs code.*allow_pickle=True"):
        mx8.Dataset(tmp_path / "data")
    assert mx8.Dataset(tmp_path / "data", columns=["y"])[0] == {"y": 3}
    assert mx8.Dataset(tmp_path / "data", allow_pickle=True)[0] == {"x": {1, 2}, "y": 3}


# payloads -------------------------------------------------------------------------------------------------------------


def test_a_payload_is_a_read_only_view_of_the_bytes_on_disk(root: Path) -> None:
    dataset = mx8.Dataset(root)
    stored = reference.read_dataset(root)
    for i in (0, 7, -1):
        for name in NUMBERED:
            payload = dataset.payload(i, name)
            assert payload.readonly
            assert bytes(payload) == stored[i][name]
    again = np.frombuffer(dataset.payload(7, "data"), np.uint8)
    assert np.shares_memory(again, np.frombuffer(dataset.payload(7, "data"), np.uint8))
    shard, _ = dataset._reader(dataset.shards.locate(7)[0])
    assert np.shares_memory(again, shard.data)


def test_payloads_and_arrays_survive_closing_the_dataset_and_removing_its_files(root: Path) -> None:
    dataset = mx8.Dataset(root)
    payload = dataset.payload(7, "data")
    array = mx8.Dataset(root).column("x")
    dataset.close()
    shutil.rmtree(root)
    assert bytes(payload) == SAMPLES[7]["data"]
    assert array.tolist() == [sample["x"] for sample in SAMPLES]


def test_reading_a_closed_dataset_is_an_error(root: Path) -> None:
    with mx8.Dataset(root) as dataset:
        dataset[0]
    for ask in (
        lambda: dataset[0],
        lambda: dataset.payload(0, "id"),
        lambda: dataset.column("id"),
        lambda: dataset.sealed,
    ):
        with pytest.raises(ValueError, match="the dataset is closed"):
            ask()
    assert repr(dataset) == "<Dataset, closed>"
    dataset.close()


# opening --------------------------------------------------------------------------------------------------------------


def test_opening_a_dataset_opens_no_shard(root: Path) -> None:
    for shard in root.glob("shard.*"):
        shard.unlink()
    with mx8.Dataset(root) as dataset:
        assert len(dataset) == 50
        assert dataset.column("id").tolist() == list(range(50))  # from the side-car
        assert len(dataset.select([1, 2])) == 2
        with pytest.raises(mx8.DatasetNotFoundError, match=r"data/shard\.00000\.mds.*: the index names this shard"):
            dataset[0]


@pytest.mark.parametrize("path", ["nowhere", "file", "file/below", "empty"])
def test_a_directory_without_a_dataset_is_not_found(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(mx8.DatasetNotFoundError, match=r"index\.json: no dataset here"):
        mx8.Dataset(tmp_path / path)


def test_an_unknown_verify_mode_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="expected one of 'structure', 'shard', got 'everything'"):
        mx8.Dataset(root, verify="everything")  # type: ignore[arg-type]


def test_paths_may_be_strings_or_path_objects(root: Path) -> None:
    assert mx8.Dataset(str(root))[1] == mx8.Dataset(root)[1] == SAMPLES[1]


def test_a_thousand_shards_stay_open_under_a_limit_of_64_files(tmp_path: Path, repository: Path) -> None:
    root = reference.write_dataset(
        tmp_path / "data", {"x": "bytes"}, [[{"x": f"{i}".encode()}, {"x": b"?"}] for i in range(1000)]
    )
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import mx8shards as mx8
dataset = mx8.Dataset({str(root)!r})
payloads = [dataset.payload(2 * i, "x") for i in range(1000)]
assert [bytes(payload) for payload in payloads] == [str(i).encode() for i in range(1000)]
for step in (1, 7, 501):
    assert all(dataset[2 * (i * step % 1000)]["x"] == str(i * step % 1000).encode() for i in range(1000))
"""
    run(code, repository)


def run(code: str, repository: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# other processes ------------------------------------------------------------------------------------------------------


def read_all(datasets: list[mx8.Dataset], queue: Any) -> None:
    queue.put([list(dataset) for dataset in datasets])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("method", "touched"), [("fork", False), ("fork", True), ("spawn", True)])
def test_a_dataset_passed_to_another_process_can_be_read(
    method: str, touched: bool, root: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)  # a spawned process imports this module from here
    dataset = mx8.Dataset(root)
    view = dataset.select(range(0, 50, 2))
    if touched:
        list(dataset), dataset.payload(3, "data"), view.column("x")
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read_all, args=([dataset, view], queue))
    process.start()
    assert same(queue.get(timeout=60), [SAMPLES, SAMPLES[::2]])
    process.join(60)
    assert process.exitcode == 0
    assert same(list(dataset), SAMPLES)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_a_torch_data_loader_deliver_every_sample(root: Path) -> None:
    torch = pytest.importorskip("torch")
    dataset = mx8.Dataset(root)
    dataset[0]
    loader = torch.utils.data.DataLoader(dataset, batch_size=7, num_workers=2, collate_fn=list, shuffle=True)
    found = sorted((sample for batch in loader for sample in batch), key=lambda sample: sample["id"])
    assert same(found, SAMPLES)


def test_a_pickle_is_a_few_hundred_bytes_and_opens_the_same_snapshot(root: Path) -> None:
    dataset = mx8.Dataset(root, columns=["id", "data"], verify="shard")
    list(dataset)
    data = pickle.dumps(dataset)
    assert len(data) < 2000
    write(root, mode="overwrite", samples=[])
    other = pickle.loads(data)
    assert other.snapshot == dataset.snapshot
    assert same(list(other), list(dataset))
    assert other.columns == {"data": "bytes", "id": "int"}


def test_a_pickle_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"x": "bytes"}, [[{"x": b"a"}] for _ in range(1000)])
    dataset = mx8.Dataset(root)
    list(dataset)
    assert len(pickle.dumps(dataset)) < 2000
    assert pickle.loads(pickle.dumps(dataset))[-1] == {"x": b"a"}


def test_views_and_joined_datasets_can_be_pickled(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", samples=numbered_samples(3))
    joined = mx8.concat([mx8.Dataset(root), mx8.Dataset(other)]).select([-1, 0, 50])
    assert same(list(pickle.loads(pickle.dumps(joined))), [SAMPLES[2], SAMPLES[0], SAMPLES[0]])


def test_many_threads_share_few_descriptors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mx8shards.shards.open_shard._most_files", lambda: 2)
    dataset = mx8.Dataset(root)
    assert dataset.shards.count > 4
    errors: list[object] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).integers(0, 50, 600).tolist()
        errors.extend(i for i in order if not same(dataset[i], SAMPLES[i]))

    in_threads(work, 8)
    assert errors == []


def in_threads(work: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_descriptors_are_closed_with_the_dataset(root: Path) -> None:
    def of_this_dataset() -> int:
        links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return sum(str(root) in os.readlink(link) for link in links if link.is_symlink())

    dataset = mx8.Dataset(root)
    list(dataset)
    payload = dataset.payload(0, "data")
    assert of_this_dataset() > 4
    dataset.close()
    assert of_this_dataset() == 0
    assert bytes(payload) == SAMPLES[0]["data"]


# claims of an index ---------------------------------------------------------------------------------------------------


def test_an_index_that_claims_billions_of_samples_takes_no_memory(tmp_path: Path, repository: Path) -> None:
    root = reference.write_dataset(tmp_path / "data", {"id": "int"}, [[{"id": bytes(8)}]])
    index = reference.read_index(root)
    index["shards"][0] |= {"samples": 1 << 29}
    index["shards"][0]["raw_data"]["bytes"] = (1 << 32) - 1
    reference.write_index(root, index)
    out = run(
        f"""
import numpy, blake3
import mx8shards as mx8
from tests.property.mutations import limit_memory
limit_memory()
dataset = mx8.Dataset({str(root)!r})
assert len(dataset) == 1 << 29
asks = [lambda: dataset.column("id"), lambda: dataset.where("id", 0), lambda: next(iter(dataset)), lambda: dataset[:]]
for ask in asks:
    try:
        ask()
    except mx8.FormatError as error:
        print(error)
""",
        repository,
    )
    assert out.count("data/shard.00000.mds: expected 4294967295 bytes (the index), got ") == 4


def test_a_column_gathered_in_several_runs_is_correct(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "_RUN", 7)
    shutil.rmtree(root / ".mx8shards" / "sidecars")
    dataset = mx8.Dataset(root)
    assert same(dataset.column("id"), np.arange(50))
    assert same(dataset.select([49, 0, 3] * 5).column("id"), np.array([49, 0, 3] * 5))


def test_the_number_of_open_descriptors_keeps_to_the_soft_limit() -> None:
    from mx8shards.shards.open_shard import _most_files

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 8 <= _most_files() <= max(8, min(512, soft))


@pytest.mark.parametrize(
    "function",
    [
        *(mx8.Dataset, mx8.Dataset.select, mx8.Dataset.where, mx8.Dataset.column, mx8.Dataset.payload),
        *(mx8.concat, mx8.register_encoding),
    ],
    ids=lambda function: function.__name__,
)
def test_help_explains_every_argument(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert name == "self" or f"\n    {name}: " in text, name


def test_type_checkers_know_the_allowed_values() -> None:
    assert set(get_args(get_type_hints(mx8.Dataset.__init__)["verify"])) == {"structure", "shard"}
