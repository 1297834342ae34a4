"""How are results rendered as tables in benchmarks/README.md? (python -m benchmarks table)"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "README.md"

Results = dict[str, Any]


def render(results: Results) -> str:
    """One case as Markdown: the table, the machine, the notes and the targets."""
    groups = list(results["groups"])
    parts = [_table(results, groups), _skipped(results), _where(results), results["notes"], verdicts(results)]
    return "\n\n".join(filter(None, parts))


def _table(results: Results, groups: list[str]) -> str:
    columns = results["columns"]
    lines = [_row(["", "", *(column["title"] for column in columns)])]
    lines.append(_row(["---", "---", *("--:" for _ in columns)]))
    for group in groups:
        shown = group
        for contender, found in results["groups"][group].items():
            lines.append(_row([shown, contender, *(_cell(column, found) for column in columns)]))
            shown = ""
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: dict[str, Any], found: dict[str, Any]) -> str:
    values = found["ratios" if column["ratio"] else "numbers"].get(column["number"])
    if values is None:
        return ""
    low, median, high = (f"{values[key]:,.{column['digits']}f}" for key in ("low", "median", "high"))
    median = f"{median} ×" if column["ratio"] else median
    return f"{median} ({low}–{high})" if column["spread"] and low != high else median


def _skipped(results: Results) -> str:
    found = "; ".join(f"{contender}, because {reason}" for contender, reason in results.get("skipped", {}).items())
    return f"Not measured here: {found}." if found else ""


def _where(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["machine"]["versions"].items())
    rounds = f"{results['rounds']} interleaved rounds" if results["rounds"] > 1 else "One round"
    how = f"{rounds}: the median (lowest–highest); ratios are computed within a round."
    return f"{how} {machine_text(results)} {versions}; commit {results['machine']['commit']}."


def machine_text(results: Results) -> str:
    """The date and the machine of a measurement."""
    facts = results["machine"]
    return (
        f"Measured {facts['date']}: {facts['processor']}, {facts['cores']} cores, {facts['memory_gb']:.0f} GB, "
        f"{facts['disk']}, {facts['kernel']}, Python {facts['python']}."
    )


def verdicts(results: Results) -> str:
    """The targets, as a list of met and missed ones."""
    return "\n".join(_verdict(target) for target in results["targets"])


def _verdict(target: dict[str, Any]) -> str:
    found = ", ".join(_term(term) for term in target["found"])
    return f"- {'met' if target['met'] else '**missed**'}: {target['claim']}: {found}"


def _term(term: dict[str, Any]) -> str:
    wanted = f"≥ {term['least']:g}" if "least" in term else f"≤ {term['most']:g}"
    return f"{term['median']:.3g} ({term['low']:.3g}–{term['high']:.3g}) for {wanted}"


def load(name: str) -> Results:
    """Load the stored results of a case."""
    results: Results = json.loads((RESULTS / f"{name}.json").read_text())
    return results


def kept() -> list[str]:
    """The cases with stored results, which are shown in the README."""
    return sorted(path.stem for path in RESULTS.glob("*.json"))


def save(results: Results, path: Path) -> None:
    """Store results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def updated() -> str:
    """The page, with the text between `<!-- bench:case -->` and `<!-- /bench -->` generated from the results."""

    def shown(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{render(load(match[2]))}\n\n{match[3]}"

    return re.sub(r"(<!-- bench:(\w+) -->).*?(<!-- /bench -->)", shown, PAGE.read_text(), flags=re.DOTALL)
