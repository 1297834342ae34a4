"""How are contenders compared fairly?

Every run is a separate process. Rounds are interleaved: each round runs all contenders of a group, starting with a
different one, so that a slow minute of the machine affects all of them. Ratios are computed within a round; the median,
the minimum and the maximum are reported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks import machine
from benchmarks.process import Numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The run of one contender in one group: calls `run` with `arguments` in a separate process.

    The first contender of a group is the reference of the ratios.
    """

    group: str
    contender: str
    run: Callable[..., Numbers]
    arguments: dict[str, Any]
    settings: dict[str, object] = field(default_factory=dict)
    rounds: int | None = None  # fewer rounds for a slow contender, if set
    needs: str = ""  # a module; the job is skipped if it is not installed
    checkout: Path = machine.ROOT  # the checkout whose package and benchmarks run


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table: a number of each contender, or its ratio to the first contender's number."""

    title: str
    number: str
    digits: int = 1
    ratio: bool = False
    spread: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A condition of a target: bounds for a number of `contender`, or for its ratio to the number of `against`."""

    group: str
    contender: str
    number: str
    against: str = ""
    least: float = float("-inf")
    most: float = float("inf")


@dataclass(frozen=True, slots=True)
class Target:
    """A claim that is met if any of its conditions holds."""

    claim: str
    wanted: tuple[Wanted, ...]


class Case(Protocol):
    """A module of benchmarks/cases; its docstring's first line is the question."""

    @property
    def NOTES(self) -> str:  # noqa: N802
        """Explanations of the table, in Markdown."""

    @property
    def COLUMNS(self) -> Sequence[Column]:  # noqa: N802
        """The columns of the table."""

    @property
    def NEEDS_BYTES(self) -> int:  # noqa: N802
        """The disk space needed."""

    def prepare(self, directory: Path, *, quick: bool) -> None:
        """Write the data for all contenders."""

    def jobs(self, directory: Path, *, quick: bool) -> list[Job]:
        """All jobs. Jobs of one group are compared."""

    def targets(self) -> list[Target]:
        """The targets."""


def run(
    name: str,
    case: Case,
    *,
    rounds: int,
    quick: bool,
    parent: Path | None = None,
    before: Path | None = None,
    keep: bool = False,
    only: str = "",
) -> dict[str, Any]:
    """Run a case and return its results for JSON.

    Args:
        name: The name of the case.
        case: Its module.
        rounds: How often every contender runs.
        quick: Whether to use tiny sizes.
        parent: Where the directory of the data is made.
        before: An older checkout; our code is compared with it only.
        keep: Whether the data stay there.
        only: A text that the names of the measured groups contain.
    """
    start = time.monotonic()
    question = (case.__doc__ or "").partition("\n")[0]
    with _directory(f"mx8shards-{name}", parent, keep=keep) as directory:
        _require_room(directory, case.NEEDS_BYTES >> (4 if quick else 0))
        facts = machine.facts(directory)
        say(f"{name}: {question}")
        case.prepare(directory, quick=quick)
        wanted = [job for job in case.jobs(directory, quick=quick) if only in job.group]
        jobs = [job for job in wanted if is_installed(job.needs)]
        skipped = {job.contender: f"{job.needs} is not installed" for job in wanted if job not in jobs}
        for contender, reason in skipped.items():
            say(f"  {contender}: skipped, {reason}")
        if before is not None:
            jobs = _now_and_before(jobs, before)
        runs = _interleaved(jobs, rounds, directory)
    groups = _groups(jobs, runs)
    return {
        "case": name,
        "question": question,
        "notes": case.NOTES.strip(),
        "quick": quick,
        "rounds": rounds,
        "seconds": round(time.monotonic() - start, 1),
        "machine": facts,
        "groups": groups,
        "skipped": skipped,
        "targets": [_judged(target, runs) for target in case.targets() if _is_measured(target, groups)],
        "columns": [
            {"title": column.title, "number": column.number, "digits": column.digits}
            | {"ratio": column.ratio, "spread": column.spread}
            for column in case.COLUMNS
        ],
        "runs": runs,
    }


@contextlib.contextmanager
def _directory(name: str, parent: Path | None, *, keep: bool) -> Iterator[Path]:
    """A directory for the data of a case, removed at the end unless it is kept."""
    if keep:
        kept = Path(parent or tempfile.gettempdir(), name)
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent) as text:
            yield Path(text)


def _now_and_before(jobs: Sequence[Job], before: Path) -> list[Job]:
    """For each of our jobs, a group of two: this code and the older checkout's."""
    found = []
    for job in jobs:
        if str(job.arguments.get("adapter", "")).startswith("ours"):
            now = replace(job, group=f"{job.group}: {job.contender}", contender="now")
            found += [now, replace(now, contender="before", checkout=before.resolve())]
    return found


def _require_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < 2 * needed:
        raise SystemExit(f"{directory}: expected {2 * needed / 1e9:.1f} GB of free disk, got {free / 1e9:.1f} GB")


def _interleaved(jobs: Sequence[Job], rounds: int, directory: Path) -> list[dict[str, Any]]:
    runs = []
    for number in range(rounds):
        for group in dict.fromkeys(job.group for job in jobs):
            members = [job for job in jobs if job.group == group]
            for k in range(len(members)):
                job = members[(number + k) % len(members)]
                if job.rounds is None or number < job.rounds:
                    numbers = in_a_process(job, directory)
                    runs.append({"round": number, "group": group, "contender": job.contender, "numbers": numbers})
                    shown = ", ".join(f"{key} {value:.4g}" for key, value in list(numbers.items())[:4])
                    say(f"  round {number + 1}/{rounds}  {group}  {job.contender}: {shown}")
    return runs


def in_a_process(job: Job, directory: Path) -> Numbers:
    """Run one job and return its numbers. SystemExit with its stderr if it fails."""
    question = {"run": f"{job.run.__module__}:{job.run.__name__}", "arguments": job.arguments}
    private = {"HOME": str(directory), "TMPDIR": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.process"],
        cwd=job.checkout,
        env={**os.environ, **private, "PYTHONPATH": os.pathsep.join(_paths(job.checkout))},
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{job.group}, {job.contender}: ended with {done.returncode}\n{done.stderr[-4000:]}")
    numbers: Numbers = json.loads(done.stdout)
    return {key: float(f"{value:.6g}") for key, value in numbers.items()}


def _paths(checkout: Path) -> list[str]:
    """sys.path for a job: the checkout must come before an installed mx8shards."""
    return [str(checkout), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def _groups(jobs: Sequence[Job], runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for job in jobs:
        group = groups.setdefault(job.group, {})
        first = next(iter(group), job.contender)
        numbers = {number: values(runs, job.group, job.contender, number) for number in _numbers(runs, job)}
        compared = {number: ratios(runs, job.group, job.contender, first, number) for number in numbers}
        group[job.contender] = {
            "settings": job.settings,
            "numbers": {number: spread(found) for number, found in numbers.items()},
            "ratios": {number: spread(found) for number, found in compared.items() if found},
        }
    return groups


def _numbers(runs: Sequence[dict[str, Any]], job: Job) -> list[str]:
    return next(list(run["numbers"]) for run in runs if (run["group"], run["contender"]) == (job.group, job.contender))


def values(runs: Sequence[dict[str, Any]], group: str, contender: str, number: str) -> list[float]:
    """A number of one contender in each round."""
    mine = (run for run in runs if (run["group"], run["contender"]) == (group, contender))
    return [run["numbers"][number] for run in mine if number in run["numbers"]]


def ratios(runs: Sequence[dict[str, Any]], group: str, contender: str, against: str, number: str) -> list[float]:
    """The ratio of a number between two contenders, in each round."""
    pairs = zip(values(runs, group, contender, number), values(runs, group, against, number), strict=False)
    return [mine / other for mine, other in pairs if other]


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """The median, minimum and maximum of some numbers."""
    found = {"median": statistics.median(numbers), "low": min(numbers), "high": max(numbers)}
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def _is_measured(target: Target, groups: dict[str, dict[str, Any]]) -> bool:
    return all(
        {term.contender, term.against or term.contender} <= groups.get(term.group, {}).keys() for term in target.wanted
    )


def _judged(target: Target, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = [_found(wanted, runs) for wanted in target.wanted]
    return {"claim": target.claim, "met": any(term["met"] for term in found), "found": found}


def _found(wanted: Wanted, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if wanted.against:
        found = spread(ratios(runs, wanted.group, wanted.contender, wanted.against, wanted.number))
    else:
        found = spread(values(runs, wanted.group, wanted.contender, wanted.number))
    what = f"{wanted.number} of {wanted.contender}" + (f" / of {wanted.against}" if wanted.against else "")
    bounds = {"least": wanted.least} if wanted.least > float("-inf") else {"most": wanted.most}
    return {"what": what, **bounds, **found, "met": wanted.least <= found["median"] <= wanted.most}


def is_installed(module: str) -> bool:
    """Whether a module is installed; "" counts as installed."""
    try:
        return not module or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
