"""Do the names that programs import from Streaming's modules exist here, and after `install()`?"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from mx8shards.errors import SettingError
from mx8shards.streaming import MDSWriter, Stream, StreamingDataset
from mx8shards.streaming.base.distributed import maybe_init_dist
from mx8shards.streaming.base.format.json import JSONReader
from mx8shards.streaming.base.format.mds import MDSReader
from mx8shards.streaming.base.storage import CloudDownloader, CloudUploader
from mx8shards.streaming.installing import _LEFT_OUT as LEFT_OUT
from tests.dropin.conftest import sample

# Each module of Streaming, with the names that programs import from it.
NAMES = {
    "": "CSVWriter JSONWriter LocalDataset MDSWriter Stream StreamingDataLoader StreamingDataset TSVWriter XSVWriter",
    "_version": "__version__",
    "base": "LocalDataset MDSWriter Stream StreamingDataLoader StreamingDataset array batching dataset util",
    "base.array": "Array",
    "base.batching": "batching_methods generate_work",
    "base.batching.device_per_stream": "generate_work_device_per_stream_batching",
    "base.batching.per_stream": "generate_work_per_stream_batching",
    "base.batching.random": "generate_work_random_batching",
    "base.batching.stratified": "generate_work_stratified_batching",
    "base.compression": "compress decompress get_compression_extension get_compressions is_compression",
    "base.converters": "SPARK_TO_MDS dataframe_to_mds infer_dataframe_schema is_json_compatible",
    "base.converters.dataframe_to_mds": "SPARK_TO_MDS dataframe_to_mds infer_dataframe_schema is_json_compatible",
    "base.dataloader": "StreamingDataLoader",
    "base.dataset": "Array Spanner Stream StreamingDataset World",
    "base.distributed": "all_gather all_gather_object barrier broadcast get_local_rank get_local_world_size get_rank "
    "get_world_size maybe_init_dist",
    "base.format": "CSVWriter FileInfo JSONWriter MDSWriter Reader TSVWriter XSVWriter get_index_basename mds "
    "reader_from_json",
    "base.format.base": "FileInfo Reader",
    "base.format.base.reader": "FileInfo Reader",
    "base.format.index": "get_index_basename",
    "base.format.json": "JSONReader JSONWriter",
    "base.format.json.reader": "JSONReader",
    "base.format.json.writer": "JSONWriter",
    "base.format.mds": "MDSReader MDSWriter",
    "base.format.mds.encodings": "Bytes Encoding Float16 Float32 Float64 Int Int16 Int32 Int64 Int8 JPEG JPEGArray "
    "JPEGList JSON List NDArray PIL PILList PNG PNGList Pickle Scalar Str StrDecimal StrEncoding StrFloat StrInt "
    "UInt16 UInt32 UInt64 UInt8 _encodings get_mds_encoded_size get_mds_encodings is_mds_encoding is_mds_encoding_safe "
    "mds_decode mds_encode",
    "base.format.mds.reader": "MDSReader",
    "base.format.mds.writer": "MDSWriter",
    "base.format.xsv": "CSVReader CSVWriter TSVReader TSVWriter XSVReader XSVWriter",
    "base.format.xsv.reader": "CSVReader TSVReader XSVReader",
    "base.format.xsv.writer": "CSVWriter TSVWriter XSVWriter",
    "base.hashing": "get_hash get_hashes is_hash",
    "base.local": "LocalDataset",
    "base.partition": "algos get_partitions get_partitions_orig get_partitions_relaxed",
    "base.partition.orig": "get_partitions_orig",
    "base.partition.relaxed": "get_partitions_relaxed",
    "base.sampling": "get_sampling",
    "base.shuffle": "algos get_shuffle get_shuffle_naive get_shuffle_py1br get_shuffle_py1e get_shuffle_py1s",
    "base.shuffle.naive": "get_shuffle_naive",
    "base.shuffle.py1br": "get_shuffle_py1br",
    "base.shuffle.py1e": "get_shuffle_py1e",
    "base.shuffle.py1s": "get_shuffle_py1s",
    "base.shuffle.py2s": "get_shuffle_py2s",
    "base.spanner": "Spanner",
    "base.storage": "AzureDataLakeDownloader AzureDataLakeUploader AzureDownloader AzureUploader CloudDownloader "
    "CloudUploader GCSDownloader GCSUploader HFDownloader HFUploader LocalDownloader LocalUploader S3Downloader "
    "S3Uploader",
    "base.storage.download": "AzureDataLakeDownloader AzureDownloader CloudDownloader GCSDownloader HFDownloader "
    "LocalDownloader S3Downloader",
    "base.storage.upload": "AzureDataLakeUploader AzureUploader CloudUploader GCSUploader HFUploader LocalUploader "
    "S3Uploader",
    "base.stream": "Stream streams_registry",
    "base.util": "bytes_to_int clean_stale_shared_memory get_import_exception_message get_list_arg get_local_rank "
    "maybe_init_dist merge_index number_abbrev_to_int retry wait_for_file_to_exist",
    "base.world": "World",
    "multimodal": "",
    "multimodal.webvid": "StreamingInsideWebVid StreamingOutsideDTWebVid StreamingOutsideGIWebVid",
    "text": "StreamingC4 StreamingEnWiki StreamingPile",
    "text.c4": "StreamingC4",
    "text.enwiki": "StreamingEnWiki",
    "text.pile": "StreamingPile",
    "vision": "StreamingADE20K StreamingCIFAR10 StreamingCOCO StreamingImageNet",
    "vision.ade20k": "StreamingADE20K",
    "vision.base": "StandardTransform StreamingVisionDataset",
    "vision.cifar10": "StreamingCIFAR10",
    "vision.coco": "StreamingCOCO",
    "vision.imagenet": "StreamingImageNet",
}
PAIRS = [(module, name) for module, names in NAMES.items() for name in names.split()]

# In one process, as each needs `install()` before anything imports `streaming`. Prints what is missing.
WALK = """
import importlib, json, sys
import mx8shards.streaming
mx8shards.streaming.install()
import streaming
assert streaming.base.dataset.StreamingDataset is streaming.StreamingDataset  # without importing the module
assert streaming.base.format.mds.encodings.UInt8.size == 1
missing = []
for module, name in json.loads(sys.stdin.read()):
    try:
        found = getattr(importlib.import_module(f"streaming.{module}".rstrip(".")), name)
        assert not isinstance(found, type(sys)) or found.__name__ == f"mx8shards.streaming.{module}.{name}", name
    except (ImportError, AttributeError) as error:
        missing.append(str(error))
print(missing)
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_all_names_exist_after_install_and_what_is_left_out_says_why() -> None:
    command = [sys.executable, "-c", WALK, json.dumps(list(LEFT_OUT))]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, input=json.dumps(PAIRS), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    missing, *left_out = done.stdout.splitlines()
    assert missing == "[]"
    assert [line.rpartition("; ")[2] for line in left_out] == list(LEFT_OUT.values())


@pytest.mark.streaming
def test_all_these_names_are_names_of_streaming(streaming: Any) -> None:
    pairs = [pair for pair in PAIRS if "converters" not in pair[0]]  # these import pandas
    for module, name in pairs:
        assert hasattr(importlib.import_module(f"streaming.{module}".rstrip(".")), name), (module, name)


@pytest.mark.parametrize("module", ["", ".download", ".upload"])
def test_classes_of_stores_that_are_left_out_say_how_to_read_them(module: str) -> None:
    name = "OCIDownloader" if module == ".download" else "OCIUploader"
    storage = importlib.import_module(f"mx8shards.streaming.base.storage{module}")
    with pytest.raises(ImportError, match=f"^{name} is left out, as its store is not supported: mount"):
        getattr(storage, name)
    assert not hasattr(storage, "Another")


# what the names do ----------------------------------------------------------------------------------------------------


def test_readers_open_single_shards(numbers: Path) -> None:
    entry = json.loads((numbers / "a/index.json").read_text())["shards"][2]
    reader = MDSReader.from_json(str(numbers / "a"), None, entry)
    first = int(reader[0]["id"])
    assert [found["id"] for found in reader] == list(range(first, first + len(reader)))
    data = reader.get_sample_data(1)
    assert reader.decode_sample(data)["text"] == sample(first + 1)["text"]
    assert reader.get_persistent_size(keep_zip=False) == reader.get_raw_size() == reader.raw_data.bytes
    with pytest.raises(IndexError):
        reader.get_sample_data(len(reader))
    with pytest.raises(SettingError, match=r"^shard: expected the format 'json', got 'mds'"):
        JSONReader.from_json(str(numbers / "a"), None, entry)


def test_files_are_uploaded_and_downloaded(tmp_path: Path) -> None:
    uploader = CloudUploader.get((str(tmp_path / "here"), str(tmp_path / "there")))
    (tmp_path / "here/x.txt").write_text("abc")
    uploader.upload_file("x.txt")
    assert uploader.list_objects() == ["x.txt"]
    assert not (tmp_path / "here/x.txt").exists()
    CloudDownloader.get(str(tmp_path)).download(str(tmp_path / "there/x.txt"), str(tmp_path / "again/x.txt"))
    assert (tmp_path / "again/x.txt").read_text() == "abc"
    with pytest.raises(ValueError, match="remote: expected a URL or a path"):
        CloudDownloader.direct_download(None, str(tmp_path / "none"))
    with pytest.raises(FileExistsError):
        CloudUploader(str(tmp_path / "again"))


def test_torch_distributed_is_initialized_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not maybe_init_dist()
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    begun: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: begun.update(settings))
    assert maybe_init_dist()
    assert begun == {"rank": 0, "world_size": 2}


def test_methods_of_streams_that_are_not_called_are_refused_and_named(numbers: Path) -> None:
    class Own(Stream):
        def _download_file(self, *names: str) -> str:
            return ""

    with pytest.raises(SettingError, match=r"^Own: expected no methods that mx8shards does not call, got _download"):
        StreamingDataset(streams=[Own(local=str(numbers / "a"))], batch_size=1)
    with pytest.raises(AttributeError, match=r"no attribute 'prepare_shard': a StreamingDataset has prepare_shard"):
        Stream(local=str(numbers / "a")).prepare_shard(0)


def test_a_writer_ends_its_shard_on_request(tmp_path: Path) -> None:
    with MDSWriter(out=str(tmp_path), columns={"x": "int"}) as writer:
        for i in range(5):
            if i == 2:
                assert [len(data) for data in writer.new_samples] == [8, 8]
                writer.flush_shard()
                assert writer.new_samples == []
            writer.write({"x": i})
    assert [shard["samples"] for shard in json.loads((tmp_path / "index.json").read_text())["shards"]] == [2, 3]
    assert [found["x"] for found in StreamingDataset(local=str(tmp_path), batch_size=1)] == list(range(5))
