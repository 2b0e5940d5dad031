"""What is built to be published has every module and nothing else, and runs where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import kdsim

ROOT = Path(__file__).parent.parent
FOLDERS = {"kdsim": "kdsim", "studies": "kdsim/studies", "figures": "kdsim/figures"}
"""Folders of the tree, and where they lie in a wheel."""
NOT_COPIED = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "results", "docs", "benchmarks")
"""Of what lies at the top."""

pytestmark = pytest.mark.slow


SUFFIXES = {".py", ".pyi", ".jinja"}
"""Of what is read at run time or by type checkers: modules, stubs, templates."""


def modules() -> dict[str, str]:
    """Each module, stub and template of the tree, and its name in a wheel."""
    found = {top: sorted(path for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES) for top in FOLDERS}
    return {
        path.relative_to(ROOT).as_posix(): f"{FOLDERS[top]}/{path.relative_to(ROOT / top).as_posix()}"
        for top, paths in found.items()
        for path in paths
    }


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, built from a copy of the tree with its tests and caches, and with its wheel."""
    pytest.importorskip("build", reason="building needs the extra `test`")
    work = tmp_path_factory.mktemp("distributions")
    shutil.copytree(ROOT, work / "tree", ignore=lambda at, names: NOT_COPIED(at, names) if at == str(ROOT) else ())
    (work / "tree/kdsim/__pycache__").mkdir(exist_ok=True)
    (work / "tree/kdsim/__pycache__/rng.cpython-311.pyc").touch()
    python("-m", "build", "--no-isolation", "--outdir", work / "dist", work / "tree", cwd=work)
    return work / "dist"


def python(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_every_module_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    info = f"kdsim-{kdsim.__version__}.dist-info"
    names = set(zipfile.ZipFile(wheel).namelist())
    described = {name for name in names if name.startswith(f"{info}/")}
    assert names - described == {*modules().values(), "kdsim/py.typed"}
    assert f"{info}/licenses/LICENSE" in described


def test_the_sdist_has_every_module_and_no_tests(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {
            PurePosixPath(file.name).relative_to(f"kdsim-{kdsim.__version__}") for file in archive if file.isfile()
        }
    names = {str(name) for name in files if name.parts[0] in {*FOLDERS, "tests"}}
    assert names == {*modules(), "kdsim/py.typed"}
    at_top = {str(name) for name in files if len(name.parts) == 1}
    assert at_top >= {"setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}


def test_an_installed_wheel_runs(distributions: Path, tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="installing needs pip")
    (wheel,) = distributions.glob("*.whl")
    installed = tmp_path / "installed"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel, cwd=tmp_path)
    assert (installed / "bin" / "kdsim").exists()

    code = "import kdsim.cli as c; print(c.__file__); print(c.main(['--version']), c.main(['list-studies']))"
    file, *printed = python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(file).is_relative_to(installed)
    assert kdsim.__version__ in printed[0]
    assert any("noise-sweep" in line for line in printed[1:])
    assert printed[-1] == "0 0"
