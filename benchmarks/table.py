"""What do the results look like in the README? (python -m benchmarks table)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

RESULTS = ROOT / "benchmarks" / "results"

Results = dict[str, Any]


def render(results: Results) -> str:
    """One case as Markdown: the table, the notes and where it was measured."""
    columns = results["columns"]
    lines = [_row(["", "", *(column["title"] for column in columns)])]
    lines.append(_row(["---", "---", *("--:" for _ in columns)]))
    for group, contenders in results["groups"].items():
        shown = group
        for contender, found in contenders.items():
            lines.append(_row([shown, contender, *(_cell(column, found) for column in columns)]))
            shown = ""
    return "\n".join([*lines, "", _where(results), "", results["notes"]])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: dict[str, Any], found: dict[str, Any]) -> str:
    values = found["ratios" if column["ratio"] else "numbers"].get(column["number"])
    if values is None:
        return ""
    low, median, high = (f"{values[key]:,.{column['digits']}f}" for key in ("low", "median", "high"))
    median = f"{median} ×" if column["ratio"] else median
    return f"{median} ({low}–{high})" if column["spread"] and low != high else median


def _where(results: Results) -> str:
    facts = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"Medians of {results['rounds']} interleaved rounds (lowest–highest); a ratio is taken within a round. "
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['disk']}, {facts['kernel']}, "
        f"Python {facts['python']}; {versions}; commit {facts['commit']}, {facts['date']}."
    )


def verdicts(results: Results) -> str:
    """Which targets are met, line by line."""
    return "\n".join(_verdict(target) for target in results["targets"])


def _verdict(target: dict[str, Any]) -> str:
    found = "; ".join(
        f"{term['median']:g} ({term['low']:g}–{term['high']:g}) for {_bound(term)}: {term['what']}"
        for term in target["found"]
    )
    return f"{'met   ' if target['met'] else 'MISSED'} {target['claim']}\n         {found}"


def _bound(term: dict[str, Any]) -> str:
    return f"≥ {term['least']:g}" if "least" in term else f"≤ {term['most']:g}"


def load(name: str) -> Results:
    """The results of a case that are kept."""
    results: Results = json.loads((RESULTS / f"{name}.json").read_text())
    return results


def save(results: Results, path: Path) -> None:
    """Keep results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def updated(text: str) -> str:
    """A README with every table between `<!-- bench:case -->` and `<!-- /bench -->` made anew from the results."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{render(load(match[2]))}\n{match[3]}"

    return re.sub(r"(<!-- bench:(\w+) -->).*?(<!-- /bench -->)", table, text, flags=re.DOTALL)
