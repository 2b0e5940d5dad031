"""Import closures, and which edits of kdsim make another source of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdsim.studies
import kdsim.teachers.other_start  # noqa: F401
from kdsim import sources
from kdsim.claims import CLAIMS  # noqa: F401
from kdsim.study.base import Computation
from kdsim.study.loading import CONTRACTS
from kdsim.study.stored_configs import KNOWN

BODY = {
    "import a.b": {"a.b"},
    "import a as x, c": {"a", "c"},
    "from a import b": {"a", "a.b"},
    "from a import (b,\n    c as d)": {"a", "a.b", "a.c"},
    "from a import *": {"a"},
    "from . import b": {"pkg", "pkg.b"},
    "from .. import b": {"b"},
    "from .m import b": {"pkg.m", "pkg.m.b"},
    "def f():\n    def g():\n        import late": {"late"},
    "class C:\n    import inner": {"inner"},
    "try:\n    import a\nexcept E:\n    import b\nelse:\n    import c\nfinally:\n    import d": {
        "a",
        "b",
        "c",
        "d",
    },
    "if x:\n    import a\nelif y:\n    import b\nelse:\n    import c": {"a", "b", "c"},
    "match x:\n    case 1:\n        import a": {"a"},
    "with x:\n    import a": {"a"},
    "async def f():\n    async for x in y:\n        import a": {"a"},
    "if TYPE_CHECKING:\n    import a\nelse:\n    import b": {"b"},
    "if typing.TYPE_CHECKING:\n    import a": set(),
    "import importlib\nimportlib.import_module('a.b')": {"importlib", "a.b"},
    "f = lambda: __import__('a')": {"a"},
    "x = import_module('.b', __package__)": {"pkg.b"},
    "x = import_module(name)": {sources.EVERYTHING},
    "x = import_module(name='a')": {"a"},
    "load = import_module": {sources.EVERYTHING},
    "x = __import__('a', fromlist=['b'])": {"a", "a.b"},
    "exec(text)": {sources.EVERYTHING},
    "x = model.exec(text)": set(),
    "import runpy\nx = runpy.run_path(path)": {"runpy", sources.EVERYTHING},
    "from importlib.util import spec_from_file_location as f\nf('a', path)": {
        "importlib.util",
        "importlib.util.spec_from_file_location",
        sources.EVERYTHING,
    },
    "text = 'import a'": set(),
    "this is no Python": set(),
    "import \x00": set(),
}


@pytest.mark.parametrize(("body", "names"), BODY.items(), ids=range(len(BODY)))
def test_imports(body: str, names: set[str]) -> None:
    assert set(sources.imports(body.encode(), "pkg.module", is_package=False)) == names


def test_relative_imports_of_a_package() -> None:
    assert set(sources.imports(b"from . import b\nfrom .. import c", "top.pkg", is_package=True)) == {
        "top.pkg", "top.pkg.b", "top", "top.c",
    }  # fmt: skip


def test_a_closure_follows_parents_and_computed_names(tmp_path: Path) -> None:
    files = {
        "start.py": "import pkg.leaf",
        "pkg/__init__.py": "import beside",
        "pkg/leaf.py": "from importlib import import_module\nimport_module(name)",
        "pkg/other.py": "",
        "pkg/sub/__init__.py": "",
        "beside.py": "import start",
        "unrelated.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = sources.closure(["start"], lambda name: sources.in_folder(tmp_path, name))
    assert set(found) == {"start", "pkg", "pkg.leaf", "pkg.other", "pkg.sub", "beside"}
    assert found["pkg"] == (tmp_path / "pkg" / "__init__.py", b"import beside")


def test_what_is_a_library() -> None:
    assert all(map(sources.is_library, ["json", "sys", "numpy", "torch", "kdsim", "pytest", "hypothesis"]))
    assert not any(map(sources.is_library, ["no_such_module_anywhere", "tiny_study"]))  # the latter lies in tests/
    assert sources.locate_outside("numpy.linalg") is None
    assert sources.locate_outside("tiny_study") == Path(__file__).parent / "tiny_study.py"


# The source of kdsim -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def computing() -> set[str]:
    return set(sources.own_modules())


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))


@pytest.mark.slow
def test_all_that_computes_counts(computing: set[str]) -> None:
    """Every class of kdsim that may be part of a stored configuration, and every engine, kernel and formula."""
    classes = {*KNOWN, *(c for contract in (*CONTRACTS, Computation) for c in _subclasses(contract))}
    own = {cls.__module__ for cls in classes if cls.__module__.startswith("kdsim.")}
    assert len(own) > 50 and own <= computing, own - computing
    root = Path(sources.__file__).parent
    for part in (
        "engines",
        "theory",
        "measure",
        "training",
        "supervision",
        "problems",
        "losses",
        "students",
        "networks",
    ):
        files = {
            f"kdsim.{path.relative_to(root).with_suffix('').as_posix().replace('/', '.')}"
            for path in (root / part).rglob("*.py")
            if path.name != "__init__.py"
        }
        # The one finds step sizes for a study, which are a part of its cells then; the other compares stored results.
        idle = {"kdsim.theory.step_sizes", "kdsim.measure.comparison"}
        assert files - idle <= computing, files - computing


@pytest.mark.slow
def test_what_is_shown_does_not_count(computing: set[str]) -> None:
    parts = {name.split(".")[1] for name in computing if "." in name}
    assert not parts & {"figures", "studies"} and not any(part.startswith("cli") for part in parts)
    assert {name for name in computing if name.startswith("kdsim.claims")} == {"kdsim.claims.exact"}
    assert not {f"kdsim.study.{name}" for name in ("report", "teacher_report", "gallery", "runner")} & computing


def test_docstrings_do_not_count() -> None:
    one = b'"""A."""\n\n\ndef f(x):\n    """B\n\n    c."""\n    return x\n\n\nLIMIT = 3\n"""What it is."""\n'
    two = b'"""Other."""\ndef f(x):\n    return x\nLIMIT = 3\n'
    assert sources.without_docstrings(one) == sources.without_docstrings(two)
    assert sources.without_docstrings(two) != sources.without_docstrings(two.replace(b"3", b"4"))
    assert sources.without_docstrings(b'x = """A."""\n') != sources.without_docstrings(b'x = """B."""\n')


@pytest.mark.slow
def test_the_digest_changes_with_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computing: set[str]) -> None:
    edited, digest = tmp_path / "edited.py", sources._parsed_digest
    before, locate = digest(), sources.locate_own

    def after_edit(module: str, change: str) -> str:
        source = locate(module).read_text()
        edited.write_text(change + source if change.startswith("#") else source + change)
        with monkeypatch.context() as patch:
            patch.setattr(sources, "locate_own", lambda name: edited if name == module else locate(name))
            return digest()

    assert len(before) == 64 and digest() == before
    assert after_edit("kdsim.engines.fused.targets", "\nLIMIT = 3\n") != before
    assert after_edit("kdsim.engines.fused.targets", '\n"""Said below."""\n') == before
    assert after_edit("kdsim.supervision.dirichlet", "\nLIMIT = 3\n") != before
