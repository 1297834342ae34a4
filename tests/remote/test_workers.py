"""Do DataLoader workers read a remote dataset that their parent has opened and used?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.fault_server import FaultServer
from tests.remote.jobs import write

pytest.importorskip("torch")
pytest.importorskip("obstore")

SAMPLES = 25 * 12

SCRIPT = """
import json, sys
from torch.utils.data import DataLoader
import mx8shards as mx8

def main(url, place, context):
    found = {}
    with mx8.Dataset(url, local=f"{place}/plain") as dataset:
        dataset[0]  # connects, and starts the threads of the client
        plain = DataLoader(dataset, batch_size=10, num_workers=2, multiprocessing_context=context, collate_fn=list)
        found["dataset[i]"] = [sample["x"] for batch in plain for sample in batch]
        found["again"] = dataset[299]["x"]
    with (
        mx8.Dataset(url, local=f"{place}/loader") as dataset,
        mx8.Loader(dataset, batch_size=10, threads=1, memory="16mb") as loader,
    ):
        next(iter(loader))
        workers = {"batch_size": None, "num_workers": 2, "multiprocessing_context": context}
        batches = DataLoader(loader.as_iterable_dataset(), **workers)
        found["batches"] = sorted(x for batch in batches for x in batch["x"].tolist())
    return found

if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
"""


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.hunt)])
def test_workers_of_a_data_loader_read_what_their_parent_opened(
    context: str, fault_server: FaultServer, tmp_path: Path, repository: Path
) -> None:
    write(tmp_path / "written", SAMPLES, 2_000)
    for path in (path for path in (tmp_path / "written").rglob("*") if path.is_file() and path.name != "lock"):
        fault_server.put(f"set/{path.relative_to(tmp_path / 'written').as_posix()}", path.read_bytes())
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), fault_server.url("set"), str(tmp_path), context],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rest = list(range(10, SAMPLES))  # the parent has taken the first batch
    assert found == {"dataset[i]": list(range(SAMPLES)), "again": 299, "batches": rest}
