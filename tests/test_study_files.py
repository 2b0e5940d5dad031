"""Study files and their neighbours: names of their own, and a digest of all that a class stands on."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path

import pytest

from kdsim import config, study_files
from kdsim.config import ConfigError, source_digest
from kdsim.study.loading import import_study_file

STUDY = """
from dataclasses import dataclass

{imports}

@dataclass(frozen=True)
class Own:
    number: float = 1.0

    def weight(self):
        {body}
        return WEIGHT
"""

WAYS = {
    "at the top": ("from blend import WEIGHT", "pass", "blend.py"),
    "as a name": ("import blend", "WEIGHT = blend.WEIGHT", "blend.py"),
    "in a function": ("", "from blend import WEIGHT", "blend.py"),
    "by a neighbour": ("from middle import WEIGHT", "pass", "blend.py"),
    "from a package": ("from pkg import WEIGHT", "pass", "pkg/__init__.py"),
    "a module of a package": ("import pkg.leaf as leaf", "WEIGHT = leaf.WEIGHT", "pkg/leaf.py"),
    "from a package's module": ("from pkg.leaf import WEIGHT", "pass", "pkg/leaf.py"),
    "a module out of a package": ("from pkg import leaf", "WEIGHT = leaf.WEIGHT", "pkg/leaf.py"),
    "of a package, relative": ("from pkg.user import WEIGHT", "pass", "pkg/leaf.py"),
    "a folder without __init__": ("from plain.leaf import WEIGHT", "pass", "plain/leaf.py"),
    "by import_module": ("import importlib", "WEIGHT = importlib.import_module('blend').WEIGHT", "blend.py"),
    "by a computed name": (
        "from importlib import import_module as load",
        "WEIGHT = load('bl' + 'end').WEIGHT",
        "blend.py",
    ),
    "by __import__": ("", "WEIGHT = __import__('blend').WEIGHT", "blend.py"),
    "through a link": ("from linked import WEIGHT", "pass", "elsewhere/linked_to.py"),
    "relative to the study": ("from .blend import WEIGHT", "pass", "blend.py"),
}
"""Imports of the study file, what its class does, and the file in which the number stands."""


def folder_of(tmp_path: Path, imports: str, body: str, place: str, number: float) -> Path:
    study = tmp_path / "here" / "study.py"
    files = {
        "middle.py": "from blend import WEIGHT",
        "pkg/__init__.py": "WEIGHT = 0.0",
        "pkg/user.py": "from .leaf import WEIGHT",
        "unrelated.py": "WEIGHT = 0.0",
        **dict.fromkeys(("blend.py", "pkg/leaf.py", "plain/leaf.py", "elsewhere/linked_to.py"), "WEIGHT = 0.0"),
        place: f"WEIGHT = {number}",
        study.name: STUDY.format(imports=imports, body=body),
    }
    for name, text in files.items():
        (study.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (study.parent / name).write_text(text)
    if not (study.parent / "linked.py").exists():
        (study.parent / "linked.py").symlink_to("elsewhere/linked_to.py")
    return study


@pytest.mark.parametrize("way", WAYS)
def test_an_edited_neighbour_is_another_class(tmp_path: Path, way: str) -> None:
    """Whatever way it is imported: what runs is what the digest says, in one process, edit after edit."""
    digests = []
    for number in (0.5, 1.0, 0.5):
        own = import_study_file(folder_of(tmp_path, *WAYS[way], number)).Own()
        assert own.weight() == number
        digests.append(config.digest(own))
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("way", WAYS)
def test_an_unrelated_file_changes_nothing(tmp_path: Path, way: str) -> None:
    own = import_study_file(study := folder_of(tmp_path, *WAYS[way], 0.5)).Own
    before = source_digest(own)
    if "computed" in way:  # any file may be meant, and counts
        return
    (study.parent / "unrelated.py").write_text("WEIGHT = 2.0")
    assert source_digest(import_study_file(study).Own) == before


def test_a_folder_that_was_moved_has_the_same_digest(tmp_path: Path) -> None:
    first = import_study_file(folder_of(tmp_path, *WAYS["of a package, relative"], 0.5)).Own
    (tmp_path / "here").rename(tmp_path / "there")
    second = import_study_file(tmp_path / "there" / "study.py").Own
    assert second is not first and source_digest(second) == source_digest(first)


def test_a_file_alone_has_the_digest_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text("class Own:\n    pass\n")
    assert source_digest(import_study_file(file).Own) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_bases_count(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("class Base:\n    level = 1\n")
    (tmp_path / "study.py").write_text("import base\n\nclass Own(base.Base):\n    pass\n")
    first = import_study_file(tmp_path / "study.py").Own
    (tmp_path / "base.py").write_text("class Base:\n    level = 2\n")
    second = import_study_file(tmp_path / "study.py").Own
    assert (first.level, second.level) == (1, 2) and source_digest(first) != source_digest(second)


def test_equal_names_in_two_folders(tmp_path: Path) -> None:
    studies = [folder_of(tmp_path / name, *WAYS["in a function"], number) for name, number in (("a", 0.5), ("b", 1.0))]
    owns = [import_study_file(study).Own for study in studies]
    assert [own().weight() for own in owns] == [0.5, 1.0] and source_digest(owns[0]) != source_digest(owns[1])
    assert "blend" not in sys.modules


def test_classes_of_a_neighbour(tmp_path: Path) -> None:
    """They have a digest of what they stand on themselves, and can be sent."""
    (tmp_path / "parts.py").write_text("class Part:\n    level = 3\n")
    (tmp_path / "study.py").write_text("from parts import Part\n\nclass Own:\n    pass\n")
    module = import_study_file(tmp_path / "study.py")
    assert source_digest(module.Part) == hashlib.sha256((tmp_path / "parts.py").read_bytes()).hexdigest()
    assert pickle.loads(pickle.dumps(module.Part())).level == 3


def test_a_library_is_not_shadowed(tmp_path: Path) -> None:
    for name in ("json", "numpy", "kdsim", "pytest"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    text = "import json, numpy, pytest\nfrom kdsim.config import digest\nFOUND = [json, numpy, pytest]\n"
    (tmp_path / "study.py").write_text(text)
    assert [sys.modules[name] for name in ("json", "numpy", "pytest")] == import_study_file(tmp_path / "study.py").FOUND


def test_a_neighbour_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before the current folder, of which Python would take the first for good."""
    studies = [folder_of(tmp_path / name, *WAYS["at the top"], number) for name, number in (("a", 0.5), ("b", 1.0))]
    monkeypatch.syspath_prepend(studies[0].parent)
    assert [import_study_file(study).Own().weight() for study in studies] == [0.5, 1.0]


def test_a_module_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of an editable install: everything outside installed packages."""
    lab = tmp_path / "lab" / "mylab_of_a_test"
    lab.mkdir(parents=True)
    monkeypatch.syspath_prepend(lab.parent)
    (lab / "__init__.py").write_text("")
    (lab / "noise.py").write_text("from mylab_of_a_test import inner\n\nclass Own:\n    level = inner.LEVEL\n")
    digests = []
    for level in (1, 2):
        (lab / "inner.py").write_text(f"LEVEL = {level}\n")
        study = tmp_path / f"study_{level}.py"
        study.write_text("from mylab_of_a_test.noise import Own as Base\n\nclass Own(Base):\n    pass\n")
        digests.append(source_digest(import_study_file(study).Own))
        for name in [name for name in sys.modules if name.startswith("mylab_of_a_test")]:
            monkeypatch.delitem(sys.modules, name)
    assert digests[0] != digests[1]


NOTEBOOK = """
from dataclasses import dataclass

from kdsim.supervision import OneHot
from {helper} import LEVEL

@dataclass(frozen=True)
class Own(OneHot):
    number: int = {number}
"""


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Writes a module that a process imports as any other, and its helper."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # compiled forms miss edits within a second

    def write(number: int, level: int) -> None:
        (tmp_path / "helper_of_a_test.py").write_text(f"LEVEL = {level}\n")
        (tmp_path / "classes_of_a_test.py").write_text(NOTEBOOK.format(helper="helper_of_a_test", number=number))

    write(1, 1)
    yield write
    for name in ("helper_of_a_test", "classes_of_a_test"):
        sys.modules.pop(name, None)


def test_a_reloaded_module_has_another_digest(notebook: Callable[[int, int], None]) -> None:
    """As in a notebook: by importlib.reload, or by %autoreload, which puts new functions into the old class."""
    module = importlib.import_module("classes_of_a_test")
    first = module.Own
    digests = [source_digest(first)]
    notebook(2, 1)
    assert source_digest(first) == digests[0]  # it is the first that is run
    importlib.reload(module)
    digests.append(source_digest(module.Own))
    notebook(2, 2)
    assert source_digest(module.Own) == digests[1]
    importlib.reload(sys.modules["helper_of_a_test"])
    digests.append(source_digest(module.Own))
    assert len(set(digests)) == 3 and source_digest(first) == digests[2]


def test_a_module_counts_as_it_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is edited before anybody asks for a digest."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_of_a_test.py"
    file.write_text("from kdsim.supervision import OneHot\n\nclass Own(OneHot):\n    level = 1\n")
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    own = importlib.import_module(file.stem).Own
    file.write_text(file.read_text() + "    other = 2\n")
    assert source_digest(own) == before
    del sys.modules[file.stem]


def _in_a_notebook() -> type:
    space = {"__name__": "__main__"}
    exec("class Own:\n    pass\n", space)
    return space["Own"]


def _on_a_class_of_a_file() -> type:
    return type("Own", (config.ConfigError, WithFile), {"__module__": "__main__"})


class WithFile:
    """A class that has a source file."""


@pytest.mark.parametrize(
    "make",
    [
        _in_a_notebook,
        _on_a_class_of_a_file,
        lambda: type("Own", (), {"__module__": "somewhere_else"}),
        lambda: make_dataclass("Own", ["x"]),
    ],
)
def test_a_class_without_a_file(make: Callable[[], type], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ConfigError, match=r"Own has no source file.*into a \.py file") as refused:
        source_digest(make())
    assert "\n" not in str(refused.value)


def test_errors_name_the_file_and_line_of_a_neighbour(tmp_path: Path) -> None:
    study = tmp_path / "study.py"
    study.write_text("\nimport blend\n")
    for text, expected in (
        ("\n\n1 / 0\n", r"blend\.py, line 3: ZeroDivisionError: division by zero"),
        ("x = (\n", r"blend\.py, line 1: syntax error"),
        ("import no_such_module_anywhere\n", r"blend\.py, line 1: ModuleNotFoundError"),
    ):
        (tmp_path / "blend.py").write_text(text)
        with pytest.raises(ConfigError, match=expected):
            import_study_file(study)
    (tmp_path / "blend.py").write_text("X = 1\n")
    assert import_study_file(study).blend.X == 1  # what failed before does not stay


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_neighbour_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text("import blend\n")
    (tmp_path / "blend.py").touch(mode=0)
    with pytest.raises(ConfigError, match=r"blend\.py' cannot be read: Permission denied"):
        import_study_file(tmp_path / "study.py")


@pytest.mark.parametrize("way", ["of a package, relative", "a folder without __init__"])
def test_a_study_file_runs_where_its_folder_is_not(tmp_path: Path, way: str) -> None:
    sent = pickle.dumps(study_files.read(folder_of(tmp_path, *WAYS[way], 0.5)))
    shutil.rmtree(tmp_path / "here")
    assert pickle.loads(sent).load().Own().weight() == 0.5


def test_a_module_outside_that_a_neighbour_is_named_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module on the path imports that one and not the neighbour, and both count."""
    (tmp_path / "path").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "path")
    (tmp_path / "path" / "outside_of_a_test.py").write_text("import helpers_of_a_test\n")
    study = tmp_path / "study.py"
    study.write_text("import helpers_of_a_test, outside_of_a_test\n\nclass Own:\n    pass\n")
    found = []
    for beside, outside in ((1, 1), (1, 2), (2, 1)):
        (tmp_path / "helpers_of_a_test.py").write_text(f"LEVEL = {beside}\n")
        (tmp_path / "path" / "helpers_of_a_test.py").write_text(f"LEVEL = {outside}\n")
        file = study_files.read(study)
        found.append(file.standing_on(file.name))
    levels = [sorted(content for content in each.values() if b"LEVEL" in content) for each in found]
    assert levels == [[b"LEVEL = 1\n"] * 2, *[[b"LEVEL = 1\n", b"LEVEL = 2\n"]] * 2] and found[1] != found[2]


def test_a_study_file_is_what_was_read(tmp_path: Path) -> None:
    """Sent to another process it runs there, whatever its files are by then."""
    study = folder_of(tmp_path, *WAYS["of a package, relative"], 0.5)
    sent = pickle.dumps(study_files.read(study))
    folder_of(tmp_path, *WAYS["of a package, relative"], 1.0)
    received = pickle.loads(sent)
    assert received.load().Own().weight() == 0.5
    assert import_study_file(study).Own().weight() == 1.0
    assert study_files.study_file_of(received.load().__name__) == received
