"""What commands import: what only prints or reads starts in tenths of a second, without torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kdsim.cli.lists import KINDS

HEAVY = {"torch", "numba", "pandas", "pyarrow", "matplotlib", "scipy", "sklearn", "numpy"}

REPORT = """
import contextlib, io, os, sys
def report(what):
    found = sorted(name for name in {heavy} if name in sys.modules)
    print(what, *found, file=sys.stderr)
import kdsim
report("import kdsim")
from kdsim.cli import main
for line in {lines}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(line.split())
    assert code == 0 and len(out.getvalue()) > 50, (line, code, out.getvalue())
    report(line)
for words in {completions}:
    os.environ.update(_KDSIM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([])
    assert code == 0 and out.getvalue().strip(), (words, code, out.getvalue())
    report(words)
"""

LINES = ["--help", "list", *(f"list {kind}" for kind in KINDS), *(f"list {kind} --json" for kind in KINDS)]
LINES += ["list-studies", "run-study --help", "results --help", "train --help", "verify-claims --help", "data --help"]
LINES += ["columns", "columns floor --json"]
COMPLETIONS = ["kdsim ", "kdsim list ", "kdsim run-study no", "kdsim run-study noise-sweep --set prob"]
COMPLETIONS += ["kdsim distill res", "kdsim train resnet8 --supervision ", "kdsim verify-claims t1", "kdsim predict --"]
COMPLETIONS += ["kdsim columns flo"]


@pytest.mark.slow
def test_help_lists_and_completion_import_no_torch() -> None:
    """One process, so that whatever a command imports is seen of it and of all that follow."""
    code = REPORT.format(heavy=HEAVY, lines=LINES, completions=COMPLETIONS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("_KDSIM")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines() == ["import kdsim", *LINES, *COMPLETIONS]
