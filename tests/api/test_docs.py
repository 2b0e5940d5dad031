"""The examples of docs/api.md, of README.md and of the notebook are run as they stand."""

from __future__ import annotations

import linecache
import re
import sys
import types
from pathlib import Path

import pytest

import kdsim

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "examples" / "first_steps.ipynb"


def test_every_public_function_has_an_example() -> None:
    for name in ("run", "simulate", "predict", "load", "runs", "compare", "Experiment", "Result"):
        assert ">>>" in getattr(kdsim, name).__doc__, name


@pytest.mark.slow
@pytest.mark.parametrize("file", ["README.md", "docs/api.md"])
def test_examples_of_the_docs(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block in one namespace, as cells of a notebook."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.chdir(tmp_path)
    assert blocks
    for number, block in enumerate(blocks):
        name = f"<{file}, block {number}>"
        linecache.cache[name] = len(block), None, block.splitlines(keepends=True), name
        exec(compile(block, name, "exec", dont_inherit=True), vars(main))
        del linecache.cache[name]


@pytest.mark.slow
def test_the_notebook(tmp_path: Path) -> None:
    """In a kernel of its own; it is kept without outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in cells for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
