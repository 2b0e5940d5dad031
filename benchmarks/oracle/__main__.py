"""Does a rebuilt kdsim give the numbers that it gave? Two source trees, every study, compared row by row.

    python -m benchmarks.oracle BEFORE [AFTER] [--only STUDY ...] [--out DIR] [--jobs N]

BEFORE and AFTER are folders with a source tree, or commits of this repository; AFTER is by default the tree that this
file lies in. Each tree is run by its own command line alone, in processes that import no other, at the sizes of
cases.py; compare.py says what agrees. Engines for GPUs are not run. One line a table, then each difference with study,
row, column and both values. Everything is kept under --out: the same command goes on where it was interrupted, and a
commit or folder that has been run is not run again. A whole run goes to benchmarks/results/oracle.json.

Exit code 0: the trees agree; 1: they differ, or a case fails; 2: bad input; 130: interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.oracle.cases import CASES, Case, chosen
from benchmarks.oracle.compare import LEVEL, OF_START, RELATIVE, RENAMED, Comparison, compare, lines
from benchmarks.oracle.running import Interrupted, run_all, studies
from benchmarks.oracle.trees import ROOT, BadTree, Tree, again, snapshot

RESULT = ROOT / "benchmarks" / "results" / "oracle.json"
AGREE, DIFFER, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run, compare, print and store. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.oracle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", metavar="BEFORE", help="a folder or a commit")
    parser.add_argument("after", metavar="AFTER", nargs="?", default=str(ROOT), help="likewise; default: this tree")
    parser.add_argument("--only", metavar="STUDY", nargs="+", action="extend", help="cases of these studies")
    parser.add_argument("--out", metavar="DIR", help="default: a folder kdsim-oracle among the temporary files")
    parser.add_argument("--jobs", metavar="N", type=int, default=_cores(), help="processes at a time [%(default)s]")
    options = parser.parse_args(arguments)
    out = Path(options.out or Path(tempfile.gettempdir()) / "kdsim-oracle").absolute()
    try:
        if options.jobs < 1:
            raise ValueError(f"--jobs {options.jobs}: must be at least 1")
        cases = chosen(options.only)
        out.mkdir(parents=True, exist_ok=True)
        before, after = snapshot(options.before, out), snapshot(options.after, out)
        if before.key == after.key:
            after = again(after)
        named = [studies(tree, out) for tree in (before, after)]
    except (BadTree, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    started = time.monotonic()
    try:
        runs = _run(before, after, cases, named, out, options.jobs)
    except (Interrupted, KeyboardInterrupt):
        print(f"interrupted; the same command goes on from {out}", file=sys.stderr)
        return INTERRUPTED
    code, record = report(before, after, named, runs, whole=not options.only)
    record["wall_seconds"] = time.monotonic() - started
    for file in (out / "oracle.json", *([] if options.only else [RESULT])):
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return code


Runs = list[tuple[Case, dict[str, dict[str, Any]]]]
"""Each case with what it gave on each tree, by the tree's key; a tree that lacks the study is not there."""


def _run(before: Tree, after: Tree, cases: tuple[Case, ...], named: list[list[str]], out: Path, jobs: int) -> Runs:
    found: dict[str, dict[str, dict[str, Any]]] = {case.name: {} for case in cases}
    both = [case for case in cases if all(case.study in names for names in named)]
    for tree, case, content in run_all((before, after), both, out, jobs):
        found[case.name][tree.key] = content
        ended = content["failure"] or f"{content['seconds']:.0f} s"
        print(f"{case.name}, {tree.key}: {ended}", file=sys.stderr)
    return [(case, found[case.name]) for case in cases]


def report(before: Tree, after: Tree, named: list[list[str]], runs: Runs, whole: bool) -> tuple[int, dict[str, Any]]:
    """Print the table and all differences; the exit code and what is stored."""
    print(f"BEFORE {before.given} ({before.key}), AFTER {after.given} ({after.key})\n")
    table, details, code = [("study", "rows", "columns", "largest rel.", "verdict")], [], AGREE
    record: dict[str, Any] = {"tables": {}, "studies": {}}
    for study in dict.fromkeys([*named[0], *named[1]]) if whole else ():
        lists = zip(("BEFORE", "AFTER"), named, strict=True)
        lacking = [f"not in {name}" for name, names in lists if study not in names]
        if not lacking and study not in {case.study for case in CASES}:
            lacking = ["has no case in benchmarks/oracle/cases.py"]
        if lacking:
            table.append((study, "-", "-", "-", lacking[0].upper()))
            record["studies"][study] = lacking[0]
            code = DIFFER
    for case, found in runs:
        if not found:
            if not whole:
                table.append((case.study, "-", "-", "-", "NOT IN BOTH"))
                code = DIFFER
            continue
        first, second = found[before.key], found[after.key]
        failures = [f"{n}: {f['failure']}" for n, f in (("BEFORE", first), ("AFTER", second)) if f["failure"]]
        if failures:
            table.append((case.name, "-", "-", "-", "FAILS"))
            details.append((case.name, failures))
            record["tables"][case.name] = {"failures": failures}
            code = DIFFER
        for name in dict.fromkeys([*first["tables"], *second["tables"]]) if not failures else ():
            compared = compare(first["tables"].get(name, []), second["tables"].get(name, []))
            table.append(_line(name, compared))
            details.append((name, list(lines(compared))))
            record["tables"][name] = asdict(compared) | {
                "verdict": compared.verdict,
                "seconds": {"before": first["seconds"], "after": second["seconds"]},
            }
            code = DIFFER if compared.differences else code
    _print_table(table)
    for name, found_lines in details:
        if found_lines:
            print(f"\n{name}")
            print("\n".join(f"  {line}" for line in found_lines))
    seconds = {key: sum(found[key]["seconds"] for _, found in runs if found) for key in (before.key, after.key)}
    print(f"\n{'AGREE' if code == AGREE else 'DIFFER'}; seconds of all cases: {_rounded(seconds)}")
    return code, _provenance(before, after) | {"agree": code == AGREE, "seconds": seconds} | record


def _line(name: str, compared: Comparison) -> tuple[str, ...]:
    largest = f"{compared.largest:.1e}" if compared.largest else "0"
    return name, str(compared.rows), str(compared.columns), largest, compared.verdict


def _print_table(table: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for number, row in enumerate(table):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("-" * (sum(widths) + 2 * len(widths) - 2))


def _rounded(seconds: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.0f}" for key, value in seconds.items())


def _provenance(before: Tree, after: Tree) -> dict[str, Any]:
    from benchmarks.machine import hardware, versions  # it imports this tree's kdsim, which the comparison does not

    return {
        "date": datetime.date.today().isoformat(),
        "before": {"given": before.given, "key": before.key},
        "after": {"given": "." if before.given != after.given and after.given == str(ROOT) else after.given,
                  "key": after.key},
        "hardware": hardware(),
        "versions": versions(),
        "tolerance": {"relative": RELATIVE, "of_start": OF_START, "level": LEVEL},
        "renamed": RENAMED,
    }  # fmt: skip


def _cores() -> int:
    """Processes at a time by default: each takes a core and up to a GiB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


if __name__ == "__main__":
    sys.exit(main())
