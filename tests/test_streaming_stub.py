"""Are the real peers (mosaicml-streaming, litdata) imported, not stubs?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SAMPLES = [{"image": bytes([i]) * i, "label": i, "text": f"sample {i}"} for i in range(100)]


def write(streaming: Any, root: Path, compression: str | None) -> Path:
    columns = {"image": "bytes", "label": "int", "text": "str"}
    with streaming.MDSWriter(out=str(root), columns=columns, compression=compression, size_limit=2048) as writer:
        for sample in SAMPLES:
            writer.write(sample)
    return root


def test_streaming_reads_what_it_writes_in_this_process(streaming: Any, tmp_path: Path) -> None:
    root = write(streaming, tmp_path / "data", None)
    local = streaming.LocalDataset(str(root))
    assert [local[i] for i in range(len(local))] == SAMPLES
    assert list(streaming.StreamingDataset(local=str(root), batch_size=1, shuffle=False)) == SAMPLES


def test_streaming_reads_what_it_writes_in_a_subprocess(streaming: Any, tmp_path: Path, repository: Path) -> None:
    root = write(streaming, tmp_path / "data", "zstd")
    code = f"""
from tests.streaming_stub import import_streaming
dataset = import_streaming().StreamingDataset(local={str(root)!r}, batch_size=1, shuffle=False)
print([sample["label"] for sample in dataset])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([sample["label"] for sample in SAMPLES])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_of_streaming_delivers_every_sample(streaming: Any, tmp_path: Path, workers: int) -> None:
    dataset = streaming.StreamingDataset(
        local=str(write(streaming, tmp_path / "data", None)), batch_size=5, shuffle=True
    )
    loader = streaming.StreamingDataLoader(dataset, batch_size=5, num_workers=workers, collate_fn=list)
    assert sorted(sample["label"] for batch in loader for sample in batch) == list(range(len(SAMPLES)))


def test_litdata_reads_a_zstd_dataset_and_removes_its_files(streaming: Any, tmp_path: Path) -> None:
    """litdata reads MDS only if all shards are compressed with plain "zstd", and removes each file that it unpacks."""
    litdata = pytest.importorskip("litdata")
    root = write(streaming, tmp_path / "data", "zstd")
    copy = shutil.copytree(root, tmp_path / "copy")
    assert list(litdata.StreamingDataset(str(copy))) == SAMPLES
    assert not list(copy.glob("*.zstd"))
