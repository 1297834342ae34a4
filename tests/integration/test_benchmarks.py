"""Do the benchmarks run, and does the README show their results? No test asserts a speed."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chart, data, harness, pictures, table
from benchmarks.__main__ import CASES

pytest.importorskip("litdata")
pytestmark = pytest.mark.streaming

Results = Callable[[str], dict[str, Any]]

EVERY_CASE = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def results_of(repository: Path, directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """The results of a case with tiny sizes, and what it printed. Each case runs once."""
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.quick_benchmarks", str(directory), str(out)]
    process = subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cases, statuses = process.stdin, process.stdout
    assert cases is not None
    assert statuses is not None

    @functools.cache
    def run(case: str) -> dict[str, Any]:
        print(case, file=cases, flush=True)
        assert statuses.readline() == "0\n"
        found: dict[str, Any] = json.loads((out / f"{case}.json").read_text())
        return found

    yield run
    cases.close()
    assert process.wait(60) == 0
    statuses.close()


def test_with_an_older_checkout_only_our_contenders_are_compared(repository: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "older"
    checkout.mkdir()
    for name in ("mx8shards", "benchmarks"):
        (checkout / name).symlink_to(repository / name)
    command = [sys.executable, "-m", "benchmarks", "open", "--quick", "--before", str(checkout)]
    command += ["--json", str(tmp_path / "out.json"), "--directory", str(tmp_path)]
    subprocess.run(command, cwd=repository, capture_output=True, check=True)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["groups"]
    assert all(group.keys() == {"now", "before"} for group in found["groups"].values())


@EVERY_CASE
def test_a_case_reports_all_contenders_with_all_their_numbers(case: str, results_of: Results) -> None:
    found = results_of(case)
    assert found["case"] == case
    assert found["runs"]
    for contenders in found["groups"].values():
        assert len(contenders) > (case != "frames")  # its peers are installed by hand
        for contender in contenders.values():
            numbers = contender["numbers"]
            assert {"processor_s", "peak_mb", "peak_growth_mb", "anonymous_growth_mb"} <= numbers.keys()
            assert all(spread["low"] <= spread["median"] <= spread["high"] for spread in numbers.values())


@EVERY_CASE
def test_a_case_records_the_machine_and_the_versions(case: str, results_of: Results) -> None:
    facts = results_of(case)["machine"]
    assert all(facts[key] for key in ("processor", "cores", "memory_gb", "kernel", "disk", "python", "commit", "date"))
    assert {"mx8shards", "mosaicml-streaming", "litdata", "numpy"} <= facts["versions"].keys()


@EVERY_CASE
def test_a_case_prints_its_table_and_whether_its_targets_are_met(case: str, results_of: Results) -> None:
    printed = results_of(case)["printed"]
    assert table.render(results_of(case)) in printed
    assert all(target["claim"] in printed for target in results_of(case)["targets"])


def test_the_cases_leave_no_files_behind(results_of: Results, directory: Path) -> None:
    assert all(map(results_of, CASES))
    assert list(directory.iterdir()) == []


def test_a_contender_that_fails_ends_the_run_with_its_message(tmp_path: Path) -> None:
    job = harness.Job(group="g", contender="c", run=data.load, arguments={"path": str(tmp_path / "missing.npz")})
    with pytest.raises(SystemExit, match=r"(?s)g, c: ended with 1.*missing\.npz"):
        harness.in_a_process(job, tmp_path)


def test_ratios_are_computed_within_a_round() -> None:
    runs = [
        {"round": k, "group": "g", "contender": contender, "numbers": {"s": seconds}}
        for k, pair in enumerate([(1.0, 2.0), (10.0, 30.0), (1.0, 4.0)])
        for contender, seconds in zip(("ours", "peer"), pair, strict=True)
    ]
    assert harness.spread(harness.ratios(runs, "g", "peer", "ours", "s")) == {"median": 3.0, "low": 2.0, "high": 4.0}


@pytest.mark.parametrize("case", table.kept())
def test_the_tables_show_the_kept_results(case: str, repository: Path) -> None:
    kept = table.load(case)
    assert not kept["quick"]
    assert kept["rounds"] >= (1 if case == "frames" else 3)  # which measures no time
    assert table.render(kept) in (repository / "benchmarks" / "README.md").read_text()


def test_regenerating_tables_and_chart_changes_nothing() -> None:
    assert table.updated() == table.PAGE.read_text()
    assert chart.render() == chart.FILE.read_text()


def test_kept_results_name_no_local_directory(repository: Path) -> None:
    for path in (repository / "benchmarks" / "results").glob("*.json"):
        assert not re.search(r"/(tmp|home|root|work|var)/", path.read_text()), path


def test_the_benchmark_data_are_equal_on_every_machine() -> None:
    """The bytes of a JPEG depend on the encoder's version, its size hardly does."""
    assert data.arrays(2)[1, :4].tolist() == [1739, 1690, 1658, 1641]
    assert data.texts(1, words=3) == ["esode fe osr"]
    assert all(110_000 < len(photo) < 130_000 for photo in data.photos(2))
    assert {len(blob) for blob in data.blobs(2)} == {data.BLOB_BYTES}
    assert all(80_000 < len(picture) < 140_000 for picture in pictures.generated(2))
