"""Do the notebooks run, and are they stored without output?

Their code cells are plain Python, so they are run as a script: a Jupyter kernel would only add minutes and thirty
packages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import streaming_stub

pytest.importorskip("torch")
pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
EVERY_NOTEBOOK = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

STAND_INS = "from tests import streaming_stub\nstreaming_stub.is_installed() and streaming_stub.import_streaming()\n"


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def output_of(name: str, repository: Path, tmp_path: Path) -> list[str]:
    """The lines that a notebook prints with small data."""
    script = tmp_path / f"{name}.py"
    path = repository / "notebooks" / f"{name}.ipynb"
    script.write_text(STAND_INS + "\n\n".join("".join(cell["source"]) for cell in code_cells(path)))
    environment = {
        **os.environ,
        "MX8SHARDS_NOTEBOOK_PICTURES": "24",
        "MX8SHARDS_NOTEBOOK_SHARDS": "16",
        "MX8SHARDS_NOTEBOOK_VIDEOS": "2",
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("*/")), "it leaves a folder behind"
    return done.stdout.splitlines()


def test_the_notebook_of_epochs_runs_on_small_data(repository: Path, tmp_path: Path) -> None:
    lines = output_of("cold_warm_epochs", repository, tmp_path)
    for name in ("mx8shards", "plain folder", *(["mosaicml-streaming"] if streaming_stub.is_installed() else [])):
        assert any(line.startswith(name) and line.count("images/s") == 3 for line in lines), name


def test_the_notebook_of_remote_data_runs_on_small_data(repository: Path, tmp_path: Path) -> None:
    for package in ("moto", "boto3", "obstore"):
        pytest.importorskip(package)
    lines = output_of("remote_cache", repository, tmp_path)
    fetched = [int(match[1]) for line in lines if (match := re.search(r"(\d+) of 16 shards fetched", line))]
    assert fetched[:3] == [16, 0, 0]
    assert len(fetched) == 6
    assert all(0 < shards < 16 for shards in fetched[4:])
    assert [line.split()[0] for line in lines if " samples: s3://" in line] == ["1600", "1601", "1600"]


def test_the_notebook_of_clips_runs_on_small_data(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    lines = output_of("video_clips", repository, tmp_path)
    assert [line.split(":")[0] for line in lines if line.endswith(" clips/s")] == ["cold", "warm", "warm"]


@EVERY_NOTEBOOK
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells(path))
