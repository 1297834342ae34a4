"""Does `explain` name the bottleneck of a loader? Each test creates one cause."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import mx8shards as mx8
from tests.loader.faults import ChecksumDecoder
from tests.loader.filesystem import Mirror, mirrored
from tests.loader.leak_checks import time_limit, write

SAMPLES, BATCH = 160, 8


@dataclass(frozen=True)
class Case:
    """Delays: for reading 128 KiB, decoding a sample, transforming a batch, and consuming a batch."""

    expected: Literal["storage", "gather", "decode", "transform", "consumer"]
    read_s: float = 0.0
    decode_s: float = 0.0
    transform_s: float = 0.0
    consume_s: float = 0.0
    io: Literal["auto", "mmap", "pread"] = "auto"
    threads: int = 2
    large: bool = False


CASES = [
    Case("storage", read_s=0.01),
    Case("storage", read_s=0.01, io="pread", threads=1),
    Case("storage", read_s=0.01, io="mmap"),
    Case("storage", read_s=0.02, transform_s=0.001, consume_s=0.001),
    Case("decode", decode_s=0.003),
    Case("decode", decode_s=0.004, transform_s=0.004, consume_s=0.001),
    Case("transform", transform_s=0.03),
    Case("transform", transform_s=0.04, decode_s=0.001, consume_s=0.002),
    Case("consumer", consume_s=0.02),
    Case("consumer", consume_s=0.06, decode_s=0.001, transform_s=0.005),
    Case("gather", large=True, threads=1),
    Case("gather", large=True, threads=1, io="mmap", consume_s=0.0001),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("explain") / "data", SAMPLES, size_limit="4kb")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Payloads so large that copying them takes most of the time."""
    root = tmp_path_factory.mktemp("explain") / "large"
    with mx8.Writer(root, columns={"blob": "bytes"}, hashes=(), threads=1) as writer:
        for i in range(64):
            writer.write({"blob": bytes([i]) * (1 << 20)})
    return root


@pytest.fixture
def shown(data: Path, tmp_path: Path) -> Iterator[Mirror]:
    with mirrored(data, tmp_path / "mount") as found:
        yield found


def named(case: Case, root: Path) -> mx8.Loader | Any:
    """The bottleneck that `explain` names after an epoch with these delays."""

    def transform(batch: Any) -> Any:
        if case.transform_s:
            time.sleep(case.transform_s)
        return batch

    decode = {"blob": ChecksumDecoder(takes_s=case.decode_s)} if case.decode_s else None
    with (
        mx8.Dataset(root) as dataset,
        mx8.Loader(
            dataset,
            batch_size=BATCH,
            shuffle=True,
            decode=decode,
            transform=transform,
            threads=case.threads,
            io=case.io,
            output="numpy",
        ) as loader,
    ):
        for _ in loader:
            if case.consume_s:
                time.sleep(case.consume_s)
        return loader.explain()


def test_the_bottleneck_is_named_in_eleven_of_twelve_cases(data: Path, large: Path, shown: Mirror) -> None:
    wrong = []
    named(Case("consumer"), data)  # the first loader of a process also waits for compilation
    with time_limit():
        for case in CASES:
            root = large if case.large else data
            if case.read_s:
                shown.reads("ok")
                shown.forget()
                shown.reads(f"delay {case.read_s}")
                root = shown.root
            found = named(case, root)
            if found.bottleneck != case.expected:
                wrong.append(f"{case}: {found}")
    assert len(wrong) <= 1, "\n".join(wrong)


COMPILED = """
import sys
import mx8shards as mx8
with mx8.Loader(mx8.Dataset(sys.argv[1]), batch_size=8, shuffle=True, threads=2, output="numpy") as loader:
    for batch in loader:
        pass
    found, stats = loader.explain(), loader.stats()
print(found.bottleneck)
others = [stats[f"{kind}_s"] for kind in ("plan", "read", "gather", "decode")]
assert stats["compile_s"] > sum(others), (stats, str(found))
"""


def test_explain_names_compiling_in_a_first_epoch_that_waits_for_kernels(
    data: Path, tmp_path: Path, repository: Path
) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    run = [sys.executable, "-c", COMPILED, str(data)]
    done = subprocess.run(run, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("compile\n", 0), done.stderr
