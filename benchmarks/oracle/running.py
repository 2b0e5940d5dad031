"""Cases run in processes of a tree's own; what they print is kept, so that an interrupted run goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.oracle.cases import Case
from benchmarks.oracle.trees import BadTree, Tree

INTERRUPTED = 130
"""Exit code of a command that saved what it had."""


class Interrupted(Exception):
    """A process of a tree was interrupted."""


def studies(tree: Tree, out: Path) -> list[str]:
    """Names of the studies of a tree, as its command line lists them.

    Raises:
        BadTree: its command line does not.
    """
    found = _process(tree, ["list-studies"], out)
    rule, table = False, []
    for line in found.stdout.splitlines():
        if rule and line.strip():
            table.append(line.split()[0])
        rule = rule or re.fullmatch(r"\s*[-─]{9,}\s*", line) is not None
    if found.returncode or not table:
        raise BadTree(f"the studies of {tree.given!r} cannot be listed: {_last_line(found)}")
    return table


def run_all(trees: Sequence[Tree], cases: Sequence[Case], out: Path, jobs: int) -> Iterator[tuple[Tree, Case, dict]]:
    """Run every case on every tree, so many processes at a time; yields them as they end.

    Raises:
        Interrupted: a process was; what is done is kept.
    """
    work = [(tree, case) for case in cases for tree in trees]
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_case, tree, case, out) for tree, case in work]
        try:
            for (tree, case), future in zip(work, futures, strict=True):
                yield tree, case, future.result()
        finally:
            for future in futures:
                future.cancel()


def run_case(tree: Tree, case: Case, out: Path) -> dict[str, Any]:
    """What the case's commands print on this tree: `tables`, by name; `failure`, one line, where one fails; `seconds`.

    Seconds are processor time, but for that of an earlier run that was interrupted. A result is read where it is kept
    and was run with the same arguments.

    Raises:
        Interrupted: a process was interrupted.
    """
    place = out / "runs" / tree.key / re.sub(r"[^a-z0-9]+", "-", case.name)
    kept, arguments = place.with_suffix(".json"), [case.arguments(), case.afterwards()]
    if kept.is_file():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["arguments"] == arguments:
            return content
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    folder = ["--out", str(place.absolute())]
    content: dict[str, Any] = {"arguments": arguments, "tables": {}, "failure": None, "seconds": 0.0}
    commands = {case.name: case.arguments() + (folder if case.writes else [])}
    commands |= {name: [*words, *folder] for name, words in case.afterwards().items()}
    for name, words in commands.items():
        done = _process(tree, words, place)
        content["seconds"] += _seconds(done)
        if done.returncode == INTERRUPTED or done.returncode < 0:
            raise Interrupted(f"{name} of {tree.given}")
        if done.returncode:
            content["failure"] = f"{words[0]}: exit code {done.returncode}: {_last_line(done)}"
            break
        content["tables"] |= _csv(name, done.stdout) if "--csv" in words else _json(name, done.stdout)
    if content["failure"]:  # it may be that of a full disk: the same command tries again
        return content
    temporary = kept.with_name(f".{kept.name}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, kept)
    return content


def _json(name: str, text: str) -> dict[str, list[dict[str, Any]]]:
    """The tables of a JSON object: the rows, and what a study of teachers compares."""
    content = json.loads(text)
    if isinstance(content, list):
        return {name: content}
    extra = {f"{name}: {key}": content[key] for key in ("comparisons", "correlations") if content.get(key)}
    return {name: content["rows"], **extra}


def _csv(name: str, text: str) -> dict[str, list[dict[str, Any]]]:
    return {name: [{key: _value(cell) for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]}


def _value(cell: str) -> Any:
    """A cell of CSV in the type that JSON has for it."""
    named = {"": None, "true": True, "false": False}
    if cell.lower() in named:
        return named[cell.lower()]
    try:
        return float(cell)
    except ValueError:
        return cell


def _process(tree: Tree, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        tree.command(arguments),
        env=tree.environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def _seconds(done: subprocess.CompletedProcess[str]) -> float:
    """Processor time of a process, as trees.LAUNCH printed it; 0 where it ended before."""
    found = re.search(r"^oracle: ([\d.]+)$", done.stderr, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("oracle: ")]
    return lines[-1].strip() if lines else "it printed nothing on standard error"
