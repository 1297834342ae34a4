"""Do ranks that torchrun starts read their parts of an epoch?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RANK = """
import json, os, sys
from mx8shards.streaming import StreamingDataLoader, StreamingDataset

data, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
dataset = StreamingDataset(local=data, batch_size=6, shuffle=True)
loader = StreamingDataLoader(dataset, batch_size=6, num_workers=workers)
batches = [batch["id"].tolist() for batch in loader]
with open(f"{out}/{os.environ['RANK']}.json", "w") as file:
    json.dump([batches, loader.state_dict()], file)
"""


@pytest.mark.hunt  # three processes import torch
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_of_torchrun_divide_an_epoch(workers: int, numbers: Path, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(tmp_path / "rank.py"),
    ]
    done = subprocess.run(
        [*command, str(numbers / "a"), str(tmp_path), str(workers)],
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (first, state), (second, other) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert len(first) == len(second) == 25
    assert sorted(i for batch in [*first, *second] for i in batch) == list(range(300))
    assert state == other
    assert state["sample_in_epoch"] == 300
