"""Can litdata, the second foreign reader of MDS, read our datasets?

It reads only datasets whose shards are all compressed with plain "zstd", supports seven of the encodings, and deletes
each compressed file after unpacking it, so it gets a copy.
"""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mx8shards as mx8
from tests.conformance.streaming_peer import write_ours
from tests.strategies import EXAMPLES, NUMBERED, numbered_samples, picture, same, samples_as_read

KNOWN = ("bytes", "int", "str")


@pytest.fixture
def litdata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    found = pytest.importorskip("litdata")
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    return found


def read(litdata: Any, root: Path) -> list[Any]:
    copy = root.with_name("copy")
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".mx8shards"))
    return list(litdata.StreamingDataset(str(copy)))


def padded(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make shards compressible: litdata takes a shard for damaged if compression makes it larger."""
    return [sample | {"~": bytes(300)} for sample in samples]


@pytest.mark.parametrize("encoding", ["bytes", "int", "json", "pil", "str"])
def test_litdata_decodes_our_payloads(encoding: str, litdata: Any, tmp_path: Path) -> None:
    columns = {"value": encoding, "~": "bytes"}
    samples = padded([{"value": value} for value in EXAMPLES[encoding]])
    root = write_ours(tmp_path / "data", columns, samples, compression="zstd")
    assert same(read(litdata, root), samples_as_read(columns, samples))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_litdata_decodes_our_jpegs_and_lists_of_jpegs(litdata: Any, tmp_path: Path) -> None:
    """As RGB tensors with channels first. litdata decodes rotated JPEGs with PIL, others with a real torchvision."""
    upright = Image.Exif()
    upright[0x0112] = 1
    file = io.BytesIO()
    picture("RGB", (16, 8), 1).save(file, format="JPEG", exif=upright)
    columns = {"list": "jpeg_array", "one": "jpeg", "~": "bytes"}
    samples = padded([{"list": [file.getvalue()] * count, "one": file.getvalue()} for count in (1, 3)])
    found = read(litdata, write_ours(tmp_path / "data", columns, samples, compression="zstd"))
    wanted = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert [len(sample["list"]) for sample in found] == [1, 3]
    for tensor in [sample["one"] for sample in found] + [one for sample in found for one in sample["list"]]:
        assert np.array_equal(tensor.numpy(), wanted)


def test_litdata_reads_all_samples_of_all_shards_in_order(litdata: Any, tmp_path: Path) -> None:
    columns = {name: encoding for name, encoding in NUMBERED.items() if encoding in KNOWN} | {"~": "bytes"}
    samples = padded([{name: s[name] for name in columns if name in s} for s in numbered_samples(50)])
    root = write_ours(tmp_path / "data", columns, samples[:30], compression="zstd", size_limit=4000, metadata={"a": 1})
    write_ours(root, columns, samples[30:], compression="zstd", size_limit=4000, mode="append")
    assert len(list(root.glob("*.zstd"))) > 3
    assert same(read(litdata, root), samples)


def test_we_read_the_raw_shards_that_litdata_leaves(litdata: Any, tmp_path: Path) -> None:
    columns = {"x": "int", "~": "bytes"}
    root = write_ours(tmp_path / "data", columns, padded([{"x": 1}]), compression="zstd")
    assert len(list(itertools.islice(litdata.StreamingDataset(str(root)), 1))) == 1
    assert not (root / "shard.00000.mds.zstd").exists()
    with mx8.Dataset(root) as dataset:
        assert dataset[0]["x"] == 1
