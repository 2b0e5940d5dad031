"""Surface: every option of the command line, and the keys and values of --set."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import tiny_study

from hostile import texts
from hostile.harness import Box, Case
from kdsim.claims import CLAIMS
from kdsim.config import by_name
from kdsim.problems import PROBLEMS
from kdsim.studies import STUDIES
from kdsim.study.settings import settings

TINY = str(Path(tiny_study.__file__))
SMALL = {
    "noise-sweep": {"problem": "softmax-linear", "problem.samples": "64", "problem.dimension": "3",
                    "families": "dirichlet", "levels": "2", "steps": "200", "replicas": "4"},
    "train": {"network": "resnet8", "data": "known-images", "data.problem.samples": "100",
              "data.problem.validation_samples": "50", "data.problem.test_samples": "50"},
    "distill": {"teacher": "resnet8", "student": "resnet8", "data": "known-images", "data.problem.samples": "100",
                "data.problem.validation_samples": "50", "data.problem.test_samples": "50"},
}  # fmt: skip
"""Settings with which a study can be shown within a second. Other studies meet keys and values that they refuse."""
OPTIONS = ("--replicas", "--seed", "--device", "--engine", "--out", "--data-dir", "--format", "--to", "--only",
           "--kind",
           "--loss", "--data", "--recipe", "--epochs", "--supervision", "--teacher-epochs", "--study",
           "--no-such")  # fmt: skip
READERS = ("results", "figure", "gallery", "data", "verify-claims", "list-studies", "", "no-command")


class Files(NamedTuple):
    """What the cases are made from: keys of each study and of each problem, with their values."""

    studies: dict[str, dict[str, str]]
    problems: dict[str, dict[str, str]]


def prepare(folder: Path) -> Files:
    """The keys of all studies and problems."""
    studies = {study.name: _keys(study()) for study in STUDIES} | {TINY: _keys(tiny_study.Tiny())}
    return Files(studies, {name: _keys(cls()) for name, cls in by_name(PROBLEMS).items()})


def _keys(config: Any) -> dict[str, str]:
    return {setting.key: setting.value for setting in settings(config)}


def case(random: Random, files: Files, box: Box) -> Case:
    """A command with a hostile setting or option."""
    return random.choice((_setting, _setting, _setting, _option, _reader, _problem))(random, files, box)


def _setting(random: Random, files: Files, box: Box) -> Case:
    small = random.randrange(3) > 0
    name = random.choice((TINY, TINY, *SMALL)) if small else random.choice(list(files.studies))
    command = random.choice(("show-study", "predict", "run-study") if name == TINY else ("show-study", "predict"))
    keys = files.studies[name]
    key, value = random.choice(list(keys)), texts.text(random, box.marker)
    number = _is_number(keys[key])
    if random.randrange(8) == 0:
        key = random.choice((f"{key}.x", key[:-1], texts.text(random, box.marker), f"{key}.{key}", "__class__", "name"))
    given = dict(SMALL.get(name, {}))
    given["steps"] = "50" if name == TINY else given.get("steps", "")
    chosen = [f"{each}={text}" for each, text in given.items() if text and each != key]
    if name not in SMALL and name != TINY:  # a study of seconds: only what it cannot take
        value, number = random.choice((*texts.NO_NUMBERS, "\x00", "no-such", "((")), number
        if not number:
            key, number = f"{key}.no-such", False
    if command == "run-study":
        value = value if not _is_number(value) or abs(float(value.replace("_", ""))) < 200 else "-5"
    arguments = [command, name, "--quick", *_sets([*chosen, f"{key}={value}"])]
    if command == "run-study":
        arguments += ["--out", str(box.out)]
    if random.randrange(3) == 0 and command != "show-study":
        arguments.append("--json")
    nonsense = number and key in keys and value in texts.NO_NUMBERS
    return Case(arguments, f"{command} {name}: {key} = {value!r:.200}", nonsense)


def _option(random: Random, files: Files, box: Box) -> Case:
    """Options of commands that run nothing long: where the value is taken, the call ends anyway."""
    command = random.choice((["show-study", TINY], ["predict", TINY], ["run-study", TINY, "--set", "steps=50"],
                             ["results", "tiny"], ["figure", "tiny"], ["gallery"], ["data", "check"],
                             ["export-problem", "softmax-linear"]))  # fmt: skip
    option, value = random.choice(OPTIONS), texts.text(random, box.marker)
    if option in ("--out", "--to", "--data-dir", "--study"):
        value = random.choice(("", "\x00", "a" * 5000, "/proc/no", "/dev/null", str(box.root / "work" / "keep.txt")))
    if option == "--replicas" and _is_number(value):
        value = random.choice((*texts.NO_NUMBERS, "-1", "0", "1", "2", "3.5"))
    arguments = [*command, option, value]
    if "--out" not in arguments:
        arguments += ["--out", str(box.out / "x.npz" if command[0] == "export-problem" else box.out)]
    nonsense = option in ("--replicas", "--seed", "--no-such") and value in texts.NO_NUMBERS
    return Case(arguments, f"{command}: {option} {value!r:.200}", nonsense)


def _reader(random: Random, files: Files, box: Box) -> Case:
    """Names of studies, folders, claims and commands."""
    command, value = random.choice(READERS), texts.text(random, box.marker)
    if command == "verify-claims":  # a name that is right would run for minutes
        value = random.choice([f"{claim.name}x" for claim in CLAIMS] + [f"no-{value}", "", "\x00"])
    arguments = [command, *(["check"] if command == "data" else []), value]
    if command in ("results", "figure", "gallery", "verify-claims"):
        arguments += ["--out", str(box.out)]
    if command == "gallery":
        arguments += ["--to", str(box.out)]
    return Case(arguments, f"{command} {value!r:.200}")


def _problem(random: Random, files: Files, box: Box) -> Case:
    """export-problem, with a key of the problem."""
    name = random.choice(list(files.problems))
    keys = files.problems[name]
    key = random.choice(list(keys)) if keys else "none"
    value = texts.text(random, box.marker)
    small = [f"samples={60}"] if "samples" in keys and key != "samples" else []
    out = str(box.out / "pool.npz")
    arguments = ["export-problem", name, "--out", out, *_sets([*small, f"{key}={value}"])]
    return Case(arguments, f"export-problem {name}: {key} = {value!r:.200}",
                _is_number(keys.get(key, "")) and value in texts.NO_NUMBERS)  # fmt: skip


def _sets(items: list[str]) -> list[str]:
    return [part for item in items for part in ("--set", item)]


def _is_number(value: str) -> bool:
    try:
        float(value.replace("_", ""))
    except ValueError:
        return False
    return True
