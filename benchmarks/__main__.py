"""How are the benchmarks run?

python -m benchmarks CASE [--quick] [--rounds N] [--json FILE] [--directory DIR] [--keep] [--only TEXT]
                          [--before CHECKOUT]
python -m benchmarks table      generate the tables in benchmarks/README.md and the README's chart from the results
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from benchmarks import chart, harness, table

CASES = (
    *("write", "getitem", "open", "zstd"),
    *(
        "gather",
        "small",
        "cold",
        "larger_than_ram",
        "utilisation",
        "memory",
        "first_batch",
        "first_use",
        "resume",
        "scale",
    ),
    *("images", "photos", "pixels", "convert", "accuracy", "clips", "frames", "sync", "stream", "dropin"),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure one case, or generate the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", choices=[*CASES, "table"])
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to check that the benchmark runs; the numbers mean nothing"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of rounds; each measures every contender once (default: 5)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="output file (default: benchmarks/results/CASE.json, unless --quick)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="a directory on the disk to measure (default: the temporary directory)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the data in DIR, for the next run with --keep; a case may then not write it again (clips)",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only groups whose names contain this text")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="CHECKOUT",
        help="compare our code with an older checkout, without peers",
    )
    options = parser.parse_args(arguments)
    if options.case == "table":
        table.PAGE.write_text(table.updated())
        chart.FILE.write_text(chart.render())
        return
    case: Any = importlib.import_module(f"benchmarks.cases.{options.case}")
    rounds = 1 if options.quick and options.rounds == 5 else options.rounds
    place = {"parent": options.directory, "before": options.before, "keep": options.keep, "only": options.only}
    results = harness.run(options.case, case, rounds=rounds, quick=options.quick, **place)
    if options.json or not (options.quick or options.before or options.only):
        table.save(results, options.json or table.RESULTS / f"{options.case}.json")
    print(table.render(results))


if __name__ == "__main__":
    main()
