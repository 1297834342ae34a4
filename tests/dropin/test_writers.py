"""Do the writers make the files of mosaicml-streaming, and do both packages read what either wrote?"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mx8shards import streaming as ours
from mx8shards.errors import MissingPackageError, RemoteError
from mx8shards.streaming import writer_targets
from mx8shards.streaming.base.util import merge_index
from tests.conformance.streaming_peer import clock_at_zero, files
from tests.dropin.conftest import COLUMNS, sample, write

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::UserWarning")

TABLE = {"name": "str", "size": "int", "weight": "float"}
ROWS = [{"name": f"nr {i} ü", "size": i, "weight": i / 7} for i in range(100)]

SPLIT_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "json": ("JSONWriter", {}),
    "csv": ("CSVWriter", {}),
    "tsv": ("TSVWriter", {"newline": "\r\n"}),
    "xsv": ("XSVWriter", {"separator": " | "}),
}


def write_rows(module: Any, root: Path, writer: str, **options: Any) -> Path:
    with getattr(module, writer)(out=str(root), columns=TABLE, **options) as open_writer:
        for row in ROWS:
            open_writer.write(row)
    return root


@pytest.mark.parametrize("compression", [None, "zstd:4"])
@pytest.mark.parametrize("form", SPLIT_FORMATS)
def test_json_and_separated_files_equal_streamings(
    form: str, compression: str | None, tmp_path: Path, streaming: Any
) -> None:
    writer, options = SPLIT_FORMATS[form]
    options = {**options, "compression": compression, "hashes": ["md5", "xxh64"], "size_limit": 700}
    with clock_at_zero():
        theirs = write_rows(streaming, tmp_path / "theirs", writer, **options)
    mine = write_rows(ours, tmp_path / "ours", writer, **options)
    assert files(mine) == files(theirs)
    assert (mine / "index.json").read_bytes() == (theirs / "index.json").read_bytes()


@pytest.mark.parametrize("form", SPLIT_FORMATS)
@pytest.mark.parametrize("remote", [False, True])
def test_json_and_separated_shards_are_read_in_the_order_of_streaming(
    form: str, remote: bool, tmp_path: Path, streaming: Any
) -> None:
    writer, options = SPLIT_FORMATS[form]
    root = write_rows(
        ours, tmp_path / "data", writer, compression="zstd" if remote else None, size_limit=700, **options
    )

    def read(module: Any) -> Any:
        place = {"local": str(root)}
        if remote:
            place = {"remote": str(root), "local": str(tmp_path / module.__name__)}
        dataset = module.StreamingDataset(**place, batch_size=4, shuffle=True)
        return list(dataset), dataset[7], [shard.samples for shard in dataset.shards]

    mine, theirs = read(ours), read(streaming)
    assert mine == theirs
    assert sorted(mine[0], key=lambda row: row["size"]) == ROWS


def test_values_that_contain_a_separator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="separator"):
        ours.CSVWriter(out=str(tmp_path / "x"), columns={"a,b": "str"})
    with ours.CSVWriter(out=str(tmp_path / "y"), columns={"a": "str", "b": "int"}) as writer:
        with pytest.raises(AssertionError, match="separator"):
            writer.write({"a": "1,2", "b": 3})
        with pytest.raises(AttributeError, match="expected int"):
            writer.write({"a": "1", "b": "3"})
        with pytest.raises(KeyError):
            writer.write({"a": "1"})


@pytest.mark.parametrize("entry", [0, 1])
def test_a_damaged_meta_file_is_an_error_that_names_it(entry: int, tmp_path: Path) -> None:
    root = write_rows(ours, tmp_path / "data", "JSONWriter", size_limit=700)
    path = root / f"shard.{entry:05}.json.meta"
    path.write_bytes(b"\xff" * path.stat().st_size)
    dataset = ours.LocalDataset(str(root))
    with pytest.raises(ValueError, match=path.name):
        list(dataset.shards[entry])


def test_an_index_of_another_format_is_not_trusted(tmp_path: Path) -> None:
    root = write_rows(ours, tmp_path / "data", "JSONWriter")
    good = (root / "index.json").read_text()
    for old, new in (('"shard.00000.json"', '"../shard.json"'), ('"samples": 100', '"samples": -1'), ("int", "date")):
        (root / "index.json").write_text(good.replace(old, new))
        with pytest.raises(ValueError, match=r"index\.json: at \$\.shards\[0\]"):
            ours.LocalDataset(str(root))


# MDSWriter --------------------------------------------------------------------------------------------------------


def facts(shards: list[dict[str, Any]]) -> str:
    """What the index has of shards, but for the hash that is ours."""
    for shard in shards:
        for info in filter(None, (shard["raw_data"], shard["zip_data"])):
            info["hashes"].pop("blake3", None)
    return json.dumps(shards, sort_keys=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zstd:9", "hashes": ["sha1", "xxh3_64"]}, {"size_limit": "1kb"}, {"size_limit": 60}],
    ids=str,
)
def test_shards_equal_streamings_byte_for_byte(options: dict[str, Any], tmp_path: Path, streaming: Any) -> None:
    ended = []
    for module in (ours, streaming):
        with (
            clock_at_zero(),
            module.MDSWriter(out=str(tmp_path / module.__name__), columns=COLUMNS, **options) as writer,
        ):
            assert writer.encode_sample(sample(1))
            for i in range(50):
                writer.write(sample(i))
            ended.append(facts(writer.shards))
        ended.append(facts(writer.shards))
    assert ended[:2] == ended[2:]
    assert files(tmp_path / ours.__name__) == files(tmp_path / streaming.__name__)


WRITER_MISTAKES: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "compression": ({"compression": "lzma"}, ValueError),
    "hash": ({"hashes": ["crc"]}, ValueError),
    "hash order": ({"hashes": ["sha1", "md5"]}, ValueError),
    "limit": ({"size_limit": 1 << 32}, ValueError),
    "negative limit": ({"size_limit": -1}, ValueError),
    "encoding": ({"columns": {"x": "text"}}, TypeError),
    "option": ({"threads": 3}, ValueError),
    "out": ({"out": ("a", "b", "c")}, ValueError),
}


@pytest.mark.parametrize(("options", "error"), WRITER_MISTAKES.values(), ids=WRITER_MISTAKES)
def test_mistakes_of_a_writer_raise_streamings_exceptions(
    options: dict[str, Any], error: type[Exception], tmp_path: Path, streaming: Any
) -> None:
    for module in (ours, streaming):
        with pytest.raises(error):
            module.MDSWriter(**{"out": str(tmp_path / module.__name__), "columns": COLUMNS, **options})


BAD_SAMPLES: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "missing": ({"x": 1}, KeyError),
    "type": ({"x": "1", "y": b""}, AttributeError),
    "size": ({"x": b"12", "y": b""}, KeyError),
}


@pytest.mark.parametrize(("bad", "error"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_bad_samples_raise_streamings_exceptions(
    bad: dict[str, Any], error: type[Exception], tmp_path: Path, streaming: Any
) -> None:
    for module in (ours, streaming):
        writer = module.MDSWriter(out=str(tmp_path / module.__name__), columns={"x": "int", "y": "bytes"})
        with pytest.raises(error):
            writer.write(bad)
        writer.finish()


def test_a_directory_with_files_is_emptied_only_with_exist_ok(tmp_path: Path) -> None:
    root = write(tmp_path / "data", 0, 3)
    with pytest.raises(FileExistsError):
        write(root, 10, 13)
    for mistake in (
        {"compression": "lzma"},
        {"compression": "zstd:999"},
        {"compression": "br:44"},
        {"hashes": "crc"},
        {"size_limit": -1},
        {"threads": 2},
    ):
        with pytest.raises(ValueError, match=next(iter(mistake))):
            ours.MDSWriter(out=str(root), columns=COLUMNS, exist_ok=True, **mistake)
    assert len(ours.LocalDataset(str(root))) == 3  # a mistake loses nothing
    write(root, 10, 13, exist_ok=True)
    assert [each["id"] for each in ours.LocalDataset(str(root))] == [10, 11, 12]


def names_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("kind", ["MDSWriter", "JSONWriter"])
def test_exist_ok_removes_nothing_if_a_package_is_missing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, 0, 3)
    before = names_below(root)
    monkeypatch.setitem(sys.modules, "snappy", None)
    with pytest.raises(MissingPackageError):
        getattr(ours, kind)(out=str(root), columns={"x": "int"}, exist_ok=True, compression="snappy")
    assert names_below(root) == before


@pytest.mark.parametrize("kind", ["MDSWriter", "JSONWriter"])
def test_exist_ok_removes_nothing_if_the_url_does_not_answer(
    kind: str, tmp_path: Path, s3_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, 0, 3)
    before = names_below(root)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(writer_targets, "store_of", partial(writer_targets.store_of, deadline_s=0.5))
    out = (str(root), "s3://none/data")
    with pytest.raises(RemoteError):
        getattr(ours, kind)(out=out, columns={"x": "int"}, exist_ok=True, keep_local=True)
    assert names_below(root) == before


def test_exist_ok_replaces_the_local_part_of_a_pair(tmp_path: Path, bucket: str) -> None:
    out = (str(write(tmp_path / "data", 0, 3)), f"{bucket}/pair")
    with ours.MDSWriter(out=out, columns=COLUMNS, exist_ok=True, keep_local=True) as writer:
        writer.write(sample(7))
    for dataset in (
        ours.LocalDataset(out[0]),
        ours.StreamingDataset(remote=out[1], local=str(tmp_path / "copy"), batch_size=1),
    ):
        assert [each["id"] for each in dataset] == [7]


def test_values_without_a_column_are_left_out_silently_as_in_streaming(tmp_path: Path) -> None:
    with ours.MDSWriter(out=str(tmp_path), columns={"x": "int"}) as writer:
        writer.write({"x": 1, "y": 2})
    assert list(ours.LocalDataset(str(tmp_path))) == [{"x": 1}]


def test_nothing_is_published_if_the_block_raises(tmp_path: Path) -> None:
    writer = ours.MDSWriter(out=str(tmp_path / "data"), columns=COLUMNS)
    with pytest.raises(AttributeError), writer:
        writer.write({**sample(1), "text": 3})
    assert not (tmp_path / "data" / "index.json").exists()


@pytest.mark.parametrize("kind", ["MDSWriter", "JSONWriter"])
def test_a_writer_whose_block_raised_can_be_tried_again(kind: str, tmp_path: Path) -> None:
    for failing in (True, False):
        writer = getattr(ours, kind)(out=str(tmp_path), columns={"x": "int"}, size_limit=300)
        with suppress(ZeroDivisionError), writer:
            for i in range(200):
                writer.write({"x": i // (150 - i * failing)})
        assert not failing or list(tmp_path.iterdir()) == []
    assert len(ours.LocalDataset(str(tmp_path))) == 200


@pytest.mark.parametrize("kind", ["MDSWriter", "JSONWriter"])
def test_a_link_to_a_directory_stays_with_exist_ok(kind: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/old").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with getattr(ours, kind)(out=str(tmp_path / "out"), columns={"x": "int"}, exist_ok=True) as writer:
        writer.write({"x": 1})
    assert (tmp_path / "out").is_symlink()
    assert not (tmp_path / "disk/old").exists()
    assert len(ours.LocalDataset(str(tmp_path / "disk"))) == 1


@pytest.mark.parametrize("keep_local", [False, True])
def test_a_directory_may_stand_for_the_remote(keep_local: bool, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "share" / "data"
    with ours.MDSWriter(out=(str(local), str(remote)), columns=COLUMNS, keep_local=keep_local) as writer:
        writer.write(sample(4))
    assert [each["id"] for each in ours.LocalDataset(str(remote))] == [4]
    assert local.exists() == keep_local
    assert not keep_local or ours.LocalDataset(str(local))[0]["id"] == 4


# merge_index ------------------------------------------------------------------------------------------------------


def test_a_merged_index_equals_streamings(tmp_path: Path, streaming: Any) -> None:
    parts = [write(tmp_path / "all" / name, 10 * i, 10 * i + 10) for i, name in enumerate("ab")]
    paths = [str(part / "index.json") for part in parts]
    merge_index(paths, str(tmp_path / "all"))
    mine = json.loads((tmp_path / "all/index.json").read_text())
    (tmp_path / "all/index.json").unlink()
    streaming.base.util.merge_index(paths, str(tmp_path / "all"))
    assert json.loads((tmp_path / "all/index.json").read_text()) == mine
    for module in (ours, streaming):
        assert [each["id"] for each in module.LocalDataset(str(tmp_path / "all"))] == list(range(20))


def test_partitions_may_lie_two_levels_deep(tmp_path: Path) -> None:
    """Streaming keeps the last level only, so that shards of different partitions get equal names."""
    for i, name in enumerate(("g0/0", "g0/1", "g1/0")):
        write(tmp_path / name, 10 * i, 10 * i + 10)
    merge_index(str(tmp_path))
    assert [each["id"] for each in ours.LocalDataset(str(tmp_path))] == list(range(30))


def test_partitions_with_equal_names_elsewhere_are_an_error(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / name / "0", 0, 3) / "index.json") for name in ("x", "y")]
    with pytest.raises(ValueError, match="twice"):
        merge_index(paths, str(tmp_path / "out"))


def test_indices_are_merged_in_a_store(bucket: str, tmp_path: Path) -> None:
    for i in range(2):
        with ours.MDSWriter(out=(str(tmp_path / f"{i}"), f"{bucket}/{i}"), columns=COLUMNS) as writer:
            writer.write(sample(i))
    merge_index([(str(tmp_path / f"{i}/index.json"), f"{bucket}/{i}/index.json") for i in range(2)], bucket)
    found = ours.StreamingDataset(remote=bucket, local=str(tmp_path / "cache"), batch_size=1)
    assert [each["id"] for each in found] == [0, 1]
    merge_index(bucket, download_timeout=30)
    merge_index((str(tmp_path / "merged"), bucket), keep_local=True)
    assert (tmp_path / "merged/index.json").exists()


@pytest.mark.parametrize("arguments", [(), (3,), (["a"],), ("a", True, 60, 4)], ids=str)
def test_other_arguments_of_merge_index_are_an_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="merge_index"):
        merge_index(*arguments)


@pytest.mark.parametrize("kind", ["MDSWriter", "JSONWriter"])
def test_all_writers_know_the_home_directory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with getattr(ours, kind)(out="~/data", columns={"x": "int"}, exist_ok=True) as writer:
        writer.write({"x": 1})
    assert (tmp_path / "data" / "index.json").exists()
