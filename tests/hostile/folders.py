"""Surface: results folders: what cell.json, study.json and plans say, and what stands where a file should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from hostile import places, texts
from hostile.harness import Box, Case
from hostile.settings import TINY
from hostile.weights import SIMULATED, TRAIN
from kdsim.cli.run import load_study, settings_of
from kdsim.files import CHECKSUM, signed
from kdsim.study import runner

FIGURES = ("no-such", "../x", "noise-sweep", "training-curves", 5, None, [], {"a": 1}, "\ud800")


class Run(NamedTuple):
    """A finished run: its results folder, the study folder within, the study, the arguments that run it."""

    root: Path
    study: str
    target: str
    arguments: list[str]


def prepare(folder: Path) -> dict[str, Run]:
    """A simulation and a training, finished."""
    runs = {}
    for target, settings in ((TINY, SIMULATED), ("train", TRAIN)):
        study = load_study(target, settings_of(settings), quick=True)
        result = runner.run(study, str(folder / study.name))
        arguments = ["--quick", *[part for text in settings for part in ("--set", text)]]
        place = str(Path(result.folder).relative_to(folder / study.name))
        runs[study.name] = Run(folder / study.name, place, target, arguments)
    return runs


def case(random: Random, runs: dict[str, Run], box: Box) -> Case:
    """A results folder with one thing wrong, and a command that reads it."""
    run = runs[random.choice(list(runs))]
    shutil.copytree(run.root, box.out)
    planted = box.data / "theirs.py"
    planted.write_text(f"open({str(box.marker)!r}, 'w')\n")
    file = random.choice([*sorted(box.out.rglob("*.json")), box.out / run.study / "study.json"])
    kind = random.randrange(4)
    if kind == 0:
        what = _odd_place(random, box)
    elif kind == 1:
        data, what = texts.changed(random, file.read_bytes())
        file.write_bytes(data)
    else:
        what = _content(random, file, planted)
    return command_case(random, run, box, f"{file.name}: {what}")


def command_case(random: Random, run: Run, box: Box, what: str) -> Case:
    """A command that reads a results folder."""
    target = random.choice(
        (str(box.out / run.study), Path(run.study).parts[0], run.target, str(box.out / Path(run.study).parts[0]))
    )
    command = random.choice(("results", "results", "figure", "figure", "gallery", "run-study"))
    if command == "run-study":
        return Case([command, run.target, *run.arguments, "--out", str(box.out)], f"{command}: {what}")
    if command == "gallery":
        return Case([command, "--out", str(box.out), "--to", str(box.out / "page")], f"{command}: {what}")
    arguments = [command, target, "--out", str(box.out)]
    if command == "results":
        arguments += random.choice(([], ["--json"], ["--csv"], ["--markdown"], ["--latex"]))
    elif random.randrange(2):
        arguments += ["--format", "svg"]
    return Case(arguments, f"{' '.join(arguments[:1] + arguments[4:])}: {what}")


# What a file says -----------------------------------------------------------------------------------


def _content(random: Random, file: Path, planted: Path) -> str:
    """Something else in a JSON file, its checksum right in two cases of three."""
    content = json.loads(file.read_text(encoding="utf-8"))
    kind = random.randrange(8)
    if kind == 0:
        text = random.choice(("", "null", "[]", "1", '"x"', "{", "[" * 100_000, "[" * 500 + "]" * 500,
                             '{"a":' * 100_000, "NaN", "1e999",
                              "9" * 5000, "{}", '{"schema": 3}', '{"schema": {}}', "\ufeff{}", "\x00",
                              '"\\ud800"'))  # fmt: skip
        file.write_text(text, encoding="utf-8")
        return f"the text {text[:40]!r}"
    if kind == 1 and "figure" in content:
        name = random.choice(("name", "file", "x"))
        content["figure"] = random.choice(
            (None, 5, "x", {}, {name: random.choice(FIGURES)}, {"file": str(planted), "sha256": "0" * 64})
        )
        what = f"figure = {content['figure']!r}"
    elif kind == 2:
        key = random.choice(("study", "digest", "cells", "files", "weights", "date", "schema"))
        content[key] = random.choice(("../../../x", "/tmp/x", "a/b", "..", "", 5, None, ["../../x"], [["x"]], [5],
                {"../../x": "0"},
                                      {"curves.parquet": 5}, -1, 10**30, 2.5, "x" * 5000, "\x00", "\ud800",
                                      content.get("digest")))  # fmt: skip
        what = f"{key} = {content[key]!r:.100}"
    else:
        where, key = random.choice(list(_places(content)))
        if random.randrange(4) == 0:
            del where[key]
            what = f"no {key!r}"
        else:
            where[key] = texts.value(random)
            what = f"{key!r} = {where[key]!r:.100}"
    try:
        if CHECKSUM in content and random.randrange(3):
            content = signed(content)
    except (TypeError, ValueError):  # strict JSON has no such number
        what += ", not signed"
    file.write_text(json.dumps(content), encoding="utf-8")
    return what


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


# What stands where -----------------------------------------------------------------------------------


def _odd_place(random: Random, box: Box) -> str:
    """A folder, a link, a pipe or nothing stands where something should be."""
    path = random.choice(sorted(path for path in box.out.rglob("*") if not path.name.startswith(".")))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    kind = random.choice(
        ("folder", "file", "loop", "link outside", "link to /dev/zero", "pipe", "huge", "nothing", "other names")
    )
    places.put(path, kind)
    if kind == "link outside":
        path.symlink_to(box.data)
    elif kind == "other names":
        for name in ("\udcff", "a\nb", "\x1b[31m", "x" * 200, "-h"):
            (path.parent / name).mkdir(exist_ok=True)
            (path.parent / name / "study.json").write_text("{}")
    return f"{path.relative_to(box.out)} is: {kind}"
