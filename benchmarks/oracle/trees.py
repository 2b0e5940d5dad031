"""Source trees that the oracle runs: a folder or a commit is copied and made importable, with its own command line.

A copy is a snapshot: edits during a run do not mix, and results lie under the name of what was run, a commit or the
digest of a folder's sources. Packages that lie elsewhere (`kdsim.studies` is the folder studies/) are copied to where
they are imported, so that one folder in PYTHONPATH makes the whole tree importable without installing it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "kdsim"
LAUNCH = """
import atexit, importlib, sys, time
atexit.register(lambda: print(f"oracle: {{time.process_time()}}", file=sys.stderr))
# An editable install of another tree finds packages that this one lacks.
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable___kdsim")]
sys.argv = ["kdsim", *sys.argv[1:]]
module, function = {entry!r}.split(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""
WHERE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable___kdsim")]
from importlib.util import find_spec
for name in ("kdsim", "kdsim.studies", "kdsim.figures"):
    spec = find_spec(name)
    print(spec.origin if spec else None)
"""
SETUP = """
import json, os, setuptools
from distutils.core import run_setup
if os.path.isfile("setup.py"):
    tree = run_setup("setup.py", stop_after="config")
else:
    tree = setuptools.Distribution()
    tree.parse_config_files()
print(json.dumps([tree.package_dir, tree.entry_points]))
"""


class BadTree(ValueError):
    """What was given is no source tree and no commit."""


@dataclass(frozen=True)
class Tree:
    """A snapshot that can be run.

    Attributes:
        given: as it was named.
        key: the commit, or the digest of the sources.
        path: the folder that makes it importable.
        entry: the function behind the command `kdsim`, as module:function.
    """

    given: str
    key: str
    path: Path
    entry: str

    def command(self, arguments: list[str]) -> list[str]:
        """The command line of this tree, to be run in `environment()`."""
        return [sys.executable, "-P", "-c", LAUNCH.format(entry=self.entry), *arguments]

    def environment(self) -> dict[str, str]:
        """One thread in each process, this tree first on the path, and no folder of real images."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KDSIM_", "NUMBA_"))}
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        return kept | threads | {"PYTHONPATH": str(self.path), "MPLBACKEND": "agg"}


def snapshot(given: str, out: Path) -> Tree:
    """Copy the tree into a folder under `out`, unless it is there.

    Args:
        given: a folder with kdsim's sources, or a commit of the repository of this module.

    Raises:
        BadTree: it is neither.
    """
    if Path(given).is_dir():
        return _placed(given, f"folder-{digest(Path(given))}", Path(given), out)
    found = _git("rev-parse", "--verify", "--quiet", f"{given}^{{commit}}")
    if found.returncode:
        raise BadTree(f"{given!r} is no source tree: must be a folder with {PACKAGE}/ or a commit of {ROOT}")
    commit = found.stdout.decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        archive = _git("archive", "--format=tar", commit)
        if archive.returncode:
            raise BadTree(f"{given!r} cannot be read: {archive.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as content:
            content.extractall(folder, filter="data")
        return _placed(given, f"commit-{commit[:12]}", Path(folder), out)


def again(tree: Tree) -> Tree:
    """The same tree under another key: what is compared with itself is run twice."""
    return Tree(tree.given, f"{tree.key}-again", tree.path, tree.entry)


def digest(root: Path) -> str:
    """Of the sources of a tree, 12 digits."""
    found = hashlib.sha256()
    for name, folder in sorted(packages(root).items()):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"{name}/{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def packages(root: Path) -> dict[str, Path]:
    """Dotted name to folder of kdsim, and of what setup.py or setup.cfg says lies elsewhere.

    Raises:
        BadTree: there is no kdsim.
    """
    mapped, _ = _installed(root)
    found = {PACKAGE: root / mapped.get(PACKAGE, f"{mapped.get('', '.')}/{PACKAGE}")}
    found |= {name: root / folder for name, folder in mapped.items() if name.startswith(f"{PACKAGE}.")}
    for name, folder in found.items():
        if not (folder / "__init__.py").is_file():
            raise BadTree(f"{str(root)!r} has no package {name}: {folder}/__init__.py must be a file")
    return found


def entry_point(root: Path) -> str:
    """The function behind the command `kdsim`, as module:function."""
    _, scripts = _installed(root)
    named = dict(line.replace(" ", "").split("=", 1) for line in scripts if "=" in line)
    return named.get("kdsim", "kdsim.cli:main")


def _installed(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folders of packages, and the console scripts, as setuptools would install them."""
    found = subprocess.run([sys.executable, "-c", SETUP], cwd=root, capture_output=True, text=True)
    if found.returncode:
        raise BadTree(f"{str(root)!r} cannot be set up: {found.stderr.strip().splitlines()[-1]}")
    folders, entries = json.loads(found.stdout.splitlines()[-1])
    return folders or {}, (entries or {}).get("console_scripts", [])


def _placed(given: str, key: str, root: Path, out: Path) -> Tree:
    path = out / "trees" / key
    if not path.exists():
        partial = path.with_name(f".{key}-{os.getpid()}")
        for name, folder in sorted(packages(root).items()):  # kept kernels beside the sources are copied too
            shutil.copytree(folder, partial.joinpath(*name.split(".")))
        partial.rename(path)
    tree = Tree(given, key, path.absolute(), entry_point(root))
    found = subprocess.run(
        [sys.executable, "-P", "-c", WHERE], env=tree.environment(), capture_output=True, text=True, cwd=out
    )
    elsewhere = [place for place in found.stdout.split() if not Path(place).is_relative_to(tree.path)]
    if found.returncode or elsewhere:
        lines = found.stderr.strip().splitlines() or [f"{elsewhere} are imported instead of what is in {tree.path}"]
        raise BadTree(f"{given!r} cannot be imported: {lines[-1]}")
    return tree


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
